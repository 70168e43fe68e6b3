"""Forked workers do what spawned ones do, in the world as it is when they start; and none is left."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from minidl import forkserver as module
from minidl.forkserver import forkserver, serving
from minidl.parallel import WorkerError, launch
from minidl.processes import ChildProcess
from tests.leftovers import alive, until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are forked on Linux alone"),
    pytest.mark.usefixtures("nothing_is_left"),
]


@pytest.fixture
def server_runs(warm_server):
    """As within `with forkserver()`, by a server that has run before."""
    with serving(warm_server):
        yield


def parent_of_worker(**settings):
    return launch(lambda group: os.getppid(), 1, **settings)[0]


def test_inside_workers_are_children_of_one_server_and_outside_of_this_process():
    with forkserver():
        server = parent_of_worker()
        assert server != os.getpid()
        with forkserver():
            assert parent_of_worker() == server
        assert parent_of_worker() == server
    assert parent_of_worker() == os.getpid()


def test_a_worker_with_more_threads_is_spawned_as_ever():
    with forkserver():
        assert parent_of_worker(threads=2) == os.getpid()


def test_a_forked_worker_sees_environment_folder_and_path_as_they_are_now(server_runs, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("number = 42\n")

    def look(group):
        import only_here

        return os.environ.get("MINIDL_TEST_NEW"), os.getcwd(), only_here.number

    launch(lambda group: None, 1)  # the server runs
    monkeypatch.setenv("MINIDL_TEST_NEW", "new")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert launch(look, 2) == [("new", str(tmp_path), 42)] * 2


def test_what_a_forked_worker_prints_is_seen(server_runs, capfd):
    launch(lambda group: print(f"rank {group.rank} was here"), 2)
    assert sorted(capfd.readouterr().out.splitlines()) == ["rank 0 was here", "rank 1 was here"]


def test_forked_workers_that_raise_exit_or_are_killed_end_the_run_as_spawned_ones_do(server_runs):
    def work(group, how):
        if group.rank == 1:
            exec(how)
        group.barrier()

    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        launch(work, 2, ("1 / 0",))
    with pytest.raises(WorkerError, match="rank 1 of 2 exited with code 3"):
        launch(work, 2, ("import os; os._exit(3)",))
    with pytest.raises(WorkerError, match="rank 1 of 2 was killed by SIGKILL"):
        launch(work, 2, ("import os; os.kill(os.getpid(), 9)",))
    assert launch(lambda group: group.rank, 2) == [0, 1]


def test_when_the_server_dies_its_workers_do_and_later_ones_are_spawned():
    def work(group):
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()

    with forkserver():
        with pytest.raises(WorkerError, match="rank 0 of 1 was killed by SIGKILL"):
            launch(work, 1)
        assert parent_of_worker() == os.getpid()


def test_each_worker_of_each_launch_draws_random_numbers_of_its_own(server_runs):
    def draw(group):
        return np.random.rand(), random.random()

    drawn = launch(draw, 2) + launch(draw, 2)
    assert len({x for x, _ in drawn}) == len({x for _, x in drawn}) == 4


def test_a_forked_worker_may_run_where_the_launcher_may_now(server_runs):
    cores = os.sched_getaffinity(0)
    launch(lambda group: None, 1)  # the server runs
    try:
        os.sched_setaffinity(0, {max(cores)})
        assert launch(lambda group: os.sched_getaffinity(0), 1, pin=False) == [{max(cores)}]
    finally:
        os.sched_setaffinity(0, cores)


def test_with_many_files_open_workers_are_forked_still(server_runs):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1200
    if limits[1] != resource.RLIM_INFINITY and limits[1] < wanted:
        pytest.skip("this process may not have as many files open")
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, limits[0]), limits[1]))
    try:
        server = parent_of_worker()
        assert server != os.getpid()
        opened += [os.dup(0) for _ in range(1100)]
        assert parent_of_worker() == server
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_when_the_server_lacks_descriptors_workers_are_spawned_and_it_lives_on():
    with forkserver():
        server = parent_of_worker()
        limits = resource.prlimit(server, resource.RLIMIT_NOFILE)
        opened = {int(entry.name) for entry in Path(f"/proc/{server}/fd").iterdir()}
        found = set()
        for more in range(8):  # as many as it takes, or too few for one thing or another
            resource.prlimit(server, resource.RLIMIT_NOFILE, (max(opened) + 1 + more, limits[1]))
            found.add(parent_of_worker())
        resource.prlimit(server, resource.RLIMIT_NOFILE, limits)
        assert found == {os.getpid(), server}
        assert parent_of_worker() == server
        until(lambda: {int(entry.name) for entry in Path(f"/proc/{server}/fd").iterdir()} == opened)


def test_workers_are_forked_where_sigchld_is_ignored():
    script = """
        import os, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        from minidl.parallel import forkserver, launch

        with forkserver():
            first, second = [launch(lambda group: os.getppid(), 1)[0] for _ in range(2)]
            print(first == second != os.getpid())
    """
    assert subprocess.check_output([sys.executable, "-c", textwrap.dedent(script)], text=True) == "True\n"


def test_where_the_system_has_no_descriptors_of_processes_workers_are_spawned(monkeypatch):
    def refuse(pid):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with forkserver():
        assert parent_of_worker() == os.getpid()


def test_with_an_environment_too_large_to_send_workers_are_spawned(monkeypatch):
    for i in range(4):
        monkeypatch.setenv(f"MINIDL_TEST_LARGE_{i}", "x" * 100_000)
    with forkserver():
        assert parent_of_worker() == os.getpid()


def test_what_a_forked_process_printed_before_it_failed_is_seen(server_runs, tmp_path, monkeypatch, capfd):
    (tmp_path / "fails.py").write_text("def main(parent):\n    print('before')\n    1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    process = ChildProcess("fails", "a process that fails", 0)
    process.close()
    assert process.how_it_ended() == "exited with code 1"
    printed = capfd.readouterr()
    assert printed.out == "before\n"
    assert "ZeroDivisionError" in printed.err


def test_a_fork_of_this_process_does_not_use_its_server(server_runs):
    assert parent_of_worker() != os.getpid()
    pid = os.fork()
    if not pid:
        os._exit(module._current() is not None)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_launching_process_is_killed_no_process_is_left(nothing_is_left, sent):
    script = """
        import threading
        from minidl.forkserver import forkserver
        from minidl.parallel import launch

        def work(group):
            group.report("begun")
            threading.Event().wait()

        with forkserver():
            launch(work, 2, on_report=lambda rank, message: print(message, flush=True))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    process.send_signal(sent)
    process.wait()
    process.stdout.close()
    until(lambda: not alive(nothing_is_left))
