"""What the tests of data sets share: files in the official layouts, small and in memory."""

import gzip
import hashlib
import io
import random
import sys
import tarfile
from contextlib import contextmanager

import numpy as np
from PIL import Image

from dimlab.images import SPLITS


def splits_of(function, **options):
    return {split: function(split, **options) for split in SPLITS}


def md5_of(content):
    return hashlib.md5(content).hexdigest()


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def tar_of(contents, links=()):
    """A tar.gz archive of {name: bytes}, and of symbolic links [(name, target)]."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            for name, target in links:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)
    return file.getvalue()


def write_files(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def assert_official_splits(splits, train, test):
    """Train and validation are disjoint, in order, and together train; test is test."""
    np.testing.assert_array_equal(splits["test"].images, test[0])
    np.testing.assert_array_equal(splits["test"].labels, test[1])
    rows = {image.tobytes(): row for row, image in enumerate(train[0])}
    found = {
        split: [rows[image.tobytes()] for image in splits[split].images]
        for split in ("train", "validation")
    }
    assert sorted(found["train"] + found["validation"]) == list(range(len(train[0])))
    for split in ("train", "validation"):
        assert found[split] == sorted(found[split])
        np.testing.assert_array_equal(splits[split].labels, train[1][found[split]])


@contextmanager
def terminal_as_stderr(monkeypatch, *, is_terminal=True):
    """What is written to stderr, a terminal or not: pytest's own capture replaces a fixture's."""

    class Terminal(io.StringIO):
        def isatty(self):
            return is_terminal

    state = random.getstate()  # rich draws ids for its styles
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    yield sys.stderr
    random.setstate(state)
