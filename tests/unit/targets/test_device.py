import pytest

from pipeline.targets import device

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Processor @ 2.50GHz
cpu MHz\t\t: 2500.002
flags\t\t: fpu avx2 avx512_vnni ssse3 md_clear
processor\t: 1
model name\t: another
"""
PI = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm asimddp
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
CPU_INFOS = {
    "an x86 names its model and vector units": (
        XEON, "Intel(R) Xeon(R) Processor @ 2.50GHz", ["avx2", "avx512_vnni", "ssse3"],
    ),
    "an ARM board names its features": (PI, "Raspberry Pi 5 Model B Rev 1.0", ["asimd", "asimddp"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "model", "flags"), CPU_INFOS.values(), ids=CPU_INFOS)
def test_cpu_info_is_read(text, model, flags):
    found = device.describe(text)
    assert (found["cpu_model"], found["isa_flags"]) == (model, flags)


def test_a_machine_that_tells_nothing_is_still_described():
    assert device.describe("")["isa_flags"] == []
    assert device.describe("")["cpu_model"]


def big_little(*parts):
    """Return a board's text with these implementers and parts of cores, in this order."""
    return "\n".join(
        f"processor\t: {i}\nCPU implementer\t: {each[0]}\nCPU part\t: {each[1]}\n"
        for i, each in enumerate(parts)
    )


LITTLE, BIG = ("0x41", "0xd05"), ("0x41", "0xd0b")


def test_every_kind_of_core_counts_in_any_order():
    found = device.describe(big_little(LITTLE, LITTLE, BIG))
    assert found["cores"] == ["0x41/0xd05", "0x41/0xd0b"]
    assert device.describe(big_little(BIG, LITTLE, LITTLE)) == found
    prints = {device.fingerprint(device.describe(big_little(*c))) for c in ([LITTLE], [BIG])}
    assert len({*prints, device.fingerprint(found)}) == 3


def test_a_board_is_named_by_its_device_tree():
    found = device.describe(big_little(LITTLE, BIG), board="Radxa ROCK 5B\0")
    assert found["cpu_model"] == "Radxa ROCK 5B"
    assert device.describe(big_little(LITTLE, BIG))["cpu_model"] == "0x41/0xd05, 0x41/0xd0b"


def test_an_x86_is_described_as_ever():
    found = device.describe(XEON, board="a virtual machine's")
    assert found.keys() == {"arch", "cpu_model", "isa_flags", "num_cores", "accelerator"}
    assert found["cpu_model"] == "Intel(R) Xeon(R) Processor @ 2.50GHz"


ADA, HOPPER = "NVIDIA GeForce RTX 4090", "NVIDIA H200"
GPUS = {
    "none": ([], "none"),
    "one": ([ADA], ADA),
    "of several kinds": ([HOPPER, ADA, ADA], f"2 x {ADA}, {HOPPER}"),
}


@pytest.mark.parametrize(("models", "expected"), GPUS.values(), ids=GPUS)
def test_gpus_are_named_as_the_driver_does(tmp_path, models, expected):
    for number, model in enumerate(models):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t {number}\n")
    found = device.describe("", gpus=tmp_path)
    assert found["accelerator"] == expected
    other = device.describe("", gpus=tmp_path / "absent")
    assert (device.fingerprint(found) == device.fingerprint(other)) == (not models)


def test_a_new_clock_rate_or_unused_flag_keeps_the_fingerprint():
    later = XEON.replace("2500.002", "1200.5").replace("md_clear", "ibrs")
    assert later != XEON
    assert device.fingerprint(device.describe(later)) == device.fingerprint(device.describe(XEON))


def test_another_vector_unit_is_another_fingerprint():
    other = device.describe(XEON.replace("avx512_vnni", "avx512_bf16"))
    assert device.fingerprint(other) != device.fingerprint(device.describe(XEON))


def test_a_fingerprint_does_not_count_itself():
    machine = device.describe(XEON)
    digest = device.fingerprint(machine)
    assert digest.startswith("sha256:")
    assert device.fingerprint({**machine, "fingerprint": digest}) == digest


def test_this_machine_is_described_twice_alike():
    assert device.describe() == device.describe()
