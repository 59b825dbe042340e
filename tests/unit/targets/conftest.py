import pytest

from pipeline import compatibility, params


@pytest.fixture
def make_target():
    """A target of a runtime, with the one environment that has it."""

    def make(runtime):
        converter = "to_onnxruntime" if runtime == "onnxruntime" else "to_litert"
        return params.Target(
            converter=converter,
            runtime=runtime,
            convert=params.Convert(precisions=("fp32",)),
            profile=params.Profile(environment=compatibility.ENVIRONMENTS[runtime][0]),
            select=params.Select(),
        )

    return make


@pytest.fixture
def fake_environment(tmp_path):
    """An environment with one installed distribution and no interpreter."""
    site = tmp_path / "device-tflite/lib/python3.9/site-packages/tflite_runtime-2.14.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")
    return tmp_path
