"""What a row of published measurements is to the simulator: a model, a plan, a cluster, a stack and an optimizer.

It reads columns, and the tags and remarks of the note, never the row's name. What a row does not state:

- micro_batch: 1. recompute: none. zero: nothing is sharded.
- GPTs are as Megatron's and MosaicML's: learned positions, GELU, layer norms, biases, the head's matrix tied to the
  embedding's. Gated ones are as LLaMA: rotary positions, RMS norms, no biases, a matrix of the head's own.
- A vocabulary is padded to a multiple of the tensor ranks.
- Experts that are spread over more ranks than there are replicas are so over the replicas, and each is cut over the
  tensor ranks: as many bytes and FLOPs for each.
- A batch that is no whole number of micro-batches, or of rounds of them where chunks are interleaved, takes a time
  between those of the two nearest that are, or beyond them: linear in the micro-batches.
- Gradients that do not overlap the backward pass are reduced in one bucket at its end.
- Muon and Adafactor, which take whole matrices, are priced as Adam where ranks have parts of them.
- Experts take an even share of the tokens each, and no more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from minidl import models
from minidl.commands.optimizers import OPTIMIZERS
from minidl.models.builders import Builder
from minidl.parallel.plan import SHARDINGS, Plan
from simulator.hardware import Cluster
from simulator.stacks import Stack
from simulator.validation.rows import Row

ONE_BUCKET = float(2**20)  # MiB: as large as any model
# Micro-batches up to which they are simulated as they are: with several chunks a stage, which are dear to prove, and
# with one.
SOME, MANY = 8, 1024
WHOLE_MATRICES = ("muon", "adafactor")  # optimizers that take them whole
OPTIMIZER = {name: partial(make, lr=rate) for name, (rate, make) in OPTIMIZERS.items()}
STORED = {  # precision of the large products -> that of activations and messages, and that of the products
    "fp32": ("float32", "float32"), "tf32": ("float32", "tfloat32"), "fp16": ("float16", "float16"),
    "bf16": ("bfloat16", "bfloat16"), "fp8": ("bfloat16", "float8"), "mxfp8": ("bfloat16", "float8"),
    "nvfp4": ("bfloat16", "float4"), "int8": ("bfloat16", "int8"),
}  # fmt: skip
# GPT-2's vocabulary as it is, where a row's is assumed: of 34 and 21 rows of vtrain-single without and with tensor
# parallelism, the mean error is then 5.7 and 8.0 %, of 14.2 and 9.3 % with 51,200, which is padded for fast products.
UNPADDED = 50_257
LLAMA = {"positions": "rotary", "feed_forward": "swiglu", "norm": "rms", "bias": False}


@dataclass(frozen=True)
class Case:
    """A row as arguments of `simulate`, whose plan is to have other numbers of micro-batches.

    counts: numbers of micro-batches to simulate, each with the weight of its step time. samples: of a micro-batch, of
    all replicas.
    """

    build: Builder
    plan: Plan
    cluster: Cluster
    stack: Stack
    optimizer: Callable
    counts: tuple[tuple[int, float], ...]
    samples: int


def case(row: Row) -> Case:
    """The case of a row. ValueError says why there is none."""
    workers = math.prod(map(row.size, ("data", "tensor", "pipeline", "context")))
    if row.devices not in (None, workers):
        raise ValueError(f"data × tensor × pipeline × context are {workers} ranks, not {row.devices} devices")
    (batch,) = row.need("global_batch")
    replicas = row.size("data")
    if batch < replicas:
        raise ValueError(f"global_batch {batch:g} is less than data={replicas}: a replica has no sample")
    micro_batch = min(row.size("micro_batch"), int(batch // replicas))
    plan = plan_of(row)
    return Case(
        build=builder_of(row),
        plan=plan,
        cluster=_cluster(row.system, workers, _slice(row)),
        stack=stack_of(row),
        optimizer=optimizer_of(row),
        counts=counts(batch / (replicas * micro_batch), plan.pipeline, plan.micro_batches),
        samples=replicas * micro_batch,
    )


def optimizer_of(row: Row) -> Callable:
    """The optimizer, a function of parameters."""
    if row.optimizer not in OPTIMIZER:
        raise ValueError(f"optimizer {row.optimizer!r} is none of {', '.join(OPTIMIZER)}")
    in_parts = bool(row.zero) or row.size("tensor") > 1
    return OPTIMIZER["adam" if in_parts and row.optimizer in WHOLE_MATRICES else row.optimizer]


def counts(micro_batches: float, stages: int, multiple: int) -> tuple[tuple[int, float], ...]:
    """Numbers of micro-batches that are multiples, and by which weights their step times are that of `micro_batches`.

    Weights are linear in the number, and sum to 1. Up to SOME or MANY, or as many as there are stages, it is the number
    itself if it fits. Beyond, each more takes as long: two numbers give the time of any.
    """
    steady = -(-max(stages, MANY if multiple == 1 else SOME) // multiple) * multiple
    low = min(max(int(micro_batches // multiple) * multiple, multiple), steady)
    beyond = (micro_batches - low) / multiple
    return ((low, 1.0),) if not beyond else ((low, 1.0 - beyond), (low + multiple, beyond))


def plan_of(row: Row) -> Plan:
    """The plan, of one micro-batch, or of one round of them where chunks are interleaved."""
    if row.recompute not in ("", "none", "selective", "full"):
        raise ValueError(f"recompute {row.recompute!r} is none of none, selective, full")
    if row.zero is not None and row.zero >= len(SHARDINGS):
        raise ValueError(f"zero {row.zero} is no stage from 0 to {len(SHARDINGS) - 1}")
    expert = math.gcd(row.size("expert") // (row.size("tensor") if _whole_experts(row) else 1), row.size("data"))
    interleaved = row.size("interleave") > 1 and row.size("pipeline") > 1
    stored, _ = precisions(row)
    return Plan(
        data=row.size("data") // expert,
        expert=expert,
        tensor=row.size("tensor"),
        pipeline=row.size("pipeline"),
        context=row.size("context"),
        micro_batches=row.size("pipeline") if interleaved else 1,
        schedule="interleaved" if interleaved else "1f1b",
        chunks=row.size("interleave") if interleaved else 1,
        recompute=row.recompute or "none",
        sharding=SHARDINGS[row.zero or 0],
        sequence_parallel=bool(row.sequence_parallel) and row.size("tensor") > 1,
        precision=stored,
    )


def builder_of(row: Row) -> Builder:
    """The builder of the model."""
    if row.model not in ("gpt", *models.BUILDERS):
        raise ValueError(f"unknown model {row.model!r}: there are gpt, {', '.join(models.BUILDERS)}")
    if row.model != "gpt" and row.layers is None:
        return models.builder(row.model)
    layers, hidden, heads, vocab, seq = row.need("layers", "hidden", "heads", "vocab", "seq")
    if re.search(r"vocab \d+ assumed", row.note):
        vocab = UNPADDED
    vocabulary = -(-vocab // row.size("tensor")) * row.size("tensor")
    options = dict(layers=layers, hidden=hidden, heads=heads, vocabulary=vocabulary, sequence=seq)
    options["dropout"] = stack_of(row).dropout
    if row.model == "bert-large":
        return models.builder(row.model, tied=True, **options)
    (options["inner"],) = row.need("ffn")
    if row.experts:
        options |= {"experts": row.experts, "top_k": row.experts_per_token or 1, "capacity_factor": 1.0}
        options["whole_experts"] = _whole_experts(row)
    if row.model != "gpt":
        return models.builder(row.model, **options, **_dense_layers(row))
    options |= {"kv_heads": row.kv_heads or heads, "head_dim": row.head_dim, "window": _window(row)}
    options |= LLAMA if row.gated_mlp else {"tied": True}
    model = models.moe_gpt if row.experts else models.gpt
    return lambda mesh=None: model(mesh=mesh, **options)


def _whole_experts(row: Row) -> bool:
    """Whether the tensor ranks share experts, and not the features of each, as Megatron's recipes have it."""
    return bool(row.experts) and row.size("tensor") > 1 and row.size("expert") % row.size("tensor") == 0


def _dense_layers(row: Row) -> dict[str, int]:
    """The first layers that have no experts, where the note says how many and how large they are."""
    if found := re.search(r"(first|\d+) (?:layer dense with|dense layers of) ffn (\d+)", row.note):
        return {"dense_layers": 1 if found[1] == "first" else int(found[1]), "dense_inner": int(found[2])}
    return {}


def _window(row: Row) -> int | None:
    """The keys before a query that it sees, where the note says by what the FLOPs of attention are scaled.

    Of s keys a window of w has s·w - w²/2 pairs, where all those before have s²/2.
    """
    if found := re.search(r"attention term scaled by ([\d.]+) for the sliding window", row.note):
        (seq,) = row.need("seq")
        return round(seq * (1 - math.sqrt(1 - float(found[1]))))
    return None


def stack_of(row: Row) -> Stack:
    """The stack, in which the row's tags say what it does otherwise."""
    stored, products = precisions(row)
    return _stack(
        row.stack, products if products != stored else "", row.tags.get("flash", ""), row.tags.get("tp_overlap", ""),
        row.data_overlap == 0,
    )  # fmt: skip


@lru_cache
def _stack(name: str, products: str, flash: str, tensor_overlap: str, one_bucket: bool) -> Stack:
    changes: dict[str, object] = {"products": products} if products else {}
    if flash in ("0", "1"):
        changes["attention"] = "flash" if flash == "1" else "plain"
    if tensor_overlap in ("0", "1"):
        changes["tensor_overlap"] = tensor_overlap == "1"
    if one_bucket:
        changes["bucket_mb"] = ONE_BUCKET
    return replace(Stack.load(name), **changes)


@lru_cache
def _cluster(name: str, devices: int, devices_per_slice: int | None) -> Cluster:
    return Cluster.load(name, devices, devices_per_node=devices_per_slice)


def _slice(row: Row) -> int | None:
    """The chips of a slice of a TPU pod, where the note says that there are several, joined by another network."""
    found = re.search(r"\b(\d+) slices of \S+ \((\d+) chips\)", row.note)
    return int(found[2]) if found else None


def precisions(row: Row) -> tuple[str, str]:
    """That of activations and messages, and that of the large products."""
    if row.precision not in STORED:
        raise ValueError(f"precision {row.precision!r} is none of {', '.join(STORED)}")
    return STORED[row.precision]
