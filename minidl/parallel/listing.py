"""Programs as people read them: the lists of all ranks side by side, those that are alike once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text

from minidl.display import cut
from minidl.parallel.instructions import Forward, Instruction, SumParts, ThroughBuckets
from minidl.parallel.instructions.buffers import APART
from minidl.trace import COMPUTE
from minidl.units import counted

if TYPE_CHECKING:
    from minidl.parallel.program import Program, RankProgram

SHOWN_LISTS, SHOWN_INSTRUCTIONS = 6, 32  # of more, those in the middle are left out
LANES = "Indented: the communication lanes."


def listing(program: Program) -> RenderableType:
    """The lists of a program: ranks of one stage have the same one, but for those whose list was replaced."""
    in_stage = program.world_size // program.plan.pipeline
    alike = [
        list(ranks)
        for _, ranks in groupby(
            range(program.world_size), lambda rank: (rank // in_stage, rank if rank in program.edited else None)
        )
    ]

    def shown(ranks: Sequence[int] | str) -> Text:
        if isinstance(ranks, str):
            return Text(ranks)
        if len(ranks) == 1:
            name = f"rank {ranks[0]}" + (", edited" if ranks[0] in program.edited else "")
            return _text(name, program[ranks[0]], "rank {}".format)
        name = f"ranks {ranks[0]} {'and' if len(ranks) == 2 else 'to'} {ranks[-1]}"
        return _text(name, program[ranks[0]], lambda rank: f"stage {rank // in_stage}")

    title = f"Program of {program.plan}: {counted(program.world_size, 'list')} of instructions"
    return Group(Text(f"{title}\n{LANES}\n"), Columns(map(shown, cut(alike, SHOWN_LISTS)), padding=(1, 4)))


def rank_listing(program: RankProgram) -> RenderableType:
    """The whole list of one rank."""
    return _text(LANES, program, "rank {}".format, most=len(program.prologue + program.step + program.epilogue))


def _text(title: str, program: RankProgram, peer: Callable[[int], str], most: int = SHOWN_INSTRUCTIONS) -> Text:
    """A list below its title. peer: names another rank."""
    parts = {"": program.step}
    if program.prologue or program.epilogue:
        parts = {
            "before the first step:": program.prologue, "in every step:": program.step,
            "after the last:": program.epilogue,
        }  # fmt: skip
    text = Text(title, "bold")
    for name, part in parts.items():
        lines = [name] * bool(name) + cut(list(_lines(part, peer)), most)
        text.append("".join("\n" + line for line in lines), "not bold")
    return text


def _lines(instructions: Sequence[Instruction], peer: Callable[[int], str]) -> Iterator[str]:
    """What each is, of which micro-batch or bucket, and with whom."""
    last_buckets: dict[int, int] = {}  # of chunks
    for i in instructions:
        if isinstance(i, ThroughBuckets):
            last_buckets[i.chunk] = max(i.last, last_buckets.get(i.chunk, 0))
    for instruction in instructions:
        fields = vars(instruction)
        words = [type(instruction).__name__]
        if fields.get("chunk", APART) != APART and len(last_buckets) > 1:
            words.append(f"chunk {fields['chunk']}")
        if isinstance(instruction, SumParts) or fields.get("chunk") == APART:
            words.append(f"what is apart, {fields.get('bucket', fields.get('apart'))}")
        elif "bucket" in fields:
            words.append(f"bucket {fields['bucket']}")
        elif "micro_batch" in fields:
            words.append(f"{fields['micro_batch']}")
        if isinstance(instruction, ThroughBuckets):
            words += _part(instruction, last_buckets[instruction.chunk])
        words += [f"{word} {peer(fields[name])}" for name, word in (("to", "to"), ("source", "from")) if name in fields]
        yield ("" if instruction.lane == COMPUTE else "  ") + " ".join(words)


def _part(instruction: ThroughBuckets, last_bucket: int) -> list[str]:
    """Which buckets of the chunk it runs through, in its order; nothing where it is all of them."""
    first, last = instruction.first, instruction.last
    if (first, last) == (0, last_bucket):
        return []
    if first == last:
        return [f"bucket {first}"]
    return [f"buckets {first} to {last}" if isinstance(instruction, Forward) else f"buckets {last} to {first}"]
