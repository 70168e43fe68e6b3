"""Muon and Adafactor, which take whole matrices: their steps, and what cannot be shared."""

import numpy as np
import pytest
from optim_cases import parameter

import minidl
from minidl import nn, optim
from minidl.kernels import cpu, meta
from minidl.nn.cut import Cut
from minidl.optim.muon import newton_schulz

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def muon(torch, p, gradients, lr, weight_decay=0.1, nesterov=True, ns_steps=5, adjust_lr_fn=None):
    """PyTorch's Muon with its matrices in the dtype of p."""
    (a, b, c), momentum = COEFFICIENTS, torch.zeros_like(p)
    rows, columns = p.shape
    factor = max(1, rows / columns) ** 0.5 if adjust_lr_fn is None else 0.2 * max(rows, columns) ** 0.5
    for gradient in gradients:
        momentum.lerp_(gradient, 0.05)
        x = gradient.lerp(momentum, 0.95) if nesterov else momentum
        x = x.T if rows > columns else x
        x = x / x.norm()
        for _ in range(ns_steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        p = p * (1 - lr * weight_decay) - lr * factor * (x.T if rows > columns else x)
    return p


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize(
    "options", [{}, dict(weight_decay=0.3, nesterov=False, ns_steps=3, adjust_lr_fn="match_rms_adamw")]
)
def test_muons_steps_are_those_written_out_in_pytorch(shape, options):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    start, *gradients = np.random.default_rng(0).standard_normal((11, *shape))
    mine = parameter(start)
    optimizer = optim.Muon([mine], lr=0.1, **options)
    for gradient in gradients:
        mine.grad = minidl.tensor(gradient)
        optimizer.step()
    expected = muon(torch, torch.tensor(start), map(torch.tensor, gradients), 0.1, **options)
    np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-10, atol=1e-10)
    other = torch.nn.Parameter(torch.tensor(start))  # PyTorch's own, whose matrices are in bfloat16
    theirs = torch.optim.Muon([other], lr=0.1, **options)
    for gradient in gradients:
        other.grad = torch.tensor(gradient)
        theirs.step()
    assert np.linalg.norm(mine.numpy() - other.detach().numpy()) < 0.02 * np.linalg.norm(mine.numpy() - start)


def test_muon_turns_each_matrix_of_a_stack_by_itself_and_steps_elsewhere_as_adamw_does():
    generator = np.random.default_rng(0)
    stack, bias = generator.standard_normal((3, 4, 5)), generator.standard_normal(5)
    whole, alone = parameter(stack), [parameter(matrix) for matrix in stack]
    biases = [parameter(bias) for _ in range(2)]
    optimizers = optim.Muon([whole, biases[0]], lr=0.1), optim.Muon(alone, lr=0.1)
    adam = optim.AdamW([biases[1]], lr=0.1, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.1)
    for _ in range(3):
        gradient, other = generator.standard_normal((3, 4, 5)), generator.standard_normal(5)
        whole.grad = minidl.tensor(gradient)
        for p, g in zip([*alone, *biases], [*gradient, other, other], strict=True):
            p.grad = minidl.tensor(g)
        for optimizer in (*optimizers, adam):
            optimizer.step()
    np.testing.assert_allclose(whole.numpy(), np.stack([p.numpy() for p in alone]), rtol=1e-12)
    np.testing.assert_allclose(biases[0].numpy(), biases[1].numpy(), rtol=1e-12)


def test_newton_schulz_steps_bring_all_singular_values_near_one():
    generator = np.random.default_rng(0)
    (u, _), (v, _) = (np.linalg.qr(generator.standard_normal((2, n, 6))) for n in (6, 11))
    x = u * np.geomspace(1, 100, 6) @ np.swapaxes(v, -1, -2)
    found = np.linalg.svd(newton_schulz(cpu, x, COEFFICIENTS, 8, 1e-7), compute_uv=False)
    assert found.min() > 0.5 and found.max() < 1.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.Muon(p, ns_coefficients=(1, 2)), r"ns_coefficients=\(1, 2\) are not three"),
        (lambda p: optim.Muon(p, ns_steps=100), "ns_steps=100, it must be at least 0 and below 100"),
        (lambda p: optim.Muon(p, adjust_lr_fn="rms"), "adjust_lr_fn='rms', choose one of original, match_rms_adamw"),
        (lambda p: optim.Adafactor(p, beta2_decay=0.8), "beta2_decay=0.8, it must not be positive"),
        (lambda p: optim.Adafactor(p, eps=(None, -1)), r"eps=\(None, -1\), it must be two numbers"),
        (lambda p: optim.Adafactor(p, d=0.5), "d=0.5, it must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make([parameter(np.ones((2, 2)))])


def test_a_part_of_a_matrix_is_refused_but_not_some_matrices_of_a_stack():
    def part(shape, dim):
        return nn.Parameter(Cut(shape).split(dim, 0, 2, axes=("tensor",)), init=nn.init.zeros())

    for cls in (optim.Muon, optim.Adafactor):
        with pytest.raises(ValueError, match=f"{cls.__name__} takes whole parameters, and number 0 is split over ten"):
            cls([part((4, 6), 0)])
    optim.Muon([part((4, 6, 6), 0)])
    with pytest.raises(ValueError, match="split over tensor"):
        optim.Muon([part((4, 6, 6), 1)])
    with pytest.raises(ValueError, match="split over tensor"):
        optim.Adafactor([part((4, 6, 6), 0)])


def test_on_meta_muon_makes_three_products_a_step_of_newton_and_schulz_and_adafactor_keeps_rows_and_columns():
    with minidl.device("meta"):
        layer = nn.Linear(6, 9, bias=False)
        layer(minidl.ones(4, 6)).sum().backward()
    muon, adafactor = (cls(layer.parameters()) for cls in (optim.Muon, optim.Adafactor))
    for optimizer in (muon, adafactor):
        optimizer.step()
    with meta.record() as calls:
        muon.step()
    flops = [call.flops for call in calls if call.kind == "product"]
    assert flops == 5 * [2 * 6 * 6 * 9, 2 * 6 * 6 * 6, 2 * 6 * 6 * 9]
    assert muon.state_bytes == 4 * 6 * 9 and adafactor.state_bytes == 4 * (6 + 9)
