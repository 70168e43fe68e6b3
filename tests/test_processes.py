"""Starting and ending a process of our own leaves nothing open, whatever comes between."""

import errno
import gc
import os
import signal
import subprocess
import threading
import warnings

import pytest

from minidl.processes import ChildProcess


@pytest.fixture
def nothing_stays_open():
    """Python finds no socket that is not closed, and no process that was not waited for."""
    gc.collect()
    gc.freeze()  # what other tests have left is not gone through again
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(warning.message) for warning in seen] == []


def start():
    """A process that waits for what it shall do."""
    return ChildProcess("minidl.parallel.runtime.child", "the process", 0, arguments=(0,))


def test_a_process_that_has_ended_is_forgotten(nothing_stays_open):
    process = start()
    process.kill()
    process.close()
    assert process.how_it_ended() == "was killed by SIGKILL"


def test_a_process_whose_end_cannot_be_learned_is_forgotten(nothing_stays_open):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = start()
        process.kill()
        process.close()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert "it is not known how" in process.how_it_ended()


def test_a_process_that_cannot_be_started_leaves_no_connection(nothing_stays_open, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(OSError, match="cannot start a process for the process: Cannot allocate memory"):
        start()


def test_ctrl_c_while_a_process_is_started_waits_for_it_and_ends_it(nothing_stays_open, monkeypatch):
    popen, started, interrupted = subprocess.Popen, [], threading.Event()

    def interrupt(*args):
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def popen_late(*args, **kwargs):
        while not interrupted.wait(0.01):  # a signal that comes just before a thread sleeps does not wake it
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        started.append(popen(*args, **kwargs))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", popen_late)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in started] == [-signal.SIGKILL]
