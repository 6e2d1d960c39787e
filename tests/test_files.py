"""Files and folders are replaced whole, whatever happens meanwhile; a lock keeps others out."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shift_jax.errors import InputError
from shift_jax.files import (
    absolute_path,
    lock,
    output_file,
    replaced_file,
    replaced_folder,
    same_place,
    usable_path,
)

REPOSITORY = Path(__file__).parents[1]
# The module without the package's __init__, which imports JAX for seconds.
WITHOUT_JAX = """
import os, signal, sys, types
sys.modules["shift_jax"] = types.ModuleType("shift_jax")
sys.modules["shift_jax"].__path__ = ["shift_jax"]
from shift_jax.files import lock, replaced_file, replaced_folder
"""


def run(code, *arguments):
    command = [sys.executable, "-c", WITHOUT_JAX + code, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def write(path, text):
    with replaced_file(path) as temporary:
        temporary.write_text(text)


def test_a_file_is_created_and_replaced(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("old, and longer", "new"):
        with replaced_file(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == tmp_path and temporary.name.startswith(".")
            assert temporary.suffix == ".txt"
        assert path.read_text() == text and os.listdir(tmp_path) == ["a.txt"]


def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda _: calls.append(("fsync", os.listdir(tmp_path))))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write(tmp_path / "a", "x")
    assert calls == [("fsync", [".partial0.a"]), "replace"]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a"
    write(path, "old")
    with pytest.raises(type(error)), replaced_file(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("moment", ["write_text", "fsync", "replace"])
def test_a_full_disk_keeps_the_old_file_and_the_error_names_it(tmp_path, monkeypatch, moment):
    path = tmp_path / "a"
    write(path, "old")

    def full(what, *_):
        named = () if isinstance(what, int) else (str(what),)
        raise OSError(errno.ENOSPC, "No space left on device", *named)

    def full_write(self, text):
        self.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    patched = (Path, "write_text", full_write) if moment == "write_text" else (os, moment, full)
    with monkeypatch.context() as patch:
        patch.setattr(*patched)
        with pytest.raises(OSError, match="No space left") as caught:
            write(path, "new")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("moment", ["", "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"])
def test_a_killed_writer_leaves_the_old_file_and_the_next_one_tidies_up(tmp_path, moment):
    path = tmp_path / "a"
    write(path, "old")
    killed = run(
        f"{moment}"
        "with replaced_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half of something long')\n"
        f"    {'' if moment else 'os.kill(os.getpid(), 9)'}\n",
        path,
    )
    assert killed.returncode == -9, killed.stderr
    assert path.read_text() == "old" and sorted(os.listdir(tmp_path)) == [".partial0.a", "a"]
    with replaced_file(path) as temporary:
        assert temporary.read_text() == ""
        temporary.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a"]


def test_a_writer_that_ends_just_before_the_lock_is_had_keeps_its_file(tmp_path, monkeypatch):
    path, flock = tmp_path / "a", fcntl.flock

    def end_of_the_other(descriptor, operation):
        if not path.exists():
            (tmp_path / ".partial0.a").write_text("theirs")
            os.rename(tmp_path / ".partial0.a", path)
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", end_of_the_other)
    with replaced_file(path) as temporary:
        assert path.read_text() == "theirs"
        temporary.write_text("ours")
    assert path.read_text() == "ours" and os.listdir(tmp_path) == ["a"]


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    with replaced_file(path) as one, replaced_file(path) as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["a"]

    def write_often(letter):
        for length in range(1, 200):
            write(path, letter * length)
            assert len(set(path.read_text())) == 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write_often, "abcd"))
    assert os.listdir(tmp_path) == ["a"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    mask = os.umask(0o027)
    try:
        write(tmp_path / "a", "x")
        with replaced_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("length", [1, 255])
def test_names_of_any_length(tmp_path, length):
    path = tmp_path / ("ä" * (length // 2) + "a")
    write(path, "x")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("a" * 256, errno.ENAMETOOLONG),
        ("folder", errno.EISDIR),
        ("none/a", errno.ENOENT),
        ("file/a", errno.ENOTDIR),
    ],
)
def test_paths_that_cannot_be_written_are_named_before_the_work(tmp_path, name, number):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(OSError, match=str(number)) as caught, replaced_file(path):
        pytest.fail("The block ran.")
    assert caught.value.errno == number and caught.value.filename == str(path)
    sentence = f"{name} cannot be written .{os.strerror(number)}.: name another"
    with pytest.raises(InputError, match=sentence), output_file(path, "name another"):
        pytest.fail("The block ran.")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    with replaced_folder(path) as temporary:
        (temporary / "a").write_text("x")
        assert temporary.relative_to(tmp_path).parts[0].startswith(".") and not os.listdir(path)
    assert os.listdir(tmp_path) == ["run"] and os.listdir(path) == ["a"]


def test_a_folder_that_fails_or_finds_another_changes_nothing(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(ValueError, match="bug"), replaced_folder(path) as temporary:
        (temporary / "a").write_text("x")
        raise ValueError("bug")
    assert not os.listdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught, replaced_folder(path) as temporary:
        (temporary / "none" / "a").write_text("x")
    assert caught.value.filename == str(path)
    path.mkdir()
    (path / "mine").touch()
    with pytest.raises(OSError, match="not empty") as caught, replaced_folder(path):
        pass
    assert caught.value.filename == str(path) and os.listdir(path) == ["mine"]


HOLDER = """
with lock(sys.argv[1], wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def lock_once(path):
    with lock(path, wait=True):
        pass


def test_a_lock_excludes_another_process_until_that_ends(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", WITHOUT_JAX + HOLDER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), lock(path, wait=False):
            pytest.fail("Two have the lock.")
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(lock_once, path)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            holder.kill()
            waiting.result(timeout=60)
    with lock(path, wait=False) as file:
        file.write("mine")
    assert path.read_text() == "mine"


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with lock(tmp_path / "lock", wait=False), lock(tmp_path / "lock", wait=True):
        write(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


def test_a_usable_path_need_not_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in (".", "a/b", "runs/~x", "./~x", "nowhere/../x"):
        assert usable_path("--output", text) == Path(text)
    assert usable_path("--output", "~/x") == tmp_path / "x"
    assert usable_path("--output", "\udce9.png", any_bytes=True) == Path("\udce9.png")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty, expected a path: give one, such as . for this folder"),
        ("a\0b", r"is 'a\\x00b', which has a NUL"),
        ("\udce9", r"is '\\udce9', which is not UTF-8"),
        ("~nobody_of_this_name/x", "is .*, but no such home folder is known: write ./~nobody"),
        ("{tmp}/file/x/y", r"/file/x/y cannot exist .*Not a directory.* another --output"),
        ("{tmp}/" + "x" * 300, "xx cannot exist .*name too long"),
    ],
)
def test_an_unusable_path_is_refused(text, sentence, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"^--output {sentence}|^/.*{sentence}"):
        usable_path("--output", text.replace("{tmp}", str(tmp_path)))


def test_absolute_paths_and_same_places(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert absolute_path("x/../folder/") == str(tmp_path / "folder")
    assert absolute_path("gs://bucket/x/") == "gs://bucket/x/"
    for other in ("folder/", "./link/.", str(tmp_path / "folder"), "link"):
        assert same_place("folder", other)
    assert not same_place("folder", "folder/x") and not same_place("a\0", "b")
