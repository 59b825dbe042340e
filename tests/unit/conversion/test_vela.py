"""Reading what Vela 5.2.0 wrote for MLPerf Tiny's image classifier; running it: tests/systems."""

import pytest

from pipeline import params
from pipeline.conversion import vela
from pipeline.measurement import Placement
from pipeline.targets.ethos_u import Cycles, Memory

SETTINGS = params.Vela(
    accelerator_config="ethos-u55-128",
    system_config="Ethos_U55_High_End_Embedded",
    memory_mode="Shared_Sram",
)
ALL_ACCELERATED = Placement(num_accelerated=16, num_fallback=0)
ALL_FALLBACK = Placement(0, 2, ("CONV_2D", "SOFTMAX"))
HEADER = (
    "experiment,network,accelerator_configuration,system_config,memory_mode,core_clock,"
    "arena_cache_size,sram_bandwidth,dram_bandwidth,on_chip_flash_bandwidth,"
    "off_chip_flash_bandwidth,weights_storage_area,feature_map_storage_area,inferences_per_second,"
    "batch_size,inference_time,passes_before_fusing,passes_after_fusing,sram_memory_used,"
    "dram_memory_used,on_chip_flash_memory_used,off_chip_flash_memory_used,total_original_weights,"
    "total_npu_encoded_weights,sram_feature_map_read_bytes,sram_feature_map_write_bytes,"
    "sram_weight_read_bytes,sram_weight_write_bytes,sram_total_bytes,dram_feature_map_read_bytes,"
    "dram_feature_map_write_bytes,dram_weight_read_bytes,dram_weight_write_bytes,dram_total_bytes,"
    "on_chip_flash_feature_map_read_bytes,on_chip_flash_feature_map_write_bytes,"
    "on_chip_flash_weight_read_bytes,on_chip_flash_weight_write_bytes,on_chip_flash_total_bytes,"
    "off_chip_flash_feature_map_read_bytes,off_chip_flash_feature_map_write_bytes,"
    "off_chip_flash_weight_read_bytes,off_chip_flash_weight_write_bytes,off_chip_flash_total_bytes,"
    "nn_macs,nn_tops,cycles_npu,cycles_sram_access,cycles_dram_access,cycles_on_chip_flash_access,"
    "cycles_off_chip_flash_access,cycles_total\n"
)
INT8 = (
    "default,pretrainedResnet_quant,Ethos_U55_128,Ethos_U55_High_End_Embedded,Shared_Sram,"
    "500000000.0,4194304.0,3.725290298461914,3.725290298461914,3.725290298461914,"
    "0.46566128730773926,Off-chip Flash,SRAM,2478.3515987846163,1,0.000403494,42,42,50.625,0.0,0.0,"
    "77.390625,77360,74592,249588,116448,184608,42320,610244,0,0,0,0,0,0,0,0,0,0,272,0,77312,0,"
    "78336,12505748,0.06198728109959503,185542,69955,0,0,62304,201747\n"
)
FP32 = (
    "default,kws_ref_model_float32,Ethos_U55_128,Ethos_U55_High_End_Embedded,Shared_Sram,"
    "500000000.0,4194304.0,3.725290298461914,3.725290298461914,3.725290298461914,"
    "0.46566128730773926,Off-chip Flash,SRAM,nan,1,0.0,13,13,0.0,0.0,0.0,0.0,0,0,0,0,0,0,0,0,0,0,0,"
    "0,0,0,0,0,0,0,0,0,0,0,0,nan,0,0,0,0,0,0\n"
)
WARNINGS = """
Warning (supported operators) operator: SOFTMAX, ofm: 'Identity'
Reason: Operation has tensor with unsupported DataType Float32 (functional_1/dense/BiasAdd)
Feature-map dataTypes must be one of {"INT16", "INT32", "INT64", "INT8", "UINT8"}

Warning (supported operators) operator: MEAN, ofm: 'a;b'
Reason: Unsupported depth-reduction.  IFM: 1, 64, 8, 8

Warning (supported operators) operator: SOFTMAX, ofm: 'second'
Reason: Another one
"""


def test_an_estimate_has_time_cycles_memory_and_what_vela_was_told():
    estimate = vela.estimate_of(HEADER + INT8, SETTINGS, ALL_ACCELERATED, {})
    assert estimate.inference_ms == 0.403494
    assert estimate.clock_hz == 500_000_000
    assert estimate.num_macs == 12_505_748
    assert estimate.cycles == Cycles(
        total=201_747, npu=185_542, sram=69_955, dram=0, on_chip_flash=0, off_chip_flash=62_304
    )
    assert estimate.memory == Memory(
        sram_bytes=51_840, dram_bytes=0, on_chip_flash_bytes=0, off_chip_flash_bytes=79_248
    )
    assert (estimate.accelerator_config, estimate.system_config, estimate.memory_mode) == (
        "ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram",
    )  # fmt: skip


def test_nothing_on_the_npu_is_no_latency_of_zero():
    estimate = vela.estimate_of(HEADER + FP32, SETTINGS, ALL_FALLBACK, {})
    assert (estimate.inference_ms, estimate.cycles) == (None, None)
    assert estimate.placement.accelerated_ratio == 0


def test_each_kind_of_operator_on_the_cpu_has_its_first_reason_without_tensor_names():
    assert vela.fallback_reasons(WARNINGS) == {
        "SOFTMAX": "Operation has tensor with unsupported DataType Float32",
        "MEAN": "Unsupported depth-reduction.  IFM: 1, 64, 8, 8",
    }


BY_LAYER = (
    "Original Operator,NNG Operator,Target,Staging Usage,Peak% (Staging),Op Cycles,"
    "Network% (cycles),NPU,SRAM AC,DRAM AC,OnFlash AC,OffFlash AC,MAC Count,Network% (MAC),"
    "Util% (MAC),Name\n"
    "Conv2D,Conv2D,NPU,12976,58.4,26185,29.1,26185,6040,0,0,5760,320000,12.0,9.5,conv;a,b\n"
    "Conv2D,Relu,NPU,0,0.0,0,0.0,0,0,0,0,0,0,0.0,100,conv;a,b\n"
    "Conv2D,Conv2D,NPU,20752,93.5,5944,6.6,5944,4702,0,0,1920,512000,19.2,67.2,second\n"
    "Mean,Passthrough,CPU,0,NaN,0,100,0,0,0,0,0,0,100,100,mean\n"
    "Mean,Passthrough,CPU,0,NaN,0,100,0,0,0,0,0,0,100,100,another\n"
    "Softmax,MaxPool,NPU,32,0.1,134,0.1,134,12,0,0,0,12,0.0,0.0,logits_softmax_0\n"
    "Softmax,Sub,NPU,96,0.4,24,0.0,24,11,0,0,0,0,0.0,0.0,Identity\n"
)


def test_a_layer_is_an_operator_of_the_file_with_all_that_vela_made_of_it():
    found = vela.layers_of(BY_LAYER)
    assert [(m.name, m.operator, m.num_cycles, m.num_macs, m.provider) for m in found] == [
        ("conv;a,b", "Conv2D", 26_185, 320_000, "NPU"),
        ("second", "Conv2D", 5944, 512_000, "NPU"),
        ("mean", "Mean", None, None, "CPU"),
        ("another", "Mean", None, None, "CPU"),
        ("Identity", "Softmax", 158, 12, "NPU"),
    ]
    assert {layer.time_ms for layer in found} == {None}


TOLD = "(ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram)"
OPTION = "Invalid configuration of arena_mem_area=OffChipFlash (must be Sram or Dram)"
# what Vela wrote to standard error; what is made of it
REFUSALS = {
    "an option": (f"Traceback:\nethosu.vela.errors.ConfigOptionError: 'Error: {OPTION}'\n", OPTION),
    "its compiler": (
        "Traceback:\nRuntimeError: Compilation failed: No nets\n",
        "Compilation failed: No nets",
    ),
    "an argument": (
        "usage: vela [-h]\nvela: error: argument --x: invalid\n",
        "argument --x: invalid",
    ),
    "nothing at all": ("", "exit code 1"),
}


@pytest.mark.parametrize(("said", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_one_line(said, reason):
    line = str(vela.refusal(1, said, SETTINGS))
    assert line == (
        f"Vela refuses the model {TOLD}: {reason}; replace the layer or mend convert.vela"
    )


def test_a_crash_is_one_line():
    line = str(vela.refusal(-11, "Failed to load TfLite model.", SETTINGS))
    assert line == (
        f"Vela was killed by SIGSEGV {TOLD}; convert the model again, or report its operators to "
        "Arm"
    )
