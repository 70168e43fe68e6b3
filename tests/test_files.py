"""A file is replaced whole or not at all, and stays of its kind and mode."""

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from minidl import files
from minidl.files import replacing


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as part:
        part.write_text("half of")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_the_file_it_leads_to_is_replaced(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    files.write(link, "new")
    assert link.is_symlink() and file.read_text() == "new"


def test_a_pipe_stays_a_pipe_and_gets_the_bytes(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    files.write(pipe, "through a pipe")
    assert reader.communicate(timeout=20)[0] == b"through a pipe"
    assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_a_device_stays_a_device_and_a_full_one_is_named():
    with pytest.raises(OSError, match="No space left.*/dev/full"):
        files.write("/dev/full", "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_standard_output_is_a_file_to_write_to():
    code = "from minidl import files; files.write('/dev/stdout', 'all')"
    assert subprocess.check_output([sys.executable, "-c", code], timeout=60) == b"all"


def test_what_a_descriptor_leads_to_is_written_where_the_descriptor_stands(tmp_path):
    with open(tmp_path / "a", "wb", buffering=0) as file:
        file.write(b"before ")
        files.write(f"/dev/fd/{file.fileno()}", "inside")
        file.write(b" after")
    assert (tmp_path / "a").read_text() == "before inside after"


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        files.write(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_replaced_file_keeps_its_mode_even_where_a_library_puts_a_file_of_its_own(tmp_path):
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o640)
    with replacing(path) as part:
        part.unlink()
        part.touch(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("folder_takes_files", [True, False])
def test_nobody_reads_a_part_of_a_file_that_he_may_not_read(tmp_path, monkeypatch, folder_takes_files):
    path = tmp_path / "a"
    path.touch(0o600)
    monkeypatch.setattr(os, "access", lambda what, _: folder_takes_files or str(what) != str(tmp_path))
    with replacing(path) as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_a_file_that_its_owner_writes_and_does_not_read_is_replaced(tmp_path, monkeypatch):
    path, opened = tmp_path / "a", os.open
    path.touch(0o200)

    def open_as_no_root(what, flags, *mode):
        if flags & os.O_ACCMODE == os.O_RDONLY and not os.stat(what).st_mode & stat.S_IRUSR:
            raise PermissionError(errno.EACCES, "Permission denied", what)
        return opened(what, flags, *mode)

    monkeypatch.setattr(os, "open", open_as_no_root)
    files.write(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o200 and path.stat().st_size == 3


def test_a_file_that_must_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(PermissionError, match="Permission denied.*a'"), replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_file_in_a_folder_that_takes_no_new_one_is_written_into(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old and longer")
    inode = path.stat().st_ino
    monkeypatch.setattr(os, "access", lambda what, _: str(what) != str(tmp_path))
    files.write(path, "new")
    assert path.read_text() == "new" and path.stat().st_ino == inode


def test_a_link_that_lies_where_the_part_is_to_be_is_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0")
    (tmp_path / ".part-0-a").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        files.write(tmp_path / "a", "x")
    assert not (tmp_path / "victim").exists() and not (tmp_path / "a").exists()


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    contents = [str(i) * 100_000 for i in range(4)]
    threads = [threading.Thread(target=files.write, args=(tmp_path / "a", text)) for text in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in contents and list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_what_cannot_be_written_names_the_path_that_was_given(tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        files.write(tmp_path, "x")
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path}/none/a'$"):
        files.write(tmp_path / "none" / "a", "x")
    with pytest.raises(OSError, match=f"No space left.*'{tmp_path}/a'$"), replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError, match="^.Errno 2. .*'other'$"), replacing(tmp_path / "a"):
        open("other")


def test_what_cannot_be_written_is_known_before_and_finding_out_leaves_no_trace(tmp_path, monkeypatch):
    kept, link, pipe = tmp_path / "kept", tmp_path / "link", tmp_path / "pipe"
    kept.write_text("kept")
    link.symlink_to(tmp_path / "none" / "a")
    os.mkfifo(pipe)  # to open it would be to wait for a reader
    for path in (kept, pipe, tmp_path / "new", "/dev/null", "/dev/stdout"):
        files.check_writable(path)
    for path, error in ((tmp_path, IsADirectoryError), (link, FileNotFoundError), (kept / "a", NotADirectoryError)):
        with pytest.raises(error, match=f"'{path}'$"):
            files.check_writable(path)
    with pytest.raises(OSError, match="'/proc/new'$"):
        files.check_writable("/proc/new")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(PermissionError, match=f"'{kept}'$"):
        files.check_writable(kept)
    assert sorted(tmp_path.iterdir()) == [kept, link, pipe] and kept.read_text() == "kept"


def test_a_long_name_has_a_part_of_its_own(tmp_path):
    path = tmp_path / ("n" * 255)
    files.write(path, "x")
    assert list(tmp_path.iterdir()) == [path]
