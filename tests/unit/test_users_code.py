import itertools

import pytest

from pipeline import files, users_code
from pipeline.errors import InputsError, MetricError, NetError

NUMBERS = itertools.count()  # Python keeps imported modules


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module into a project and give its ``module:function`` and its file."""
    monkeypatch.chdir(tmp_path)

    def make(source):
        path = tmp_path / f"users_module_{next(NUMBERS)}.py"
        path.write_text(source)
        return f"{path.stem}:give", path

    return make


def test_the_projects_own_function_is_loaded(write):
    name, path = write("def give():\n    return 7\n")
    assert users_code.load("task.metric", name, files.digest_file(path), MetricError)() == 7


def test_no_line_runs_before_the_file_is_compared_with_its_pin(write, tmp_path):
    name, _ = write("open('ran', 'w')\n")
    pin = "sha256:" + "0" * 64
    with pytest.raises(InputsError, match=r"task\.metric: .* task\.metric_digest pins sha256:000"):
        users_code.load("task.metric", name, pin, MetricError)
    assert not (tmp_path / "ran").exists()


WRONG = {
    "an import that fails": ("raise ValueError('a\\nb')", "import of .* failed: ValueError: a b;"),
    "another function": ("def other():\n    pass\n", "has no function 'give'; mend params.yaml"),
    "no function": ("give = 7\n", "has no function 'give'"),
}


@pytest.mark.parametrize(("source", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("error", [MetricError, NetError])
def test_what_is_wrong_is_one_line_of_the_callers_error(write, source, message, error):
    name, path = write(source)
    with pytest.raises(error, match=message) as caught:
        users_code.load("key.name", name, files.digest_file(path), error)
    assert str(caught.value).startswith(f"key.name {name!r}")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MetricError, match=r"task.metric 'no.such:f': there is no module 'no.such'"):
        users_code.find("task.metric", "no.such:f", MetricError)
