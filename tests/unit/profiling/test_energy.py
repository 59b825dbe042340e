import msgspec
import pytest

from pipeline.errors import TargetError
from pipeline.profiling import energy
from pipeline.targets import hardware

# 300 J in 10 s of which 100 J are idling's, by 1,000 runs: 200 mJ each
REPLY = {
    "meter": "rapl", "window_ns": 10_000_000_000, "num_runs": 1000, "joules": 300.0,
    "idle_w": [10.0, 10.0], "facts": {"reads": "energy", "packages": ["package-0"]},
    "host_before": {"num_throttled": 3}, "host_after": {"num_throttled": 3}, "others_ratio": 0.02,
}  # fmt: skip


def test_what_idling_takes_is_not_the_requests():
    found = energy.metered(REPLY)
    assert found.value_mj == pytest.approx(200)
    assert (found.meter, found.kind, found.flags) == ("rapl", "package", ())
    assert (found.window_s, found.num_runs, found.idle_w, found.busy_w) == (10, 1000, 10, 30)


def test_idling_is_the_mean_of_before_and_after():
    assert energy.metered({**REPLY, "idle_w": [8, 14]}).value_mj == pytest.approx(190)


FLAGS = {
    "baselines within 5 %": ({"idle_w": [9.6, 10.0]}, ()),
    "baselines more than 5 % apart": ({"idle_w": [10.0, 9.4]}, ("idle_drift",)),
    "no more than idling": ({"joules": 100.0}, ("below_idle",)),
    "others at work": ({"others_ratio": 0.11}, ("host_busy",)),
    "a machine that cannot tell of others": ({"others_ratio": None}, ()),
    "a throttled machine": ({"host_after": {"num_throttled": 4}}, ("throttled",)),
    "a board whose firmware holds the clocks down": (
        {"host_after": {"throttled_bits": 0x4}},
        ("throttled",),
    ),
    "a machine that was suspended": ({"clock_jump": True}, ("clock_jump",)),
    "one that does not say": ({"host_before": {}, "host_after": {}}, ()),
    "rails that are added": ({"facts": {"summed": True}}, ("rails_summed",)),
    "a bad line": ({"facts": {"num_garbled": 1}}, ("meter_garbled",)),
}


@pytest.mark.parametrize(("change", "flags"), FLAGS.values(), ids=FLAGS)
def test_it_says_how_far_to_trust_it(change, flags):
    assert energy.metered({**REPLY, **change}).flags == flags


def test_less_than_idling_stays_as_it_was_read():
    found = energy.metered({**REPLY, "joules": 90.0})
    assert found.value_mj == pytest.approx(-10)
    assert found.flags == ("below_idle",)


KINDS = {
    "rapl": ({}, "package", "rapl"),
    "nvml": ({}, "package", "nvml"),
    "ina": ({}, "rail", "ina"),
    "serial": ({"place": "wall", "facts": {"name": "shunt-7"}}, "wall", "serial: shunt-7"),
}


@pytest.mark.parametrize("meter", KINDS)
def test_the_record_names_the_meter_and_where_it_sits(meter):
    change, kind, name = KINDS[meter]
    found = energy.metered({**REPLY, "meter": meter, **change})
    assert (found.kind, found.meter) == (kind, name)


def test_marks_that_arrive_some_milliseconds_late_lose_nothing():
    """A window of ten seconds between arrivals on a serial line may come out shorter."""
    assert energy.metered({**REPLY, "window_ns": 9_980_000_000}).window_s == 9.98


REFUSED = {
    "a short window": (
        {"window_ns": 9_800_000_000},
        r"^energy: a window of 9\.8 s by meter 'rapl' is too short; 10 s are needed$",
    ),
    "no runs": ({"num_runs": 0}, r"^energy: 0 runs in 10 s by meter 'rapl' tell nothing; update"),
    "a meter of nobody's": (
        {"meter": "guess"},
        r"^energy: meter 'guess' is not known, so .*; known: rapl, nvml, ina, serial$",
    ),
    "marks without readings": ({"joules": None}, r"reply cannot be used: Expected `float`, got"),
    "one baseline": ({"idle_w": [10.0]}, r"reply cannot be used: .*length 2.*; update the runner"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_a_reply_that_tells_nothing_is_one_line(change, words):
    with pytest.raises(TargetError, match=words) as caught:
        energy.metered({**REPLY, **change})
    assert "\n" not in str(caught.value)


def test_a_field_that_is_missing_is_named():
    with pytest.raises(TargetError, match="missing required field `num_runs`"):
        energy.metered({key: value for key, value in REPLY.items() if key != "num_runs"})


def test_a_model_of_energy_is_power_above_idle_times_latency():
    """A Raspberry Pi 5 takes 10 W at most and 2.4 W idle: 7.6 W for 5 ms are 38 mJ."""
    found = energy.modelled(hardware.load("raspberry-pi-5"), 5.0, "on a Cortex-A76")
    assert found.value_mj == pytest.approx(38)
    assert found.meter == (
        "power.max_w of Raspberry Pi 5, less power.idle_w, times p50 on a Cortex-A76"
    )
    assert (found.kind, found.idle_w, found.busy_w) == ("modelled", 2.4, 10)
    assert (found.window_s, found.num_runs, found.flags) == (0, 0, ())


def test_without_idling_the_whole_power_counts_and_says_so():
    found = energy.modelled(hardware.load("coral-edge-tpu"), 5.0, "on a board")
    assert found.value_mj == pytest.approx(10)
    assert found.meter == "power.max_w of Coral Edge TPU, times p50 on a board"
    assert found.flags == ("idle_not_known",)


def test_no_power_in_the_catalogue_no_model():
    words = r"^Arm Ethos-U55-128: its entry has no power\.max_w, so energy cannot be modelled; give"
    with pytest.raises(TargetError, match=words):
        energy.modelled(hardware.load("ethos-u55-128"), 5.0, "on a board")


def test_the_least_power_is_not_taken_for_the_most():
    found = hardware.load("raspberry-pi-5")
    only_idle = msgspec.structs.replace(
        found, power=hardware.Power(idle_w=found.power.idle_w, min_w=found.power.idle_w)
    )
    with pytest.raises(TargetError, match=r"no power\.max_w"):
        energy.modelled(only_idle, 5.0, "on a board")
