"""Optimizers take PyTorch's steps, whole or in parts."""

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.optim import schedules

SIZE = 40_000  # more than one cache block
CASES = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "weight_decay": 0.05}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (optim.Adam, {"lr": 0.01}),
    (optim.Adam, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
]
IDS = [f"{cls.__name__} {options}" for cls, options in CASES]


def parameter(values):
    p = nn.Parameter(values.shape, nn.init.constant(0), dtype=values.dtype)
    p.set_whole(values)
    return p


@pytest.mark.parametrize(("cls", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_hundred_steps_equal_those_of_pytorch(cls, options, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    generator = np.random.default_rng(0)
    start = generator.standard_normal((50, 20)).astype(dtype)
    mine, other = parameter(start), torch.nn.Parameter(torch.tensor(start))
    ours, theirs = cls([mine], **options), getattr(torch.optim, cls.__name__)([other], **options)
    for _ in range(100):
        gradient = generator.standard_normal(start.shape).astype(dtype)
        mine.grad, other.grad = minidl.tensor(gradient), torch.tensor(gradient)
        ours.step()
        theirs.step()
    expected = other.detach().numpy()
    distance = np.linalg.norm(mine.numpy() - expected) / np.linalg.norm(expected)
    assert distance < (1e-6 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize(("cls", "options"), CASES, ids=IDS)
def test_slices_updated_alone_equal_the_whole(cls, options):
    generator = np.random.default_rng(0)
    values = generator.standard_normal(SIZE).astype(np.float32)
    whole, parts = parameter(values), parameter(values)
    ours, sliced = cls([whole], **options), cls([parts], **options)
    states = [{}, {}, {}]
    for _ in range(3):
        gradient = generator.standard_normal(SIZE).astype(np.float32)
        whole.grad = minidl.tensor(gradient)
        ours.step(scale=0.5)
        for state, part in zip(states, (slice(0, 7), slice(7, 30_001), slice(30_001, None)), strict=True):
            sliced.update(parts.data[part], gradient[part], state, 0.5)
        np.testing.assert_array_equal(whole.grad.numpy(), gradient)
    np.testing.assert_array_equal(whole.numpy(), parts.numpy())


def test_of_a_parameter_only_what_is_updated_here_changes():
    whole, parts = parameter(np.ones((4, 5), np.float32)), [parameter(np.ones((4, 5), np.float32)) for _ in range(3)]
    for p, here in zip([whole, *parts], (None, slice(0, 7), slice(7, 20), slice(30, 40)), strict=True):
        p.updated_here, p.grad = here, minidl.tensor(np.arange(20.0).reshape(4, 5))
        optimizer = optim.Adam([p])
        optimizer.step()
        kept = optimizer.state[0]["mean"].size if optimizer.state[0] else 0
        assert kept == (20 if here is None else len(range(20)[here]))
        again = optim.Adam([p])
        again.load_state_dict(optimizer.state_dict())
        assert again.state[0].keys() == optimizer.state[0].keys()
    changed = [part.numpy().ravel() for part in parts]
    np.testing.assert_array_equal(np.append(changed[0][:7], changed[1][7:]), whole.numpy().ravel())
    assert (changed[0][7:] == 1).all() and (changed[1][:7] == 1).all() and (changed[2] == 1).all()


@pytest.mark.parametrize(("cls", "options"), CASES, ids=IDS)
def test_the_state_is_as_large_as_announced_and_is_saved_by_name(cls, options):
    layer = nn.Linear(3, 2)
    layer.materialize(seed=0)
    optimizer = cls(layer.parameters(), **options)
    layer(minidl.ones(4, 3)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    assert list(saved["state"]) == ["weight", "bias"]
    arrays = [x for x in saved["state"]["weight"].values() if isinstance(x, np.ndarray)]
    assert sum(x.size for x in arrays) == 6 * optimizer.state_size_per_parameter

    again = cls(layer.parameters(), **{**options, "lr": 9.0})
    again.load_state_dict(saved)
    assert again.lr == optimizer.lr
    before = {name: p.numpy().copy() for name, p in layer.named_parameters()}
    optimizer.step()
    after = {name: p.numpy().copy() for name, p in layer.named_parameters()}
    layer.load_state_dict(before)
    again.step()
    for name, p in layer.named_parameters():
        np.testing.assert_array_equal(p.numpy(), after[name])


def test_a_parameter_without_a_gradient_is_left_alone():
    p = parameter(np.ones(3, np.float32))
    optim.SGD([p], lr=1.0, weight_decay=1.0).step()
    assert p.numpy().tolist() == [1, 1, 1]


def test_zero_grad_forgets_the_gradients():
    p = parameter(np.ones(3, np.float32))
    p.sum().backward()
    optim.SGD([p], lr=1.0).zero_grad()
    assert p.grad is None


@pytest.mark.parametrize(("cls", "options"), CASES, ids=IDS)
def test_on_meta_an_update_is_one_call(cls, options):
    with minidl.device("meta"):
        layer = nn.Linear(3, 2, bias=False)
        layer(minidl.ones(4, 3)).sum().backward()
    optimizer = cls(layer.parameters(), **options)
    optimizer.step()
    with minidl.kernels.meta.record() as calls:
        optimizer.step()
    (call,) = [call for call in calls if call.flops]
    size = 6 * 4
    state = optimizer.state_size_per_parameter
    assert (call.bytes_read, call.bytes_written) == ((2 + state) * size, (1 + state) * size)


def test_options_that_cannot_work_are_refused():
    p = parameter(np.ones(3, np.float32))
    for make, message in [
        (lambda: optim.SGD([], lr=0.1), "no parameters"),
        (lambda: optim.SGD([p], lr=-1.0), "lr=-1.0"),
        (lambda: optim.SGD([p], lr=0.1, nesterov=True), "nesterov"),
        (lambda: optim.Adam([p], betas=(0.9, 1.0)), "betas"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="number 0 is a Tensor"):
        optim.SGD([minidl.ones(2)], lr=0.1)


def test_the_schedules_follow_their_curves():
    decay = schedules.step_decay(10, 0.5)
    assert [decay(s) for s in (0, 9, 10, 25)] == [1, 1, 0.5, 0.25]
    curve = schedules.warmup_cosine(10, 110, final=0.1)
    assert curve(0) == pytest.approx(0.1) and curve(9) == curve(10) == 1
    assert curve(60) == pytest.approx(0.55) and curve(110) == curve(1000) == pytest.approx(0.1)
    assert schedules.constant()(7) == 1
    with pytest.raises(ValueError, match="warmup=5"):
        schedules.warmup_cosine(5, 5)
