"""Builds the API reference from the docstrings: `python docs/build.py [FOLDER]`, by default into docs/api.

It is static HTML that pdoc writes; nothing is fetched, neither now nor by who reads it. Exits with 2 where it cannot be
built, and one line says why.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("minidl", "simulator")
MODULES = (  # of each package its front page, and what is imported from further in
    "minidl", "minidl.autograd", "minidl.cuda", "minidl.metrics", "minidl.monitor", "minidl.profiling", "minidl.static",
    "minidl.testing", "minidl.trace",
    "minidl.nn", "minidl.nn.functional", "minidl.nn.init", "minidl.nn.utils",
    "minidl.optim", "minidl.optim.lr_scheduler", "minidl.optim.lr_schedules",
    "minidl.data", "minidl.data.transforms",
    "minidl.models", "minidl.models.transfer",
    "minidl.kernels", "minidl.kernels.cpu", "minidl.kernels.meta",
    "minidl.parallel", "minidl.parallel.collectives", "minidl.parallel.costs", "minidl.parallel.instructions",
    "minidl.parallel.instructions.buffers", "minidl.parallel.layers", "minidl.parallel.machine",
    "minidl.parallel.normalization", "minidl.parallel.prepare", "minidl.parallel.program", "minidl.parallel.schedules",
    "minidl.parallel.tags",
    "simulator", "simulator.compute", "simulator.engine", "simulator.hardware", "simulator.network",
)  # fmt: skip


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: python docs/build.py [FOLDER]", file=sys.stderr)
        return 2
    folder = Path(arguments[0]) if arguments else ROOT / "docs" / "api"
    try:
        import pdoc
    except ImportError:
        print("docs/build.py: pdoc is not installed: pip install -e '.[docs]'", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    os.environ["MINIDL_CUDA"] = ""  # a GPU would only be in the way
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            build(folder, pdoc)
        except OSError as error:
            print(f"docs/build.py: cannot write {folder}: {error.strerror}", file=sys.stderr)
            return 2
    for warning in caught:
        print(f"docs/build.py: {warning.message}", file=sys.stderr)
    print(f"{len(MODULES)} pages: {folder / 'index.html'}")
    return 1 if caught else 0


def build(folder: Path, pdoc: ModuleType) -> None:
    """Write a page for each of MODULES, an index and what its search needs."""
    pdoc.render.configure(docformat="markdown", show_source=False, template_directory=ROOT / "docs" / "templates")
    pages = {}
    for name in MODULES:
        module = pdoc.extract.load_module(name)
        module.__all__ = public(module)
        pages[name] = pdoc.doc.Module(module)
    for page in pages.values():
        resolve(page)
        lay_out(page)
    files = {f"{name.replace('.', '/')}.html": pdoc.render.html_module(page, pages) for name, page in pages.items()}
    files |= {"index.html": pdoc.render.html_index(pages), "search.js": pdoc.render.search_index(pages)}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def public(module: ModuleType) -> list[str]:
    """What a module offers, in its own order: what it defines and, of a package, what it takes from its own files.

    The pages of MODULES that lie directly in it come first.
    """
    inside = [name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == module.__name__]
    if hasattr(module, "__all__"):
        return [*inside, *(name for name in module.__all__ if name not in inside)]
    is_package, found = hasattr(module, "__path__"), []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        elif is_package and isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in PACKAGES:
            names = [alias.asname or alias.name for alias in node.names]
            found += module_names(node.module) if names == ["*"] else names
    others = (name for name in found if not name.startswith("_") and name not in inside)
    return [*inside, *(name for name in others if not isinstance(getattr(module, name, None), ModuleType))]


def module_names(name: str) -> list[str]:
    """What `from name import *` brings."""
    module = sys.modules[name]
    return list(getattr(module, "__all__", (n for n in vars(module) if not n.startswith("_"))))


def resolve(page) -> None:
    """Evaluate annotations where they were written: a class may have a method `bool`, a NamedTuple knows no module."""
    for found in (getattr(page.obj, name) for name in page.obj.__all__):
        for method in vars(found).values() if inspect.isclass(found) else ():
            function = getattr(method, "__func__", method)  # a __new__ is a static method
            if inspect.isfunction(function):
                with contextlib.suppress(NameError):  # of what is imported for type checkers alone: pdoc knows how
                    function.__annotations__ = get_type_hints(function, vars(sys.modules[found.__module__]), {})


def lay_out(namespace) -> None:
    """Make a list of what docstrings say of arguments and attributes, here in the docstrings of everything inside."""
    for member in namespace.members.values():
        if member.kind == "module":
            continue
        if ": " in member.docstring:
            member.docstring = with_list(member.docstring, names_of(member))
        if member.kind == "class":
            lay_out(member)


def names_of(member) -> set[str]:
    """The arguments of a function; the arguments and attributes of a class."""
    found = set()
    if member.kind == "class":
        found |= set(member.members) | set(getattr(member.obj, "__annotations__", ()))
    try:
        found |= set(inspect.signature(member.obj).parameters)
    except (TypeError, ValueError):  # no function, or one that does not tell
        pass
    return found


def with_list(text: str, names: set[str]) -> str:
    """Markdown in which "name: what it is. other: what that is." are the entries of a list.

    names: those that are arguments or attributes; another word before a colon is part of a sentence.
    """
    word = rf"(?:{'|'.join(sorted(map(re.escape, names), key=len, reverse=True))})" if names else r"(?!)"
    start = re.compile(rf"(?:(?<=\. )|(?<=\.\n)|^)({word}(?:, {word})*): ", re.MULTILINE)
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if not paragraph.startswith("    "):  # as code is
            paragraph = start.sub(lambda m: "\n- " + ", ".join(f"**{n}**" for n in m[1].split(", ")) + ": ", paragraph)
        paragraphs.append(paragraph.strip("\n"))
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
