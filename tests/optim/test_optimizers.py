"""Optimizers take PyTorch's steps, or those of their papers, whole or in parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optim_cases import CASES, IDS, identity, parameter

import minidl
from minidl import nn, optim

SIZE = 30_000  # more than one cache block, and fewer than are compiled
NOT_IN_PYTORCH = optim.Lion, optim.LARS, optim.LAMB
OF_PYTORCH = [case for case in CASES if case[0] not in (*NOT_IN_PYTORCH, optim.Muon)]  # Muon is there, in bfloat16
ELEMENTWISE = [(cls, options) for cls, options in CASES if not cls.norms and not cls.whole]


def distance_from_pytorch(cls, options, dtype, steps=100, shape=(50, 20)):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    generator = np.random.default_rng(0)
    start = generator.standard_normal(shape).astype(dtype)
    mine, other = parameter(start), torch.nn.Parameter(torch.tensor(start))
    ours, theirs = cls([mine], **options), getattr(torch.optim, cls.__name__)([other], **options)
    for _ in range(steps):
        gradient = generator.standard_normal(shape).astype(dtype)
        mine.grad, other.grad = minidl.tensor(gradient), torch.tensor(gradient)
        ours.step()
        theirs.step()
    expected = other.detach().numpy()
    return np.linalg.norm(mine.numpy() - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("cls", "options"), OF_PYTORCH, ids=map(identity, OF_PYTORCH))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
def test_a_hundred_steps_equal_those_of_pytorch(cls, options, dtype, tolerance):
    if cls is optim.NAdam:
        tolerance = 1e-6  # PyTorch keeps the product of NAdam's momenta in float32
    assert distance_from_pytorch(cls, options, dtype) < tolerance


@pytest.mark.parametrize("cls", {cls: None for cls, _ in CASES if cls not in NOT_IN_PYTORCH})
def test_the_defaults_are_those_of_pytorch(cls):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    theirs = getattr(torch.optim, cls.__name__)
    expected = theirs([torch.nn.Parameter(torch.zeros(1, 1))]).param_groups[0]
    for name, value in cls([parameter(np.zeros(1))]).defaults.items():
        assert value == expected.get(name, value), name


share, small = st.floats(0, 0.99), st.floats(0, 0.3)
betas, eps = st.tuples(share, share), st.floats(1e-8, 1e-2)
OPTIONS = {
    optim.SGD: {"lr": small, "momentum": share, "dampening": share, "weight_decay": small},
    optim.Adagrad: {"lr": small, "lr_decay": small, "weight_decay": small, "initial_accumulator_value": small},
    optim.Adadelta: {"lr": small, "rho": share, "eps": eps, "weight_decay": small},
    optim.RMSprop: {"lr": small, "alpha": share, "eps": eps, "weight_decay": small, "momentum": share},
    optim.Adam: {"lr": small, "betas": betas, "eps": eps, "weight_decay": small, "amsgrad": st.booleans()},
    optim.AdamW: {"lr": small, "betas": betas, "eps": eps, "weight_decay": small, "amsgrad": st.booleans()},
    optim.NAdam: {"lr": small, "betas": betas, "eps": eps, "weight_decay": small, "momentum_decay": small},
    optim.Adafactor: {
        "lr": small,
        "eps": st.tuples(eps, eps),
        "weight_decay": small,
        "beta2_decay": st.floats(-1, 0),
        "d": st.floats(1, 3),
    },
}


@pytest.mark.parametrize("cls", OPTIONS)
@settings(max_examples=15)
@given(data=st.data())
def test_steps_equal_those_of_pytorch_whatever_the_options(cls, data):
    options = data.draw(st.fixed_dictionaries(OPTIONS[cls]))
    assert distance_from_pytorch(cls, options, "float64", steps=10, shape=(7,)) < (1e-5 if cls is optim.NAdam else 1e-9)


@pytest.mark.parametrize(("cls", "options"), ELEMENTWISE, ids=map(identity, ELEMENTWISE))
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
        scale = -0.5 if options.get("maximize") else 0.5
        for state, part in zip(states, (slice(0, 7), slice(7, 20_001), slice(20_001, None)), strict=True):
            sliced.update(parts.data[part], gradient[part], state, sliced.param_groups[0], scale)
        np.testing.assert_array_equal(whole.grad.numpy(), gradient)
    np.testing.assert_array_equal(whole.numpy(), parts.numpy())


def test_of_a_parameter_only_the_part_that_is_updated_here_changes():
    whole, parts = parameter(np.ones((4, 5), np.float32)), [parameter(np.ones((4, 5), np.float32)) for _ in range(3)]
    for p, here in zip([whole, *parts], ((0, 20), (0, 7), (7, 20), (20, 20)), strict=True):
        p.updated, p.grad = p.cut.flat(*here), minidl.tensor(np.arange(20.0).reshape(4, 5))
        p.share = tuple(array.reshape(-1)[slice(*here)] for array in (p.data, p.grad.data))
        optimizer = optim.Adam([p])
        optimizer.step()
        kept = optimizer.state[p]["mean"].size if optimizer.state[p] else 0
        assert kept == len(range(*here))
        again = optim.Adam([p])
        again.load_state_dict(optimizer.state_dict())
        assert again.state[p].keys() == optimizer.state[p].keys()
    changed = [part.numpy().ravel() for part in parts]
    np.testing.assert_array_equal(np.append(changed[0][:7], changed[1][7:]), whole.numpy().ravel())
    assert (changed[0][7:] == 1).all() and (changed[1][:7] == 1).all() and (changed[2] == 1).all()


@pytest.mark.parametrize(("cls", "options"), CASES, ids=IDS)
def test_a_step_from_saved_state_is_the_step_that_would_have_come(cls, options):
    layer = nn.Linear(3, 2)
    layer.materialize(seed=0)
    optimizer = cls(layer.parameters(), **options)
    layer(minidl.ones(4, 3)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    assert list(saved["state"]) == ["weight", "bias"] and saved["param_groups"][0]["params"] == ["weight", "bias"]

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


def test_a_parameter_without_a_gradient_or_that_is_frozen_is_left_alone():
    without, frozen = parameter(np.ones(3, np.float32)), parameter(np.ones(3, np.float32))
    frozen.grad = minidl.ones(3)
    frozen.requires_grad_(False)
    optimizer = optim.AdamW([without, frozen], lr=1.0, weight_decay=1.0)
    optimizer.step()
    assert without.numpy().tolist() == frozen.numpy().tolist() == [1, 1, 1]
    assert optimizer.state_bytes == 0


def test_zero_grad_forgets_the_gradients():
    p = parameter(np.ones(3, np.float32))
    p.sum().backward()
    optim.SGD([p], lr=1.0).zero_grad()
    assert p.grad is None


def test_gradients_accumulated_over_parts_of_a_batch_make_the_step_of_the_whole():
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((12, 5)), generator.integers(3, size=12)
    results = []
    for parts in (1, 3):
        minidl.manual_seed(0)
        layer = nn.Linear(5, 3)
        layer.materialize(seed=0, dtype="float64")
        optimizer = optim.Adam(layer.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            for rows in np.split(np.arange(12), parts):
                loss = nn.CrossEntropyLoss()(layer(minidl.tensor(x[rows], "float64")), minidl.tensor(y[rows]))
                (loss / parts).backward()
            optimizer.step()
        results.append(layer.weight.numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-10)


PRICED = [case for case in CASES if not case[0].whole]


@pytest.mark.parametrize(("cls", "options"), PRICED, ids=map(identity, PRICED))
def test_on_meta_an_update_is_priced_by_the_bytes_it_moves(cls, options):
    shape, size = (2, 3), 6 * 4
    with minidl.device("meta"):
        layer = nn.Linear(3, 2, bias=False)
        layer(minidl.ones(4, 3)).sum().backward()
    optimizer = cls(layer.parameters(), **options)
    optimizer.step()
    with minidl.kernels.meta.record() as calls:
        optimizer.step()
    calls = [call for call in calls if call.flops]
    real = parameter(np.ones(shape, np.float32))
    real.grad = minidl.ones(*shape)
    on_cpu = cls([real], **options)
    on_cpu.step()
    state = optimizer.state_bytes
    assert state == on_cpu.state_bytes and state % size == 0
    assert (calls[-1].bytes_read, calls[-1].bytes_written) == (2 * size + state, size + state)
    assert len(calls) == 1 + cls.norms


def test_options_that_cannot_work_are_refused():
    p = parameter(np.ones(3, np.float32))
    for make, message in [
        (lambda: optim.SGD([], lr=0.1), "no parameters"),
        (lambda: optim.SGD([p], lr=-1.0), "lr=-1.0"),
        (lambda: optim.SGD([p], lr=0.1, nesterov=True), "nesterov"),
        (lambda: optim.Adam([p], betas=(0.9, 1.0)), "betas"),
        (lambda: optim.RMSprop([p], alpha=1.0), "alpha=1.0"),
        (lambda: optim.Lion([p], weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda: optim.LARS([p], trust_coefficient=-1.0), "trust_coefficient=-1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="number 0 is a Tensor"):
        optim.SGD([minidl.ones(2)], lr=0.1)
    with pytest.raises(TypeError, match="a list of nn.Parameters or of groups, not a Parameter"):
        optim.SGD(p, lr=0.1)
