"""The front door: simulate(model, plan, cluster) -> Prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minidl.collection import collection_paused
from minidl.nn.module import Module
from minidl.one_at_a_time import one_at_a_time
from minidl.parallel.contracts import check_builder, check_loss
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.prepare import Prepared, prepare
from minidl.parallel.program import Program, edited
from minidl.validation import check_positive
from simulator.hardware import Cluster
from simulator.prediction import Prediction
from simulator.prices import Prices
from simulator.simulation import simulation
from simulator.stacks import Stack

ATTENDS_AS = {"plain": "cpu", "flash": "flash"}  # a stack's attention -> for what `prepare` is told that it is


@one_at_a_time
@collection_paused()
def simulate(
    model: Callable[[Mesh], Module],
    plan: Plan,
    cluster: Cluster,
    batch_size: int,
    *,
    example: tuple | None = None,
    loss=None,
    optimizer: Callable | None = None,
    clip_norm: float | None = None,
    edit: Callable[[Program], Program] | None = None,
    stack: str | Path | Stack = "default",
    fitted: bool = True,
) -> Prediction:
    """Predict the first steps of training the chain that `model(mesh)` builds, under `plan`, on `cluster`.

    batch_size: samples of the global batch. example: (x, y) of one or more samples, for a model that carries no example
    of its own. loss: by default the model's own, or CrossEntropyLoss where it carries none. optimizer: a function of
    parameters, Adam by default. clip_norm: as for `train`; how large it is makes no difference here. edit: changes the
    program of training before it is checked and run. stack: the software that would run it, by its name, a path to a
    TOML file, or a Stack; "default" is what minidl does. fitted: multiply all times by the constant that was fitted to
    measured steps of this stack on this device, where there is one. Nothing is allocated and nothing is trained.

    Raises ValueError for arguments that do not fit together, ProgramError for an edited program that is wrong.
    """
    check_builder(model)
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan, not a {type(plan).__name__}")
    if not isinstance(cluster, Cluster):
        raise TypeError(f"cluster must be a Cluster (calibrate(), Cluster.load(…)), not a {type(cluster).__name__}")
    if example is not None and not (isinstance(example, tuple | list) and len(example) == 2):
        raise TypeError("example must be a pair (x, y) of samples")
    if loss is not None:
        check_loss(loss)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    plan.check_batch(batch_size)
    if plan.workers > cluster.devices and cluster.processors is None:
        raise ValueError(f"{plan} needs {plan.workers} devices, {cluster.name} has {cluster.devices}")
    cluster.peak_flops(plan.precision)  # refused where there is none
    chosen = stack if isinstance(stack, Stack) else Stack.load(stack)
    plan = chosen.planned(plan)
    device = ATTENDS_AS.get(chosen.attention, cluster.compute.device)
    settings = dict(
        example=example, loss=loss, optimizer=optimizer, clip=clip_norm is not None, device=device,
        flops_per_byte=cluster.compute.flops_per_byte(plan.precision),
    )  # fmt: skip

    def prepared_for(plan: Plan) -> Prepared:
        return prepare(model, plan, batch_size, **settings)

    prepared = prepared_for(plan)
    program = edited(prepared.training, edit)
    pace = chosen.pace(cluster.device) if fitted else 1.0
    run = simulation(program, Prices(cluster, prepared.costs, chosen, pace))
    return Prediction(
        plan, cluster, chosen, program, batch_size, prepared.profile, prepared.evaluation, run, prepared_for
    )
