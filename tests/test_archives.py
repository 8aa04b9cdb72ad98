"""Files are found, downloaded, checked and read; a damaged one is named, a hostile one not run."""

import gzip
import hashlib
import http.server
import io
import logging
import os
import pickle
import random
import socket
import stat
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pooch
import pytest

from dimlab import archives
from dimlab.archives import RemoteFile

CONTENT = bytes(range(256)) * 4096  # 1 MiB, several chunks


def md5_of(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """A server on loopback; files maps a path to what is sent and the length that is announced."""
    files = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in files:
                self.send_error(404)
                return
            content, length = files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.send_header("Content-Encoding", "gzip")  # some servers say so of every .gz
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", files
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("DIMLAB_DATA", str(folder))
    return folder


@contextmanager
def terminal_as_stderr(monkeypatch):
    """What is written to stderr, which is a terminal: pytest's own capture replaces a fixture's."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    state = random.getstate()  # rich draws ids for its styles
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    yield sys.stderr
    random.setstate(state)


def test_cache_folder_is_the_one_that_is_asked_for(cache, monkeypatch):
    assert archives.cache_folder() == cache
    monkeypatch.setenv("DIMLAB_DATA", "~/somewhere")
    assert archives.cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("DIMLAB_DATA")
    assert archives.cache_folder() == Path(pooch.os_cache("dimlab"))


def test_files_of_two_folders_are_never_mixed(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, ["a.gz"]), (second, ["a.gz", "b"])):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    found = archives.find_files(["a.gz", "b.gz"], [tmp_path / "absent", first, second])
    assert found == [second / "a.gz", second / "b"]
    assert archives.find_files(["a.gz", "c"], [first, second]) is None


def test_a_download_arrives_whole_and_readable_by_others(server, cache):
    base, files = server
    files["/data/a.gz"] = (CONTENT, len(CONTENT))
    path = archives.fetch(RemoteFile("a.gz", f"{base}/data", md5_of(CONTENT)), cache)
    assert path == cache / "a.gz"
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(cache) == ["a.gz"]


def test_a_file_already_there_is_not_downloaded_again(cache):
    (cache / "a").write_bytes(CONTENT)
    remote = RemoteFile("a", "http://127.0.0.1:1/", md5_of(CONTENT))  # nothing listens there
    assert archives.fetch(remote, cache) == cache / "a"


def test_a_mirror_replaces_the_base_url(server, cache, monkeypatch):
    base, files = server
    files["/mirror/a"] = (CONTENT, len(CONTENT))
    monkeypatch.setenv("DIMLAB_MIRROR", f"{base}/mirror/")
    remote = RemoteFile("a", "http://official.invalid/", md5_of(CONTENT))
    assert archives.fetch(remote, cache).read_bytes() == CONTENT


def test_a_mirror_may_be_a_folder(tmp_path, cache, monkeypatch):
    (tmp_path / "a").write_bytes(CONTENT)
    monkeypatch.setenv("DIMLAB_MIRROR", tmp_path.as_uri())
    remote = RemoteFile("a", "http://official.invalid/", md5_of(CONTENT))
    assert archives.fetch(remote, cache).read_bytes() == CONTENT


def test_a_mirror_that_is_no_url_is_refused(cache, monkeypatch):
    monkeypatch.setenv("DIMLAB_MIRROR", "somewhere/else")
    with pytest.raises(
        ValueError, match=r"DIMLAB_MIRROR must start with http://.*'somewhere/else'"
    ):
        archives.fetch(RemoteFile("a", "http://official.invalid/", "0" * 32), cache)


def nothing_listens(base, files):
    with socket.socket() as unused:  # bound, closed again, so that nothing listens on its port
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def wrong_content(base, files):
    files["/a.gz"] = (CONTENT[::-1], len(CONTENT))
    return base


def cut_midway(base, files):
    files["/a.gz"] = (CONTENT[: len(CONTENT) // 2], len(CONTENT))
    return base


def not_there(base, files):
    return base


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (nothing_listens, r"\[Errno \d+\] Connection refused\)"),
        (wrong_content, "another md5"),
        (cut_midway, "the connection was cut after 524288 of 1048576 bytes"),
        (not_there, "404"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(server, cache, failure, reason):
    base = failure(*server)
    remote = RemoteFile("a.gz", base, md5_of(CONTENT))
    expected = rf"downloading {base}/a.gz failed \(.*{reason}"
    with pytest.raises(FileNotFoundError, match=expected) as raised:
        archives.fetch(remote, cache, searched=[Path("/searched/before")])
    assert os.listdir(cache) == []
    message = str(raised.value)
    for needed in (remote.md5, f"into {cache}", "/searched/before", "DIMLAB_MIRROR"):
        assert needed in message
    assert "\n" not in message


def test_a_server_that_does_not_answer_is_given_up(cache, monkeypatch):
    monkeypatch.setattr(archives, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        base = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(FileNotFoundError, match=r"failed \(.*timed out\)"):
            archives.fetch(RemoteFile("a", base, "0" * 32), cache)
    assert os.listdir(cache) == []


def test_an_interrupted_download_leaves_nothing(server, cache, monkeypatch):
    base, files = server
    files["/a"] = (CONTENT, len(CONTENT))

    @contextmanager
    def interrupted(what, total):
        def advance(n_bytes):
            assert len(os.listdir(cache)) == 1  # control: something is there by now
            raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(archives, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        archives.fetch(RemoteFile("a", base, md5_of(CONTENT)), cache)
    assert os.listdir(cache) == []


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    base, files = server
    files["/a"] = (CONTENT, len(CONTENT))
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/file/cache"):
        archives.fetch(RemoteFile("a", base, md5_of(CONTENT)), tmp_path / "file" / "cache")


def test_simultaneous_downloads_do_not_harm_one_another(server, cache):
    base, files = server
    files["/a"] = (CONTENT, len(CONTENT))
    remote = RemoteFile("a", base, md5_of(CONTENT))
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: archives.fetch(remote, cache), range(8)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert os.listdir(cache) == ["a"]


def test_pooch_is_silent_and_its_logger_left_as_it_was(server, cache):
    base, files = server
    files["/a"] = (CONTENT, len(CONTENT))
    said = []
    handler = logging.Handler()
    handler.emit = said.append
    logger = pooch.get_logger()
    logger.addHandler(handler)
    archives.fetch(RemoteFile("a", base, md5_of(CONTENT)), cache)
    assert said == []
    logger.info("control: it is heard again")
    assert len(said) == 1
    logger.removeHandler(handler)


def test_progress_is_not_drawn_where_there_is_no_terminal(capsys):
    with archives.progress("counting", 2) as advance:
        advance(2)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_progress_is_drawn_on_a_terminal(monkeypatch, capsys):
    with terminal_as_stderr(monkeypatch) as terminal:
        with archives.progress("counting", 2) as advance:
            advance(2)
    assert "counting" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_another_md5_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    archives.check_md5(path, md5_of(CONTENT))
    with pytest.raises(ValueError, match=rf"a must have md5 {'0' * 32}; got {md5_of(CONTENT)}"):
        archives.check_md5(path, "0" * 32)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("shape", [(5, 3, 2), (7,)])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_back(tmp_path, rng, shape, ending):
    array = rng.integers(0, 256, shape)
    path = tmp_path / f"a-ubyte{ending}"
    path.write_bytes(gzip.compress(idx(array)) if ending else idx(array))
    read = archives.read_idx(path, shape)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


IMAGES = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
LONG = np.concatenate([IMAGES] * 40)  # long enough for half of a gzip file to unpack to something


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (idx(IMAGES)[: 16 + 3 * 784 + 5], r"must hold 5 images of 28 x 28; got 3 \(the file is"),
        (idx(IMAGES)[:9], r"must hold 5 images of 28 x 28; got 5 images of 0 x 0"),
        (idx(IMAGES)[:16], r"got 0 \(the file is cut short\)"),
        (idx(IMAGES) + b"!", "got more bytes than that"),
        (idx(IMAGES[:4]), "must hold 5 images of 28 x 28; got 4 images of 28 x 28"),
        (idx(IMAGES[:, :27]), "got 5 images of 27 x 28"),
        (idx(np.arange(5)), "got magic number 00000801, not 00000803"),
        (b"", "got magic number of an empty file, not 00000803"),
    ],
)
def test_a_wrong_idx_file_is_refused(tmp_path, content, got):
    for ending, packed in (("", content), (".gz", gzip.compress(content))):
        path = tmp_path / f"images-idx3-ubyte{ending}"
        path.write_bytes(packed)
        with pytest.raises(ValueError, match=rf"images-idx3-ubyte{ending} .*{got}"):
            archives.read_idx(path, (5, 28, 28))


def test_a_gzip_file_that_is_cut_short_says_how_much_there_is(tmp_path, rng):
    noise = rng.integers(0, 256, (200, 28, 28))
    path = tmp_path / "images.gz"
    packed = gzip.compress(idx(noise))
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"hold 200 images .* got (9\d|100) \(the file is cut"):
        archives.read_idx(path, (200, 28, 28))


def test_a_damaged_gzip_file_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    packed = bytearray(gzip.compress(idx(LONG)))
    packed[-6] ^= 1  # the checksum
    for content in (bytes(packed), b"<html>404</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"images.gz must be a gzip file; got a damaged one"):
            archives.read_idx(path, LONG.shape)


def test_labels_are_called_labels(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(np.arange(4)))
    with pytest.raises(ValueError, match="labels must hold 9 labels; got 4 labels"):
        archives.read_idx(path, (9,))


def write_tar(path, members, links=()):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)


def test_members_are_the_same_from_folder_and_archive(tmp_path):
    members = {"inner/a": b"one", "inner/b": b"", "inner/unused": b"three"}
    (tmp_path / "inner").mkdir()
    for name, content in members.items():
        (tmp_path / name).write_bytes(content)
    write_tar(tmp_path / "plain.tar.gz", members)
    write_tar(tmp_path / "dotted.tar.gz", {f"./{name}": c for name, c in members.items()})
    for source in (tmp_path, tmp_path / "plain.tar.gz", tmp_path / "dotted.tar.gz"):
        read = archives.read_members(source, ["inner/b", "inner/a"])
        assert read == {"inner/a": b"one", "inner/b": b""}


def test_a_missing_member_is_named_and_a_link_is_none(tmp_path):
    write_tar(tmp_path / "a.tar.gz", {"inner/a": b"one"}, links=[("inner/b", "/etc/hostname")])
    for source in (tmp_path, tmp_path / "a.tar.gz"):
        with pytest.raises(ValueError, match=rf"{source} must hold inner/b; got no such file"):
            archives.read_members(source, ["inner/b"])


def test_a_damaged_archive_is_refused(tmp_path, rng):
    path = tmp_path / "a.tar.gz"
    write_tar(path, {"inner/a": rng.bytes(50_000), "inner/b": b""})
    whole = path.read_bytes()
    for content in (whole[:20_000], whole[:5], b"<html>404</html>", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.tar.gz must be a whole tar.gz archive; got a dam"):
            archives.read_members(path, ["inner/b"])


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_bytes_are_read_back(rng, protocol, order):
    data = np.array(rng.integers(0, 256, (3, 4)), np.uint8, order=order)
    batch = {"data": data, "labels": [3, 1, 2], "names": ["a", "b"], "n": 3}
    read = archives.read_pickle("batch", pickle.dumps(batch, protocol))
    np.testing.assert_array_equal(read.pop("data"), data)
    assert read == {"labels": [3, 1, 2], "names": ["a", "b"], "n": 3}


def test_a_pickle_by_python_2_and_numpy_1_is_read():
    # what Python 2.7 writes for {"data": np.array([[200, 7]], "uint8"), "labels": [5]}, protocol 2
    payload = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\xc8\x07tb"
        b"U\x06labelsq\x08]q\tK\x05au."
    )
    read = archives.read_pickle("batch", payload)
    np.testing.assert_array_equal(read["data"], [[200, 7]])
    assert read["labels"] == [5]


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_not_run(tmp_path, protocol):
    canary = tmp_path / "canary"
    for function, arguments in (
        (os.mkdir, (str(canary),)),
        (os.system, (f"touch {canary}",)),
        (eval, (f"open({str(canary)!r}, 'w').close()",)),
        (np.save, (str(canary), 1)),
    ):
        payload = pickle.dumps({"data": Hostile(function, *arguments)}, protocol)
        with pytest.raises(ValueError, match=r"batch must hold only numbers.*asks for .*not run"):
            archives.read_pickle("batch", payload)
        assert os.listdir(tmp_path) == []
    # control: the last payload would have worked
    pickle.loads(payload)
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.arange(4, dtype=np.uint8)}, 2)[:-20],
        pickle.dumps({"data": np.arange(4.0)}, 2),
        pickle.dumps({"data": np.array([None])}, 2),
    ],
)
def test_a_damaged_pickle_is_refused(payload):
    with pytest.raises(ValueError, match=r"batch must be a whole pickled dict; got a damaged one"):
        archives.read_pickle("batch", payload)


def test_noise_in_a_pickle_raises_one_kind_of_error(rng):
    whole = pickle.dumps({"data": np.arange(64, dtype=np.uint8), "labels": list(range(9))}, 2)
    for _ in range(300):
        noisy = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            noisy[place] = rng.integers(0, 256)
        try:
            archives.read_pickle("batch", bytes(noisy))
        except ValueError as error:
            assert str(error).startswith("batch must")  # noqa: PT017 - it need not raise
