import copy

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from pipeline import params
from pipeline.compression import distill
from pipeline.training import loop
from pipeline.training.objective import Batch

CFG = params.Distill(
    seed=2,
    temperature=3.0,
    alpha=0.9,
    epochs=10,
    global_batch_size=16,
    optimizer="adamw",
    learning_rate=0.2,
    weight_decay=0.0,
    warmup_ratio=0.0,
    label_smoothing=0.0,
    patience=10,
)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def by_hand(student, teacher, labels, temperature, alpha, smoothing):
    """The loss of arXiv:1503.02531 written out in float64."""
    log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    soft = (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    targets = np.eye(student.shape[1])[labels] * (1 - smoothing) + smoothing / student.shape[1]
    hard = -(targets * log_softmax(student)).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * hard


CASES = {
    "only the teacher": (4.0, 1.0, 0.0),
    "only the labels": (4.0, 0.0, 0.0),
    "both, smoothed": (2.5, 0.7, 0.1),
    "temperature one": (1.0, 0.5, 0.0),
}


@pytest.mark.parametrize(("temperature", "alpha", "smoothing"), CASES.values(), ids=CASES)
def test_loss_against_numpy(temperature, alpha, smoothing):
    rng = np.random.default_rng(0)
    student, teacher = 3 * rng.standard_normal((2, 7, 5))
    labels = rng.integers(0, 5, 7)
    found = distill.soft_target_loss(
        torch.tensor(student),
        torch.tensor(teacher),
        torch.tensor(labels),
        temperature=temperature,
        alpha=alpha,
        label_smoothing=smoothing,
    )
    assert found.item() == pytest.approx(
        by_hand(student, teacher, labels, temperature, alpha, smoothing), rel=1e-12
    )


def test_a_student_equal_to_its_teacher_has_no_soft_loss():
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(4)
    found = distill.soft_target_loss(logits, logits, labels.long(), temperature=2.0, alpha=1.0)
    assert found.item() == pytest.approx(0, abs=1e-7)


@pytest.fixture
def task():
    """Points labelled by a linear teacher; the labels of train are then wrong for one in two."""
    generator = torch.Generator().manual_seed(0)
    teacher = nn.Linear(4, 3)
    inputs = torch.randn(160, 4, generator=generator)
    with torch.no_grad():
        teacher.weight.copy_(3 * torch.randn(3, 4, generator=generator))
        logits = teacher(inputs)
    labels = logits.argmax(1)
    noisy = torch.where(torch.arange(80) % 2 == 0, labels[:80], (labels[:80] + 1) % 3)
    train, validation = loop.Tensors(inputs[:80], noisy), loop.Tensors(inputs[80:], labels[80:])
    torch.manual_seed(1)
    student = nn.Linear(4, 3)
    return student, distill.remembering(logits[:80].numpy()), train, validation


def test_the_student_learns_from_the_teacher_what_the_labels_hide(task):
    student, teacher, train, validation = task
    fit = distill.distill(student, teacher, train, validation, CFG)
    assert fit.best.quality > 90
    assert loop.evaluate(student, validation).quality == fit.best.quality


def test_alpha_zero_is_plain_fine_tuning_bit_for_bit(task):
    student, teacher, train, validation = task
    plain = copy.deepcopy(student)
    cfg = msgspec.structs.replace(CFG, alpha=0.0)
    distill.distill(student, teacher, train, validation, cfg)
    loop.fit(plain, train, validation, cfg, cfg.seed)
    assert torch.equal(student.weight, plain.weight)


def test_recover_keeps_distillation_where_it_wins(task):
    student, teacher, train, validation = task
    epochs = []
    found = distill.recover(
        lambda: copy.deepcopy(student), teacher, train, validation, CFG, epochs.append
    )
    assert found.winner == "distilled"
    assert found.difference > 0
    assert len(epochs) == len(found.distilled.epochs) + len(found.fine_tuned.epochs)
    kept = loop.evaluate(found.net, validation).quality
    assert kept == found.distilled.best.quality


def test_recover_keeps_fine_tuning_where_the_teacher_misleads(task):
    student, teacher, train, validation = task
    everything = Batch(train.inputs, train.labels, torch.arange(len(train.labels)))
    clean = loop.Tensors(train.inputs, teacher(everything).argmax(1))
    found = distill.recover(
        lambda: copy.deepcopy(student), lambda batch: -teacher(batch), clean, validation, CFG
    )
    assert found.winner == "fine_tuned"
    assert found.difference < 0
    kept = loop.evaluate(found.net, validation).quality
    assert kept == found.fine_tuned.best.quality


def test_a_tie_goes_to_distillation(task):
    student, teacher, _, validation = task
    clean = loop.Tensors(validation.inputs, validation.labels)
    single = loop.Tensors(validation.inputs[:1], validation.labels[:1])
    found = distill.recover(lambda: copy.deepcopy(student), teacher, clean, single, CFG)
    assert found.difference == 0
    assert found.winner == "distilled"
