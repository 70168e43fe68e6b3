"""A [device] table: the figures of a datasheet, those that may have been calibrated, and what stands in for these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

from simulator import schema
from simulator.compute.products import WIDTH, Products, Tiles
from simulator.compute.roofline import Roofline

PRECISIONS = tuple(WIDTH)
# The sizes for which cuBLAS and CUTLASS have kernels; "tile and wave quantisation" in NVIDIA's guide (see Products).
GPU_TILES: Tiles = ((128, 256), (256, 128), (128, 128), (64, 256), (256, 64), (64, 128), (128, 64), (64, 64))
ASSUMED = "assumed"
FITTED = "as fitted on the A100 and the H100"
UNLIMITED = "nothing known of what its power allows"
STEPS = "read from steps on A100"
RESNETS = "read from steps on V100 and A100: NVIDIA DLE's tables of ResNet-50"
DAO = "Dao 2023, FlashAttention-2, on A100: the lower end of its 50 to 73%; backward in proportion to its 63%"
KINDS: dict[str, dict[str, tuple[float, str]]] = {  # figures, and their sources, where nothing was calibrated
    "gpu": dict(
        memory_fraction=(0.85, "assumed: what kernels that stream data reach of the bandwidth"),
        launch_us=(2.0, "assumed: start and end of a kernel"),
        dispatch_us=(5.0, "assumed: a launch by an eager framework"),
        gemm_fraction=(0.78, "as fitted on the A100"),
        gemm_depth=(150.0, FITTED),
        gemm_last_wave=(0.26, FITTED),
        gemm_start_us=(3.0, "assumed: between the A100 and the H100"),
        gemm_accumulate=(0.45, "as fitted on the A100 and the B200"),
        gemm_sustained=(1.0, UNLIMITED),
        gemm_burst_us=(0.0, UNLIMITED),
        gemm_unaligned=(0.25, f"{STEPS}: logits of 50,257 tokens at 78 TFLOP/s, vTrain's table of one node"),
        gemm_unaligned_batched=(0.055, f"{STEPS}: attention with heads of 150 at 17 TFLOP/s, BigScience's prequel"),
        attention_forward=(0.5, DAO),
        attention_backward=(0.43, DAO),
        convolution_fraction=(1.0, f"{RESNETS}: in float16"),
        array=(1, "no systolic array"),
    ),
    "tpu": dict(
        memory_fraction=(0.85, "assumed: what streaming reaches of the bandwidth"),
        launch_us=(1.0, "assumed: a compiled program has no launches, only the start of each fusion"),
        dispatch_us=(0.0, "a compiled step is one launch"),
        gemm_fraction=(0.9, "assumed: whole MaxText steps reach 0.72 to 0.79 of peak on TPU v4"),
        gemm_depth=(0.0, "assumed: arrays are filled beside products"),
        gemm_last_wave=(1.0, "assumed: products are cut as units need it"),
        gemm_start_us=(1.0, "assumed, as launch_us"),
        gemm_accumulate=(1.0, ASSUMED),
        gemm_sustained=(1.0, UNLIMITED),
        gemm_burst_us=(0.0, UNLIMITED),
        gemm_unaligned=(1.0, "what does not fill an array is filled up"),
        gemm_unaligned_batched=(1.0, "what does not fill an array is filled up"),
        attention_forward=(0.5, "assumed, as on a GPU"),
        attention_backward=(0.43, "assumed, as on a GPU"),
        convolution_fraction=(1.0, ASSUMED),
        array=(128, "Jouppi et al. 2023 (ISCA), table 1: matrix units of 128 x 128"),
    ),
}  # fmt: skip
IN_FLOAT32 = "assumed: cuBLAS outside of matrix units"
FRACTIONS_OF: dict[str, dict[str, dict[str, tuple[float, str]]]] = {  # the same, in some precisions
    "gpu": dict(
        gemm_fractions={"float32": (0.92, IN_FLOAT32)},
        convolution_fractions={
            "float32": (0.9, f"{RESNETS}, TensorFlow's of 2017 on P100"),
            "tfloat32": (0.5, RESNETS),
        },
    ),
    "tpu": dict(gemm_fractions={}, convolution_fractions={}),
}
FEEDS = {  # gemm_feed_bandwidth over the memory's, where it was not calibrated
    "gpu": (3.0, "assumed: 3 times the memory's, between 1.8 as fitted on the A100 and 5.7 on the H100"),
    "tpu": (1e6, "an array holds what it uses again"),
}
ALIGNMENT = 16  # bytes: NVIDIA, Matrix Multiplication Background User's Guide, "requirements to use tensor cores"
DATASHEET = schema.figures(
    memory_gb=schema.GIGABYTES, memory_bandwidth=schema.BANDWIDTH, vector_flops=schema.FLOPS, units=schema.COUNT
)
FROM_0_TO_1 = schema.number("a number from 0 to 1", lambda x: 0 <= x <= 1)
CALIBRATED = schema.figures(
    memory_fraction=schema.SHARE, launch_us=schema.MICROSECONDS, dispatch_us=schema.MICROSECONDS,
    gemm_fraction=schema.SHARE, gemm_depth=schema.NOT_NEGATIVE, gemm_last_wave=FROM_0_TO_1,
    gemm_start_us=schema.MICROSECONDS, gemm_feed_bandwidth=schema.BANDWIDTH, gemm_accumulate=schema.SHARE,
    gemm_sustained=schema.SHARE, gemm_burst_us=schema.MICROSECONDS, gemm_unaligned=schema.SHARE,
    gemm_unaligned_batched=schema.SHARE, attention_forward=schema.SHARE, attention_backward=schema.SHARE,
    convolution_fraction=schema.SHARE, array=schema.COUNT,
)  # fmt: skip
PEAKS = schema.table(schema.figures(**dict.fromkeys(PRECISIONS, schema.FLOPS)), optional=PRECISIONS)
FRACTIONS = schema.table(schema.figures(**dict.fromkeys(PRECISIONS, schema.SHARE)), optional=PRECISIONS)
BY_PRECISION = ("gemm_fractions", "convolution_fractions")
DEVICE = schema.table(
    {"kind": schema.one_of(*KINDS), "peak_flops": PEAKS}
    | dict.fromkeys(BY_PRECISION, FRACTIONS)
    | DATASHEET
    | CALIBRATED,
    optional=("kind", *BY_PRECISION, *CALIBRATED),
)


def described(table: Mapping) -> dict:
    """The table, which fits DEVICE, with the figures that it leaves out, as its kind has them: a GPU unless it is said.

    ValueError where no peak is given.
    """
    if not table["peak_flops"]:
        raise ValueError(f"device.peak_flops has no precision: it needs one of {', '.join(PRECISIONS)}")
    kind = table.get("kind", "gpu")
    ratio, why = FEEDS[kind]
    defaults = KINDS[kind] | {"gemm_feed_bandwidth": (ratio * table["memory_bandwidth"]["value"], why)}
    fractions = {name: _figures(given) | table.get(name, {}) for name, given in FRACTIONS_OF[kind].items()}
    return {"kind": kind} | dict(table) | {k: f for k, f in _figures(defaults).items() if k not in table} | fractions


def _figures(sourced: Mapping[str, tuple[float, str]]) -> dict[str, dict]:
    return {name: {"value": value, "source": source} for name, (value, source) in sourced.items()}


def device(table: Mapping) -> Roofline:
    """What a [device] table, which fits DEVICE, says that kernels take.

    Of equal tables it is the very same, so that what was found of kernels (stretches.py) holds for all clusters.
    """
    return _device(json.dumps(described(table), sort_keys=True))


@lru_cache(128)
def _device(as_text: str) -> Roofline:
    table = json.loads(as_text)
    f, array = schema.values(table), table["array"]["value"]
    products = Products(
        units=f["units"],
        tiles=GPU_TILES if array == 1 else ((8, array), (array, 8)),  # rows stream through what holds weights
        inner=array,
        memory_bandwidth=f["memory_bandwidth"],
        fraction=f["gemm_fraction"],
        fractions=schema.values(table["gemm_fractions"]),
        depth=f["gemm_depth"],
        vector_flops=f["vector_flops"],
        last_wave=f["gemm_last_wave"],
        start_seconds=f["gemm_start_us"] * 1e-6,
        feed_bandwidth=f["gemm_feed_bandwidth"],
        accumulate=f["gemm_accumulate"],
        sustained=f["gemm_sustained"],
        burst_seconds=f["gemm_burst_us"] * 1e-6,
        alignment=ALIGNMENT,
        unaligned=f["gemm_unaligned"],
        unaligned_batched=f["gemm_unaligned_batched"],
    )
    return Roofline(
        peak_flops=schema.values(table["peak_flops"]),
        vector_flops=f["vector_flops"],
        memory_bandwidth=f["memory_bandwidth"] * f["memory_fraction"],
        products=products,
        launch_seconds=f["launch_us"] * 1e-6,
        dispatch_seconds=f["dispatch_us"] * 1e-6,
        attention_forward=f["attention_forward"],
        attention_backward=f["attention_backward"],
        convolution_fraction=f["convolution_fraction"],
        convolution_fractions=schema.values(table["convolution_fractions"]),
        winograd=array == 1,
    )
