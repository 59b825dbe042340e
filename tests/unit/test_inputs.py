"""`slipway inputs lock`: every kind of input from outside gets its pin."""

import pytest

from pipeline import files, inputs
from pipeline.errors import InputsError


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def locked(project, text):
    path = project / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return inputs.lock(path), path.read_text(encoding="utf-8")


def test_a_folder_is_pinned_over_names_and_bytes(project):
    (project / "images/cat").mkdir(parents=True)
    (project / "images/cat/a.png").write_bytes(b"a")
    written, text = locked(project, "data:\n  path: images  # mine\n")
    digest = files.digest_folder(project / "images")
    assert written == {"data.digest": digest}
    assert text == f"data:\n  path: images  # mine\n  digest: {digest}\n"


def test_a_url_is_fetched_and_pinned_and_not_fetched_again(project):
    source = project / "elsewhere.tar.gz"
    source.write_bytes(b"archive")
    written, _ = locked(project, f"data:\n  url: {source.as_uri()}\n")
    assert written == {"data.digest": files.digest_bytes(b"archive")}
    (kept,) = (project / ".slipway/cache").iterdir()
    assert kept.name == written["data.digest"].removeprefix("sha256:") + ".tar.gz"


def test_an_onnx_file_and_ones_own_metric_are_pinned(project):
    (project / "net.onnx").write_bytes(b"net")
    (project / "mine.py").write_text("def score(outputs, labels):\n    return 0.0\n")
    written, text = locked(
        project, "net: {onnx: net.onnx}\ntask:\n  kind: regression\n  metric: mine:score\n"
    )
    assert written == {
        "net.onnx_digest": files.digest_bytes(b"net"),
        "task.metric_digest": files.digest_file(project / "mine.py"),
    }
    assert f"net: {{onnx: net.onnx, onnx_digest: {written['net.onnx_digest']}}}" in text


def test_a_metric_of_the_kind_has_nothing_to_pin(project):
    assert locked(project, "task:\n  metric: accuracy\n")[0] == {}


MISSING = {
    "data": ("data:\n  path: none\n", r"data.path: none is missing; mend params.yaml"),
    "an ONNX file": ("net:\n  onnx: none.onnx\n", "net.onnx: none.onnx is missing"),
    "a metric": ("task:\n  metric: none_such:f\n", "task.metric 'none_such:f': there is no module"),
    "a url": ("data:\n  url: file:///none/a.zip\n", "data.url: .*cannot be fetched"),
}


@pytest.mark.parametrize(("text", "message"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_named(project, text, message):
    with pytest.raises(InputsError, match=message):
        locked(project, text)


def test_a_folder_is_no_onnx_file(project):
    (project / "net").mkdir()
    with pytest.raises(InputsError, match=r"net.onnx: net is missing"):
        locked(project, "net:\n  onnx: net\n")
