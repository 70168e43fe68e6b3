"""Losses are sums and weights, however the batch is cut; what does not fit is refused."""

import itertools
import pickle

import cloudpickle
import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.nn import functional
from minidl.testing import gradcheck, gradgradcheck

LOGITS = np.random.default_rng(0).standard_normal((7, 3, 5), np.float32)
TARGET = np.random.default_rng(1).integers(5, size=(7, 3))
WEIGHT = minidl.tensor([0.5, 1.0, 2.0, 0.0, 3.0])
PARTS = (slice(0, 2), slice(2, 2), slice(2, 7))


def tensors(*arrays):
    return [minidl.tensor(a) for a in arrays]


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(WEIGHT, ignore_index=2, label_smoothing=0.1),
        nn.NLLLoss(WEIGHT),
    ],
    ids=repr,
)
def test_the_sums_and_weights_of_parts_give_the_loss_of_the_whole(loss):
    whole = loss(*tensors(LOGITS, TARGET)).item()
    parts = [loss.sum_and_weight(*tensors(LOGITS[part], TARGET[part])) for part in PARTS]
    assert sum(total.item() for total, _ in parts) / sum(float(w) for _, w in parts) == pytest.approx(whole, rel=1e-6)


def test_the_weight_counts_the_targets_that_count():
    counts = [nn.CrossEntropyLoss().sum_and_weight(*tensors(LOGITS[part], TARGET[part]))[1] for part in PARTS]
    assert [float(count) for count in counts] == [6, 0, 15]
    _, weight = nn.CrossEntropyLoss(WEIGHT, ignore_index=2).sum_and_weight(*tensors(LOGITS, TARGET))
    assert float(weight) == pytest.approx(WEIGHT.numpy()[TARGET[TARGET != 2]].sum())


def test_one_kernel_and_the_composition_of_ops_give_the_same_cross_entropy():
    fused, composed = nn.CrossEntropyLoss(ignore_index=1), nn.CrossEntropyLoss(minidl.ones(5), ignore_index=1)
    results = []
    for loss in (fused, composed):
        x = minidl.tensor(LOGITS, requires_grad=True)
        value = loss(x, minidl.tensor(TARGET))
        value.backward()
        results.append((value.item(), x.grad.numpy()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-8)
    assert not results[0][1][TARGET == 1].any()


def test_language_model_logits_equal_those_reshaped_to_rows():
    loss = nn.CrossEntropyLoss()
    rows = loss(*tensors(LOGITS.reshape(21, 5), TARGET.reshape(21)))
    assert loss(*tensors(LOGITS, TARGET)).item() == rows.item()


def test_classes_in_another_dimension_equal_those_moved_last():
    expected = nn.CrossEntropyLoss()(*tensors(LOGITS, TARGET)).item()
    assert nn.CrossEntropyLoss(dim=1)(*tensors(LOGITS.transpose(0, 2, 1), TARGET)).item() == pytest.approx(expected)
    assert nn.CrossEntropyLoss(dim=0)(*tensors(LOGITS.transpose(2, 0, 1), TARGET)).item() == pytest.approx(expected)


def test_a_distribution_of_one_class_is_its_label():
    one_hot = np.eye(5, dtype=np.float32)[TARGET]
    for options in ({}, {"label_smoothing": 0.2}):
        loss = nn.CrossEntropyLoss(**options)
        assert loss(*tensors(LOGITS, one_hot)).item() == pytest.approx(loss(*tensors(LOGITS, TARGET)).item(), rel=1e-6)


def test_losses_of_numbers_by_hand():
    a, b = minidl.tensor([[1.0, 2.0]]), minidl.tensor([[3.0, 2.5]])
    assert nn.MSELoss()(a, b).item() == (4 + 0.25) / 2
    assert nn.MSELoss(reduction="sum")(a, b).item() == 4.25
    assert nn.L1Loss(reduction="none")(a, b).numpy().tolist() == [[2, 0.5]]
    assert nn.HuberLoss("none")(a, b).numpy().tolist() == [[1.5, 0.125]]
    assert nn.SmoothL1Loss(reduction="none", beta=0.5)(a, b).numpy().tolist() == [[1.75, 0.25]]
    assert nn.MSELoss().sum_and_weight(a, b)[1] == 2


def test_the_overlap_of_boxes_by_hand():
    boxes = minidl.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [4, 0, 6, 2]])
    iou = np.array([[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 1]])
    neither = np.array([[0, 2 / 9, 1 / 3], [2 / 9, 0, 7 / 15], [1 / 3, 7 / 15, 0]])
    np.testing.assert_allclose(functional.box_iou(boxes, boxes).numpy(), iou, atol=1e-6)
    np.testing.assert_allclose(functional.generalized_box_iou(boxes, boxes).numpy(), iou - neither, atol=1e-6)
    for loss, expected in ((nn.IoULoss(reduction="none"), 1 - iou), (nn.GIoULoss(reduction="none"), 1 - iou + neither)):
        np.testing.assert_allclose(loss(boxes[:2], boxes[1:]).numpy(), expected[[0, 1], [1, 2]], atol=1e-6)


def test_boxes_that_do_not_meet_have_a_slope_in_giou_only():
    for loss, sloped in ((nn.IoULoss(), False), (nn.GIoULoss(), True)):
        box = minidl.tensor([[0.0, 0, 1, 1]], requires_grad=True)
        loss(box, minidl.tensor([[2.0, 0, 3, 1]])).backward()
        assert box.grad.numpy().any() == sloped


def test_right_answers_are_counted_among_those_that_count():
    output, target = minidl.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 1.0]]), minidl.tensor([1, 1, -100])
    assert [float(n) for n in nn.CrossEntropyLoss().right_answers(output, target)] == [1, 2]
    assert [float(n) for n in nn.MSELoss().right_answers(output, output)] == [0, 0]


class Perceptron(nn.Loss):
    """A user's loss that has no elements."""

    def sum_and_weight(self, output, target):
        return minidl.relu(-output * target).sum(), target.numel()


def test_a_loss_of_ones_own_needs_no_more_than_sum_and_weight():
    assert Perceptron()(*tensors(np.array([1.0, -2.0]), np.array([1.0, 1.0]))).item() == 1
    with pytest.raises(NotImplementedError, match="Perceptron has no elements_and_weight"):
        Perceptron(reduction="none")(minidl.ones(2), minidl.ones(2))


def test_losses_have_shapes_on_meta():
    with minidl.device("meta"):
        logits, labels, box = minidl.ones(4, 3).requires_grad_(), minidl.zeros(4, dtype="int64"), minidl.ones(4, 4)
        for loss, target in [
            (nn.CrossEntropyLoss(), labels),
            (nn.CrossEntropyLoss(minidl.tensor([1.0, 2.0, 3.0], device="cpu"), label_smoothing=0.1), labels),
            (nn.NLLLoss(), labels),
            (nn.CrossEntropyLoss(), logits),
            (nn.BCELoss(), logits),
            (nn.BCEWithLogitsLoss(), logits),
            (nn.FocalLoss(), logits),
            (nn.KLDivLoss(reduction="batchmean"), logits),
            (nn.HuberLoss(), logits),
        ]:
            total, _ = loss.sum_and_weight(logits, target)
            assert total.shape == () == loss(logits, target).shape
            total.backward()
        assert nn.GIoULoss()(box, box).shape == ()


ROWS, LABELS = minidl.ones(2, 3), minidl.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.MSELoss(reduction="average"), "reduction='average', it must be one of \"mean\", \"sum\", \"none\""),
        (lambda: nn.MSELoss()(ROWS, minidl.ones(3)), r"\(2, 3\), the target \(3,\)"),
        (lambda: nn.BCELoss()(ROWS, minidl.ones(2)), r"BCELoss: the output has shape \(2, 3\), the target \(2,\)"),
        (lambda: nn.BCELoss()(2 * ROWS, ROWS), r"probabilities lie in \[2.0, 2.0\]"),
        (lambda: nn.BCELoss()(ROWS, 2 * ROWS), r"targets lie in \[2.0, 2.0\]"),
        (lambda: nn.BCELoss(minidl.ones(4, 2, 3))(ROWS, ROWS), r"weight of shape \(4, 2, 3\) does not broadcast to"),
        (lambda: nn.BCEWithLogitsLoss(minidl.ones(2, 3))(ROWS[0], ROWS[0]), r"weight of shape \(2, 3\) does not"),
        (lambda: nn.BCEWithLogitsLoss(pos_weight=minidl.ones(2))(ROWS, ROWS), r"pos_weight of shape \(2,\) does not"),
        (lambda: nn.CrossEntropyLoss(ignore_index=1)(ROWS, ROWS), "ignore_index=1, but targets of floats have no"),
        (lambda: nn.HuberLoss(delta=0), "delta=0, it must be above 0"),
        (lambda: nn.SmoothL1Loss(beta=-1), "beta=-1, it must be at least 0"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2), "label_smoothing=2, it must be between 0 and 1"),
        (lambda: nn.CrossEntropyLoss(minidl.ones(2))(ROWS, LABELS), r"weight has shape \(2,\).*is \(3,\)"),
        (lambda: nn.CrossEntropyLoss()(ROWS, minidl.tensor([1])), r"dimension 1 needs targets \(2,\), not \(1,\)$"),
        (lambda: nn.CrossEntropyLoss()(minidl.ones(2, 3, 4), minidl.zeros(2, 4, dtype="int64")), "say dim=1"),
        (lambda: nn.CrossEntropyLoss()(ROWS, minidl.ones(2)), r"\(2, 3\), not \(2,\); labels are integers"),
        (lambda: nn.FocalLoss(alpha=1.5), "alpha=1.5, it must be between 0 and 1"),
        (lambda: nn.KLDivLoss(reduction="batch"), "batchmean"),
        (lambda: nn.IoULoss()(ROWS, ROWS), r"needs boxes \(..., 4\) of corners"),
        (lambda: functional.box_iou(minidl.ones(4), minidl.ones(2, 4)), r"boxes \(n, 4\) with boxes \(m, 4\)"),
        (lambda: nn.CosineEmbeddingLoss()(ROWS, ROWS, minidl.ones(3)), r"a target \(batch,\)"),
        (lambda: nn.CosineEmbeddingLoss(margin=2), "margin=2, it must be between -1 and 1"),
        (lambda: nn.TripletMarginLoss()(ROWS, ROWS, minidl.ones(3)), "of one shape"),
        (lambda: nn.TripletMarginLoss(p=0), "p=0, it must be above 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


LABEL, SHARES = minidl.tensor([1]), minidl.tensor([[0.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("make", "names", "target"),
    [
        (lambda w: nn.CrossEntropyLoss(w, label_smoothing=0.1), ["weight"], LABEL),
        (lambda w: nn.NLLLoss(w, reduction="sum"), ["weight"], LABEL),
        (lambda w: nn.BCELoss(w), ["weight"], SHARES),
        (lambda w: nn.BCEWithLogitsLoss(w), ["weight"], SHARES),
        (lambda w: nn.BCEWithLogitsLoss(pos_weight=w), ["pos_weight"], SHARES),
        (lambda w: nn.BCEWithLogitsLoss(w, pos_weight=w), ["pos_weight", "weight"], SHARES),
    ],
)
def test_the_weights_of_a_loss_are_its_state(make, names, target):
    loss, other = make(minidl.tensor([0.5, 2.0, 1.5])), make(minidl.ones(3))
    inputs = minidl.tensor([[0.2, 0.9, 0.4]]), target
    expected = loss(*inputs).item()
    assert sorted(loss.state_dict()) == sorted(name for name, _ in loss.named_buffers()) == names
    assert other(*inputs).item() != expected
    other.load_state_dict(loss.state_dict())
    assert other(*inputs).item() == expected == pickle.loads(cloudpickle.dumps(loss))(*inputs).item()
    loss.to("float64")
    assert all(buffer.dtype == minidl.float64 for buffer in loss.buffers())
    assert loss(*inputs).dtype == minidl.float32
    with pytest.raises(ValueError, match="requires a gradient and gets none here"):
        make(minidl.ones(3, requires_grad=True))


def test_class_weights_are_a_tensor():
    for loss, options in (
        (nn.CrossEntropyLoss, {"weight": [1, 2]}),
        (nn.BCELoss, {"weight": 2.0}),
        (nn.BCEWithLogitsLoss, {"pos_weight": 2.0}),
    ):
        with pytest.raises(TypeError, match="weight must be a tensor"):
            loss(**options)


def test_labels_are_integers():
    with pytest.raises(TypeError, match="class indices of dtype int64, not bool"):
        nn.CrossEntropyLoss()(ROWS, minidl.zeros(2, dtype="bool"))


def test_a_dimension_that_is_not_there_is_refused():
    for dim, target in itertools.product((2, -3), (LABELS, minidl.ones(*ROWS.shape))):
        with pytest.raises(IndexError, match=rf"an output of shape \(2, 3\) has no dim={dim}"):
            nn.CrossEntropyLoss(dim=dim)(ROWS, target)


@pytest.mark.parametrize("again", ["retain_graph", "create_graph"])
def test_a_tape_that_is_kept_gives_the_gradient_of_cross_entropy_again(again):
    x = minidl.tensor(LOGITS, requires_grad=True)
    loss = nn.CrossEntropyLoss()(x, minidl.tensor(TARGET))
    loss.backward(**{again: True})
    first, x.grad = x.grad.numpy(), None
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), first, rtol=1e-6)


SMOOTH = np.random.default_rng(2).standard_normal((3, 4))
SIGNS = np.array([1, -1, 1])


@pytest.mark.parametrize(
    ("loss", "inputs"),
    [
        (nn.CrossEntropyLoss(ignore_index=1), (SMOOTH, np.array([0, 1, 3]))),
        (nn.CrossEntropyLoss(WEIGHT[:4], label_smoothing=0.1), (SMOOTH, np.array([0, 1, 2]))),
        (nn.CrossEntropyLoss(), (SMOOTH, np.abs(SMOOTH))),
        (nn.NLLLoss(WEIGHT[:4]), (SMOOTH, np.array([0, 1, 2]))),
        (nn.KLDivLoss(reduction="batchmean"), (SMOOTH, np.abs(SMOOTH))),
        (nn.BCELoss(), (np.exp(-np.abs(SMOOTH)), np.exp(-np.abs(SMOOTH.T.reshape(3, 4))))),
        (nn.BCEWithLogitsLoss(pos_weight=WEIGHT[:4]), (SMOOTH, np.abs(SMOOTH))),
        (nn.FocalLoss(), (SMOOTH, np.eye(3, 4))),
        (nn.HuberLoss(delta=0.5), (SMOOTH, np.zeros((3, 4)))),
        (nn.GIoULoss(), (SMOOTH + np.array([0, 0, 5, 5]), np.tile([0.1, 0.2, 4, 5], (3, 1)))),
        (nn.CosineEmbeddingLoss(), (SMOOTH, SMOOTH[::-1].copy(), SIGNS)),
        (nn.TripletMarginLoss(swap=True), (SMOOTH, SMOOTH[::-1] + 1, SMOOTH[::-1] * 2)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Loss) else "",
)
def test_first_and_second_derivatives_equal_finite_differences(loss, inputs):
    gradcheck(loss, *inputs)
    gradgradcheck(loss, *inputs, tolerance=1e-4)
