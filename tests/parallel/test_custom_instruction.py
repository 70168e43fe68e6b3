"""An instruction of a user's own is proved, run in workers, priced and drawn as those of the library are."""

from dataclasses import dataclass, replace

import pytest

from minidl import data, models, nn, optim
from minidl.kernels import meta
from minidl.parallel import Plan, ProgramError, WorkerError, train
from minidl.parallel import instructions as I
from minidl.parallel.instructions import CustomInstruction, Touched
from minidl.parallel.instructions import buffers as B
from minidl.parallel.instructions.instruction import Collective
from minidl.trace import COLLECTIVES, COMPUTE
from simulator import simulate
from tests.simulator.hand_made import PerCall, cluster

pytestmark = pytest.mark.usefixtures("warm_workers")

TRAIN, _ = data.digits()
PLAN = Plan(data=2, micro_batches=2, bucket_mb=0.004)


def build(mesh):
    return models.mlp((64, 48, 32, 24, 10), mesh=mesh)


def run(edit=None, lr=0.1, sharding="none"):
    options = dict(loss=nn.CrossEntropyLoss(), batch_size=64, steps=3, timeout=120, edit=edit)
    plan = replace(PLAN, sharding=sharding)
    return train(build, TRAIN, plan, optimizer=lambda parameters: optim.SGD(parameters, lr=lr), **options)


def simulated(edit=None, network=None):
    return simulate(models.builder("mlp-digits"), Plan(data=2), cluster(PerCall(1.0), network), 16, edit=edit)


def before_each(kind, make):
    """An edit that puts `make(instruction)` before each instruction of this class, on every rank."""

    def change(step):
        return tuple(new for i in step for new in ((make(i), i) if isinstance(i, kind) else (i,)))

    return lambda program: program.edit(
        {rank: replace(program[rank], step=change(program[rank].step)) for rank in range(program.world_size)}
    )


def before_update(make):
    """One that makes it of the first bucket."""
    return before_each(I.OptimizerStep, lambda update: make(*update.buckets[0]))


@dataclass(frozen=True)
class OfGradients(CustomInstruction):
    chunk: int
    bucket: int

    def touches(self):
        gradients = [B.gradients(self.chunk, self.bucket)]
        return Touched(reads=gradients, writes=gradients)


@dataclass(frozen=True)
class Double(OfGradients):
    label = "double"

    def run(self, worker):
        worker.stage.bucket(self.chunk, self.bucket).gradients[:] *= 2

    def calls(self, costs):
        with meta.record() as calls:
            x = meta.MetaArray((sum(costs.bytes_of(self.reads[0]).values()) // 4,), "float32")
            meta.multiply(x, x)
        return calls


def doubled(program):
    return before_each(I.ReduceGradients, lambda i: Double(i.chunk, i.bucket))(program)


def test_it_changes_what_workers_compute_and_has_its_place_in_the_trace():
    result = run(doubled, lr=0.05)
    assert result.losses == pytest.approx(run().losses, rel=1e-6)
    events = [e for e in result.trace.steps()[-1].events if e.name == "double"]
    buckets = sum(isinstance(i, I.ReduceGradients) for i in result.program[0].step)
    assert [e.lane for e in events] == [COMPUTE] * 2 * buckets and buckets > 1
    assert {e.details.chunk for e in events} == {0}


def test_it_is_priced_by_its_calls():
    plain, more = simulated(), simulated(doubled)
    assert more.step_seconds == plain.step_seconds + 1.0
    assert [e.end - e.start for e in more.trace.steps()[-1].events if e.name == "double"] == [1.0] * 2


@dataclass(frozen=True)
class Agree(OfGradients, Collective):
    """The mean of what is the same everywhere."""

    axes: tuple = ("data",)
    label, collective = "agree", "all_reduce"

    def run(self, worker):
        flat = worker.stage.bucket(self.chunk, self.bucket).gradients
        handle = worker.mesh.group(*self.axes).all_reduce(flat, op="mean", async_op=True)
        while not handle.poll():
            yield
        return handle.matched


class Slow:
    one_copy = False

    def collective_seconds(self, name, ranks, nbytes, workers):
        return 1.0 if nbytes > 1000 else 0.0  # the sums of the losses are less


def test_it_may_be_a_collective():
    result = run(before_update(Agree))
    assert result.losses == run().losses
    (event, _) = (e for e in result.trace.steps()[-1].events if e.name == "agree")
    assert event.lane == COLLECTIVES and event.details.nbytes > 0
    seconds = simulated(before_update(Agree), Slow()).step_seconds - simulated(network=Slow()).step_seconds
    assert seconds == pytest.approx(1.0)


@dataclass(frozen=True)
class Whole(OfGradients):
    """Refuses gradients that lack a sample of the global batch."""

    def run(self, worker): ...

    def prove(self, facts, rank):
        (gradients,) = self.reads
        if rank.tags[gradients].samples != facts.needed(gradients):
            raise ProgramError(f"rank {rank.number}: too early")
        return super().prove(facts, rank)


def test_what_it_proves_is_asked_before_a_process_starts():
    run(before_update(Whole))
    with pytest.raises(ProgramError, match="rank 0: too early"):
        run(before_each(I.ReduceGradients, lambda i: Whole(i.chunk, i.bucket)))


def test_one_that_does_not_say_what_a_worker_does_is_an_error_that_says_so():
    with pytest.raises(WorkerError, match="OfGradients does not say what a worker does: it needs a method run"):
        run(before_update(OfGradients))


@dataclass(frozen=True)
class Shrink(OfGradients):
    """Changes parameters after the update."""

    def touches(self):
        parameters = [B.parameters(self.chunk, self.bucket)]
        return Touched(reads=parameters, writes=parameters)

    def run(self, worker):
        for p in worker.stage.bucket(self.chunk, self.bucket).parameters:
            values = p.data if p.share is None else p.share[0]
            values *= 0.9


def test_of_sharded_parameters_it_may_change_its_own_share_alone():
    """Replicas that share memory have one copy of them: all of it would be changed once for each replica."""

    def between(program):
        return before_each(I.GatherParameters, lambda i: Shrink(i.chunk, i.bucket))(program)

    def before(program):
        return before_each(I.ReduceScatterGradients, lambda i: Shrink(i.chunk, i.bucket))(program)

    with pytest.raises(ProgramError, match="changes all of parameters of chunk 0"):
        run(before, sharding="optimizer")
    assert run(between, sharding="optimizer").losses[1:] != pytest.approx(run().losses[1:], rel=1e-6)
