"""Forked workers do what spawned ones do, in the world as it is when they start; and none is left."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from minidl import forkserver as module
from minidl.forkserver import forkserver
from minidl.parallel import WorkerError, launch
from tests.leftovers import alive, until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are forked on Linux alone"),
    pytest.mark.usefixtures("nothing_is_left"),
]


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


def test_a_forked_worker_sees_environment_folder_and_path_as_they_are_now(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("number = 42\n")

    def look(group):
        import only_here

        return os.environ.get("MINIDL_TEST_NEW"), os.getcwd(), only_here.number

    with forkserver():
        launch(lambda group: None, 1)  # the server runs
        monkeypatch.setenv("MINIDL_TEST_NEW", "new")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        assert launch(look, 2) == [("new", str(tmp_path), 42)] * 2


def test_what_a_forked_worker_prints_is_seen(capfd):
    with forkserver():
        launch(lambda group: print(f"rank {group.rank} was here"), 2)
    assert sorted(capfd.readouterr().out.splitlines()) == ["rank 0 was here", "rank 1 was here"]


def test_forked_workers_that_raise_exit_or_are_killed_end_the_run_as_spawned_ones_do():
    def work(group, how):
        if group.rank == 1:
            exec(how)
        group.barrier()

    with forkserver():
        with pytest.raises(WorkerError, match="ZeroDivisionError"):
            launch(work, 2, ("1 / 0",))
        with pytest.raises(WorkerError, match="rank 1 of 2 exited with code 3"):
            launch(work, 2, ("import os; os._exit(3)",))
        with pytest.raises(WorkerError, match="rank 1 of 2 was killed by SIGKILL"):
            launch(work, 2, ("import os; os.kill(os.getpid(), 9)",))
        assert launch(lambda group: group.rank, 2) == [0, 1]


def test_when_the_server_dies_its_workers_do_and_the_next_launch_says_so():
    def work(group):
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()

    with forkserver():
        with pytest.raises(WorkerError, match="rank 0 of 1 was killed by SIGKILL"):
            launch(work, 1)
        with pytest.raises(OSError, match="cannot start a process for rank 0 of 1"):
            launch(work, 1)


def test_a_fork_of_this_process_does_not_use_its_server():
    with forkserver():
        assert launch(lambda group: os.getppid(), 1) != [os.getpid()]
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
