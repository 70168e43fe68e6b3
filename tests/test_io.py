"""Files of tensors: what is written here the safetensors package reads, and the other way round."""

import json
import os
import resource
import struct
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import numpy as safetensors

import minidl
from minidl import io, nn, optim
from minidl.kernels.meta import MetaArray
from minidl.nested import leaves
from minidl.structure import SAVED

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9).filter(lambda name: name != "__metadata__")
DTYPES = st.sampled_from(SAVED).map(np.dtype)
LAYOUTS = st.sampled_from([np.asarray, np.asfortranarray, lambda x: x[..., ::-1] if x.ndim else x, lambda x: x.T])
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))


Odd = namedtuple("Odd", "x")
CIRCLE: list = []
CIRCLE.append(CIRCLE)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("io") / "x.safetensors"


@given(st.dictionaries(NAMES, st.tuples(ARRAYS, LAYOUTS), max_size=4))
def test_any_array_written_here_is_read_by_the_package(path, given):
    state = {name: layout(array) for name, (array, layout) in given.items()}
    io.save(state, path)
    found = safetensors.load_file(path)
    assert found.keys() == state.keys()
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@given(st.dictionaries(NAMES, ARRAYS.filter(lambda array: array.dtype != np.uint64), max_size=4))
def test_any_array_written_by_the_package_is_read_here_in_a_dtype_of_minidl(path, state):
    safetensors.save_file(state, path)
    found = io.load(path)
    assert found.keys() == state.keys()
    for name, array in state.items():
        wanted = {"b": "bool", "f": "float64" if array.itemsize == 8 else "float32"}.get(array.dtype.kind, "int64")
        assert found[name].dtype == wanted and found[name].numpy().flags.writeable
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_a_model_comes_back_with_its_buffers_and_its_tied_parameters(path):
    def make():
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        model[2].weight = model[0].weight
        return model

    first, second = make().train(), make().train()
    first(minidl.randn(4, 3))
    minidl.save(first.state_dict(), path)
    second.load_state_dict(minidl.load(path))
    x = minidl.randn(5, 3)
    np.testing.assert_array_equal(first.eval()(x).numpy(), second.eval()(x).numpy())
    minidl.save({"a": first[0].weight, "b": first[0].weight.T}, path)
    both = minidl.load(path)
    np.testing.assert_array_equal(both["a"].numpy(), both["b"].numpy().T)


SCALARS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, ())).map(lambda array: array[()])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), NAMES, SCALARS, ARRAYS)
NESTED = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.lists(parts, max_size=3).map(tuple),
        st.dictionaries(st.one_of(NAMES, st.integers()), parts, max_size=3),
    ),
    max_leaves=9,
)


def as_is(x, y) -> bool:
    """Whether two trees are the same in types, keys and their order, and every bit of every number but NaN's."""
    if isinstance(x, dict):
        return list(x) == list(y) and list(map(type, x)) == list(map(type, y)) and all(as_is(x[k], y[k]) for k in x)
    if isinstance(x, list | tuple):
        return type(x) is type(y) and len(x) == len(y) and all(map(as_is, x, y))
    if isinstance(x, float | np.ndarray | np.generic):
        a, b = np.asarray(x), np.asarray(y)
        same = type(x) is type(y) and a.dtype == b.dtype and a.shape == b.shape
        return same and np.array_equal(a, b, equal_nan=a.dtype.kind == "f") and np.array_equal(a < 0, b < 0)
    return type(x) is type(y) and x == y


@given(st.dictionaries(st.one_of(NAMES, st.integers()), NESTED, max_size=4).filter(lambda state: any(
    not isinstance(name, str) or not isinstance(value, np.ndarray) for name, value in state.items()
)))  # fmt: skip
def test_any_nested_state_comes_back_as_it_was(path, state):
    minidl.save(state, path)
    assert as_is(minidl.load(path), state)
    shapes = [x.shape for x in leaves(minidl.load(path, "meta")) if isinstance(x, MetaArray)]
    assert shapes == [x.shape for x in leaves(state) if isinstance(x, np.ndarray)]


def test_what_is_special_of_numbers_and_tensors_is_kept(path):
    tensor = minidl.randn(2, 3)
    minidl.save({"x": [np.inf, -np.inf, np.nan, -0.0, 5e-324, 0.1], "a": {"b": tensor}, "a.b": np.ones(1)}, path)
    found = minidl.load(path)
    assert repr(found["x"]) == "[inf, -inf, nan, -0.0, 5e-324, 0.1]"
    assert isinstance(found["a"]["b"], minidl.Tensor) and isinstance(found["a.b"], np.ndarray)
    np.testing.assert_array_equal(found["a"]["b"].numpy(), tensor.numpy())
    assert safetensors.load_file(path).keys() == {"a.b", "a.b'"}  # others read the tensors by their paths
    with pytest.raises(ValueError, match="unknown device 'disk'"):
        minidl.load(path, "disk")


def test_a_flat_state_is_written_as_the_package_writes_it(path):
    state = {"b": np.ones((2, 3), "f"), "a": np.arange(3)}
    minidl.save(state, path)
    assert path.read_bytes() == safetensors.save(state)


def header(structure) -> bytes:
    """A file with one tensor "t" of 2 floats, and a text of this structure."""
    text = structure if isinstance(structure, str) else json.dumps(structure)
    tensors = {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    packed = json.dumps({"__metadata__": {"minidl.state": text}, **tensors}).encode()
    return struct.pack("<Q", len(packed)) + packed + bytes(8)


DAMAGED = {
    "no JSON": "{",
    "a list": [1],
    "lists in lists": "[" * 100_000 + "]" * 100_000,
    "dicts in dicts": '{"dict":{"a":' * 100 + "1" + "}}" * 100,
    "an unknown part": {"dict": {"a": {"code": "print()"}}},
    "a missing tensor": {"dict": {"a": {"tensor": "u"}}},
    "a number of another dtype": {"dict": {"a": {"numpy": ["int8", 300]}}},
    "an unknown dtype": {"dict": {"a": {"numpy": ["O", 1]}}},
    "no number": {"dict": {"a": {"numpy": ["float32", "1"]}}},
    "a key that is none": {"items": [[[], 1]]},
    "a float that is none": {"dict": {"a": {"float": "1e5"}}},
    "a number of many digits": '{"dict":{"a":' + "9" * 10_000 + "}}",
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_structure_is_refused_in_one_sentence_with_the_name_of_the_file(path, case):
    path.write_bytes(header(DAMAGED[case]))
    with pytest.raises(ValueError, match="x.safetensors has a damaged header: ") as refused:
        minidl.load(path)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_a_header_that_names_a_tensor_many_times_takes_its_memory_once(path):
    path.write_bytes(header({"dict": {str(i): {"tensor": "t"} for i in range(100)}}))
    assert len({id(tensor) for tensor in minidl.load(path).values()}) == 1


# A loop of a user's own

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "groups": lambda p: optim.SGD([{"params": p[:1], "lr": 0.05}, {"params": p[1:]}], 0.1, momentum=0.9),
    "adagrad": lambda p: optim.Adagrad(p, 0.1),
    "adadelta": optim.Adadelta,
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "adam": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, 0.01),
    "nadam": lambda p: optim.NAdam(p, 0.01),
    "lion": lambda p: optim.Lion(p, 0.01),
    "lars": lambda p: optim.LARS(p, 0.1),
    "lamb": lambda p: optim.LAMB(p, 0.01),
    "muon": lambda p: optim.Muon(p, 0.01),
    "adafactor": lambda p: optim.Adafactor(p, 0.01),
}
SCHEDULERS = {
    "step": lambda o: optim.lr_scheduler.StepLR(o, 2),
    "milestones": lambda o: optim.lr_scheduler.MultiStepLR(o, [2, 5]),
    "exponential": lambda o: optim.lr_scheduler.ExponentialLR(o, 0.9),
    "linear": lambda o: optim.lr_scheduler.LinearLR(o),
    "polynomial": lambda o: optim.lr_scheduler.PolynomialLR(o, 9),
    "cosine": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 9, 1e-3),
    "restarts": lambda o: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
    "one cycle": lambda o: optim.lr_scheduler.OneCycleLR(o, 0.1, 9),
    "plateau": lambda o: optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1.0),
    "sequence": lambda o: optim.lr_scheduler.SequentialLR(
        o, [optim.lr_scheduler.LinearLR(o), optim.lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
}
LOOPS = [(name, "one cycle") for name in OPTIMIZERS] + [("adam", name) for name in SCHEDULERS]


class Loop:
    """Trains a small model with batch norm on numbers that depend on the step alone; keeps an average of it."""

    def __init__(self, optimizer: str, scheduler: str):
        minidl.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.optimizer = OPTIMIZERS[optimizer](list(self.model.parameters()))
        self.scheduler = SCHEDULERS[scheduler](self.optimizer)
        self.average = optim.ExponentialMovingAverage(self.model, warmup=True)
        self.parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "average": self.average,
        }
        self.step = 0

    def run(self, steps: int) -> list[str]:
        """The losses, the learning rates and the sums of parameters, buffers and averages, to the last bit."""
        found = []
        for _ in range(steps):
            self.step += 1
            x = minidl.tensor(np.random.default_rng(self.step).standard_normal((8, 3)).astype("f"))
            loss = ((self.model(x) - x.sum(1, keepdim=True)) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step(*([float(loss)] if hasattr(self.scheduler, "patience") else []))
            self.average.update()
            found.append(float(loss).hex())
        found += [float(group["lr"]).hex() for group in self.optimizer.param_groups]
        held = [x.numpy() for x in (*self.model.state_dict().values(), *self.average.state_dict()["averages"].values())]
        return found + [float(x.sum(dtype=np.float64)).hex() for x in held]

    def save(self, path):
        minidl.save({"step": self.step} | {name: part.state_dict() for name, part in self.parts.items()}, path)

    def load(self, path):
        saved = minidl.load(path)
        self.step = saved["step"]
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])


CONTINUE = """
import json, sys
from tests.test_io import LOOPS, Loop
for i, names in enumerate(LOOPS):
    loop = Loop(*names)
    loop.load(f"{sys.argv[1]}/{i}")
    print(json.dumps(loop.run(3)))
"""


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """What each of LOOPS gives in steps 4 to 6, here and in another process that has read it from a file."""
    folder = tmp_path_factory.mktemp("loops")
    here = []
    for i, names in enumerate(LOOPS):
        loop = Loop(*names)
        loop.run(3)
        loop.save(folder / str(i))
        here.append(loop.run(3))
    ran = subprocess.run([sys.executable, "-c", CONTINUE, folder], capture_output=True, text=True, env=os.environ | {
        "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    })  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return here, [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("i", range(len(LOOPS)), ids=[" ".join(names) for names in LOOPS])
def test_a_loop_goes_on_from_a_file_to_the_same_numbers_in_another_process(continued, i):
    here, there = continued
    assert here[i] == there[i] and len(set(here[i])) > 3


def test_the_loops_use_every_optimizer_and_every_scheduler():
    def public(module, kind):
        found = {cls for name, cls in vars(module).items() if isinstance(cls, type) and not name.startswith("_")}
        return {cls for cls in found if issubclass(cls, kind)} - {kind}

    optimizers, schedulers = (
        {type(getattr(Loop(*names), part)) for names in LOOPS} for part in ("optimizer", "scheduler")
    )
    assert public(optim, optim.Optimizer) <= optimizers
    assert public(optim.lr_scheduler, optim.lr_scheduler.LRScheduler) <= schedulers


def test_texts_are_kept_beside_the_tensors(path):
    for state in ({"a": minidl.ones(2)}, {"a": [minidl.ones(2)]}):
        minidl.save(state, path, {"step": "7", "größe": "✓"})
        assert io.load_metadata(path) == {"step": "7", "größe": "✓"}
    with pytest.raises(ValueError, match="'minidl.state' is what minidl.save writes itself"):
        minidl.save({}, path, {"minidl.state": "x"})
    minidl.save({}, path)
    assert io.load_metadata(path) == {} and minidl.load(path) == {}


def test_an_older_file_survives_a_full_disk(tmp_path):
    path = tmp_path / "x.safetensors"
    minidl.save({"a": minidl.ones(2)}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match="too large.*x.safetensors"):
            minidl.save({"a": minidl.ones(1000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert minidl.load(path)["a"].shape == (2,) and os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"a": np.ones(2, complex)}, TypeError, "a cannot be saved: it has dtype complex128, those that can are float"),
        ({"__metadata__": np.ones(2)}, ValueError, "under the name '__metadata__'"),
        ({"\ud800": np.ones(2)}, ValueError, r"under the name '\\ud800'"),
        ([np.ones(2)], TypeError, "the state cannot be saved: it is a list, and no dict"),
        (
            {"s": {0: {"m": object()}}},
            TypeError,
            "^s.0.m cannot be saved: it is a object, and no tensor, array, number",
        ),
        ({"s": [1, 2j]}, TypeError, "^s.1 cannot be saved: it is a complex"),
        ({"s": [np.complex64(1)]}, TypeError, "^s.0 cannot be saved: it has dtype complex64"),
        ({"s": {1.5: 0}}, TypeError, "^the key 1.5 in s cannot be saved: it is no text and no whole number"),
        ({True: 0}, TypeError, "^the key True of the state cannot be saved"),
        ({"s": 1 << 5000}, TypeError, "^s cannot be saved: it is a whole number of 5001 bits"),
        ({"s": Odd(1)}, TypeError, "^s cannot be saved: it is a Odd"),
        ({"s": CIRCLE}, ValueError, "^s.0.0… cannot be saved: it goes deeper than 64 levels, or in a circle"),
        ({"s": [minidl.Tensor(MetaArray((2,), np.float32))]}, TypeError, "^s.0 cannot be saved: it is on meta"),
    ],
)
def test_what_the_format_lacks_is_refused_and_the_older_file_kept(path, state, error, message):
    minidl.save({"a": minidl.ones(2)}, path)
    with pytest.raises(error, match=message):
        minidl.save(state, path)
    assert minidl.load(path)["a"].shape == (2,)


def test_numbers_that_minidl_has_no_dtype_for_are_refused(path):
    safetensors.save_file({"a": np.ones(2, np.uint64)}, path)
    with pytest.raises(ValueError, match="x.safetensors cannot be loaded: a has dtype U64: convert it to one of F64"):
        minidl.load(path)


def test_a_file_that_is_not_whole_and_a_folder_that_is_missing_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    minidl.save({"a": minidl.ones(100)}, path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a tensor", whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="x.safetensors is not a whole .safetensors file"):
            minidl.load(path)
    for shape in ([2**62, 0], [1] * 100):  # fits the bytes that are there, but no array
        count = int(0 not in shape)
        header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * count]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * count))
        with pytest.raises(ValueError, match="x.safetensors cannot be loaded: "):
            minidl.load(path)
    for read in (minidl.load, io.load_metadata):
        with pytest.raises(OSError, match=f"{tmp_path} cannot be read: "):
            read(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing/x.safetensors'$"):
        minidl.save({}, tmp_path / "missing" / "x.safetensors")
    with pytest.raises(IsADirectoryError, match=f"'{tmp_path}'$"):
        minidl.save({}, tmp_path)
