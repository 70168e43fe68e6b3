"""`python -m simulator hardware`: the clusters of the catalog; of one, its topology, rooflines and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import inf

from rich.console import Console
from rich.text import Text

from minidl.commands.arguments import Refused, check_writable
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.output import print_table
from minidl.commands.pictures import drawn, pictures
from minidl.commands.progress import progress
from minidl.units import counted, duration, scaled
from simulator import cluster_file, schema
from simulator.commands.cluster_option import THIS_MACHINE, cluster_name, this_machine
from simulator.commands.shared_output import add_file_options, plain_table, say, say_written
from simulator.compute.device import BY_PRECISION
from simulator.hardware import Cluster
from simulator.kernel_list import PredictedKernel, predicted_kernels
from simulator.rooflines import rooflines

DESCRIPTION = """\
List the clusters of the catalog; or show one of them, or a TOML file of one:
its topology, its rooflines (the arithmetic for each byte from which products
are bound by their peak), and every figure with its source; the first two also
in hardware.png and .svg.
"""
EPILOG = f"""\
examples:
  python -m simulator hardware
  python -m simulator hardware gb200-nvl72 --out here --json rack.json
  python -m simulator hardware dgx-h100-80g --kernels

How to write a file of your own: README.md beside the catalog, in
simulator/catalog/.

{EXIT_CODES}"""
LISTED = "From a device: memory, peak of products, to others in its unit, to other units."


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "hardware", help="the clusters of the catalog; topology, rooflines and figures of one",
        description=DESCRIPTION, epilog=EPILOG,
    )  # fmt: skip
    add = parser.add_argument
    add("name", nargs="?", type=cluster_name, metavar="NAME",
        help=f"{THIS_MACHINE}, a cluster of the catalog or a TOML file (default: list them all)")  # fmt: skip
    add("--kernels", action="store_true", help="only the kernels of `python -m minidl bench cuda`, as predicted for it")
    add_file_options(add, "hardware")
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    """List or show as asked."""
    if options.name is None:
        if options.kernels:
            raise Refused("hardware: --kernels needs NAME, the cluster of whose device they are predicted")
        check_writable(options.json)
        return _catalog(options)
    if options.kernels:
        return _kernels(options)
    paths = pictures(options.out, "hardware")
    check_writable(options.json, *paths)
    if options.name == THIS_MACHINE:
        with progress() as tell:
            cluster, table = this_machine(tell), None
    else:
        table = cluster_file.described(options.name)
        cluster = Cluster.load(options.name)

    def figure():
        from simulator.hardware_figure import hardware_figure  # loaded late: matplotlib takes as long as the rest

        return hardware_figure(cluster)

    def show(console: Console) -> None:
        console.print(cluster, highlight=False)
        console.print()
        if table is not None:
            say(console, *topology(table))
        _show_rooflines(cluster, console)
        if table is not None:
            _show_figures(table, console)
        say_written(console, options.json, *paths)

    document = table or {"name": cluster.name, "devices": cluster.devices, "peak_flops": dict(cluster.peaks)}
    return Outcome([(options.json, document), *drawn(figure, *paths)], show)


def _kernels(options) -> Outcome:
    check_writable(options.json)
    with progress() as tell:
        cluster = this_machine(tell) if options.name == THIS_MACHINE else Cluster.load(options.name)
    precisions = dict.fromkeys(("float32", cluster.usual_precision))
    found = [list(predicted_kernels(cluster.compute, precision)) for precision in precisions]

    def show(console: Console) -> None:
        say(console, f"A device of {cluster.name}, predicted")
        table = plain_table(gap=1)
        for heading in ("kernel", "shape"):
            table.add_column(heading, no_wrap=True)
        for precision in precisions:
            for heading in (precision, "speed"):
                table.add_column(heading, justify="right", no_wrap=True)
        for kernels in zip(*found, strict=True):
            cells = (cell for kernel in kernels for cell in (duration(kernel.seconds), _speed(kernel)))
            table.add_row(kernels[0].name, "×".join(map(str, kernels[0].shape)), *cells)
        print_table(console, table)
        say_written(console, options.json)

    document = {"name": cluster.name, "kernels": [asdict(kernel) for kernels in found for kernel in kernels]}
    return Outcome([(options.json, document)], show)


def _speed(kernel: PredictedKernel) -> str:
    if kernel.flops:
        return scaled(kernel.flops / kernel.seconds, "FLOP/s")
    return scaled(kernel.nbytes / kernel.seconds, "B/s")


def _catalog(options) -> Outcome:
    found = [_system(name) for name in cluster_file.names()]

    def show(console: Console) -> None:
        table = plain_table(gap=1)
        table.add_column("name", no_wrap=True)
        for column in ("unit of", "memory", "peak", "in it", "to others"):
            table.add_column(column, justify="right", no_wrap=True)
        for system in found:
            table.add_row(
                system["name"], f"{system['unit']:,}", _or_none(system["memory_bytes"], "B"),
                _or_none(system["peak_flops"], ""), _or_none(system["inside"], "B/s"),
                _or_none(system["between"], "B/s"),
            )  # fmt: skip
        print_table(console, table)
        say(
            console,
            LISTED,
            "-: not known, or there is none. One of them: python -m simulator hardware NAME",
            f"{THIS_MACHINE} is another name, of what is measured here.",
        )
        say_written(console, options.json)

    return Outcome([(options.json, {"systems": found})], show)


def _system(name: str) -> dict:
    """A line of the list; None for what is not known."""
    try:
        cluster = Cluster.load(name)
    except ValueError:  # of which nobody knows the device
        table = cluster_file.described(name, whole=False)
        memory = peak = None
        network = cluster_file.network(table, table["devices"])
    else:
        memory, peak, network = cluster.memory_bytes, cluster.peak_flops(cluster.usual_precision), cluster.network
    inside, between = [*network.bandwidths, None][:2]
    return {
        "name": name, "unit": network.levels[0].size, "memory_bytes": memory, "peak_flops": peak, "inside": inside,
        "between": between,
    }  # fmt: skip


def _or_none(number: float | None, unit: str) -> str:
    return "-" if number is None else scaled(number, unit)


def topology(table: Mapping) -> Iterator[str]:
    """A described cluster's levels, a line each, the widest first; and its devices."""
    levels, sizes = list(table["levels"].values()), cluster_file.unit_sizes(table)
    for depth, number in enumerate(reversed(range(len(levels)))):
        level, figures, size = levels[number], schema.values(levels[number]), sizes[number]
        shape = " × ".join(map(str, figures["shape"])) + " " if "shape" in figures else ""
        each = scaled(schema.values(level["link"])["bandwidth"], "B/s")
        if number:
            below = levels[number - 1]["name"]
            links = f"{figures.get('adapters', 1):,} × {each} for each {below}"
            if figures.get("oversubscription", 1) > 1:
                links += f", {figures['oversubscription']:g}:1 oversubscribed"
        else:
            whose = {"switch": "a device", "bus": "for all"}.get(level["topology"], "a link")
            links = f"{each} {whose}"
        count = "" if size == inf else f"{counted(size, 'device')}, "
        yield f"{_branch(depth)}{level['name']}: {count}{shape}{level['topology']}, {links}"
    yield f"{_branch(len(levels))}{table['device_name']}"


def _branch(depth: int) -> str:
    return "   " * (depth - 1) + "└─ " if depth else ""


def _show_rooflines(cluster: Cluster, console: Console) -> None:
    table, found = plain_table(), rooflines(cluster)
    table.add_column("products in")
    for column in ("peak", "reached", "bound by it from"):
        table.add_column(column, justify="right")
    for precision, flops in found.flops.items():
        ridge = f"{flops / found.bandwidth:,.0f} FLOPs a byte"
        table.add_row(precision, scaled(cluster.peaks[precision], "FLOP/s"), scaled(flops, "FLOP/s"), ridge)
    console.print()
    print_table(console, table)


def _show_figures(table: Mapping, console: Console) -> None:
    device = table["device"]
    parts = {f"device {table['device_name']}": device}
    parts |= {f"{part} of the device": device[part] for part in ("peak_flops", *BY_PRECISION) if device[part]}
    for level in table["levels"].values():
        parts |= {level["name"]: level, f"link: {level['link'].get('name', level['name'])}": level["link"]}
    for title, part in parts.items():
        figures = plain_table()
        figures.add_column(no_wrap=True)
        figures.add_column(justify="right", no_wrap=True)
        figures.add_column(overflow="fold")
        figures.show_header = False
        for key, entry in part.items():
            if isinstance(entry, dict) and "value" in entry:
                unit = "FLOP/s" if title.startswith("peak_flops") else None
                figures.add_row(key, _value(key, entry["value"], unit), entry.get("source", "no source"))
        console.print()
        console.print(Text(title, style="bold"))
        console.print(figures, highlight=False)  # which folds what is too long


def _value(key: str, value: object, unit: str | None) -> str:
    """A figure with the unit of its key."""
    if isinstance(value, list):
        return ", ".join(f"{number:g}" for number in value)
    if unit or key.endswith(("bandwidth", "_flops")):
        return scaled(value, unit or ("FLOP/s" if key.endswith("_flops") else "B/s"))
    endings = {"_gb": " GB", "_us": " µs"}
    return f"{value:,g}" + next((unit for ending, unit in endings.items() if key.endswith(ending)), "")
