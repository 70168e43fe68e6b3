"""Programs of a chain of equal blocks, and ways to spoil them."""

import itertools
from dataclasses import dataclass, replace

import pytest

from minidl.parallel import Plan, ProgramError, check
from minidl.parallel import instructions as I
from minidl.parallel.assembly import evaluation_program, training_program
from minidl.parallel.instructions.instruction import Touched
from minidl.parallel.layout import layout

BLOCKS = 8
PIPELINE = Plan(data=2, pipeline=2, micro_batches=4)  # rank = 2 * stage + replica


def programs(plan, clip=False, norms=False, first_trained=0):
    """The training and the evaluation program under `plan` of a chain of 8 equal blocks, each a bucket."""
    cuts = layout(plan, [1.0] * BLOCKS, [2**20] * BLOCKS, first_trained)
    return training_program(plan, cuts, clip, norms), evaluation_program(plan, cuts, statistics=True)


def edited(program, rank, change):
    """The program in which `change(list of instructions)` has changed the list of one rank."""
    step = list(program[rank].step)
    changed = change(step) or step
    return program.edit({rank: replace(program[rank], step=tuple(changed))})


@dataclass(frozen=True)
class Discard(I.Instruction):
    """Frees buffers, whatever is in them."""

    buffers: tuple

    def touches(self):
        return Touched(reads=self.buffers, frees=self.buffers)


def find(step, kind, **fields):
    return next(n for n, i in enumerate(step) if type(i) is kind and all(getattr(i, k) == v for k, v in fields.items()))


def caught(program, *words):
    with pytest.raises(ProgramError) as error:
        check(program)
    for word in words:
        assert word in str(error.value), str(error.value)


def training(plan=PIPELINE, **options):
    return programs(plan, **options)[0]


def by_all(program, change):
    """The program in which `change(instruction) -> instructions` is done to the step of every rank."""
    return program.edit(
        {
            rank: replace(program[rank], step=tuple(itertools.chain(*map(change, program[rank].step))))
            for rank in range(program.world_size)
        }
    )
