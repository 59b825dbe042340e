"""A project of the user's own, written by the real git and the real DVC: whole, or not at all."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from pipeline import files, params
from pipeline.errors import PipelineError
from pipeline.project import chain, init
from pipeline.project.init import Request

TARGETS = ("x86-onnxruntime", "x86-litert")


def write_onnx(path, shape=("batch", 1, 4, 4)):
    """Means of an image, mixed: the smallest file with weights."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    weight = numpy_helper.from_array(np.ones((1, 3), np.float32), "weight")
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 3])],
        [weight],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def write_npz(path, *shape, labelled=True):
    arrays = {"inputs": np.random.default_rng(0).random((300, *shape), np.float32)}
    if labelled:
        arrays["labels"] = np.arange(300) % 3
    np.savez(path, **arrays)
    return path


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Two projects in one folder: one trains its net, one starts from an ONNX file."""
    folder = tmp_path_factory.mktemp("projects")
    lines = init.write(Request(folder / "My Digits!", None, None, TARGETS))
    assert lines == ["no data given: scikit-learn's digits"]
    given = write_onnx(folder / "given.onnx")
    lines = init.write(Request(folder / "bell", given, None, ("x86-onnxruntime",)))
    assert lines[0].startswith("given.onnx: opset 17, input image[batch,1,4,4] float32, output sc")
    assert lines[1].startswith("no data given: 640 random inputs")
    return folder


def test_nothing_but_the_projects_lies_in_the_folder(projects):
    assert listed(projects) == ["My Digits!", "bell", "given.onnx"]


EVERYWHERE = [
    ".dvc", ".dvcignore", ".git", ".github", ".gitignore", "Makefile", "README.md", "dvc.yaml",
    "params.schema.json", "params.yaml", "stages",
]  # fmt: skip


def test_a_project_is_complete_and_holds_none_of_our_code(projects):
    assert listed(projects / "My Digits!") == EVERYWHERE
    assert listed(projects / "bell") == sorted([*EVERYWHERE, "model.onnx", "random-inputs.npz"])
    for project, from_onnx in (("My Digits!", False), ("bell", True)):
        stages = {path.stem for path in (projects / project / "stages").glob("*.py")}
        assert stages == {"__init__", *chain.stage_names(from_onnx=from_onnx)}
        assert all(
            len(path.read_text().splitlines()) < 12
            for path in (projects / project / "stages").iterdir()
        )
        assert (projects / project).stat().st_mode & 0o777 == 0o755


def test_params_are_valid_and_every_input_is_pinned(projects):
    own = params.load(projects / "My Digits!/params.yaml")
    assert (own.model, own.net.name, tuple(own.targets)) == ("my-digits", "resnet8", TARGETS)
    adopted = params.load(projects / "bell/params.yaml")
    assert (adopted.model, adopted.net.onnx, adopted.train) == ("bell", "model.onnx", None)
    assert adopted.net.onnx_digest == files.digest_file(projects / "bell/model.onnx")
    assert adopted.data.digest == files.digest_file(projects / "bell/random-inputs.npz")
    assert (adopted.task.kind, adopted.task.metric) == ("agreement", "top1")
    assert (projects / "bell/model.onnx").read_bytes() == (projects / "given.onnx").read_bytes()


def test_the_readme_names_the_model_and_a_target_that_is_on(projects):
    text = (projects / "My Digits!/README.md").read_text()
    assert "slipway pull my-digits --target x86-onnxruntime --to ./model" in text
    assert "{" not in text


def test_git_and_dvc_are_ready(projects):
    project = projects / "bell"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list"],
        cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "register@x86-onnxruntime" in done.stdout
    assert "analytics = false" in (project / ".dvc/config").read_text()
    ignored = subprocess.run(
        ["git", "check-ignore", "models/x", "registry/x", "stages/convert.py", "params.yaml"],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ignored.stdout.splitlines() == ["models/x", "registry/x"]


def test_a_project_in_a_larger_repository_is_a_folder_of_it(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    given = write_onnx(tmp_path / "given.onnx")
    samples = write_npz(tmp_path / "samples.npz", 4, 4)
    init.write(Request(tmp_path / "parts/bell", given, samples, ("x86-litert",)))
    project = tmp_path / "parts/bell"
    assert not (project / ".git").exists()
    assert (project / ".dvc/config").is_file()
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall", "parts"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "parts/bell/params.yaml" in status
    p = params.load(project / "params.yaml")
    assert (p.task.kind, p.task.metric) == ("classification", "accuracy")  # there are labels
    assert p.data.path == "../../samples.npz"
    assert p.data.digest == files.digest_file(samples)
    assert p.data.preprocessing == (params.AddChannel(), params.ChannelsFirst())


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "mine").mkdir()
    init.write(Request(tmp_path / "mine", None, None, TARGETS[:1]))
    assert params.load(tmp_path / "mine/params.yaml").model == "mine"
    assert listed(tmp_path) == ["mine"]


def spoiled(folder):
    path = folder / "spoiled.onnx"
    path.write_bytes(b"hello" * 100)
    return path


# name: the ONNX file, the data, the targets, what is said
REFUSED = {
    "a file that is no ONNX": (spoiled, None, TARGETS, r"spoiled\.onnx .* is no readable ONNX"),
    "an ONNX file that is missing": (
        lambda f: f / "none.onnx", None, TARGETS, r"there is no file .*none\.onnx",
    ),
    "an unknown target": (None, None, ("x86-onnxruntime", "toaster"), "'toaster' is not known; kn"),
    "data that are missing": (None, lambda f: f / "none.npz", TARGETS, r"none\.npz is missing"),
    "data that do not fit": (
        lambda f: write_onnx(f / "a.onnx"), lambda f: write_npz(f / "a.npz", 5), TARGETS,
        r"a\.npz has samples of shape \[5\], the net takes \[1, 4, 4\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "samples", "targets", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_one_line_and_leaves_nothing(tmp_path, file, samples, targets, message):
    given = tmp_path / "given"
    given.mkdir()
    request = Request(
        tmp_path / "new/deeper/project", file and file(given), samples and samples(given), targets
    )
    with pytest.raises(PipelineError, match=message) as caught:
        init.write(request)
    assert "\n" not in str(caught.value)
    assert listed(tmp_path) == ["given"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("mine")
    with pytest.raises(PipelineError, match=r"mine exists already; name a folder that does not"):
        init.write(Request(tmp_path / "mine", None, None, TARGETS))
    with pytest.raises(PipelineError, match=r"notes exists already"):
        init.write(Request(tmp_path / "mine/notes", None, None, TARGETS))
    assert listed(tmp_path / "mine") == ["notes"]
    assert listed(tmp_path) == ["mine"]


def test_a_folder_without_a_letter_gives_no_name(tmp_path):
    with pytest.raises(PipelineError, match=r"'___' gives no name for the model; use letters"):
        init.write(Request(tmp_path / "___", None, None, TARGETS))
    assert not listed(tmp_path)


def test_without_git_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(PipelineError, match=r"^git is not on PATH; install it$"):
        init.write(Request(tmp_path / "mine", None, None, TARGETS))
    assert not listed(tmp_path)


def test_git_that_fails_is_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/git"
    script.write_text("#!/bin/sh\necho 'fatal: no\n  space left' >&2\nexit 128\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    with pytest.raises(PipelineError, match=r"^git init -q -b failed in .*: fatal: no space left$"):
        init.write(Request(tmp_path / "mine", None, None, TARGETS))
    assert listed(tmp_path) == ["bin"]


def test_the_workflow_of_a_project_runs_its_make_targets(projects):
    document = yaml.safe_load((projects / "bell/.github/workflows/build.yml").read_text())
    makefile = (projects / "bell/Makefile").read_text()
    commands = [s["run"] for j in document["jobs"].values() for s in j["steps"] if "run" in s]
    assert commands
    for command in commands:
        for line in command.splitlines():
            if line.startswith("make "):
                assert f"\n{line.split()[1]}:" in makefile
