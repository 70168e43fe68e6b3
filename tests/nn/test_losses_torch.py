"""Every loss gives PyTorch's value and gradient, over its options, in float64."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.nn import functional as ours

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
theirs = torch.nn.functional

SEEDS = st.integers(0, 2**16)
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
SIZES = st.integers(1, 5)


def assert_same(function, expected, *inputs, rtol=1e-9, atol=1e-12):
    """Both functions give one value, and one gradient of each input of floats."""
    mine = [minidl.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    with np.errstate(invalid="ignore"):  # the mean of nothing
        out, reference = function(*mine), expected(*other)
    np.testing.assert_allclose(out.numpy(), reference.detach().numpy(), rtol=rtol, atol=atol)
    assert out.shape == tuple(reference.shape) and out.dtype == inputs[0].dtype
    grad = np.random.default_rng(0).uniform(0.5, 1.5, out.shape).astype(out.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        out.backward(minidl.tensor(grad))
    reference.backward(torch.tensor(grad))
    for a, b in zip(mine, other, strict=True):
        if b.grad is not None:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=rtol, atol=atol)


def both(name, **options):
    """The function of this name, here and in PyTorch, with these options, arrays being made tensors."""

    def bind(functions, tensor):
        found = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return lambda *inputs, **more: getattr(functions, name)(*inputs, **found, **more)

    return bind(ours, minidl.tensor), bind(theirs, torch.tensor)


OF_NUMBERS = [("mse_loss", {}), ("l1_loss", {}), ("smooth_l1_loss", {}), ("smooth_l1_loss", {"beta": 0.3}),
              ("smooth_l1_loss", {"beta": 0.0}), ("huber_loss", {"delta": 0.7})]  # fmt: skip


@given(st.sampled_from(OF_NUMBERS), SHAPES, REDUCTIONS, SEEDS)
def test_losses_of_numbers(case, shape, reduction, seed):
    name, options = case
    x, y = np.random.default_rng(seed).standard_normal((2, *shape)).round(1)  # some are equal, some exactly apart
    assert_same(*both(name, reduction=reduction, **options), np.asarray(x), np.asarray(y))


@st.composite
def classification(draw):
    """Scores (batch, classes, d1, …) as PyTorch has them, labels, and options."""
    g = np.random.default_rng(draw(SEEDS))
    batch, classes, rest = draw(SIZES), draw(SIZES), draw(st.lists(st.integers(1, 3), max_size=2))
    scores = g.standard_normal((batch, classes, *rest)) * draw(st.sampled_from([1, 30, 1000]))
    labels = g.integers(classes, size=(batch, *rest))
    options = {"reduction": draw(REDUCTIONS), "ignore_index": draw(st.sampled_from([-100, 0, -1]))}
    labels[g.random(labels.shape) < draw(st.sampled_from([0, 0.5]))] = options["ignore_index"]
    if draw(st.booleans()):
        options["weight"] = g.uniform(0.1, 2, classes)
    return scores, labels, options


def along_1(function):
    """Gives PyTorch's layout to our functions by dim=1, and by classes moved last."""
    return lambda *inputs: function(*inputs, dim=1)


def moved_last(function):
    return lambda x, y: function(x.permute([0, *range(2, x.ndim), 1]), y)


@pytest.mark.parametrize("layout", [along_1, moved_last])
@given(case=classification(), smoothing=st.sampled_from([0.0, 0.0, 0.2, 1.0]))
@settings(max_examples=40)
def test_cross_entropy_of_labels(layout, case, smoothing):
    scores, labels, options = case
    assume(not smoothing or (labels != options["ignore_index"]).any())
    mine, other = both("cross_entropy", label_smoothing=smoothing, **options)
    assert_same(layout(mine), other, scores, labels, atol=1e-10)


@pytest.mark.parametrize("layout", [along_1, moved_last])
@given(case=classification())
def test_negative_log_likelihood(layout, case):
    scores, labels, options = case
    mine, other = both("nll_loss", **options)
    assert_same(layout(mine), other, scores, labels)


@given(classification(), st.sampled_from([0.0, 0.3]), SEEDS)
def test_cross_entropy_of_distributions(case, smoothing, seed):
    scores, _, options = case
    del options["ignore_index"]
    target = np.random.default_rng(seed).dirichlet(np.ones(scores.shape[1]), scores[:, 0].shape)
    mine, other = both("cross_entropy", label_smoothing=smoothing, **options)
    assert_same(along_1(mine), other, scores, np.ascontiguousarray(np.moveaxis(target, -1, 1)), atol=1e-9)


def test_a_target_of_no_class_among_others_is_refused_with_and_without_class_weights():
    for options in ({}, {"weight": minidl.ones(3)}, {"label_smoothing": 0.1}, {"reduction": "none"}):
        for wrong in (3, -1, -99):
            with pytest.raises(ValueError, match=rf"targets lie in \[.*{wrong}.*\], the classes in \[0, 3\)"):
                ours.cross_entropy(minidl.ones(2, 3), minidl.tensor([0, wrong]), **options)


@given(SHAPES, REDUCTIONS, st.booleans(), SEEDS)
def test_binary_cross_entropy(shape, reduction, weighted, seed):
    g = np.random.default_rng(seed)
    p = np.asarray(g.choice([0, 1, 0.5, 1e-30, 0.2, 0.99], size=shape))
    y = np.asarray(g.choice([0, 1, 0.3], size=shape))
    weight = np.asarray(g.uniform(0.5, 2, shape[-1:])) if weighted else None
    mine, other = both("binary_cross_entropy", reduction=reduction, weight=weight)
    frozen = minidl.tensor(y), torch.tensor(y)  # PyTorch's derivative by the target is infinite at p = 0
    assert_same(lambda x: mine(x, frozen[0]), lambda x: other(x, frozen[1]), p, rtol=1e-7)


@given(SHAPES, REDUCTIONS, st.booleans(), st.booleans(), st.sampled_from([1, 50, 1000]), SEEDS)
def test_binary_cross_entropy_of_logits(shape, reduction, weighted, positive, scale, seed):
    g = np.random.default_rng(seed)
    x, y = np.asarray(g.standard_normal(shape) * scale), np.asarray(g.choice([0, 1, 0.3], size=shape))
    options = {"weight": np.asarray(g.uniform(0.5, 2, shape[-1:])) if weighted else None,
               "pos_weight": np.asarray(g.uniform(0.5, 2, shape[-1:])) if positive else None}  # fmt: skip
    assert_same(*both("binary_cross_entropy_with_logits", reduction=reduction, **options), x, y)


@given(SHAPES.filter(len), st.sampled_from(["mean", "batchmean", "sum", "none"]), st.booleans(), SEEDS)
@pytest.mark.filterwarnings("ignore:reduction")
def test_kl_divergence(shape, reduction, log_target, seed):
    g = np.random.default_rng(seed)
    x, y = g.standard_normal((2, *shape))
    if reduction == "batchmean" and not shape[0]:
        reduction = "sum"
    if not log_target:
        y = np.maximum(y, 0)  # with zeros
    mine, other = both("kl_div", reduction=reduction, log_target=log_target)
    frozen = minidl.tensor(y), torch.tensor(y)  # PyTorch's derivative by a target of 0 is not a number
    assert_same(lambda x: mine(x, frozen[0]), lambda x: other(x, frozen[1]), x)
    assert_same(mine, other, x, np.abs(y) + 0.1)


def sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction):
    """As in torchvision.ops."""
    p = torch.sigmoid(inputs)
    ce = theirs.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    loss = ce * (1 - (p * targets + (1 - p) * (1 - targets))) ** gamma
    if alpha >= 0:
        loss = (alpha * targets + (1 - alpha) * (1 - targets)) * loss
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


@given(SHAPES, REDUCTIONS, st.sampled_from([0.25, 0.0, -1]), st.sampled_from([2.0, 0.0, 1.5]), SEEDS)
def test_focal_loss(shape, reduction, alpha, gamma, seed):
    g = np.random.default_rng(seed)
    x, y = np.asarray(4 * g.standard_normal(shape)), np.asarray(g.integers(2, size=shape), np.float64)
    options = dict(alpha=alpha, gamma=gamma, reduction=reduction)
    assert_same(lambda *a: ours.sigmoid_focal_loss(*a, **options), lambda *a: sigmoid_focal_loss(*a, **options), x, y)


def boxes(g, *shape):
    corners = g.uniform(0, 2, (*shape, 2))
    return np.concatenate([corners, corners + g.uniform(0.1, 2, (*shape, 2))], -1)


def areas(a, b):
    """Intersection, union and hull, as torchvision.ops computes them."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    intersection = sides.prod(-1)
    return intersection, sum((x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)) - intersection, hull.prod(-1)


def box_iou(a, b):
    intersection, union, _ = areas(a[:, None], b)
    return intersection / union


def generalized_box_iou(a, b):
    intersection, union, hull = areas(a[:, None], b)
    return intersection / union - (hull - union) / hull


def generalized_box_iou_loss(a, b, reduction, eps=1e-7):
    intersection, union, hull = areas(a, b)
    loss = 1 - intersection / (union + eps) + (hull - union) / (hull + eps)
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


@given(st.integers(0, 4), st.integers(0, 4), SEEDS)
def test_the_overlap_of_pairs_of_boxes(n, m, seed):
    g = np.random.default_rng(seed)
    for mine, other in ((ours.box_iou, box_iou), (ours.generalized_box_iou, generalized_box_iou)):
        assert_same(mine, other, boxes(g, n), boxes(g, m))


@given(SHAPES, REDUCTIONS, SEEDS)
def test_the_overlap_loss_of_boxes(shape, reduction, seed):
    g = np.random.default_rng(seed)
    mine, other = (
        (lambda f: lambda *a: f(*a, reduction=reduction))(ours.generalized_box_iou_loss),
        (lambda *a: generalized_box_iou_loss(*a, reduction)),
    )
    assert_same(mine, other, boxes(g, *shape), boxes(g, *shape))


@given(SHAPES.filter(len), st.data(), SEEDS)
def test_cosine_similarity(shape, data, seed):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, y = np.random.default_rng(seed).standard_normal((2, *shape))
    x[:1] *= 0  # a vector of zeros
    assert_same(*both("cosine_similarity", dim=dim), x, y)


BROADCAST = [
    ((3, 4), (1, 4)),
    ((3, 4), (4,)),
    ((3, 4), (3, 1)),
    ((2, 3, 4), (3, 4)),
    ((3, 4), ()),
    ((3, 1, 4), (1, 5, 4)),
]


@pytest.mark.parametrize("shapes", BROADCAST, ids=str)
def test_vectors_of_several_shapes_are_broadcast_before_they_are_compared(shapes):
    x, y = (np.asarray(np.random.default_rng(0).standard_normal(shape)) for shape in shapes)
    for one, two in ((x, y), (y, x)):
        for dim in range(-2, 2):
            assert_same(*both("cosine_similarity", dim=dim), one, two)
        for p in (1.0, 2.0, 3.0, np.inf):
            assert_same(*both("pairwise_distance", p=p), one, two)
    with pytest.raises(ValueError, match=r"cosine_similarity: shapes \(3, 4\) and \(2, 4\) do not broadcast"):
        ours.cosine_similarity(minidl.ones(3, 4), minidl.ones(2, 4))
    for p in (0, -np.inf):
        with pytest.raises(ValueError, match="it must be above 0"):
            ours.pairwise_distance(minidl.ones(3, 4), minidl.ones(3, 4), p)


@given(st.integers(0, 4), SIZES, st.sampled_from([0.0, 0.4, -0.5]), REDUCTIONS, SEEDS)
def test_cosine_embedding_loss(batch, width, margin, reduction, seed):
    g = np.random.default_rng(seed)
    x, y = (v + np.sign(v) for v in g.standard_normal((2, batch, width)))  # PyTorch adds 1e-12 to their squares
    target = g.choice([-1, 1], size=batch)
    assert_same(*both("cosine_embedding_loss", margin=margin, reduction=reduction), x, y, target, atol=1e-9)


@given(st.integers(0, 4), SIZES, st.sampled_from([2.0, 1.0, 3.0, 1.5, np.inf]), st.booleans(), REDUCTIONS, SEEDS)
def test_triplet_margin_loss(batch, width, p, swap, reduction, seed):
    inputs = np.random.default_rng(seed).standard_normal((3, batch, width))
    assert_same(*both("triplet_margin_loss", p=p, swap=swap, reduction=reduction), *inputs, atol=1e-9)


def test_the_distance_of_equal_points_has_the_gradient_0():
    x = np.ones((2, 3))
    assert_same(*both("pairwise_distance", eps=0.0), x, x)


@pytest.mark.filterwarnings("error")
def test_logits_of_any_size_give_finite_losses_in_float32():
    x = np.array([[1e4, -1e4], [-88, 90], [-1e30, 1e30]], np.float32)
    y = np.array([[0, 1], [1, 0], [0, 0]], np.float32)
    assert_same(*both("binary_cross_entropy_with_logits"), x, y, rtol=1e-6)
    assert_same(*both("cross_entropy"), x, np.array([1, 0, 0]), rtol=1e-6)
    assert_same(*both("cross_entropy", label_smoothing=0.1), x, np.array([1, 0, 0]), rtol=1e-6)
    assert_same(*both("logsigmoid"), x.ravel(), rtol=1e-6)


def test_the_classes_are_those_of_pytorch():
    """The same names, and of the arguments that both have, the same order and defaults."""
    import inspect

    for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "CrossEntropyLoss", "NLLLoss", "BCELoss",
                 "BCEWithLogitsLoss", "KLDivLoss", "CosineEmbeddingLoss", "TripletMarginLoss"):  # fmt: skip
        mine = inspect.signature(getattr(nn, name)).parameters
        other = inspect.signature(getattr(torch.nn, name)).parameters
        shared = [p for p in other if p in mine]
        assert [p for p in mine if p in other] == shared, name
        assert all(mine[p].default == other[p].default for p in shared), name
