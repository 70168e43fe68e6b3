"""A device by the figures of its datasheet, and by those that were calibrated where there are any."""

from __future__ import annotations

from collections.abc import Mapping

from simulator import schema
from simulator.compute.roofline import Roofline

PRECISIONS = ("float32", "tfloat32", "bfloat16", "float16", "float8", "float4", "int8")
KINDS = {  # what a device has where nothing was calibrated on it
    # NVIDIA, Matrix Multiplication Background User's Guide: cuBLAS's largest tile; the rest as fitted on an A100.
    "gpu": dict(memory_fraction=0.85, launch_us=4.0, dispatch_us=5.0, gemm_fraction=0.79, gemm_depth=160,
                gemm_tile_m=128, gemm_tile_n=256),
    # Jouppi et al. 2023 (ISCA): 128 x 128 systolic arrays; a compiled step has no launches, only starts of fusions.
    "tpu": dict(memory_fraction=0.85, launch_us=1.0, dispatch_us=0.0, gemm_fraction=0.9, gemm_depth=128,
                gemm_tile_m=128, gemm_tile_n=128),
}  # fmt: skip
DATASHEET = schema.figures(
    memory_gb=schema.POSITIVE, memory_bandwidth=schema.POSITIVE, vector_flops=schema.POSITIVE, units=schema.COUNT
)
CALIBRATED = schema.figures(
    memory_fraction=schema.SHARE, launch_us=schema.NOT_NEGATIVE, dispatch_us=schema.NOT_NEGATIVE,
    gemm_fraction=schema.SHARE, gemm_depth=schema.NOT_NEGATIVE, gemm_tile_m=schema.COUNT, gemm_tile_n=schema.COUNT,
)  # fmt: skip
PEAKS = schema.table(schema.figures(**dict.fromkeys(PRECISIONS, schema.POSITIVE)), optional=PRECISIONS)
DEVICE = schema.table(
    {"kind": schema.one_of(*KINDS), "peak_flops": PEAKS} | DATASHEET | CALIBRATED, optional=("kind", *CALIBRATED)
)


def device(table: Mapping) -> Roofline:
    """What a [device] table, which fits DEVICE, says that kernels take.

    kind: "gpu" unless it is said; it gives the figures that the table leaves out. ValueError where no peak is given.
    """
    figures = KINDS[table.get("kind", "gpu")] | schema.values(table)
    if not table["peak_flops"]:
        raise ValueError(f"device.peak_flops has no precision: it needs one of {', '.join(PRECISIONS)}")
    return Roofline(
        matrix_flops={
            name: peak * figures["gemm_fraction"] for name, peak in schema.values(table["peak_flops"]).items()
        },
        vector_flops=figures["vector_flops"],
        memory_bandwidth=figures["memory_bandwidth"] * figures["memory_fraction"],
        launch_seconds=figures["launch_us"] * 1e-6,
        dispatch_seconds=figures["dispatch_us"] * 1e-6,
        tile=(figures["gemm_tile_m"], figures["gemm_tile_n"]),
        units=figures["units"],
        depth=figures["gemm_depth"],
    )
