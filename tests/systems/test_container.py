"""The device image, built by buildah from the Containerfile and run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/slipway-device:tests"
# What a machine needs to reach its package index from inside a build.
INDEX_FILES = ("/etc/pip.conf", "/etc/ssl/certs", "/usr/local/share/ca-certificates")
ENVIRONMENT = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}


def buildah(*arguments, **options):
    done = subprocess.run(
        ["buildah", *map(str, arguments)],
        cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=900,
        check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container():
    if shutil.which("buildah") is None or shutil.which("debootstrap") is None:
        pytest.skip("buildah or debootstrap is absent; scripts/setup-systems installs them")
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    subprocess.run([ROOT / "scripts/base-image"], check=True, timeout=600)
    volumes = [
        part for path in INDEX_FILES if Path(path).exists() for part in ("-v", f"{path}:{path}:ro")
    ]
    buildah("build", *volumes, "--build-arg", "BASE=localhost/slipway-base:bookworm", "--layers",
            "--target", "device", "-t", IMAGE, ".")  # fmt: skip
    name = buildah("from", IMAGE)
    yield name
    buildah("rm", name)


def test_the_device_image_runs_slipway_as_no_root(container):
    assert buildah("run", container, "--", "slipway", "--help").startswith("Usage: slipway")
    assert buildah("run", container, "--", "id", "-un") == "slipway"


def test_the_device_image_holds_no_build_tool(container):
    code = "from importlib import metadata; print(*[d.name for d in metadata.distributions()])"
    found = buildah("run", container, "--", "python3", "-c", code).split()
    assert "onnxruntime" in found
    assert not {"torch", "dvc", "onnx"} & set(found)
