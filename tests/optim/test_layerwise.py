"""Lion, LARS and LAMB take the steps of their papers; the latter two see whole parameters wherever the parts lie."""

import numpy as np
import pytest
from optim_cases import parameter

import minidl
from minidl import optim

norm = np.linalg.norm


def lion(p, gradients, lr, betas=(0.9, 0.99), weight_decay=0.0):
    """Chen et al. 2023, algorithm 2; the learning rate eta, weight decay lambda."""
    m = np.zeros_like(p)
    for g in gradients:
        c = betas[0] * m + (1 - betas[0]) * g
        p = p - lr * (np.sign(c) + weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


def lars(w, gradients, lr, momentum=0.9, weight_decay=0.0, trust_coefficient=1e-3):
    """You et al. 2017, algorithm 1; the learning rate gamma, LARS coefficient eta, weight decay beta."""
    v = np.zeros_like(w)
    for g in gradients:
        local_lr = trust_coefficient * norm(w) / (norm(g) + weight_decay * norm(w))
        v = momentum * v + lr * local_lr * (g + weight_decay * w)
        w = w - v
    return w


def lamb(x, gradients, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
    """You et al. 2020, algorithm 2."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        r = m_hat / (np.sqrt(v_hat) + eps)
        x = x - lr * norm(x) / norm(r + weight_decay * x) * (r + weight_decay * x)
    return x


CASES = [
    (optim.Lion, lion, {"lr": 0.01}),
    (optim.Lion, lion, {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    (optim.LARS, lars, {"lr": 1.0}),
    (optim.LARS, lars, {"lr": 2.0, "momentum": 0.0}),
    (optim.LARS, lars, {"lr": 1.0, "momentum": 0.8, "weight_decay": 0.1, "trust_coefficient": 0.01}),
    (optim.LAMB, lamb, {"lr": 0.01}),
    (optim.LAMB, lamb, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("cls", "paper", "options"), CASES, ids=[f"{c.__name__} {o}" for c, _, o in CASES])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
def test_a_hundred_steps_equal_those_of_the_paper(cls, paper, options, dtype, tolerance):
    generator = np.random.default_rng(0)
    start, gradients = generator.standard_normal((30, 20)), generator.standard_normal((100, 30, 20))
    p = parameter(start.astype(dtype))
    optimizer = cls([p], **options)
    for gradient in gradients:
        p.grad = minidl.tensor((gradient * 4).astype(dtype))
        optimizer.step(scale=0.25)
    expected = paper(start.astype(dtype), gradients.astype(dtype), **options)
    assert norm(p.numpy() - expected) < tolerance * norm(expected)


def step_of(cls, values, gradient, **options):
    p = parameter(np.array(values, np.float64))
    p.grad = minidl.tensor(np.array(gradient, np.float64))
    cls([p], **options).step()
    return p.numpy() - values


def test_lion_moves_every_element_by_the_learning_rate():
    step = step_of(optim.Lion, [1.0, 1, 1, 1], [1e-9, -1e9, 3.0, 0.0], lr=0.1)
    np.testing.assert_allclose(step, [-0.1, 0.1, -0.1, 0.0])


@pytest.mark.parametrize("cls", [optim.LARS, optim.LAMB])
def test_the_step_is_in_proportion_to_the_norm_of_the_parameter_whatever_that_of_the_gradient(cls):
    values, gradient = np.array([3.0, -4.0]), np.array([1.0, 2.0])
    step = step_of(cls, values, gradient, lr=0.1)
    # LAMB has an eps, which counts for more the smaller the gradient.
    np.testing.assert_allclose(step_of(cls, values, 1e6 * gradient, lr=0.1), step, rtol=1e-5)
    np.testing.assert_allclose(step_of(cls, 10 * values, gradient, lr=0.1), 10 * step, rtol=1e-5)
    coefficient = 1e-3 if cls is optim.LARS else 1.0
    assert norm(step) == pytest.approx(0.1 * coefficient * 5)


@pytest.mark.parametrize("cls", [optim.LARS, optim.LAMB])
def test_a_bias_of_zeros_moves_and_a_gradient_of_zeros_moves_nothing(cls):
    assert (step_of(cls, np.zeros(3), np.ones(3), lr=0.1) < 0).all()
    np.testing.assert_array_equal(step_of(cls, np.ones(3), np.zeros(3), lr=0.1), 0)


@pytest.mark.parametrize("cls", [optim.LARS, optim.LAMB])
def test_parts_make_the_step_of_the_whole_if_their_squares_are_added_up_and_another_one_if_not(cls):
    generator = np.random.default_rng(0)
    values, gradients = generator.standard_normal(40), generator.standard_normal((3, 40))
    cuts = ((0, 10), (10, 40))
    whole, parts, alone = (
        [parameter(values) for _ in range(number)] for number in (1, 2, 2)
    )  # each of the two updates a part
    for group in (parts, alone):
        for p, cut in zip(group, cuts, strict=True):
            p.updated = p.cut.flat(*cut)
    one, *twos = (cls([p], lr=0.1, weight_decay=0.01) for p in (*whole, *parts))
    loners = [cls([p], lr=0.1, weight_decay=0.01) for p in alone]
    for gradient in gradients:
        for p in (*whole, *parts, *alone):
            p.grad = minidl.tensor(gradient)
        for p, (begin, end) in zip((*parts, *alone), cuts + cuts, strict=True):
            p.share = p.data[begin:end], p.grad.data[begin:end]
        one.step(scale=0.5)
        squares = sum(two.measure(0.5) for two in twos)
        for two, loner in zip(twos, loners, strict=True):
            two.step(scale=0.5, squares=squares)
            loner.step(scale=0.5)
    joined, apart = (np.append(a.numpy()[:10], b.numpy()[10:]) for a, b in (parts, alone))
    np.testing.assert_allclose(joined, whole[0].numpy(), rtol=1e-12)
    assert norm(apart - whole[0].numpy()) > 1e-5
