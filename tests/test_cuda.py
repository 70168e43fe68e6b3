"""The device cuda from outside: whether it is there, its memory, and what is said where it is missing."""

import ast
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

import minidl
from minidl.kernels import cuda_available, for_device
from minidl.profiling import profile

HAS_GPU = 77
ROOT = pathlib.Path(minidl.__file__).parent


@pytest.fixture
def emulated():
    """The emulated device, with nothing kept from the tests before."""
    for_device("cuda")
    from minidl.kernels.cuda import emulated_device

    minidl.cuda.empty_cache()
    return emulated_device


def without_gpu(code, *arguments):
    """What a process says in which MINIDL_CUDA is not set."""
    environment = {name: value for name, value in os.environ.items() if name != "MINIDL_CUDA"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_the_emulated_device_says_what_it_is(emulated):
    assert minidl.cuda.is_available() and minidl.cuda.device_count() == 1
    assert minidl.cuda.get_device_name() == "emulated"
    minidl.cuda.synchronize()


def test_memory_is_counted_while_it_is_held_kept_when_freed_and_given_back_when_emptied(emulated):
    before, reserved, free = minidl.cuda.memory_allocated(), minidl.cuda.memory_reserved(), emulated.free_memory()
    x = minidl.zeros(1000, device="cuda")  # 4,000 bytes, rounded up to 4,096
    view = x.reshape(10, 100)
    assert minidl.cuda.memory_allocated() == before + 4096
    del x
    assert minidl.cuda.memory_allocated() == before + 4096  # the view holds it
    del view
    assert minidl.cuda.memory_allocated() == before
    assert minidl.cuda.memory_reserved() == reserved + 4096
    assert emulated.free_memory() == free - 4096
    assert minidl.cuda.mem_get_info() == (free - 4096, emulated.MEMORY)
    again = minidl.zeros(990, device="cuda")  # fits the kept block
    assert minidl.cuda.memory_reserved() == reserved + 4096
    del again
    minidl.cuda.empty_cache()
    assert minidl.cuda.memory_reserved() == reserved and emulated.free_memory() == free


def test_out_of_memory_says_what_was_asked_and_what_is_held_and_nothing_is_lost(emulated, monkeypatch):
    before = minidl.cuda.memory_allocated()
    monkeypatch.setattr(emulated, "MEMORY", emulated.MEMORY - emulated.free_memory() + 100_000)
    x = minidl.ones(10_000, device="cuda")
    with pytest.raises(MemoryError) as error:
        minidl.ones(20_000, device="cuda")
    held = minidl.units.scaled(before + 40_448, "B")
    assert str(error.value) == (
        f"the GPU is out of memory: 80 kB asked for, {held} held by arrays, {minidl.units.scaled(59_552, 'B')} free"
    )
    assert minidl.cuda.memory_allocated() == before + 40_448
    assert (x.numpy() == 1).all()
    del x
    assert minidl.ones(20_000, device="cuda").shape == (20_000,)  # what was kept is given back first


def test_kept_blocks_are_given_back_before_memory_is_said_to_be_out(emulated, monkeypatch):
    monkeypatch.setattr(emulated, "MEMORY", emulated.MEMORY - emulated.free_memory() + 100_000)
    for n in (10_000, 20_000, 5_000):
        assert minidl.zeros(n, device="cuda").shape == (n,)


def test_without_a_gpu_the_device_cuda_says_what_is_missing_and_all_else_works():
    result = without_gpu(
        """
import sys
import minidl
assert "numba" not in sys.modules
if minidl.cuda.is_available():
    raise SystemExit(77)
assert minidl.cuda.device_count() == 0
assert minidl.cuda.memory_allocated() == minidl.cuda.memory_reserved() == 0
minidl.cuda.empty_cache()
said = set()
model = minidl.nn.Linear(2, 2)
for needs_one in (
    minidl.cuda.synchronize, minidl.cuda.get_device_name, lambda: minidl.zeros(2, device="cuda"),
    lambda: minidl.zeros(2).to("cuda"), lambda: minidl.device("cuda").__enter__(),
):
    try:
        needs_one()
    except RuntimeError as error:
        said.add(str(error))
    else:
        raise AssertionError(needs_one)
print(*said, sep="\\n")
assert model(minidl.ones(1, 2)).shape == (1, 2)
"""
    )
    if result.returncode == HAS_GPU:
        pytest.skip("there is a GPU")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 1 and lines[0].startswith("no device cuda: ")
    assert lines[0].endswith("or MINIDL_CUDA=emulated runs its kernels without one") or "driver" in lines[0]


def test_what_is_missing_is_told_apart(monkeypatch):
    monkeypatch.setenv("MINIDL_CUDA", "")
    monkeypatch.setattr(cuda_available.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'minidl[cuda]'" in cuda_available.missing()


def test_importing_minidl_or_its_cuda_module_imports_no_compiler():
    result = without_gpu("import sys, minidl, minidl.cuda; raise SystemExit('numba' in sys.modules)")
    assert result.returncode == 0, result.stderr


def test_an_unknown_setting_is_refused():
    result = without_gpu("import os; os.environ['MINIDL_CUDA'] = 'yes'; import minidl; minidl.ones(2, device='cuda')")
    assert "MINIDL_CUDA is 'yes': set it to 'emulated' to run without a GPU, or leave it unset" in result.stderr


ALONE = {"MEMORY", "Event.reach", "Stream.advance", "Stream.put"}  # of the emulated device


def names(file):
    """The public names of a module, and of each class in it, with what functions take: read from its text, as the
    GPU's needs a driver."""
    found = {}
    for node in ast.parse((ROOT / "kernels" / "cuda" / file).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = taken(node)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{f.name}": taken(f) for f in node.body if isinstance(f, ast.FunctionDef)}
            found[node.name] = "a class"
        elif isinstance(node, ast.Assign):
            found |= {target.id: "a value" for target in node.targets if isinstance(target, ast.Name)}
    return {name: what for name, what in found.items() if name.endswith("__init__") or not hidden(name)}


def hidden(name):
    return name.rpartition(".")[2].startswith("_")


def taken(function):
    """The names and defaults of the arguments, without types."""
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    decorators = "".join(f"@{ast.unparse(d)} " for d in function.decorator_list)
    return f"{decorators}({ast.unparse(function.args)})"


def test_the_emulated_device_has_the_names_and_arguments_of_the_real_one():
    emulated, real = names("emulated_device.py"), names("numba_device.py")
    assert ALONE <= emulated.keys()
    emulated = {name: what for name, what in emulated.items() if name not in ALONE}
    assert emulated["to_device"] == "(block, offset, values, stream)"
    assert emulated == {name: real.get(name) for name in emulated}
    assert all(name.startswith(("Block", "Elements", "Pinned")) for name in real.keys() - emulated.keys())


def test_a_tensor_of_the_gpu_shows_its_values_and_where_it_lies():
    x = minidl.tensor([1.0, 2.5], device="cuda", requires_grad=True)
    assert repr(x) == "tensor([1. , 2.5], device='cuda', requires_grad=True)"


def test_a_file_is_loaded_to_the_device_that_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    minidl.save({"model": {"w": minidl.ones(2, device="cuda")}, "step": 3}, path)
    for device in ("cpu", "cuda"):
        loaded = minidl.load(path, device=device)
        assert (loaded["model"]["w"].device, loaded["step"]) == (device, 3)
        np.testing.assert_array_equal(loaded["model"]["w"].numpy(), [1, 1])


@pytest.mark.parametrize("p", [1, 2, 3.0, np.inf])
def test_gradients_on_the_gpu_are_clipped_by_any_norm(p):
    norms = []
    for device in ("cpu", "cuda"):
        weight = minidl.nn.Parameter(minidl.ones(3, device=device))
        weight.grad = minidl.tensor([3.0, -4.0, 1.0], device=device)
        norms.append((minidl.nn.utils.clip_grad_norm_(weight, 1.0, p).item(), *weight.grad.numpy()))
    assert norms[1] == pytest.approx(norms[0])


@pytest.mark.parametrize("there", ["cuda", "meta"])
def test_a_tensor_without_dimensions_moves(there):
    for x in minidl.tensor(3.0), minidl.tensor(2), minidl.ones(2).sum():
        moved = x.to(there)
        assert (moved.device, moved.shape, moved.dtype) == (there, (), x.dtype)
        if there == "cuda":
            assert (moved + 1).cpu().item() == x.item() + 1


def test_a_tensor_goes_where_another_is_and_takes_what_another_has():
    other = minidl.zeros(2, dtype="float64", device="cuda")
    moved = minidl.ones(2).to(other)
    assert (moved.device, moved.dtype, moved.is_cuda) == ("cuda", minidl.float64, True)
    assert other.copy_(minidl.tensor([1.0, 2.0])).numpy().tolist() == [1, 2]
    assert minidl.zeros(2).copy_(other).tolist() == [1, 2]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "LAMB", "RMSprop"])
def test_an_optimizers_state_follows_its_parameters_and_is_loaded_to_them(kind, tmp_path):
    def step(model, optimizer):
        optimizer.zero_grad()
        model(minidl.ones(1, 3, device=model.weight.device)).sum().backward()
        optimizer.step()

    def trained(moves):
        minidl.manual_seed(0)
        model = minidl.nn.Linear(3, 2)
        options = {"momentum": 0.9} if kind == "SGD" else {}
        optimizer = getattr(minidl.optim, kind)(model.parameters(), lr=0.1, **options)
        for device in moves:
            model.to(device)
            step(model, optimizer)
        return model, optimizer

    (moved, optimizer), (stayed, _) = trained(["cpu", "cuda", "cuda", "cpu", "cuda"]), trained(5 * ["cpu"])
    np.testing.assert_allclose(moved.weight.numpy(), stayed.weight.numpy(), rtol=1e-4)
    minidl.save({"model": moved.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "run.safetensors")
    saved = minidl.load(tmp_path / "run.safetensors")
    other, other_optimizer = trained(["cuda"])
    other.load_state_dict(saved["model"])
    other_optimizer.load_state_dict(saved["optimizer"])
    for model, its in (moved, optimizer), (other, other_optimizer):
        step(model, its)
    np.testing.assert_allclose(other.weight.numpy(), moved.weight.numpy(), rtol=1e-4)


def test_averages_follow_their_parameters_and_gradients_their_tensors():
    model = minidl.nn.Linear(2, 2)
    average = minidl.optim.ExponentialMovingAverage(model, 0.5)
    model(minidl.ones(1, 2)).sum().backward()
    model.to("cuda")
    assert model.weight.grad.device == "cuda"
    average.update()
    other = minidl.optim.ExponentialMovingAverage(minidl.nn.Linear(2, 2), 0.5)
    other.load_state_dict(average.state_dict())
    with average.applied(), other.applied():
        np.testing.assert_allclose(model.weight.numpy(), next(iter(other._parameters.values())).numpy(), rtol=1e-6)


def test_a_gradient_elsewhere_than_its_tensor_is_refused():
    x = minidl.ones(2, requires_grad=True, device="cuda")
    x.grad = minidl.ones(2)
    with pytest.raises(ValueError, match="grad is on cpu, the tensor on cuda"):
        (x * 2).sum().backward()


def test_what_was_pickled_on_a_gpu_is_read_in_another_process(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(minidl.nn.Linear(2, 2).to("cuda")))
    script = f"import pickle; print(pickle.load(open({str(path)!r}, 'rb')).weight.device)"
    emulated = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert emulated.stdout == "cuda\n"
    assert "no device cuda: " in without_gpu(script).stderr


def test_a_model_on_the_gpu_is_profiled():
    rows = profile(minidl.nn.Linear(4, 5).to("cuda"), minidl.randn(3, 4, device="cuda"), repeats=1, show=False).rows
    assert all(row.forward_seconds > 0 for row in rows)
