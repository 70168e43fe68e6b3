"""An instruction of your own: the norm of each bucket's gradient, logged by every worker just before the update.

The class says all that there is to say of an instruction: which buffers it touches, what a worker does, what the
checker proves of it, and the kernel calls by which the simulator prices it. `edit` puts it into the lists.
"""

import logging
from dataclasses import dataclass, replace

from minidl import data, models, nn, optim
from minidl.kernels import for_array, meta
from minidl.parallel import Plan, ProgramError, train
from minidl.parallel.instructions import CustomInstruction, OptimizerStep, ReduceGradients, Touched
from minidl.parallel.instructions import buffers as B
from simulator import Cluster, simulate

logging.basicConfig(format="rank %(rank)d, %(message)s", level=logging.INFO)


@dataclass(frozen=True)
class ProbeGradient(CustomInstruction):
    """Log the norm of the gradient of a bucket: of the sum of the losses, by its parameters."""

    chunk: int
    bucket: int
    label = "probe"

    def touches(self):
        """By this it waits for the reduction of the bucket, and the update waits for it."""
        return Touched(reads=[B.gradients(self.chunk, self.bucket)])

    def run(self, worker):
        flat = worker.stage.bucket(self.chunk, self.bucket).gradients
        norm = for_array(flat).squared_norm(flat) ** 0.5
        logging.info("step %d: the gradient of bucket %d has norm %.3f", worker.step.number, self.bucket, norm)

    def prove(self, facts, rank):
        """Every sample of the global batch is in the gradient, once, and all of it is here, no share."""
        (gradients,) = self.reads
        if rank.tags[gradients].samples != facts.needed(gradients) or not rank.tags[gradients].whole:
            raise ProgramError(f"rank {rank.number}: {self} comes before all samples are in it, or is of a share")
        return {}

    def calls(self, costs):
        """The kernel, called on an array without elements."""
        (nbytes,) = costs.bytes_of(self.reads[0]).values()
        with meta.record() as calls:
            meta.squared_norm(meta.MetaArray((nbytes // 4,), "float32"))
        return calls


def probed(program, before=OptimizerStep):
    """The program with a probe of each bucket in every rank's list, before the first instruction of such a class."""
    lists = {}
    for rank in range(program.world_size):
        step = program[rank].step
        place = next(n for n, i in enumerate(step) if isinstance(i, before))
        buckets = next(i.buckets for i in step if isinstance(i, OptimizerStep))
        written = {buffer for i in step[:place] for buffer in i.writes}
        probes = [ProbeGradient(*where) for where in buckets if B.gradients(*where) in written]
        lists[rank] = replace(program[rank], step=(*step[:place], *probes, *step[place:]))
    return program.edit(lists)


def build(mesh):
    return models.mlp((64, 256, 256, 10), mesh)


train_set, _ = data.digits()
settings = dict(optimizer=lambda parameters: optim.SGD(parameters, lr=0.1), loss=nn.CrossEntropyLoss(), batch_size=256)
plan = Plan(data=2, bucket_mb=0.25)

run = train(build, train_set, plan, steps=3, edit=probed, **settings)
took = [event.end - event.start for event in run.trace.events if event.name == "probe"]
print(f"measured: {len(took)} probes, the shortest of {min(took) * 1e6:.0f} µs, on the {ProbeGradient.lane} lane")

# The checker refuses one that comes too early: before the gradients are reduced, when each replica has its own.
try:
    train(build, train_set, plan, steps=3, edit=lambda program: probed(program, ReduceGradients), **settings)
except ProgramError as error:
    print(f"refused: {error}")

# The simulator prices it by its calls.
model, where = models.builder("gpt2-small"), Cluster.load("dgx-a100", devices=2)
half = Plan(data=2, precision="bfloat16")
without, with_probe = (simulate(model, half, where, batch_size=16, edit=edit) for edit in (None, probed))
extra = with_probe.step_seconds - without.step_seconds
print(f"GPT-2 on two A100: {without.step_seconds * 1e3:.1f} ms a step, and {extra * 1e3:.2f} ms more with probes")
