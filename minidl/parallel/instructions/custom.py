"""CustomInstruction: one of a user's own. It says itself what the library's tables say of their instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minidl.parallel.instructions.instruction import Instruction

if TYPE_CHECKING:
    from minidl.parallel.block_profile import Call
    from minidl.parallel.costs import Costs
    from minidl.parallel.handle import Steps
    from minidl.parallel.runtime.worker import Worker
    from minidl.parallel.tags import Brought, Facts, RankTags, Tags


class CustomInstruction(Instruction):
    """One step of a rank that the library has no instruction for.

    A subclass is a frozen dataclass with a `label`, with `touches`, and with the methods below. `Program.edit` puts it
    into lists, `train(…, edit=…)` and `simulate(…, edit=…)` run these; the class goes to the workers with them. It
    computes; one that communicates has `instruction.Collective` as a second base. Its fields say all that it does:
    in the simulator ranks whose lists are equal stand for one another (folding.py).
    """

    def run(self, worker: Worker) -> Steps | None:
        """Do it, in a worker. Parameters and their gradients are in `worker.stage`, all else in `worker.buffers`.

        Of parameters that are sharded it may change its own share alone (`Parameter.share`), after the update: the rest
        is the others', who may lie in the same memory and change it as soon as this rank's gradients are reduced.
        A collective returns a generator, as the functions of runtime/communication.py do.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what a worker does: it needs a method run")

    def prove(self, facts: Facts, rank: RankTags, brought: Brought | None = None) -> Tags:
        """The tags of what it writes, from those of what it reads (`rank.tags`); ProgramError if it may not stand here.

        By default what it changes in place stands for what it did before. brought: to a collective, by all.
        """
        return {buffer: rank.tags[buffer] for buffer in self.writes if buffer in self.reads}

    def calls(self, costs: Costs) -> Sequence[Call]:
        """The kernel calls by which it is priced: what `minidl.kernels.meta.record` finds. A collective has none."""
        return ()
