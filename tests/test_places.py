"""An argument at PyTorch's place means the same here, or is refused: the orders part only where ours takes names."""

import inspect

import pytest

import minidl
from minidl import nn, optim
from minidl.optim import lr_scheduler

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

# Two names of one thing, ours and PyTorch's.
SAME = {
    ("x", "input"), ("x", "self"), ("x", "tensor"), ("a", "self"), ("b", "other"), ("b", "mat2"), ("b", "vec2"),
    ("b", "tensor"), ("start", "self"), ("src", "input"), ("indices", "input"), ("index", "indices"),
    ("training", "train"), ("source", "src"), ("shape", "data"), ("shape", "size"), ("value", "fill_value"),
    ("value", "val"), ("parameter", "tensor"), ("split_size", "split_size_or_sections"), ("modules", "args"),
    ("function", "fn"), ("state", "state_dict"), ("saved", "state_dict"), ("group", "param_group"),
    ("schedule", "lr_lambda"), ("enabled", "mode"), ("self", "cls"),
}  # fmt: skip
# What PyTorch has where it is not found by its name, or where its signature does not tell.
THEIRS = {
    lr_scheduler.LRScheduler: torch.optim.lr_scheduler.LambdaLR,
    nn.TransformerBlock: torch.nn.TransformerEncoderLayer,
    nn.RNN: "self input_size hidden_size num_layers nonlinearity bias batch_first dropout bidirectional".split(),
    nn.LSTM: "self input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size".split(),
    nn.GRU: "self input_size hidden_size num_layers bias batch_first dropout bidirectional".split(),
    minidl.Tensor.where: "x condition other".split(),
    nn.Parameter: torch.nn.Parameter.__new__,
    nn.Buffer: torch.nn.Buffer.__new__,
    nn.functional.embedding: torch.nn.functional.embedding,  # torch.embedding is another one, and not documented
}
# Files are minidl's own; `device` is a context manager here.
LEFT_OUT = {minidl.save, minidl.load, minidl.device}


def places(function):
    """The names of what may be given by its place; None where PyTorch does not tell."""
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (ValueError, TypeError):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def overloads(function):
    """The places of PyTorch's function in each of its forms."""
    found = function if isinstance(function, list) else places(function)
    if found is not None:
        return [found]
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{function.__name__}")
    return [[a.name for a in schema.arguments if not a.kwarg_only] for schema in schemas]


def pairs():
    """Every public function, class and method here that PyTorch has under the same name, and that, by name."""
    seen = set()
    modules = [(minidl, torch), (nn, torch.nn), (nn.functional, torch.nn.functional), (nn.init, torch.nn.init),
               (nn.utils, torch.nn.utils), (optim, torch.optim), (lr_scheduler, torch.optim.lr_scheduler)]  # fmt: skip
    for ours, theirs in modules:
        for name, mine in vars(ours).items():
            own = (inspect.isclass(mine) or inspect.isfunction(mine)) and mine.__module__.startswith("minidl")
            other = THEIRS.get(mine, getattr(theirs, name, None)) if own else None
            if name.startswith("_") or other is None or mine in LEFT_OUT or (mine, str(other)) in seen:
                continue
            seen.add((mine, str(other)))
            label = f"{ours.__name__}.{name}"
            if not inspect.isclass(mine):
                yield label, mine, other
                continue
            yield label, mine.__init__, other.__init__ if inspect.isclass(other) else other
            for method in sorted(vars(mine).keys() & set(dir(other))):
                if not method.startswith("_") and inspect.isfunction(getattr(mine, method)):
                    function = getattr(mine, method)
                    yield f"{label}.{method}", function, THEIRS.get(function, getattr(other, method))


PAIRS = {label: pair for label, *pair in pairs()}


def differences(mine, other):
    """The pairs of names at one place that mean different things; those of the form that is nearest."""
    ours = places(mine)
    return min(
        (
            [pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1] and pair not in SAME]
            for theirs in overloads(other)
        ),
        key=len,
        default=[],
    )


def test_an_argument_at_pytorchs_place_means_the_same():
    found = {name: differences(*pair) for name, pair in PAIRS.items()}
    assert not {name: different for name, different in found.items() if different}


def test_the_walk_finds_what_is_to_be_compared_and_what_differs():
    assert len(PAIRS) > 250
    for name in ("nn.Embedding", "nn.Module.named_modules", "optim.Optimizer.step", "nn.functional.mse_loss", "sort"):
        assert f"minidl.{name}" in PAIRS
    wrong = {
        nn.MaxPool2d: lambda self, kernel_size, stride, padding, dilation, ceil_mode: None,
        nn.CrossEntropyLoss: lambda self, weight, ignore_index: None,
    }
    assert all(differences(mine, getattr(torch.nn, cls.__name__).__init__) for cls, mine in wrong.items())


x = minidl.ones(1, 1, 3, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nn.MaxPool2d(2, 2, 0, 1, True),
        lambda: nn.MaxPool1d(2, 2, 0, 1, True),
        lambda: nn.Embedding(10, 3, None, 100.0),
        lambda: nn.Parameter((2, 3), nn.init.zeros()),
        lambda: nn.Buffer(x, False),
        lambda: nn.CrossEntropyLoss(None, -100),
        lambda: nn.MSELoss("sum"),
        lambda: nn.functional.binary_cross_entropy(x, x, None, "sum"),
        lambda: nn.Linear(2, 2).named_modules(set()),
        lambda: lr_scheduler.LRScheduler(optim.SGD([nn.Parameter(x)]), -1),
        lambda: optim.SGD([nn.Parameter(x)]).step(0.5),
    ],
)
def test_an_argument_that_minidl_does_not_have_there_is_refused(call):
    with pytest.raises(TypeError):
        call()


def test_a_parameter_takes_requires_grad_second():
    assert not nn.Parameter(minidl.ones(2), False).requires_grad
    assert nn.Parameter(minidl.ones(2)).requires_grad


def test_step_calls_a_closure_and_returns_its_loss():
    weight = nn.Parameter(minidl.ones(2))
    optimizer = optim.SGD([weight], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (weight * weight).sum()
        loss.backward()
        return loss

    with minidl.no_grad():
        assert optimizer.step(closure).item() == 2
    assert weight.numpy().tolist() == [0, 0] and optimizer.step() is None
