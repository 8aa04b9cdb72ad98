"""Files are written whole, one command at a time, and read without running or copying anything."""

import contextlib
import os
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dimlab.io import files
from dimlab.io.files import (
    digest,
    locked,
    read_safetensors,
    replacing,
    save_safetensors,
    write_files,
)

OLD, NEW = {"a.csv": b"old", "b.csv": b"old"}, {"a.csv": b"new", "list.json": b"new"}


def contents(folder):
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}


def outdated():
    return {name: digest(content) for name, content in OLD.items()}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert (not path.exists()) if text == "old" else path.read_text() == "old"
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"a.txt": b"new"}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_an_error_of_the_disk_names_the_file_that_the_user_knows(tmp_path):
    path = tmp_path / "absent" / "a.txt"
    with pytest.raises(FileNotFoundError) as refused, replacing(path):
        pass
    assert refused.value.filename == str(path)


def test_what_killed_processes_left_goes_with_the_next_write_when_it_is_old(tmp_path):
    ages = {".a.txt.old.tmp": 7200, ".a.txt.new.tmp": 0, ".b.txt.old.tmp": 7200}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
        for each in (tmp_path / name / "part", tmp_path / name):
            os.utime(each, (time.time() - age,) * 2)
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [".a.txt.new.tmp", ".b.txt.old.tmp", "a.txt"]


def test_outdated_files_leave_unless_they_were_changed_or_are_links(tmp_path):
    write_files(tmp_path, OLD | {"mine.csv": b"old"})
    write_files(tmp_path, NEW, outdated=outdated)
    assert contents(tmp_path) == NEW | {"mine.csv": b"old"}  # a.csv is of both
    (tmp_path / "b.csv").write_bytes(b"mine")
    write_files(tmp_path, NEW, outdated=outdated)
    assert (tmp_path / "b.csv").read_bytes() == b"mine"
    (tmp_path / "b.csv").unlink()
    (tmp_path / "b.csv").symlink_to("mine.csv")  # of the content that is known
    write_files(tmp_path, NEW, outdated=outdated)
    assert (tmp_path / "b.csv").is_symlink()


def test_nothing_is_replaced_before_all_is_written_and_the_manifest_comes_last(
    tmp_path, monkeypatch
):
    write_files(tmp_path, OLD | {"list.json": b"old"})
    before = contents(tmp_path)
    (tmp_path / "c.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"c\.csv"):
        write_files(tmp_path, {"a.csv": b"new", "c.csv": b"new"})
    (tmp_path / "c.csv").rmdir()
    assert contents(tmp_path) == before
    real, names = os.replace, []

    def dies(source, target):
        names.append(Path(target).name)
        if len(names) == 2:
            raise SystemExit
        real(source, target)

    monkeypatch.setattr(files.os, "replace", dies)
    with pytest.raises(SystemExit):
        write_files(tmp_path, NEW, outdated=outdated)
    assert names == ["a.csv", "list.json"]
    assert contents(tmp_path)["list.json"] == b"old"


def test_a_folder_is_held_by_one_at_a_time_and_nothing_stays_behind(tmp_path):
    order = []

    def waits():
        with locked(tmp_path, "results"):
            order.append("second")

    with locked(tmp_path, "results"):
        with locked(tmp_path, "training", refusal="another lock"):
            pass
        with pytest.raises(OSError, match=r"^in use$"):
            with locked(tmp_path, "results", refusal="in use"):
                order.append("never")
        other = threading.Thread(target=waits)
        other.start()
        time.sleep(0.1)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="maps are Linux's")
def test_tensors_are_mapped_and_bfloat16_is_widened(tmp_path):
    path = tmp_path / "a.safetensors"
    half = torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)
    save_file({"a": torch.arange(3.0), "half": half}, path, metadata={"by": "hand"})
    arrays, metadata = read_safetensors(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert not arrays["a"].flags.writeable
    assert metadata == {"by": "hand"}
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    np.testing.assert_array_equal(arrays["half"], [[1.5, -2.0]])
    assert arrays["half"].dtype == np.float32


def test_the_same_tensors_give_the_same_bytes_that_others_may_read(tmp_path):
    tensors = {"b": np.arange(6.0).reshape(2, 3).T, "a": np.array(7, np.int16)}
    written = set()
    for number in range(8):  # the library shuffles what is not sorted
        path = tmp_path / f"{number}.safetensors"
        save_safetensors(path, tensors, {name: "ä\n" for name in "cabd"})
        written.add(path.read_bytes())
        assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR
    assert len(written) == 1
    arrays, metadata = read_safetensors(path)
    assert list(metadata.values()) == ["ä\n"] * 4
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(arrays[name], tensor)
    with pytest.raises(TypeError, match="a must hold numbers of at most 64 bits; got <U1"):
        save_safetensors(path, {"a": np.array(["x"])}, {})


def test_too_little_memory_to_map_is_no_damage(tmp_path, monkeypatch):
    save_safetensors(tmp_path / "a.safetensors", {"a": np.ones(3)}, {})

    def refused(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("safetensors.safe_open", refused)
    with pytest.raises(MemoryError, match="must fit into the memory that this process may address"):
        read_safetensors(tmp_path / "a.safetensors")
