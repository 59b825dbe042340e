"""Splits: disjoint, stratified, equal samples together, the same bytes each time."""

import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import files, params
from pipeline.data import source, splits
from pipeline.data.rows import Rows
from pipeline.data.samples import Samples
from pipeline.errors import DataError
from pipeline.runtimes import structured

PARTS = ("train", "validation", "test")


def rows(split):
    return [row.tobytes() for row in split.inputs]


def cfg_of(train, validation, seed=0):
    return params.Data(
        source="digits",
        seed=seed,
        train_ratio=train,
        validation_ratio=validation,
        num_calibration=1,
    )


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(20, 60), min_size=2, max_size=4),
    ratios=st.sampled_from([(0.3, 0.3), (0.5, 0.25), (0.7, 0.15), (1 / 3, 1 / 3)]),
    seed=st.integers(0, 1000),
)
def test_distinct_samples_split_exactly(counts, ratios, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    inputs = np.arange(len(labels), dtype=np.int32)[:, None]
    names = tuple(map(str, range(len(counts))))
    made = splits.make(Samples(inputs, labels, names), cfg_of(*ratios, seed))
    found = [row for name in PARTS for row in made[name].inputs[:, 0].tolist()]
    assert sorted(found) == list(range(len(labels)))  # each once: disjoint and complete
    for name, ratio in zip(PARTS, (*ratios, 1 - sum(ratios)), strict=True):
        split = made[name]
        assert np.array_equal(split.labels, labels[split.inputs[:, 0]])
        assert abs(len(split.labels) - ratio * len(labels)) <= 1
        per_class = np.bincount(split.labels, minlength=len(counts))
        assert (abs(per_class - ratio * np.array(counts)) <= 2).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_equal_samples_never_straddle_splits(data, seed):
    # 60 distinct samples a class, some of them several times, some with the other label too
    values = list(range(120))
    extra = data.draw(st.lists(st.integers(0, 119), max_size=40))
    other_label = data.draw(st.lists(st.booleans(), min_size=len(extra), max_size=len(extra)))
    labels = [value % 2 for value in values]
    labels += [value % 2 ^ flip for value, flip in zip(extra, other_label, strict=True)]
    inputs = np.array(values + extra, np.float32)[:, None]
    made = splits.make(Samples(inputs, np.array(labels), ("a", "b")), cfg_of(0.4, 0.3, seed))
    where = {name: set(rows(made[name])) for name in PARTS}
    assert not where["train"] & where["validation"]
    assert not where["train"] & where["test"]
    assert not where["validation"] & where["test"]
    found = Counter(row for name in PARTS for row in rows(made[name]))
    assert found == Counter(row.tobytes() for row in inputs)


def test_zero_and_minus_zero_are_equal_samples(data_cfg, few_samples):
    inputs = few_samples.inputs + 1
    inputs[0], inputs[2] = [0.0, 1.0], [-0.0, 1.0]
    for seed in range(8):
        samples = Samples(inputs, few_samples.labels, few_samples.label_names)
        made = splits.make(samples, data_cfg(seed=seed))
        assert sum((made[name].inputs[:, 0] == 0).any() for name in PARTS) == 1


def test_order_of_the_rows_does_not_matter(data_cfg, few_samples):
    order = np.random.default_rng(5).permutation(40)
    shuffled = Samples(few_samples.inputs[order], few_samples.labels[order], ("even", "odd"))
    first, second = (splits.make(s, data_cfg()) for s in (few_samples, shuffled))
    for name in splits.NAMES:
        assert rows(first[name]) == rows(second[name])


def test_another_seed_gives_another_split(data_cfg, few_samples):
    first, second = (splits.make(few_samples, data_cfg(seed=seed)) for seed in (0, 1))
    assert set(rows(first["train"])) != set(rows(second["train"]))


def test_calibration_is_a_mixed_sample_of_train(data_cfg, few_samples):
    made = splits.make(few_samples, data_cfg(num_calibration=12))
    assert len(made["calibration"].labels) == 12
    assert set(rows(made["calibration"])) <= set(rows(made["train"]))
    assert set(made["calibration"].labels.tolist()) == {0, 1}


def test_digits_split_as_params_say():
    p = params.load()
    made = splits.make(source.read(p.data), p.data)
    sizes = {name: len(split.labels) for name, split in made.items()}
    assert sizes == {"train": 550, "validation": 544, "test": 703, "calibration": 128}
    tensors = made["calibration"].tensors()
    assert tensors.shape == (128, 1, 32, 32)
    assert tensors.dtype == np.float32
    assert 0 <= tensors.min() < tensors.max() <= 1


REFUSED = {
    "more calibration than train": (
        {"num_calibration": 21},
        "data.num_calibration is 21, but train has 20 samples; lower it",
    ),
    "a ratio too small": (
        {"train_ratio": 0.01},
        "split train has no sample of class 'even': the ratio is too small",
    ),
    "nothing left for test": (
        {"train_ratio": 0.74, "validation_ratio": 0.25},
        "split test has no sample of class",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(data_cfg, few_samples, changes, message):
    with pytest.raises(DataError, match=message):
        splits.make(few_samples, data_cfg(**changes))


def test_a_class_of_equal_samples_only_is_refused(data_cfg, few_samples):
    inputs = np.where(few_samples.labels[:, None] == 1, 7, few_samples.inputs)
    with pytest.raises(DataError, match=r"class 'odd': .*too many of its samples are equal"):
        splits.make(Samples(inputs, few_samples.labels, ("even", "odd")), data_cfg())


@pytest.fixture
def split(few_samples, data_cfg):
    steps = (params.Scale(factor=0.5), params.AddChannel())
    return splits.make(few_samples, data_cfg(preprocessing=steps))["train"]


def test_round_trip(split, tmp_path):
    splits.write(tmp_path / "train.npz", split)
    found = splits.read(tmp_path / "train.npz")
    assert found.inputs.dtype == split.inputs.dtype
    assert found.labels.dtype == np.int64
    assert np.array_equal(found.inputs, split.inputs)
    assert np.array_equal(found.labels, split.labels)
    assert found.label_names == ("even", "odd")
    assert found.preprocessing == ({"step": "scale", "factor": 0.5}, {"step": "add_channel"})
    assert np.array_equal(found.tensors(), split.inputs[..., None] / 2)


def test_same_split_same_bytes_whatever_the_time(split, tmp_path):
    splits.write(tmp_path / "a.npz", split)
    splits.write(tmp_path / "b.npz", splits.read(tmp_path / "a.npz"))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_numpy_alone_reads_a_split(split, tmp_path):
    splits.write(tmp_path / "train.npz", split)
    with np.load(tmp_path / "train.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["inputs"], split.inputs)


def test_a_file_that_is_no_split_is_refused(npz_file, tmp_path):
    with pytest.raises(DataError, match=r"holds \['inputs', 'labels'\], a split holds"):
        splits.read(npz_file())
    with pytest.raises(DataError, match=r"is not a readable .npz"):
        splits.read(tmp_path / "none.npz")


def test_steps_that_do_not_fit_are_the_datas_fault(few_samples, data_cfg):
    cfg = data_cfg(preprocessing=(params.ChannelsFirst(),))
    with pytest.raises(DataError, match=r"preprocessing step 1 \(channels_first\): needs height"):
        splits.make(few_samples, cfg)["train"].tensors()
    cfg = data_cfg(preprocessing=(params.Scale(factor=1e38), params.Scale(factor=1e38)))
    with pytest.raises(DataError, match=r"data.preprocessing gives NaN or inf"):
        splits.make(few_samples, cfg)["train"].tensors()


def test_values_to_regress_are_cut_by_the_ratios_alone(data_cfg):
    inputs = np.arange(40, dtype=np.int16)[:, None]
    values = np.linspace(-1, 1, 80, dtype=np.float32).reshape(40, 2)
    made = splits.make(Samples(inputs, values, ()), data_cfg())
    assert [len(made[name].labels) for name in PARTS] == [20, 10, 10]
    for name in PARTS:
        assert np.array_equal(made[name].labels, values[made[name].inputs[:, 0]])


def test_samples_without_labels_are_cut_by_the_ratios_alone(data_cfg, tmp_path):
    samples = Samples(np.arange(40)[:, None], np.zeros(40, np.int64), ())
    made = splits.make(samples, data_cfg())
    assert [len(made[name].labels) for name in PARTS] == [20, 10, 10]
    splits.write(tmp_path / "a.npz", made["test"])
    assert splits.read(tmp_path / "a.npz").label_names == ()
    with pytest.raises(DataError, match=r"split test has no sample; change the data ratios"):
        splits.make(samples, data_cfg(train_ratio=0.7, validation_ratio=0.29))


def several(num):
    return structured.join(
        {"row": np.arange(2.0 * num, dtype=np.float32).reshape(num, 2), "one": np.arange(num) % 7}
    )


def test_several_inputs_split_and_round_trip(data_cfg, tmp_path):
    steps = {"one": (), "row": (params.Scale(factor=0.5), params.AddChannel())}
    samples = Samples(several(40), np.arange(40) % 2, ("a", "b"))
    made = splits.make(samples, data_cfg(preprocessing=steps))
    assert made["train"].check() == {"row": (2, 1), "one": ()}
    splits.write(tmp_path / "train.npz", made["train"])
    found = splits.read(tmp_path / "train.npz")
    assert found.preprocessing == {
        "one": (),
        "row": ({"step": "scale", "factor": 0.5}, {"step": "add_channel"}),
    }
    assert (found.inputs == made["train"].inputs).all()
    assert np.array_equal(found.tensors()["row"], found.inputs["row"][..., None] / 2)


def test_zero_and_minus_zero_are_equal_in_one_of_several_inputs(data_cfg):
    inputs = several(40)
    inputs["one"] = 0
    inputs["row"][0], inputs["row"][2] = [0.0, 99.0], [-0.0, 99.0]
    for seed in range(8):
        samples = Samples(inputs, np.arange(40) % 2, ("a", "b"))
        made = splits.make(samples, data_cfg(seed=seed))
        assert sum((made[name].inputs["row"][:, 1] == 99).any() for name in PARTS) == 1


def test_rows_on_disk_give_the_bytes_of_rows_in_memory(data_cfg, few_samples, tmp_path):
    on_disk = Rows.spool(few_samples.inputs, tmp_path / "cache")
    waiting = Samples(on_disk, few_samples.labels, few_samples.label_names)
    steps = (params.Scale(factor=2.0),)
    for name, samples in (("memory", few_samples), ("disk", waiting)):
        made = splits.make(samples, data_cfg(preprocessing=steps))
        splits.write(tmp_path / f"{name}.npz", made["train"])
        assert made["train"].check() == (2,)
    assert (tmp_path / "memory.npz").read_bytes() == (tmp_path / "disk.npz").read_bytes()
    assert np.array_equal(made["train"].tensors(), made["train"].inputs.load() * 2)
    assert np.array_equal(made["train"].tensors(slice(3, 5)), made["train"].tensors()[3:5])


GOLDEN = {  # of the bytes that the splits of digits have had since they are written
    "train": "sha256:f387a3f723c33cd5b8cd2a2cf5dd85453ddc0343331531da697e43f9ef6018e9",
    "validation": "sha256:1255638dec0bca490525939cf31a6890c9894c84894508ce599c48f63a71c74d",
    "test": "sha256:a23f5d04d6238bded4728443cc2aa78d93cae0c17b5faaf52f1fc074c34be364",
    "calibration": "sha256:04b58f28184b43fbefd5fba8b38cc7dee1ad52d19606a59f9fb1e88a7d2ef78d",
}


def test_the_splits_of_digits_keep_their_bytes(tmp_path):
    p = params.load()
    for name, split in splits.make(source.read(p.data), p.data).items():
        splits.write(tmp_path / f"{name}.npz", split)
        assert files.digest_file(tmp_path / f"{name}.npz") == GOLDEN[name]


def test_a_flipped_byte_in_a_split_is_refused(split, tmp_path):
    splits.write(tmp_path / "train.npz", split)
    content = bytearray((tmp_path / "train.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"Bad CRC-32.*; run dvc repro prepare"):
        splits.read(tmp_path / "train.npz")
