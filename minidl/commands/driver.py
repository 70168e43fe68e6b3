"""How a command line answers: runs the command, writes its files, then prints; what goes wrong becomes an exit code."""

import argparse
import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from minidl.commands.arguments import Parser, Refused
from minidl.commands.output import write_json
from minidl.ranks import leads, rank_and_size
from minidl.streams import Lasting, lasting_streams

EXIT_CODES = """\
exit code: 0 all went well; 1 the run failed, or something of it could not be
written; 2 what was asked for cannot be done, and one line says why; 130 ended
with Ctrl-C.
"""
LEAST_COLUMNS = 20  # rich prints nothing at all where COLUMNS is 0


@dataclass(frozen=True)
class Outcome:
    """What a command found, of which nothing is written or printed yet.

    files: where to, None for a file that was not asked for; and what, a document for JSON or a function that writes to
    a path. show: prints on a console. code: the exit code. stopped: after what the run was ended with Ctrl-C, None if
    it was not; that is then all that is said of it, with `go_on`, how it can be gone on with.
    """

    files: Iterable[tuple[Path | None, dict | Callable[[Path], object]]] = ()
    show: Callable[[Console], None] = lambda console: None
    code: int = 0
    stopped: str | None = None
    go_on: str | None = None


def answer(name: str, parser: Callable[[], Parser], arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` choose; the exit code. `name` begins what is said when it is not 0.

    A command is a function of the chosen arguments and a console for its progress, `run` among the arguments' defaults;
    it gives an Outcome. All its files are written before anything is printed: nothing is lost with a terminal that is
    gone, nor with one of the files. Of several ranks that mpiexec has started the first alone prints and writes.
    """
    if rank_and_size()[1] > 1:
        return _answer_with_others(name, parser, arguments)
    return _answer(name, parser, arguments)


def _answer_with_others(name: str, parser: Callable[[], Parser], arguments: Sequence[str] | None) -> int:
    """Answer on one of several ranks, which end together; only the first has an exit code."""
    code, said = 0, io.StringIO()
    with contextlib.ExitStack() as silence:
        if not leads():
            silence.enter_context(contextlib.redirect_stdout(said))
            silence.enter_context(contextlib.redirect_stderr(said))
        try:
            code = _answer(name, parser, arguments)
        except SystemExit as ended:  # after --help, or as the first rank says what is wrong
            code = int(ended.code or 0)
    if find_spec("mpi4py") is not None:
        from minidl.parallel.runtime.mpi_launch import end_together

        end_together(code, said.getvalue())
    return code if leads() else 0


def _answer(name: str, parser: Callable[[], Parser], arguments: Sequence[str] | None) -> int:
    with lasting_streams() as out, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            return max(_run(name, parser, arguments), _unprinted(name, out))
        except SystemExit as ended:  # after --help
            raise SystemExit(_unprinted(name, out) or ended.code) from None


def _run(name: str, parser: Callable[[], Parser], arguments: Sequence[str] | None) -> int:
    try:
        chosen: argparse.Namespace = parser().parse_args(arguments)
        console = Console()
        if console.width < LEAST_COLUMNS:
            console.width = LEAST_COLUMNS
        outcome = chosen.run(chosen, console)
        reasons = {path: _write(path, content) for path, content in outcome.files if path and leads()}
        unwritten = [line for line in reasons.values() if line]
        for line in unwritten:
            print(f"{name}: {line}", file=sys.stderr)
        if outcome.stopped is not None:
            written = ", ".join(str(path) for path, line in reasons.items() if not line)
            there_is = f"what there is is in {written}" if written else None
            return _stopped(name, "; ".join(filter(None, (f" after {outcome.stopped}", there_is, outcome.go_on))))
        outcome.show(console)
        return max(outcome.code, 1 if unwritten else 0)
    except (Refused, ValueError, TypeError, OSError, ImportError) as error:
        print(f"{name}: {_one_line(error)}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:  # a worker's has its traceback
        print(f"{name}: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped(name)


def _stopped(name: str, when: str = "") -> int:
    print(f"\n{name}: ended with Ctrl-C{when}", file=sys.stderr)
    return 130


def _write(path: Path, content: dict | Callable[[Path], object]) -> str | None:
    """Write one file of a run; why that was not possible. Whatever is wrong with this one, the others come next."""
    try:
        if isinstance(content, dict):
            write_json(path, content)
        else:
            content(path)
    except BrokenPipeError:
        return None  # the path is a pipe whose reader had enough
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
        return f"cannot write {path}: {reason}"
    return None


def _unprinted(name: str, out: Lasting) -> int:
    """1, and a line, if what was printed did not all arrive; 0 if the reader left, as `head` does, who had enough."""
    out.flush()
    if out.failure is None or isinstance(out.failure, BrokenPipeError):
        return 0
    print(f"{name}: cannot write the output: {getattr(out.failure, 'strerror', None) or out.failure}", file=sys.stderr)
    return 1


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
