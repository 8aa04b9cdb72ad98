"""Files that belong together: all old or all new, and never anybody else's."""

import json
import os

import pytest

from dimlab import atomic
from dimlab.atomic import digest, holding, write_together

OLD, NEW = {"a.csv": b"old", "b.csv": b"old"}, {"a.csv": b"new", "c.csv": b"new"}


def contents(folder):
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}


def outdated():
    return {name: digest(content) for name, content in OLD.items()}


def test_what_is_outdated_leaves_with_the_write(tmp_path):
    write_together(tmp_path, OLD)
    write_together(tmp_path, NEW, outdated=outdated)
    assert contents(tmp_path) == NEW  # a.csv is of both


def test_what_somebody_changed_put_there_or_linked_stays(tmp_path):
    write_together(tmp_path, OLD)
    (tmp_path / "mine.csv").write_bytes(b"old")
    (tmp_path / "b.csv").write_bytes(b"mine")
    write_together(tmp_path, NEW, outdated=outdated)
    assert contents(tmp_path) == NEW | {"mine.csv": b"old", "b.csv": b"mine"}
    (tmp_path / "b.csv").unlink()
    (tmp_path / "b.csv").symlink_to("mine.csv")  # of the content that is known
    write_together(tmp_path, NEW, outdated=outdated)
    assert (tmp_path / "b.csv").is_symlink()


@pytest.mark.parametrize("done", range(4))
def test_a_write_that_stops_behind_its_journal_is_ended_by_the_next_one(
    tmp_path, monkeypatch, done
):
    write_together(tmp_path, OLD)
    real, left = atomic.os.replace, [1 + done]  # the journal, then as many

    def dies(*names):
        if not left[0]:
            raise SystemExit
        left[0] -= 1
        return real(*names)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "replace", dies)
        if done < len(NEW):
            with pytest.raises(SystemExit):
                write_together(tmp_path, NEW, outdated=outdated)
            assert len(list(tmp_path.glob(".*"))) == 1 + len(NEW) - done
        else:  # control: there are no more
            write_together(tmp_path, NEW, outdated=outdated)
    with holding(tmp_path):
        assert contents(tmp_path) == NEW


def test_a_write_that_stops_before_it_leaves_the_old_ones(tmp_path, monkeypatch):
    write_together(tmp_path, OLD)
    (tmp_path / "c.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"c\.csv"):
        write_together(tmp_path, NEW, outdated=outdated)
    (tmp_path / "c.csv").rmdir()

    def refuses():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path, NEW, outdated=refuses)
    assert contents(tmp_path) == OLD


def test_one_interrupt_ends_it_all_the_same(tmp_path, monkeypatch):
    write_together(tmp_path, OLD)
    real, count = atomic.os.replace, []

    def interrupted(*names):
        count.append(names)
        if len(count) == 2:
            raise KeyboardInterrupt
        return real(*names)

    monkeypatch.setattr(atomic.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path, NEW, outdated=outdated)
    assert contents(tmp_path) == NEW


@pytest.mark.parametrize(
    "journal",
    [
        b"{", b"[]", b"\xff", b"{}", b'{"moves": 1, "leaving": {}}',
        {"moves": {"../evil.tmp": "a.csv"}, "leaving": {}},
        {"moves": {".a.csv.1.tmp": "../a.csv"}, "leaving": {}},
        {"moves": {"mine.csv": "a.csv"}, "leaving": {}},
        {"moves": {"..1.tmp": ""}, "leaving": {}},
        {"moves": {}, "leaving": {"../outside.csv": digest(b"outside")}},
        {"moves": {}, "leaving": {"mine.csv": digest(b"something else")}},
    ],
)  # fmt: skip
def test_a_journal_of_somebody_else_moves_and_removes_nothing(tmp_path, journal):
    (tmp_path / "outside.csv").write_bytes(b"outside")
    folder = tmp_path / "folder"
    write_together(folder, OLD | {"mine.csv": b"mine"})
    before = contents(folder)
    text = journal if isinstance(journal, bytes) else json.dumps(journal).encode()
    (folder / ".together.tmp").write_bytes(text)
    with holding(folder):
        assert contents(folder) == before
    assert sorted(os.listdir(tmp_path)) == ["folder", "outside.csv"]
