"""What a builder, a data set, a loss, callbacks and an optimizer must be: refused at the door, in one sentence."""

from collections.abc import Callable, Iterable
from inspect import signature

import numpy as np

from minidl.nn.losses import Loss
from minidl.nn.module import Module
from minidl.optim import Optimizer


def check_builder(build: object) -> None:
    """TypeError unless `build` is a function of a mesh; a model that is built already is not."""
    if isinstance(build, Module) or not callable(build):
        raise TypeError(
            f"the model must be given as a builder, a function of a mesh that returns it (lambda mesh: …), "
            f"not as a {type(build).__name__}"
        )


def check_takes_one(what: str, function: Callable, argument: str) -> None:
    """TypeError unless `function` can be called with one argument; of some that are built in nobody can say."""
    try:
        signature(function).bind(None)
    except TypeError as error:
        raise TypeError(f"{what} is called with one argument, {argument}: {function!r} does not take it") from error
    except ValueError:
        pass


def check_dataset(name: str, dataset: object) -> None:
    """Refuse a data set that is empty, or that does not give arrays (x, y) for an array of indices."""
    try:
        length = len(dataset)
        arrays = dataset[np.arange(min(1, length))]
        fits = len(arrays) == 2 and all(isinstance(array, np.ndarray) for array in arrays)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise TypeError(
            f"{name}, a {type(dataset).__name__}, does not give arrays (x, y) for an array of indices: "
            "use data.ArrayDataset(x, y)"
        )
    if length == 0:
        raise ValueError(f"{name} is empty")


def check_loss(loss: object) -> None:
    """Refuse what is no Loss, and one that is no mean: only a mean does not depend on how a batch is cut."""
    if not isinstance(loss, Loss):
        raise TypeError(f"loss must be an nn.Loss with sum_and_weight(output, target), nn.MSELoss() say, not {loss!r}")
    if loss.reduction not in ("mean", "batchmean"):
        raise ValueError(f"the loss has reduction={loss.reduction!r}: training needs the mean over a batch")


def callback_list(callbacks: object) -> list[Callable]:
    """The callbacks as a list. TypeError unless each is a function."""
    found = list(callbacks) if isinstance(callbacks, Iterable) else [None]
    if not all(map(callable, found)):
        raise TypeError(f"callbacks must be a sequence of functions of a StepRecord, not {callbacks!r}")
    for callback in found:
        check_takes_one("a callback", callback, "a StepRecord")
    return found


def check_optimizer(optimizer: object) -> None:
    """TypeError unless `optimizer` is a function of parameters."""
    if isinstance(optimizer, Optimizer) or not callable(optimizer):
        raise _no_optimizer(optimizer)
    check_takes_one("optimizer", optimizer, "the parameters")


def made_optimizer(optimizer: Callable, parameters: Iterable) -> Optimizer:
    """The optimizer of `parameters` that the function makes. TypeError unless it makes one."""
    made = optimizer(parameters)
    if not isinstance(made, Optimizer):
        raise _no_optimizer(optimizer, f", which returns {made!r}")
    return made


def make_optimizer(optimizer: Callable, parameters: Iterable) -> Optimizer:
    """The optimizer of `parameters`. TypeError unless `optimizer` is a function that returns one."""
    check_optimizer(optimizer)
    return made_optimizer(optimizer, parameters)


def _no_optimizer(optimizer: object, returned: str = "") -> TypeError:
    return TypeError(
        "optimizer must be a function of parameters that returns an Optimizer "
        f"(lambda parameters: optim.SGD(parameters, lr=0.1)), not {optimizer!r}{returned}"
    )
