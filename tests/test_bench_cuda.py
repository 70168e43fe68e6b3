"""What `python -m minidl bench cuda` prints of a GPU; here its figures are made up."""

import io

from rich.console import Console

from minidl.bench.gpu import KernelRow, StepRow
from minidl.commands.bench_cuda import show


def test_tables_of_the_usual_sizes_fit_into_80_columns_and_nothing_is_cut():
    rows = [
        KernelRow("layer_norm_grad", (65536, 1024), 1.234e-4, 2, 3.456e12, 0.0, None, 0.912, 1.234, 0.85),
        KernelRow("attention", (8, 16, 2048, 64), 1.234e-2, 1, 3.456e9, 34.5e12, 3e-2, None, 1.11, 0.4),
        KernelRow("batch_norm", (256, 64, 64, 64), 1.234e-6, 3, 3.456e11, 0.0, None, 1.0, None, None),
    ]
    steps = [StepRow("W4", 123.4, 12.345, 1234, 12.34), StepRow("W1", 1.234, 0.1234, 123)]
    document = {
        "machine": {"gpu": "NVIDIA H200"}, "launch_seconds": 1.234e-5, "copy_bytes_per_second": 3.9e12,
        "step_targets": {"W4": 2.0},
    }  # fmt: skip
    printed = io.StringIO()
    show(Console(file=printed, width=80), document, rows, steps)
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + 2 + len(rows) + 1 + len(steps)
    for row, words in (
        (3, "layer_norm_grad 65536×1024 123 µs 2 (20%) 3.46 TB/s 91% 123% ≥ 85%"),
        (4, "attention 8×16×2048×64 12.3 ms 1 (0%) 34.5 TFLOP/s 111% ≥ 40%"),
        (5, "batch_norm 256×64×64×64 1.23 µs 3 (100%) 346 GB/s 100%"),
        (7, "W4 2.06 min 12.3 ms 1234 × 12.3 µs = 15.2 ms 12.3 ms 1.00 ≤ 2.0"),
    ):
        assert lines[row].split() == words.split()
