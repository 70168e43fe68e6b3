"""`python -m minidl bench`: benchmarks of this machine; every result is a ratio within one run."""

from minidl.commands import bench_cuda, bench_parallel, bench_train


def add_parser(commands) -> None:
    parser = commands.add_parser("bench", help="measure this machine", description="Benchmarks of this machine.")
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    bench_cuda.add_parser(benchmarks)
    bench_parallel.add_parser(benchmarks)
    bench_train.add_parser(benchmarks)
