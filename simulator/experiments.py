"""What a comparison tries: models that train here, and plans for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from minidl import models, nn, optim
from minidl.commands.arguments import Refused
from minidl.commands.own_model import blamed
from minidl.commands.tasks import SOURCES, task
from minidl.data import Dataset, digits
from minidl.parallel import Plan
from minidl.parallel.chain_profile import ChainProfile
from minidl.parallel.prepare import prepare
from simulator.measured_devices import MEASURED_DEVICES
from simulator.plans_to_try import PLANS_TO_TRY

WARM_UP = 2  # steps of each run that are not timed
ROUNDS, QUICK_ROUNDS = 3, 1  # of all plans in turn, so that a slow minute of the machine falls on all of them

PERCEPTRON, SIZES = "mlp", (64, 512, 512, 512, 512, 512, 10)
CNN = "cnn-digits"
MODELS = (PERCEPTRON, *(name for name, source in SOURCES.items() if not source.in_folder))
BATCH_SIZES = {"gpt-tiny": 16, "moe-tiny": 16}  # where it is not that of an Experiment by default


@dataclass(frozen=True)
class Experiment:
    """A model, by the name it has in the table, and the plans to try on it; the first is what speedups refer to.

    steps: of each run, at most; more than the WARM_UP that are not timed. batch_size: samples of a global batch. file:
    the user's, which the model comes from; the methods refuse what goes wrong in its code.
    """

    name: str
    build: Callable
    plans: tuple[Plan, ...] = ()
    steps: int = 16
    batch_size: int = 256
    train_set: Dataset = field(default_factory=lambda: digits()[0])
    loss: nn.Loss = field(default_factory=nn.CrossEntropyLoss)
    file: Path | None = None

    def __post_init__(self):
        if self.steps <= WARM_UP:
            raise ValueError(f"steps={self.steps}: the first {WARM_UP} are not timed, so there must be more")

    @property
    def example(self) -> tuple:
        """Input and target of one sample."""
        with blamed(self.file):
            return self.train_set[np.arange(1)]

    def check(self, plan: Plan) -> None:
        """ValueError unless the model can be trained under the plan."""
        plan.check_batch(self.batch_size)
        if len(self.train_set) < self.batch_size:
            raise ValueError(f"a step takes {self.batch_size} samples, the data set has {len(self.train_set)}")
        self.profile(plan)

    def profile(self, plan: Plan, device: str = "cpu") -> ChainProfile:
        """What a micro-batch calls on a device."""
        with blamed(self.file):
            settings = {"example": self.example, "loss": self.loss, "optimizer": sgd, "device": device}
            return prepare(self.build, plan, self.batch_size, **settings).profile


def sgd(parameters) -> optim.SGD:
    """The optimizer of all experiments."""
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def experiments(
    names: Sequence[str] = (), plans: Sequence[Plan] = (), quick: bool = False, device: str = "cpu"
) -> tuple[Experiment, ...]:
    """The experiments on the models that are named, of MODELS or `file.py:build`, each under `plans`.

    Without plans: under those of PLANS_TO_TRY that the model can be trained under. Without names: on the perceptron
    and, unless there are plans or it is to be quick, on a convolutional network. ValueError if a model cannot be
    trained by one worker or under a plan that is given, if something is given twice, or if a plan has several workers
    on a device for one. Refused if a file of the user's is not as `minidl.commands.own_model` says, or its code
    raises an error then.
    """
    _check_distinct("model", names)
    _check_distinct("plan", plans)
    usual = PLANS_TO_TRY[device]
    for plan in plans:
        if plan.workers > 1 and not MEASURED_DEVICES[device].parallel:
            raise ValueError(f"device {device} trains on one worker yet, the plan {plan} has {plan.workers}")
    if names or plans or quick:
        chosen = {name: usual.quick if quick else usual.plans for name in names or (PERCEPTRON,)}
    else:
        chosen = {PERCEPTRON: usual.plans, CNN: usual.few}
    made = [(_experiment(name), otherwise) for name, otherwise in chosen.items()]
    return tuple(
        replace(experiment, plans=_checked(experiment, plans) if plans else _fitting(experiment, otherwise))
        for experiment, otherwise in made
    )


def with_one_worker(plans: Sequence[Plan]) -> tuple[Plan, ...]:
    """The plans, the first of one worker at their head; if there is none, `Plan()`."""
    first = next((plan for plan in plans if plan.workers == 1), Plan())
    return (first, *(plan for plan in plans if plan != first))


def _experiment(name: str) -> Experiment:
    if name == PERCEPTRON:
        return Experiment(f"{name} {'-'.join(map(str, SIZES))}", lambda mesh: models.mlp(SIZES, mesh))
    if name not in MODELS and ":" not in name:
        raise ValueError(f"unknown model {name!r}: there are {', '.join(MODELS)}")
    found = task(name, Plan(), None, False)
    made = Experiment(name, found.build, train_set=found.train_set, loss=found.loss, file=found.file)
    return replace(made, batch_size=BATCH_SIZES.get(name, made.batch_size))


def _checked(experiment: Experiment, plans: Sequence[Plan]) -> tuple[Plan, ...]:
    plans = with_one_worker(plans)
    for plan in plans:
        _check(experiment, plan)
    return plans


def _fitting(experiment: Experiment, plans: Sequence[Plan]) -> tuple[Plan, ...]:
    """The plan of one worker, which must fit, and those of the others that do."""
    one, *others = plans
    _check(experiment, one)
    fitting = [one]
    for plan in others:
        with suppress(ValueError, Refused):
            experiment.check(plan)
            fitting.append(plan)
    return tuple(fitting)


def _check(experiment: Experiment, plan: Plan) -> None:
    try:
        experiment.check(plan)
    except ValueError as error:
        raise ValueError(f"{experiment.name} cannot be trained under the plan {plan}: {error}") from None


def _check_distinct(what: str, given: Iterable[object]) -> None:
    texts = [str(item) for item in given]
    for text in texts:
        if texts.count(text) > 1:
            raise ValueError(f"the {what} {text} is given twice")
