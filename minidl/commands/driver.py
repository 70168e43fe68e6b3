"""How a command line answers: runs the command that was chosen, and turns what goes wrong into an exit code."""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from minidl.commands.arguments import Parser, Refused
from minidl.parallel import WorkerError

EXIT_CODES = """\
exit code: 0 all went well; 1 the run failed; 2 what was asked for cannot be done, and one line says why;
130 ended with Ctrl-C.
"""


def answer(name: str, parser: Callable[[], Parser], arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` choose; the exit code. `name` begins what is said when it is not 0."""
    try:
        chosen = parser().parse_args(arguments)
        return chosen.run(chosen, Console())
    except (Refused, ValueError, TypeError, OSError, ImportError) as error:
        print(f"{name}: {_one_line(error)}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name}: ended with Ctrl-C", file=sys.stderr)
        return 130


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
