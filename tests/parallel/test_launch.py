"""launch: results in rank order, functions from anywhere, and log records that reach the parent's handlers."""

import logging
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl.parallel import WorkerError, launch
from tests.leftovers import GUARD

ROOT = str(Path(minidl.__file__).parents[1])


def where_am_i(group, first, second=0):
    return group.rank, group.size, first + second, os.getpid()


def test_results_come_in_rank_order_from_one_process_each():
    results = launch(where_am_i, 3, args=(1,), kwargs={"second": 2})
    assert [r[:3] for r in results] == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    assert len({r[3] for r in results} | {os.getpid()}) == 4


def test_a_lambda_and_what_it_closes_over_reach_the_workers():
    offset = np.arange(3)
    results = launch(lambda group: offset + group.rank, 2)
    np.testing.assert_array_equal(results, [[0, 1, 2], [1, 2, 3]])


def test_reports_arrive_in_order_and_before_launch_returns():
    seen = {0: [], 1: []}

    def work(group):
        for i in range(20):
            group.report(i)

    launch(work, 2, on_report=lambda rank, message: seen[rank].append(message))
    assert seen == {0: list(range(20)), 1: list(range(20))}


def settings(group):
    return os.environ["OPENBLAS_NUM_THREADS"], sorted(os.sched_getaffinity(0)), sys.stdin.read()


def test_workers_have_the_threads_asked_for_a_core_each_and_no_input():
    cores = sorted(os.sched_getaffinity(0))
    assert launch(settings, 2, threads=3) == [("3", [cores[rank % len(cores)]], "") for rank in range(2)]
    assert launch(settings, 1, pin=False) == [("1", cores, "")]


def test_a_launch_inside_a_worker_works():
    assert launch(lambda group: launch(lambda inner: inner.all_reduce(np.ones(1))[0], 2), 1) == [[2.0, 2.0]]


# What the surroundings lack

SUM = """
import logging, sys
import numpy as np
from minidl.parallel import launch
def work(group):
    logging.getLogger().warning("hello")
    print("printed", flush=True)
    return float(group.all_reduce(np.ones(3)).sum())
open(sys.argv[1], "w").write(str(launch(work, 2)))
"""
SURROUNDINGS = {
    "no input": 'exec "$@" <&-',
    "no output": 'exec "$@" >&-',
    "no streams": 'exec "$@" <&- >&- 2>&-',
    "4 GiB of addresses": 'ulimit -v 4194304; exec "$@"',
    "files of 100 MiB": 'ulimit -f 102400; exec "$@"',
    "no /dev/shm": 'mount --make-rprivate / && mount -t tmpfs -o ro none /dev/shm && exec "$@"',
}


@pytest.mark.parametrize("lack", SURROUNDINGS)
def test_a_launch_works_with(lack, tmp_path):
    command = ["sh", "-c", SURROUNDINGS[lack], "sh", sys.executable, "-c", SUM, "result"]
    if "mount" in SURROUNDINGS[lack]:
        command = ["unshare", "-m", *command]
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            pytest.skip("needs a mount namespace of its own")
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ROOT}, capture_output=True, text=True, timeout=GUARD
    )
    assert (tmp_path / "result").read_text() == "[6.0, 6.0]", done.stderr


def test_a_launch_in_a_thread_works():
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(launch, lambda group: group.all_reduce(np.ones(1))[0], 2) for _ in range(2)]
        assert [run.result() for run in runs] == [[2.0, 2.0]] * 2


# Where functions come from. The marker file shows how often the user's code is run.

WORK = """
    open("runs", "a").write("x")
    import numpy as np
    from minidl.parallel import launch
    base = 10
    def helper(x):
        return x + base
    def work(group):
        return float(group.all_reduce(np.full(2, helper(group.rank)))[0])
"""
PRINT = 'print("sum is", launch(work, workers=2)[1])'


def python(arguments, tmp_path, stdin=""):
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
    )


def works(done, tmp_path):
    assert "sum is 21.0" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "runs").read_text() == "x"  # the workers did not run it again


def test_functions_of_a_script_without_a_main_guard_work(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(WORK) + PRINT)
    works(python(["script.py"], tmp_path), tmp_path)


def test_functions_of_python_c_work(tmp_path):
    works(python(["-c", textwrap.dedent(WORK) + PRINT], tmp_path), tmp_path)


def test_functions_typed_into_a_repl_work(tmp_path):
    lines = textwrap.dedent(WORK).replace("\ndef work", "\n\ndef work")
    works(python(["-i", "-q"], tmp_path, lines + "\n\n" + PRINT + "\n"), tmp_path)


def test_functions_of_an_interactive_console_work(tmp_path):
    lines = textwrap.dedent(WORK).replace("\ndef work", "\n\ndef work") + "\n\n" + PRINT + "\n"
    works(python(["-c", "import code; code.interact(banner='')"], tmp_path, lines), tmp_path)


def test_functions_of_a_module_beside_the_script_work(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(WORK))
    (tmp_path / "script.py").write_text("from mine import *\n" + PRINT)
    done = python(["script.py"], tmp_path)
    assert "sum is 21.0" in done.stdout, done.stderr


def test_a_module_of_a_common_name_in_the_current_folder_is_not_taken_for_another(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text(textwrap.dedent(WORK) + PRINT)
    for name in ("json.py", "minidl.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    works(python([str(tmp_path / "elsewhere" / "script.py")], tmp_path), tmp_path)


def test_functions_of_a_notebook_cell_work(tmp_path):
    pytest.importorskip("IPython", reason="a notebook cell needs IPython")
    cells = f"""
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    for cell in ({textwrap.dedent(WORK)!r}, {PRINT!r}):
        shell.run_cell(cell, store_history=True).raise_error()
    """
    works(python(["-c", textwrap.dedent(cells)], tmp_path), tmp_path)


# Logs


class Keep(logging.Handler):
    def __init__(self, level=logging.NOTSET):
        super().__init__(level)
        self.records = []

    def emit(self, record):
        self.records.append(record)


@contextmanager
def root_logger(*handlers, level=logging.WARNING):
    """The root logger with these handlers alone."""
    root = logging.getLogger()
    before, before_level = root.handlers[:], root.level
    root.handlers[:] = handlers
    root.setLevel(level)
    try:
        yield root
    finally:
        root.handlers[:] = before
        root.setLevel(before_level)


def talks(group, count):
    logger = logging.getLogger("tests.talk")
    for i in range(count):
        logger.info("message %d of %s", i, f"rank {group.rank}")
    logger.debug("too quiet")


def test_records_of_workers_reach_the_root_handlers_with_their_rank_and_none_is_lost():
    keep = Keep()
    with root_logger(keep, level=logging.INFO):
        launch(talks, 3, args=(200,))
    for rank in range(3):
        messages = [r.getMessage() for r in keep.records if r.rank == rank]
        assert messages == [f"message {i} of rank {rank}" for i in range(200)]
    assert len(keep.records) == 600
    assert {r.name for r in keep.records} == {"tests.talk"}


def test_the_root_handlers_are_the_users_own_again_afterwards():
    first, second = Keep(logging.ERROR), Keep()
    with root_logger(first, second, level=logging.INFO) as root:
        launch(talks, 2, args=(1,))
        assert root.handlers == [first, second]
        assert (len(first.records), len(second.records)) == (0, 2)  # each handler keeps its own level
        root.error("still there")
    assert [r.getMessage() for r in first.records + second.records[2:]] == ["still there"] * 2


def named_levels(group):
    for name in ("tests.loud", "tests.quiet", "tests"):
        logging.getLogger(name).debug("debug of %s", name)
        logging.getLogger(name).warning("warning of %s", name)


def test_each_loggers_own_level_holds_in_the_workers():
    keep, levels = Keep(), {"tests.loud": logging.DEBUG, "tests.quiet": logging.ERROR}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        with root_logger(keep):
            launch(named_levels, 1)
    finally:
        for name in levels:
            logging.getLogger(name).setLevel(logging.NOTSET)
    assert [r.getMessage() for r in keep.records] == [
        "debug of tests.loud", "warning of tests.loud", "warning of tests",
    ]  # fmt: skip


def logs_an_exception(group):
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger().exception("it went %s", "wrong", extra={"part": group.rank})
    logging.getLogger().error("unpicklable", extra={"part": (i for i in range(2))})
    logging.getLogger().error("after")


def test_a_logged_exception_brings_its_traceback_and_a_record_that_cannot_be_sent_does_no_harm(capfd):
    keep = Keep()
    with root_logger(keep):
        launch(logs_an_exception, 1)
    assert [r.getMessage() for r in keep.records] == ["it went wrong", "after"]
    assert "ValueError: inside" in keep.records[0].exc_text and keep.records[0].part == 0
    assert "Logging error" in capfd.readouterr().err


def logs_and_dies(group):
    logging.getLogger().error("last words")
    os._exit(1)


def test_what_a_worker_logged_before_it_died_arrives():
    keep = Keep()
    with root_logger(keep) as root:
        with pytest.raises(WorkerError, match="exited with code 1"):
            launch(logs_and_dies, 1)
        assert root.handlers == [keep]
    assert [r.getMessage() for r in keep.records] == ["last words"]
