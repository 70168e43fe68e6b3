"""A model of the user's own, `file.py:build`: its builder, the file's data and loss, and what is wrong with them."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from types import ModuleType

import cloudpickle
import numpy as np

from minidl.commands.arguments import Refused
from minidl.creation import device, tensor
from minidl.data import ArrayDataset, Dataset, Subset, digits
from minidl.dtypes import float32
from minidl.models.builders import Builder
from minidl.nn.losses import Loss, NLLLoss
from minidl.nn.module import Module
from minidl.parallel import Plan
from minidl.parallel.chain_profile import build_on_meta, loss_of
from minidl.parallel.contracts import check_builder, check_dataset, check_loss
from minidl.processes import WorkerError
from minidl.tensor import Tensor
from minidl.units import counted

HELP = """\
a model of your own is FILE.py:BUILD, a function build() or build(mesh):

  # net.py
  from minidl import nn

  def build():
      return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(),
                           nn.Linear(32, 10))

Its data are the digits, or what a function data() of the file gives: a data set
to train on and one to test on, say minidl.data.ArrayDataset(x, y) of arrays of
float32 and, for labels, int64. Its loss is the file's loss, an nn.Loss or a
function that makes one; else the model's own attribute loss, or cross-entropy.
"""


def model_name(names: Collection[str], configs: bool = False) -> Callable[[str], str]:
    """The type of an argument that names a model: one of `names`, or a function in a file.

    configs: or, by its path, a `config.json` of which `models.builder` makes one.
    """

    def check(text: str) -> str:
        if text in names or ":" in text or (configs and text.endswith(".json")):
            return text
        if text.endswith(".py"):
            raise argparse.ArgumentTypeError(f"{text!r} names no function of that file: write {text}:build")
        known = ", ".join(names)
        raise argparse.ArgumentTypeError(f"no model {text!r}: neither a function FILE.py:BUILD nor one of {known}")

    return check


@contextmanager
def blamed(path: Path | None) -> Iterator[None]:
    """What goes wrong inside, in the code of a file of the user's, is refused in a sentence that names the line."""
    try:
        yield
    except (Refused, WorkerError):
        raise
    except (Exception, SystemExit) as error:
        place = path and _place(path, error)
        if not place:
            raise
        raise Refused(f"{place}: {type(error).__name__}: {error}") from error


def _place(path: Path, error: BaseException) -> str | None:
    """Where in the file the error was raised or, by what it called, came about; None if not there."""
    frames = reversed(list(traceback.walk_tb(error.__traceback__)))
    return next((f"{path}, line {line}" for frame, line in frames if frame.f_code.co_filename == str(path)), None)


class OwnModel:
    """What a file has for the model `file.py:build`. Refused: whatever of it is not as HELP says.

    build: a builder, whatever the function takes. Workers get it, and all it needs of the file, by value. data_sets:
    to train and to test on, which the file's `data()` gives; None if it has no such function.
    """

    def __init__(self, text: str):
        place, _, name = text.rpartition(":")
        self.name, self.path = text, Path(place)
        if not self.path.is_file():
            raise Refused(f"no file {place!r} for the model {text}")
        self._module = _imported(self.path)
        if not hasattr(self._module, name):
            own = [key for key, value in vars(self._module).items() if self._is_own(value)]
            raise Refused(f"{place} has no {name or 'name after its colon'}: it has {', '.join(own) or 'no function'}")
        function = getattr(self._module, name)
        with self._named():
            check_builder(function)
            self.build = _builder(text, function)
        self.data_sets = self._data()

    def example(self, model: Module, samples: int) -> tuple[Tensor, Tensor]:
        """Input and target of so many samples: of the file's data, else of the model's own example, else digits."""
        if self.data_sets is None and hasattr(model, "example"):
            return model.example(samples)
        train_set, _ = self.data_sets or digits()
        arrays = train_set[np.arange(samples) % len(train_set)]
        try:
            x, y = (tensor(array, float32 if array.dtype.kind == "f" else None) for array in arrays)
        except (TypeError, ValueError) as error:
            raise Refused(f"{self.path}: what data() gives to train on: {error}") from None
        if self.data_sets is None:
            try:
                model(x)
            except ValueError as error:
                reason = f"{self.name} does not take the digits, {x.shape}, and {self.path} has no data()"
                raise Refused(f"{reason}: {error}") from error
        return x, y

    def sample_and_loss(self, plan: Plan) -> tuple[tuple[Tensor, Tensor], Loss]:
        """An `example` of one sample, without values, and the loss: the file's, else the model's own or cross-entropy.

        Nothing is allocated. Refused if the model, as it is built for the plan, does not take the sample.
        """
        model = build_on_meta(self.build, plan.mesh())
        with device("meta"):
            sample = self.example(model, 1)
        return sample, self._loss() or loss_of(model)

    def data_and_loss(self, plan: Plan) -> tuple[Dataset, Dataset, Loss]:
        """The data sets to train and to test on, and the loss. Refused where the model lacks the class of a label."""
        (x, _), loss = self.sample_and_loss(plan)
        data_sets = self.data_sets or digits()
        if isinstance(loss, NLLLoss):  # of other losses any target may be right
            with device("meta"):
                output = build_on_meta(self.build, plan.mesh())(x)
            for data_set in data_sets:
                self._check_labels(data_set, output, loss)
        return *data_sets, loss

    def _check_labels(self, data_set: Dataset, output: object, loss: NLLLoss) -> None:
        """Refuse labels beyond the classes of `output`, if they lie in an array; other outputs `train` refuses."""
        labels = _labels(data_set)
        if labels is None or not isinstance(output, Tensor) or not -output.ndim <= loss.dim < output.ndim:
            return
        labels, classes = labels[labels != loss.ignore_index], output.shape[loss.dim]
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise Refused(
                f"{self.name} has {counted(classes, 'output')}, for the classes 0 to {classes - 1}: the labels of the "
                f"data go from {labels.min()} to {labels.max()}"
            )

    def _loss(self) -> Loss | None:
        """The file's loss; None if it has none."""
        loss = getattr(self._module, "loss", None)
        if not isinstance(loss, Loss) and callable(loss):
            loss = self._made("loss", loss, "an nn.Loss, or a function without arguments that makes one")
        if loss is None:
            return None
        with self._named():
            check_loss(loss)
        return loss

    def _data(self) -> tuple[Dataset, Dataset] | None:
        make = getattr(self._module, "data", None)
        if not callable(make):  # a module of that name, say
            return None
        pair = self._made("data", make, "a function without arguments")
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            given = type(pair).__name__
            raise Refused(f"{self.path}: data() gives a {given}, not a pair of data sets, to train and to test on")
        for what, dataset in zip(("to train on", "to test on"), pair, strict=True):
            with blamed(self.path), self._named():
                check_dataset(f"what data() gives {what}", dataset)
        return tuple(pair)

    def _made(self, name: str, function: Callable, needed: str):
        with self._named():
            try:
                signature(function).bind()
            except TypeError as error:
                raise TypeError(f"{name} must be {needed}: {error}") from None
        with blamed(self.path):
            return function()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What is refused inside is said of the file."""
        try:
            yield
        except (TypeError, ValueError) as error:
            raise Refused(f"{self.path}: {error}") from None

    def _is_own(self, value: object) -> bool:
        return callable(value) and getattr(value, "__module__", None) == self._module.__name__


def _labels(data_set: Dataset) -> np.ndarray | None:
    """Its targets, where they are integers in an array."""
    if isinstance(data_set, Subset):
        labels = _labels(data_set.dataset)
        return None if labels is None else labels[data_set.indices]
    return data_set.y if isinstance(data_set, ArrayDataset) and data_set.y.dtype.kind == "i" else None


def _imported(path: Path) -> ModuleType:
    """The file as a module, found beside its own modules, under a name by which no other can be meant."""
    sys.path.insert(0, str(path.resolve().parent))
    module = ModuleType(str(path))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look there
    cloudpickle.register_pickle_by_value(module)
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place, reason = f"{path}, line {line}" if line else path, getattr(error, "msg", error)
        raise Refused(f"{place}: SyntaxError: {reason}") from None
    with blamed(path):
        exec(code, vars(module))
    return module


def _builder(text: str, function: Callable) -> Builder:
    """A builder of `function`, which takes a mesh or nothing. TypeError for one that takes something else."""
    parameters = signature(function).parameters
    required = [p for p in parameters.values() if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
    inputs, options = ((), {"mesh": None}) if "mesh" in parameters else ((None,) if required else (), {})
    try:
        signature(function).bind(*inputs, **options)
    except TypeError as error:
        raise TypeError(f"{text.rpartition(':')[2]} must take a mesh, or nothing: {error}") from None

    def build(mesh):
        model = function(*(mesh for _ in inputs), **dict.fromkeys(options, mesh))
        if not isinstance(model, Module):
            kind = type(model)
            name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
            raise TypeError(f"{text} returned a {name}, not a minidl.nn.Module")
        return model

    return build
