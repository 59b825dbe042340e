"""The environment of another instruction set: aarch64 under user-mode QEMU, as set-up makes it."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import manifest
from pipeline.profiling import measure, workers
from pipeline.profiling.workers import ModelRefusedError
from pipeline.runtimes import runner
from pipeline.targets import tools
from tests.reference_models import MAX_KERNEL_ERROR, RESNET, images, model_artifact, target_of

__all__ = ["images", "model_artifact"]  # fixtures

ROOT = Path(__file__).parents[2]
NAME = "emulated-aarch64"
TIME_LIMIT_S = 60
# AT_HWCAP of <asm/hwcap.h> for arm64, by bit
HWCAPS = """
    fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc
    dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg
""".split()  # noqa: SIM905 - as the header lists them


@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite_runtime"])
def test_the_net_says_under_emulation_what_it_says_here(
    runtime, model_artifact, images, emulated_environments
):
    here = measure.outputs(model_artifact(*RESNET["onnxruntime"]), images, target_of("onnxruntime"))
    job = workers.job_of(
        model_artifact(*RESNET[runtime]), images, target_of(runtime, NAME), emulated_environments
    )
    path = images.with_name("outputs.npz")
    reply = workers.outputs(job, path)
    with np.load(path, allow_pickle=False) as arrays:
        assert np.abs(arrays["outputs"] - here).max() < MAX_KERNEL_ERROR
    assert reply["facts"]["runtime"] == runtime
    assert reply["facts"]["version"] == tools.version(
        tools.RUNTIME_TOOLS[runtime], NAME, emulated_environments
    )


def test_what_is_no_model_is_refused_there_too(model_artifact, images, emulated_environments):
    name, steps = RESNET["onnxruntime"]
    folder = model_artifact(name, steps)
    (folder / "model.onnx").write_bytes(b"this is not a model" * 10)
    (folder / "manifest.json").unlink()
    manifest.write(folder, model="tiny", stage="convert", preprocessing=steps)
    with pytest.raises(ModelRefusedError, match="refuses the model"):
        measure.outputs(folder, images, target_of("onnxruntime", NAME), emulated_environments)


def test_its_versions_are_those_of_the_constraints(emulated_environments):
    lines = (ROOT / f"constraints/{NAME}.txt").read_text().splitlines()
    pins = [line.split()[0].split("==") for line in lines if not line.startswith("#")]
    assert {tool for tool, _ in pins} >= {"onnxruntime", "tflite-runtime", "numpy"}
    for tool, pin in pins:
        assert tools.version(tool, NAME, emulated_environments) == pin


def run(python, code, **options):
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, **options
    )


WHO = "import os, sys, numpy; print(os.uname().machine, numpy.__file__, sys.executable)"


def test_the_guest_is_the_processor_that_its_file_describes(emulated_python):
    code = (
        "import ctypes; read = ctypes.CDLL(None).getauxval; read.restype = ctypes.c_ulong\n"
        "from pipeline.runtimes import machine\n"
        "import json; print(json.dumps([read(16), machine.describe()]))"
    )
    capabilities, described = json.loads(run(emulated_python, code).stdout)
    told = {name for bit, name in enumerate(HWCAPS) if capabilities >> bit & 1}
    (features, *_) = [
        line.partition(":")[2].split()
        for line in (ROOT / f".venvs/{NAME}/root/proc/cpuinfo").read_text().splitlines()
        if line.startswith("Features")
    ]
    assert set(features) == told
    assert described["arch"] == "aarch64"
    assert described["isa_flags"] == ["asimd", "asimddp", "asimdhp", "fphp"]


def test_the_guest_can_start_itself(emulated_python):
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WHO!r}], check=True)"
    machine, numpy, executable = run(emulated_python, code).stdout.split()
    assert machine == "aarch64"
    assert executable == str(emulated_python)
    assert numpy.startswith(str(emulated_python.parents[1]))


ODD = {
    "a path of this machine's Python": {"PYTHONPATH": os.pathsep.join(sys.path)},
    "a home of this machine's Python": {"PYTHONHOME": sys.prefix},
    "a library of this machine": {"LD_PRELOAD": "libm.so.6", "LD_LIBRARY_PATH": "/usr/lib"},
    "no home": {"HOME": "/nonexistent", "TERM": "odd"},
    "plain ASCII": {"LC_ALL": "POSIX"},
    "a language that is not there": {"LC_ALL": "tlh_QO.UTF-8"},
    "a path to search": {"CDPATH": "/:/tmp"},
}


@pytest.mark.parametrize("variables", ODD.values(), ids=ODD)
def test_a_moved_environment_finds_its_own_parts_alone(variables, emulated_python, tmp_path):
    moved = tmp_path / "a b, ü" / "env"
    shutil.copytree(emulated_python.parents[1], moved, symlinks=True)
    done = run("./bin/python", f"{WHO}; open('é', 'w')", cwd=moved, env=variables)
    assert done.returncode == 0, done.stderr
    numpy = moved / "lib/python3.11/site-packages/numpy/__init__.py"
    assert done.stdout == f"aarch64 {numpy} {moved / 'bin/python'}\n"
    assert (moved / "é").is_file()


CRASHES = {
    "os.abort()": signal.SIGABRT,
    "import ctypes; ctypes.string_at(0)": signal.SIGSEGV,
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": signal.SIGKILL,
}


@pytest.mark.parametrize(("code", "number"), CRASHES.items(), ids=CRASHES)
def test_a_crash_of_the_guest_is_one_here_and_leaves_nothing(
    code, number, emulated_python, tmp_path
):
    done = run(emulated_python, f"import os; {code}", cwd=tmp_path)
    assert done.returncode == -number
    assert list(tmp_path.iterdir()) == []


def test_a_guest_dies_with_whoever_started_it(emulated_python):
    """Its standard input stays open: only the parent's death, told by the kernel, can end it."""
    stdin, hold = os.pipe()
    alive, held_by_guest = os.pipe()
    command = [str(emulated_python), "-m", "pipeline.runtimes.runner", "run"]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"],
        stdin=stdin, stdout=held_by_guest, cwd=emulated_python.parent,
    )  # fmt: skip
    os.close(held_by_guest)
    request = {
        "protocol": runner.PROTOCOL, "what": "latency", "runtime": "tflite_runtime", "model": "",
        "num_threads": 1, "inputs": "", "preprocessing": [], "plan": {}, "wait": True,
    }  # fmt: skip
    os.write(hold, (json.dumps(request) + "\n").encode())
    with os.fdopen(alive, "rb") as said:
        assert json.loads(said.readline()) == {"ready": True}
        parent.kill()
        parent.wait()
        ended, _, _ = select.select([said], [], [], TIME_LIMIT_S)
        assert ended, "the guest lives on"
        assert said.read() == b""  # nobody has the other end any more
    os.close(hold)
    os.close(stdin)


def setup_emulated(folder, path):
    """Run a copy of the script where only these programs are found."""
    for name in ("scripts/setup-emulated", f"constraints/{NAME}.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return subprocess.run(
        [shutil.which("bash"), "scripts/setup-emulated"], cwd=folder, env={"PATH": str(path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def programs(tmp_path):
    """A folder of the plain programs that every system has."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("cat", "cut", "dirname", "head", "id", "grep", "mkdir", "rm", "sha256sum"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# what else is on the machine -> what is said
NOT_MADE = {
    "no package manager": ({}, "it needs .*qemu-user-static.*, and there is no apt-get"),
    "no right to install": (
        {"apt-get": "exit 1", "id": "echo 1000"},
        "apt-get install .*qemu-user-static.* needs root or sudo",
    ),
    "a sudo that would ask": (
        {"apt-get": "exit 1", "id": "echo 1000", "sudo": "exit 1"},
        "apt-get install .*qemu-user-static.* needs root or sudo",
    ),
    "no packages to be had": (
        {"apt-get": "exit 100", "id": "echo 0"},
        "apt-get could not install .*qemu-user-static.*; the log is .slipway/log/",
    ),
    "an older emulator": (
        {
            "qemu-aarch64-static": 'case $1 in --version) echo "qemu 5.2";; *) echo "max";; esac',
            "id": "echo 0",
            "apt-get": "exit 0",
        },
        "qemu 5.2 has no cortex-a76, which QEMU has since 7.1",
    ),
    "no network": (
        {
            "qemu-aarch64-static": "echo cortex-a76; exit 1",
            "mktemp": f'exec {shutil.which("mktemp")} "$@"',
            "debootstrap": "exit 1",
            "id": "echo 0",
            "apt-get": "exit 0",
        },
        "debootstrap could not fetch Debian's packages for arm64; the log is .slipway/log/",
    ),
}


@pytest.mark.parametrize(("there", "said"), NOT_MADE.values(), ids=NOT_MADE)
def test_where_it_cannot_be_made_one_line_says_why_and_set_up_goes_on(
    there, said, programs, tmp_path
):
    for name, text in there.items():
        (programs / name).unlink(missing_ok=True)
        script(programs / name, text)
    stale = tmp_path / f".venvs/{NAME}/bin/python"
    stale.parent.mkdir(parents=True)
    stale.touch()
    done = setup_emulated(tmp_path, programs)
    assert (done.returncode, done.stderr) == (0, "")
    begun, why = done.stdout.splitlines()
    assert begun.strip().startswith(f"building .venvs/{NAME}")
    assert why.strip().startswith(f"{NAME} is not made: ")
    assert re.search(said, why)
    assert not stale.parents[1].exists()
