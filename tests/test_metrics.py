"""Metrics by hand, by closed forms, and the same in one batch or in many."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import metrics, nn

ANSWERS = np.array([0, 1, 1, 2, 2, 2, 0, 1])
TARGET = np.array([0, 1, 2, 2, 2, 0, 0, 0])
MATRIX = [[2, 1, 1], [0, 1, 0], [0, 1, 2]]  # rows: the targets
HITS, GIVEN, TRUE = np.array([2, 1, 2]), np.array([2, 3, 3]), np.array([4, 1, 3])
RATIOS = {
    metrics.precision: HITS / GIVEN,
    metrics.recall: HITS / TRUE,
    metrics.f1: 2 * HITS / (GIVEN + TRUE),
}


def test_the_confusion_matrix_by_hand():
    matrix = metrics.confusion_matrix(ANSWERS, TARGET)
    assert matrix.tolist() == MATRIX and matrix.dtype == np.int64
    assert metrics.confusion_matrix(ANSWERS, TARGET, classes=4).shape == (4, 4)
    assert metrics.confusion_matrix(np.array([], int), np.array([], int)).shape == (0, 0)


@pytest.mark.parametrize("metric", RATIOS, ids=lambda metric: metric.__name__)
def test_precision_recall_and_f1_by_hand(metric):
    each = RATIOS[metric]
    np.testing.assert_allclose(metric(ANSWERS, TARGET, None), each)
    assert metric(ANSWERS, TARGET, "macro") == pytest.approx(each.mean())
    assert metric(ANSWERS, TARGET, "weighted") == pytest.approx((each * TRUE).sum() / 8)
    assert metric(ANSWERS, TARGET, "micro") == pytest.approx(5 / 8) == metrics.accuracy(ANSWERS, TARGET)
    of_class_2 = metric(ANSWERS == 2, TARGET == 2)
    assert of_class_2 == pytest.approx(each[2])


@pytest.mark.parametrize("metric", RATIOS, ids=lambda metric: metric.__name__)
def test_a_ratio_of_0_to_0_is_zero_division_and_nan_leaves_it_out(metric):
    never = np.zeros(4, int)
    assert metric(never, never) == 0
    assert metric(never, never, zero_division=1.0) == 1
    assert math.isnan(metric(never, never, zero_division=math.nan))
    assert metric(never, never, "macro") == 1  # only class 0 occurs
    answers, target = np.array([0, 0, 2]), np.array([0, 1, 0])  # 1 is never given, 2 never true
    if metric is metrics.precision:
        assert metric(answers, target, None).tolist() == [0.5, 0, 0]
        assert metric(answers, target, "macro") == pytest.approx(0.5 / 3)
        assert metric(answers, target, "macro", zero_division=math.nan) == pytest.approx(0.5 / 2)


@given(st.integers(1, 6), st.integers(0, 40), st.integers(0, 99))
def test_batches_give_what_the_whole_gives(classes, n, seed):
    g = np.random.default_rng(seed)
    scores, target = g.standard_normal((n, classes)), g.integers(classes, size=n)
    target[g.random(n) < 0.2] = -100
    for make in (
        metrics.Accuracy,
        lambda: metrics.Accuracy(top_k=min(2, classes)),
        metrics.ConfusionMatrix,
        lambda: metrics.F1("macro"),
        lambda: metrics.Precision("weighted"),
        lambda: metrics.Recall(None),
        metrics.Perplexity,
    ):
        whole, parts = make(), make()
        whole.update(scores, target)
        for part in np.array_split(np.arange(n), 3):
            parts.update(minidl.tensor(scores[part]), minidl.tensor(target[part]))
        np.testing.assert_allclose(parts.compute(), whole.compute(), rtol=1e-12)
        parts.reset()
        parts.update(scores, target)
        np.testing.assert_allclose(parts.compute(), whole.compute())


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 99))
def test_top_k_counts_the_targets_among_the_k_largest_scores(classes, n, seed):
    g = np.random.default_rng(seed)
    scores, target = g.standard_normal((n, classes)), g.integers(classes, size=n)
    places = np.argsort(-scores, 1)
    for k in range(1, classes + 1):
        assert metrics.accuracy(scores, target, k) == np.mean((places[:, :k] == target[:, None]).any(1))
    assert metrics.accuracy(scores, target, classes) == 1


def test_equal_scores_are_ranked_by_their_place_and_no_number_is_never_right():
    scores = np.array([[1.0, 1.0, 0.0]] * 3)
    assert metrics.accuracy(scores, np.array([0, 1, 2])) == pytest.approx(1 / 3)
    assert metrics.accuracy(scores, np.array([0, 1, 2]), 2) == pytest.approx(2 / 3)
    assert metrics.accuracy(np.full((2, 3), np.nan), np.array([0, 1]), 2) == 0


def test_targets_that_are_ignored_do_not_count():
    target = np.where(np.arange(8) < 2, -100, TARGET)
    assert metrics.accuracy(ANSWERS, target) == 3 / 6
    assert metrics.confusion_matrix(ANSWERS, target).sum() == 6
    assert metrics.accuracy(ANSWERS, TARGET, ignore_index=2) == 3 / 5


def test_the_perplexity_of_an_even_guess_is_the_number_of_classes():
    assert metrics.perplexity(np.zeros((2, 5, 7)), np.zeros((2, 5), int)) == pytest.approx(7)
    scores, target = np.random.default_rng(0).standard_normal((4, 6)), np.array([0, 5, 2, -100])
    loss = nn.CrossEntropyLoss()(minidl.tensor(scores), minidl.tensor(target))
    assert metrics.perplexity(scores, target) == pytest.approx(math.exp(loss.item()))
    assert metrics.perplexity(np.array([[-2e3, 0]]), np.array([0])) == math.inf


def test_of_nothing_accuracy_and_perplexity_are_nan():
    assert math.isnan(metrics.Accuracy().compute()) and math.isnan(metrics.Perplexity().compute())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy(ANSWERS, TARGET[:3]), r"targets of shape \(3,\) need as many answers"),
        (lambda: metrics.accuracy(np.ones((2, 3)), TARGET[:2], 4), r"top_k=4 of targets \(2,\) needs scores"),
        (lambda: metrics.accuracy(np.ones((2, 3)), np.array([0, 3]), 2), r"target lie in \[0, 3\].*in \[0, 3\)"),
        (lambda: metrics.Accuracy(0), "top_k=0"),
        (lambda: metrics.f1(ANSWERS, TARGET), r'average="binary" is of two classes, these are 3'),
        (lambda: metrics.F1("mean"), "average='mean'"),
        (lambda: metrics.confusion_matrix(ANSWERS, TARGET, 2), r"output lie in \[0, 2\], they must be in \[0, 2\)"),
        (lambda: metrics.confusion_matrix(ANSWERS - 1, TARGET), "must be at least 0"),
        (lambda: metrics.perplexity(np.ones((2, 3)), np.array([0, 3])), r"the classes in \[0, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_probabilities_are_no_answers():
    with pytest.raises(TypeError, match=r"\(p > 0.5\)"):
        metrics.accuracy(np.array([0.2, 0.7]), np.array([0, 1]))
