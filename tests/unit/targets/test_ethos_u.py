import pytest

from pipeline import files
from pipeline.errors import ManifestError
from pipeline.measurement import Layer, Placement
from pipeline.targets import ethos_u
from pipeline.targets.ethos_u import Cycles, Estimate, Memory


@pytest.fixture
def estimate():
    return Estimate(
        accelerator_config="ethos-u55-128",
        system_config="Ethos_U55_High_End_Embedded",
        memory_mode="Shared_Sram",
        clock_hz=500_000_000,
        num_macs=12,
        inference_ms=0.4,
        cycles=Cycles(total=200, npu=190, sram=7, dram=0, on_chip_flash=0, off_chip_flash=6),
        memory=Memory(sram_bytes=5, dram_bytes=0, on_chip_flash_bytes=0, off_chip_flash_bytes=7),
        placement=Placement(16, 1, ("MEAN",)),
        fallback_reasons={"MEAN": "Unsupported depth-reduction."},
        layers=(Layer(name="a", operator="Conv2D", num_cycles=200, num_macs=12, provider="NPU"),),
    )


def test_an_estimate_reads_back_as_written(estimate, tmp_path):
    (tmp_path / "vela.json").write_bytes(files.encode_json(estimate))
    assert ethos_u.read(tmp_path) == estimate


def test_an_artifact_without_an_estimate_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"vela\.json is missing; convert the model again"):
        ethos_u.read(tmp_path)


def test_a_malformed_estimate_is_refused(tmp_path):
    (tmp_path / "vela.json").write_text("{")
    with pytest.raises(ManifestError, match=r"vela\.json is malformed"):
        ethos_u.read(tmp_path)
