"""Launches of every kernel of minidl/kernels/cuda, in the emulator, and what a GPU would compile for them."""

import ast
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

import minidl
from minidl import ops
from minidl.kernels import for_device, pooling_windows

cuda = for_device("cuda")

from op_cases import CASES, arrays  # noqa: E402
from test_cuda_updates import UPDATES  # noqa: E402
from test_cuda_updates import arrays as of_update  # noqa: E402

from minidl.kernels.cuda import attention_tiles, emulator, products, sorting, tiled  # noqa: E402
from minidl.kernels.cuda.target import name_of  # noqa: E402

KERNELS = "minidl.kernels.cuda."


def written() -> set[str]:
    """The names of the kernels whose text is in the folder, as `name_of` gives them."""
    found = set()
    for path in Path(emulator.__file__).parent.glob("*.py"):
        if not path.stem.startswith("numba_"):  # the trial there is Numba's
            found |= {f"{path.stem}.{name}" for name in _kernels(ast.parse(path.read_text()), "")}
    return found


def _kernels(node: ast.AST, outer: str) -> Iterator[str]:
    for part in ast.iter_child_nodes(node):
        name = outer + part.name + "." if isinstance(part, ast.FunctionDef) else outer
        if isinstance(part, ast.FunctionDef) and any(map(_makes_a_kernel, map(ast.unparse, part.decorator_list))):
            yield name[:-1]
        yield from _kernels(part, name)


def _makes_a_kernel(decorator: str) -> bool:
    return decorator.startswith("cuda.jit") and "device=True" not in decorator


def used_by(function) -> set[str]:
    """The names that a kernel and the device functions that it calls use."""
    code, outside = function.py_func.__code__, inspect.getclosurevars(function.py_func)
    called = [f for f in {**outside.globals, **outside.nonlocals}.values() if isinstance(f, emulator.DeviceFunction)]
    return set(code.co_names).union(*map(used_by, called))


def launched() -> dict[str, list[tuple]]:
    """name -> (kernel, described arguments) of all launches of float32 and of those that only other dtypes have."""
    emulator.recorded = {}
    try:
        _launch_all()
        found: dict[str, list[tuple]] = {}
        for kernel, signatures in emulator.recorded.values():
            found.setdefault(name_of(kernel).removeprefix(KERNELS), []).extend((kernel, s) for s in signatures)
    finally:
        emulator.recorded = None
    return found


def _launch_all() -> None:
    for _, function, *makers in CASES:
        _forward_and_backward(function, arrays(makers))
    for name, (_, update) in UPDATES.items():
        update(cuda, *(_there(x) for x in of_update(name, 5, np.float32)))
    _launch_random()
    _launch_second_gradients()
    _launch_integers_and_bools()
    _launch_rows()
    _launch_products()
    _launch_attention()


def _there(x):
    return cuda.array(x, x.dtype)


def _forward_and_backward(function, inputs) -> None:
    tensors = [
        minidl.tensor(a, "float32" if a.dtype.kind == "f" else None, a.dtype.kind == "f", "cuda")
        for a in map(np.asarray, inputs)
    ]
    with minidl.device("cuda"):
        out = function(*tensors)
        out.backward(minidl.ones(out.shape, dtype="float32"))


def _launch_random() -> None:
    with minidl.device("cuda"):
        x = minidl.ones(3, 5).requires_grad_()
        ops.dropout(x, 0.5).sum().backward()


def _launch_second_gradients() -> None:
    """Of the only op of which they need a kernel of their own."""
    rows = pooling_windows.regular(4, 2, 2, 0)
    x = _there(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    _, which = cuda.max_pool2d(x, rows, rows)
    cuda.max_pool2d_take(x, which, rows, rows)


def _launch_integers_and_bools() -> None:
    numbers, bools = np.arange(1, 7).reshape(2, 3), np.array([[True, False, True], [False, True, True]])
    for x in map(_there, (numbers, bools, numbers.astype(np.float32))):
        for reduce in cuda.sum, cuda.max, cuda.min, cuda.any, cuda.all, cuda.prod:
            reduce(x, None, False)
        for of_row in cuda.argmax, cuda.argmin, cuda.cumsum:
            of_row(x, 1)
        cuda.argsort(x, 1, False)
        cuda.argsort(x, 1, True)
        for compare in cuda.equal, cuda.not_equal, cuda.greater, cuda.greater_equal, cuda.less, cuda.less_equal:
            compare(x, x)
        for f in cuda.logical_not, cuda.isnan, cuda.isinf, cuda.isfinite, cuda.sign:
            f(x)
        for g in cuda.logical_and, cuda.logical_or, cuda.maximum, cuda.minimum:
            g(x, x)
    n, b = _there(numbers), _there(bools)
    for g in cuda.add, cuda.subtract, cuda.multiply, cuda.power, cuda.floor_divide, cuda.remainder:
        g(n, n)
    for g in cuda.bitwise_and, cuda.bitwise_or, cuda.bitwise_xor:
        g(n, n)
        g(b, b)
    for f in cuda.bitwise_not, cuda.negative, cuda.absolute:
        f(n)
    cuda.bitwise_not(b)
    cuda.matmul(n, cuda.swap_last(n))
    x = _there(numbers.astype(np.float32))
    cuda.isclose(x, x, 1e-5, 1e-8, False)
    cuda.squared_norm(x)
    cuda.index_put(x, (_there(np.array([0, 1, 0])),), _there(np.ones((3, 3), np.float32)))


def _launch_rows() -> None:
    """Of every length for which kernels of rows are made, and of rows that do not stay in registers."""
    for width in (1, 129, 257, 513, 2049):
        x = _there(np.linspace(0, 1, width, dtype=np.float32).reshape(1, width))
        for f in cuda.softmax, cuda.log_softmax:
            f(x, 1)
        cuda.attention_weights(cuda.copy(x), 0.5, True)
        cuda.layer_norm(x, None, None, 1e-5)
        cuda.rms_norm(x, None, 1e-5)
    x = _there(np.zeros((1, 8 * sorting.TILE), np.float32))
    cuda.sum(x, 1, False)
    cuda.argmax(x, 1)
    with mock.patch.object(sorting, "THREADS", 4):
        cuda.argsort(_there(np.arange(40, dtype=np.float32)[::-1].copy()), 0, False)


def _launch_products() -> None:
    a, b = (_there(np.ones((9, 9), np.float32)) for _ in range(2))
    bias = _there(np.ones(9, np.float32))
    turned = cuda.swap_last
    for tile, parts in itertools.product((tiled.LARGE, tiled.MEDIUM, tiled.SMALL), (1, 2)):
        for left, right in (a, b), (turned(a), b), (a, turned(b)):
            for given in None, bias:
                products.product(cuda.copy(a), left, right, given, how=(tile, parts))
    products.plain_product(cuda.copy(a), a, b)
    x, weight = _there(np.ones((1, 1, 5, 5), np.float32)), _there(np.ones((1, 1, 3, 3), np.float32))
    with mock.patch.object(tiled, "plan", lambda *sizes: (tiled.LARGE, 1)):
        for stride in (1, 1), (2, 2):
            y = cuda.conv2d(x, weight, None, stride, (0, 0), (1, 1), 1)
            cuda.conv2d_grad_input(y, weight, x.shape, stride, (0, 0), (1, 1), 1)
            cuda.conv2d_grad_weight(y, x, weight.shape, stride, (0, 0), (1, 1), 1)


def _launch_attention() -> None:
    """With the tiles of a GPU, at widths of head that fill them."""
    with mock.patch.object(attention_tiles, "EMULATED", False):
        for width in (64, 128):
            q, k, v = (_there(np.ones((1, 1, width), np.float32)) for _ in range(3))
            out, log_sum_exp = cuda.attention(q, k, v, 0.1, True)
            cuda.attention_grad(cuda.copy(out), q, k, v, out, log_sum_exp, 0.1, True)
