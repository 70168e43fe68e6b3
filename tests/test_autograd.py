"""Derivatives of derivatives, hooks, gradients without leaves, and what a changed array refuses."""

import copy
import os
import pickle
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Op, autograd
from minidl.testing import gradcheck, gradgradcheck


class Cube(Op):
    """The example of Op's docstring."""

    def forward(self, x):
        self.x = x
        return self.kernels.power(x, 3)

    def backward(self, grad):
        k = self.kernels
        return k.multiply(grad, k.multiply(k.power(self.x, 2), 3))


def leaf(*values):
    return minidl.tensor(list(values) if len(values) > 1 else values[0], requires_grad=True)


def test_a_gradient_is_differentiated_as_often_as_wanted():
    x = minidl.tensor(2.0, dtype="float64", requires_grad=True)
    y = x**5
    for factor in (5 * 16, 20 * 8, 60 * 4, 120 * 2, 120):
        (y,) = autograd.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(factor)
    assert x.grad is None


def test_backward_with_create_graph_leaves_gradients_on_a_tape():
    x = leaf(1.0, 2.0)
    (x**3).sum().backward(create_graph=True)
    penalty = (x.grad**2).sum()  # the sum of 9 x^4
    x.grad = None
    penalty.backward()
    np.testing.assert_allclose(x.grad.numpy(), 36 * np.array([1.0, 8.0]))


def test_an_op_of_ones_own_is_differentiated_twice():
    gradcheck(lambda x: Cube()(x), np.array([1.0, -2.0]))
    gradgradcheck(lambda x: Cube()(x), np.array([1.0, -2.0]))


def test_an_op_that_saves_what_it_computed_on_the_way_must_recompute_it():
    class Kept(Cube):
        def forward(self, x):
            self.square = self.kernels.multiply(x, x)
            return self.kernels.multiply(self.square, x)

        def backward(self, grad):
            return self.kernels.multiply(grad, self.kernels.multiply(self.square, 3))

    class Recomputed(Kept):
        def forward(self, x):
            self.x = x
            return super().forward(x)

        def recompute_saved(self):
            self.square = self.kernels.multiply(self.x, self.x)

    gradcheck(lambda x: Kept()(x), np.array([1.0, -2.0]))
    with pytest.raises(RuntimeError, match=r"Kept saves square.* needs a method recompute_saved\(\)"):
        gradgradcheck(lambda x: Kept()(x), np.array([1.0, -2.0]))
    gradgradcheck(lambda x: Recomputed()(x), np.array([1.0, -2.0]))


@pytest.mark.parametrize("fast_mode", [False, True])
def test_gradgradcheck_catches_a_wrong_second_derivative(fast_mode):
    class Wrong(Cube):
        def backward(self, grad):
            return self.kernels.multiply(grad, self.kernels.multiply(self.constant(), 3))

        def constant(self):  # right as a number, but off the tape
            x = self.x.detach() if isinstance(self.x, minidl.Tensor) else self.x
            return self.kernels.power(x, 2)

    gradcheck(lambda x: Wrong()(x), np.array([1.0, -2.0]), fast_mode=fast_mode)
    with pytest.raises(AssertionError, match="input 0"):
        gradgradcheck(lambda x: Wrong()(x), np.array([1.0, -2.0]), fast_mode=fast_mode)


@pytest.mark.parametrize("fast_mode", [False, True])
def test_gradcheck_catches_a_gradient_at_the_wrong_place(fast_mode):
    class Turned(Cube):
        def backward(self, grad):
            return super().backward(grad)[::-1].copy()

    with pytest.raises(AssertionError, match="input 0"):
        gradcheck(lambda x: Turned()(x), np.array([1.0, -2.0]), fast_mode=fast_mode)


def test_grad_gives_derivatives_of_leaves_and_results_and_changes_no_grad():
    x, w = leaf(1.0, 2.0), leaf(3.0)
    h = x * w
    dh, dx, dw = autograd.grad((h * h).sum(), [h, x, w])
    np.testing.assert_allclose(dh.numpy(), [6, 12])
    np.testing.assert_allclose(dx.numpy(), [18, 36])
    assert dw.item() == pytest.approx(30) and x.grad is None and w.grad is None


def test_grad_of_several_outputs_is_the_weighted_sum():
    x = leaf(1.0, 2.0)
    y = x * 2
    (g,) = autograd.grad([y, y, x * 3], x, [minidl.ones(2), minidl.ones(2), minidl.tensor([1.0, 10.0])])
    np.testing.assert_allclose(g.numpy(), [7, 34])


@pytest.mark.skipif(not find_spec("mypy"), reason="needs mypy, which the extra `dev` brings")
def test_a_type_checker_knows_that_grad_gives_none_only_where_that_is_allowed(tmp_path, request):
    (tmp_path / "grads.py").write_text("""\
import minidl
from minidl.autograd import grad

x = minidl.ones(1, requires_grad=True)
allowed = bool(x.numel())
reveal_type(grad(x, x))
reveal_type(grad(x, x, None, None, False, False))
reveal_type(grad(x, x, allow_unused=True))
reveal_type(grad(x, x, None, None, False, True))
reveal_type(grad(x, x, allow_unused=allowed))
""")
    cache = request.config.cache.mkdir("mypy") if hasattr(request.config, "cache") else tmp_path
    check = [sys.executable, "-m", "mypy", "--check-untyped-defs", "--cache-dir", str(cache), "."]  # as README is
    done = subprocess.run(
        check,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(minidl.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    found = re.findall(r'note: Revealed type is "(.*)"', done.stdout)
    shown = [text.replace("builtins.", "").replace("minidl.tensor.", "") for text in found]
    assert shown == ["tuple[Tensor, ...]"] * 2 + ["tuple[Tensor | None, ...]"] * 3, done.stdout + done.stderr


def test_what_has_no_part_in_the_outputs_is_refused_unless_allowed():
    x, other = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="input 1 has no part"):
        autograd.grad(x * 2, [x, other])
    assert autograd.grad(x * 2, [x, other], allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="input 0 does not require a gradient"):
        autograd.grad(x * 2, minidl.ones(1))
    with pytest.raises(ValueError, match="1 outputs need as many grad_outputs, not 2"):
        autograd.grad(x * 2, x, [minidl.ones(()), minidl.ones(())])


def test_a_retained_tape_is_walked_again():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_a_hook_sees_the_whole_gradient_and_may_replace_it():
    x = leaf(1.0, 2.0)
    h, seen = x * 3, []
    h.register_hook(lambda g: seen.append(g.numpy().tolist()))
    x.register_hook(lambda g: seen.append(g.numpy().tolist()))
    handle = x.register_hook(lambda g: g * 10)
    (h * h + h).sum().backward()
    assert seen == [[7, 13], [21, 39]]
    np.testing.assert_allclose(x.grad.numpy(), [210, 390])
    handle.remove()
    (x * 1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [211, 391])
    with pytest.raises(RuntimeError, match="requires a gradient"):
        minidl.ones(2).register_hook(print)


def test_a_gradient_that_a_hook_saw_is_not_changed_by_the_next_backward():
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(seen.append)
    for _ in range(2):
        (x * 3).sum().backward()
    assert [g.numpy().tolist() for g in seen] == [[3, 3], [3, 3]] and x.grad.numpy().tolist() == [6, 6]


def test_a_result_keeps_its_gradient_when_asked():
    x = leaf(1.0, 2.0)
    h = x * 3
    h.retain_grad()
    (h * h).sum().backward()
    np.testing.assert_allclose(h.grad.numpy(), [6, 12])


def test_a_changed_array_that_backward_needs_is_refused_and_one_it_does_not_need_is_not():
    x, w = leaf(1.0, 2.0), minidl.tensor([3.0, 4.0])
    y, z = (x * w).sum(), (x + w).sum()
    with minidl.no_grad():
        w += 1
    with pytest.raises(RuntimeError, match=r"Multiply needs its b of shape \(2,\) .* changed in place"):
        y.backward()
    z.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1])


def test_an_index_that_was_changed_is_refused():
    x, i = leaf(1.0, 2.0, 3.0), minidl.tensor([0, 1])
    y = x[i].sum()
    i += 1
    with pytest.raises(RuntimeError, match=r"Index needs its key of shape \(2,\) .* changed in place"):
        y.backward()


def test_set_grad_enabled_holds_from_its_call_on_and_in_what_it_decorates():
    x = leaf(1.0)

    @minidl.set_grad_enabled(False)
    def silent():
        return x * 2, minidl.is_grad_enabled()

    assert (x * 2).requires_grad
    out, enabled = silent()
    assert not out.requires_grad and not enabled and minidl.is_grad_enabled()
    minidl.set_grad_enabled(False)
    assert not (x * 2).requires_grad
    minidl.set_grad_enabled(True)
    assert (x * 2).requires_grad


def test_a_hook_that_gives_no_tensor_is_refused():
    x = leaf(1.0)
    x.register_hook(lambda g: 3)
    with pytest.raises(TypeError, match="a hook must give a tensor or None, not int"):
        (x * x).sum().backward()


def test_a_view_of_a_changed_array_is_refused_too():
    x, w = leaf(1.0, 2.0), minidl.tensor([[3.0, 4.0], [5.0, 6.0]])
    y = (x * w[1]).sum()
    w[:, 0] = 0.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    (x * w[1]).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 6])


def test_an_optimizer_step_between_forward_and_backward_is_refused():
    layer = minidl.nn.Linear(2, 1)
    optimizer = minidl.optim.SGD(layer.parameters(), lr=0.1)
    x = leaf(1.0, 2.0)
    first, second = layer(x).sum(), layer(x).sum()
    first.backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="Linear needs its weight"):
        second.backward()


def test_in_place_on_a_tape_is_refused_and_augmented_assignment_makes_a_new_tensor():
    x = leaf(1.0, 2.0)
    for change in (lambda: x.add_(1.0), lambda: x.__setitem__(0, 1.0), lambda: x.__iadd__(1.0), lambda: x.zero_()):
        with pytest.raises(RuntimeError, match="in place"):
            change()
    buffer = minidl.zeros(2)
    with pytest.raises(RuntimeError, match="the value requires a gradient"):
        buffer[0] = x[0]
    total = before = minidl.zeros(2)
    total += x
    total *= 2
    assert total is not before and not before.numpy().any()
    total.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])


def test_in_place_without_a_tape_writes_where_the_tensor_lies():
    x = minidl.tensor([1.0, 2.0, 3.0])
    same = x
    x += 1
    x *= minidl.tensor([1.0, 1.0, 2.0])
    x[0] = 7.0
    x[minidl.tensor([1, 2])] = minidl.tensor([5.0, 6.0])
    x.sub_(1.0)
    assert same is x and x.numpy().tolist() == [6, 4, 5]
    x.copy_(minidl.tensor([1, 2, 3])).fill_(2.0).div_(4.0)
    assert x.numpy().tolist() == [0.5, 0.5, 0.5] and not x.zero_().numpy().any()


def test_one_element_is_a_view_as_a_row_is_and_takes_a_value_of_one_element():
    x = minidl.tensor([[1.0, 2.0], [3.0, 4.0]])
    x[0, 1].fill_(7.0)
    x[1].unbind()[0].add_(1.0)
    x[1, 1] = minidl.tensor([[5.0]])
    assert x.tolist() == [[1, 7], [4, 5]]
    x[0, 1, True] = 2.0
    assert x.tolist() == [[1, 2], [4, 5]]


def test_in_place_values_that_do_not_fit_are_refused():
    x = minidl.zeros(2, 3)
    with pytest.raises(ValueError, match=r"shape \(2,\) .* shape \(3,\)"):
        x[0] = minidl.ones(2)
    with pytest.raises(ValueError, match=r"\(4, 2, 3\)"):
        x += minidl.ones(4, 2, 3)
    with pytest.raises(RuntimeError, match="float32 .* int64"):
        minidl.tensor([1, 2]).add_(0.5)
    with pytest.raises(RuntimeError, match="add_: a result of int64 does not fit in a tensor of bools"):
        minidl.tensor([True]).add_(1)
    with pytest.raises(ValueError, match="read-only"):
        minidl.ones(1).expand(3).add_(1.0)


def test_a_leaf_is_copied_and_pickled_and_a_result_is_not():
    x = leaf(1.0, 2.0)
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        (other * 2).sum().backward()
        np.testing.assert_array_equal(other.grad.numpy(), [2, 2])
    assert x.grad is None
    with pytest.raises(RuntimeError, match="only a leaf"):
        copy.deepcopy(x * 2)


def test_grad_mode_is_switched_by_blocks_and_decorators():
    x = leaf(1.0)

    @minidl.no_grad()
    def evaluate():
        assert not minidl.is_grad_enabled()
        with minidl.enable_grad():
            assert (x * 2).requires_grad
        return x * 2

    assert not evaluate().requires_grad and minidl.is_grad_enabled()
    with minidl.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).requires_grad_(False)


def test_a_gradient_of_the_wrong_shape_is_refused():
    class Flat(Cube):
        def backward(self, grad):
            return self.kernels.reshape(grad, (-1,))

    x = minidl.ones(2, 2).requires_grad_()
    with pytest.raises(RuntimeError, match=r"shape \(4,\) to a tensor of shape \(2, 2\)"):
        Flat()(x).backward(minidl.ones(2, 2))


def test_a_dead_leaf_costs_nothing_and_breaks_nothing():
    x = leaf(2.0)
    y = x * leaf(3.0)
    y.backward()
    assert x.grad.item() == 3
