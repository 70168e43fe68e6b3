"""Module: a tree of layers with named parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from minidl import random
from minidl.dtypes import DTYPES, dtype_of
from minidl.hooks import RemovableHandle
from minidl.kernels import for_device
from minidl.nn.cut import Cut
from minidl.nn.parameter import Buffer, Parameter, Stored
from minidl.tensor import Tensor


class IncompatibleKeys(NamedTuple):
    """The names by which a state and a model differ: missing in the state, unexpected by the model."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A layer or a tree of layers: parameters, buffers and modules assigned as attributes are found by name.

    A subclass writes `forward`; calling the module runs it, and the hooks around it. `training` switches dropout and
    batch statistics on and off.
    """

    training = True
    _pre_hooks: tuple = ()
    _hooks: tuple = ()

    def forward(self, *inputs):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *inputs, **options):
        for hook in self._pre_hooks:
            changed_inputs = hook(self, inputs)
            if changed_inputs is not None:
                inputs = changed_inputs if isinstance(changed_inputs, tuple) else (changed_inputs,)
        out = self.forward(*inputs, **options)
        for hook in self._hooks:
            changed_out = hook(self, inputs, out)
            out = out if changed_out is None else changed_out
        return out

    def register_forward_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call `hook(module, inputs)` before each forward; what it returns, unless None, replaces the inputs."""
        self._pre_hooks = (*self._pre_hooks, hook)
        return RemovableHandle(lambda: self._without("_pre_hooks", hook))

    def register_forward_hook(self, hook: Callable) -> RemovableHandle:
        """Call `hook(module, inputs, output)` after each forward; what it returns, unless None, replaces the output."""
        self._hooks = (*self._hooks, hook)
        return RemovableHandle(lambda: self._without("_hooks", hook))

    def _without(self, hooks: str, hook: Callable) -> None:
        setattr(self, hooks, tuple(h for h in getattr(self, hooks) if h is not hook))

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Keep `tensor` as the attribute `name`: part of `state_dict`, and no parameter."""
        setattr(self, name, tensor if tensor is None or isinstance(tensor, Buffer) else Buffer(tensor))

    def __setattr__(self, name: str, value) -> None:
        """A tensor in place of a buffer becomes its value; in place of a parameter it is refused, with a TypeError."""
        stored = vars(self).get(name)
        if isinstance(stored, Stored) and isinstance(value, Tensor) and not isinstance(value, Stored):
            if isinstance(stored, Parameter):
                raise TypeError(
                    f"{name} is a parameter: give it an nn.Parameter, or write its values by copy_ in no_grad"
                )
            stored.data = value.data
            if value.shape != stored.cut.shape:
                stored.cut = Cut(value.shape)
        else:
            super().__setattr__(name, value)

    # The tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, *, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(prefix=f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def _named(self, kind: type[Stored], prefix: str, once: bool = True) -> Iterator[tuple[str, Stored]]:
        """Each tensor of a kind `once`, or under each of its names, with its dotted name."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix=prefix):
            for name, value in vars(module).items():
                if isinstance(value, kind) and not (once and id(value) in seen):
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(self, prefix: str = "", *, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Each parameter once, with its dotted name; one that has several names under each, if not remove_duplicate."""
        return self._named(Parameter, prefix, remove_duplicate)

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Buffer]]:
        """Each buffer once, with its dotted name."""
        return self._named(Buffer, prefix)

    def buffers(self) -> Iterator[Buffer]:
        return (buffer for _, buffer in self.named_buffers())

    def apply(self, function: Callable[[Module], object]) -> Module:
        """Call `function` with every module of the tree, the leaves first: to initialise them, say."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # Modes

    def train(self, mode: bool = True) -> Module:
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Let the parameters get gradients, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, *targets, dtype=None, device: str | None = None) -> Module:
        """Move the parameters and buffers to another device ("cpu", "cuda"), or cast those of floats to another dtype.

        Gradients move along, and an optimizer of these parameters goes on with them; a cast drops the gradients.
        """
        for target in (*targets, *(option for option in (dtype, device) if option is not None)):
            if isinstance(target, str) and target not in DTYPES:
                for_device(target)
                for _, tensor in self._named(Stored, ""):
                    tensor.move(target)
                continue
            wanted = dtype_of(target)
            if wanted.kind != "f":
                raise TypeError(f"a module can be cast to a dtype of floats, not to {wanted}")
            for _, tensor in self._named(Stored, ""):
                if tensor.dtype.kind == "f":
                    tensor.data, tensor.grad = tensor.kernels.cast(tensor.data, wanted), None
        return self

    def cuda(self) -> Module:
        return self.to("cuda")

    def cpu(self) -> Module:
        return self.to("cpu")

    # State

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters and buffers by name, under each that they have; they share memory with the model."""
        return {name: tensor.detach() for name, tensor in self._named(Stored, "", once=False)}

    def load_state_dict(self, state: dict, strict: bool = True) -> IncompatibleKeys:
        """Copy whole parameters and buffers by name from tensors or arrays; gives the names missing and unexpected.

        ValueError if there are such names and `strict`, or if a shape differs: then nothing was copied.
        """
        own = dict(self._named(Stored, "", once=False))
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if strict and (missing or unexpected):
            raise ValueError(
                f"state does not fit the model: missing {missing or 'none'}, unexpected {unexpected or 'none'}"
            )
        values = {name: _array(state[name]) for name in own if name in state}
        for name, value in values.items():
            tensor = own[name]
            if value.shape != tensor.cut.whole:
                raise ValueError(f"{name} has shape {tensor.cut.whole}, the values given {value.shape}")
        for name, value in values.items():
            own[name].name = own[name].name or name
            own[name].set_whole(value)
        return IncompatibleKeys(missing, unexpected)

    def materialize(self, seed: int, prefix: str = "", dtype=None) -> None:
        """Draw on the CPU every parameter and buffer without values, from a generator keyed by (seed, its name)."""
        for name, tensor in self._named(Stored, prefix):
            tensor.name = name
            cast = dtype if tensor.dtype.kind == "f" else None
            if tensor.device == "meta":
                tensor.materialize(random.generator(seed, name), cast)
            elif cast is not None:
                tensor.data = tensor.kernels.cast(tensor.data, cast)

    def __repr__(self) -> str:
        children = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ("\n" + "\n".join(children) + "\n)" if children else ")")

    def extra_repr(self) -> str:
        """The options shown between the parentheses."""
        return ""


def _array(x) -> np.ndarray:
    return x.numpy() if isinstance(x, Tensor) else np.asarray(x)
