"""Files are found, or downloaded whole; a failure leaves nothing and says what to do."""

import http.server
import logging
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pooch
import pytest

from dimlab.datasets import download
from dimlab.datasets.download import RemoteFile
from tests.datasets.files import md5_of, terminal_as_stderr

CONTENT = bytes(range(256)) * 4096  # 1 MiB, several chunks


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
    monkeypatch.delenv("DIMLAB_MIRROR")
    return folder


def test_cache_folder_is_the_one_that_is_asked_for(cache, monkeypatch):
    assert download.cache_folder() == cache
    monkeypatch.setenv("DIMLAB_DATA", "~/somewhere")
    assert download.cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("DIMLAB_DATA")
    assert download.cache_folder() == Path(pooch.os_cache("dimlab"))


def test_files_of_two_folders_are_never_mixed(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, ["a.gz"]), (second, ["a.gz", "b"])):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    found = download.find_files(["a.gz", "b.gz"], [tmp_path / "absent", first, second])
    assert found == [second / "a.gz", second / "b"]
    assert download.find_files(["a.gz", "c"], [first, second]) is None


def test_a_download_arrives_whole_and_readable_by_others(server, cache):
    base, files = server
    files["/data/a.gz"] = (CONTENT, len(CONTENT))
    path = download.fetch(RemoteFile("a.gz", f"{base}/data", md5_of(CONTENT)), cache)
    assert path == cache / "a.gz"
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(cache) == ["a.gz"]


def test_a_file_already_there_is_not_downloaded_again(cache):
    (cache / "a").write_bytes(CONTENT)
    remote = RemoteFile("a", "http://127.0.0.1:1/", md5_of(CONTENT))  # nothing listens there
    assert download.fetch(remote, cache) == cache / "a"


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_mirror_replaces_the_base_url(server, tmp_path, cache, monkeypatch, is_folder):
    base, files = server
    files["/mirror/a"] = (CONTENT, len(CONTENT))
    (tmp_path / "a").write_bytes(CONTENT)
    monkeypatch.setenv("DIMLAB_MIRROR", tmp_path.as_uri() if is_folder else f"{base}/mirror/")
    remote = RemoteFile("a", "http://official.invalid/", md5_of(CONTENT))
    assert download.fetch(remote, cache).read_bytes() == CONTENT


def test_a_mirror_that_is_no_url_is_refused(cache, monkeypatch):
    monkeypatch.setenv("DIMLAB_MIRROR", "somewhere/else")
    with pytest.raises(
        ValueError, match=r"DIMLAB_MIRROR must start with http://.*'somewhere/else'"
    ):
        download.fetch(RemoteFile("a", "http://official.invalid/", "0" * 32), cache)


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
        download.fetch(remote, cache, searched=[Path("/searched/before")])
    assert os.listdir(cache) == []
    message = str(raised.value)
    for needed in (remote.md5, f"into {cache}", "/searched/before", "DIMLAB_MIRROR"):
        assert needed in message
    assert "\n" not in message


def test_a_server_that_does_not_answer_is_given_up(cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        base = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(FileNotFoundError, match=r"failed \(.*timed out\)"):
            download.fetch(RemoteFile("a", base, "0" * 32), cache)
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

    monkeypatch.setattr(download, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.fetch(RemoteFile("a", base, md5_of(CONTENT)), cache)
    assert os.listdir(cache) == []


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    base, files = server
    files["/a"] = (CONTENT, len(CONTENT))
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/file/cache"):
        download.fetch(RemoteFile("a", base, md5_of(CONTENT)), tmp_path / "file" / "cache")


def test_simultaneous_downloads_do_not_harm_one_another(server, cache):
    base, files = server
    files["/a"] = (CONTENT, len(CONTENT))
    remote = RemoteFile("a", base, md5_of(CONTENT))
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download.fetch(remote, cache), range(8)))
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
    download.fetch(RemoteFile("a", base, md5_of(CONTENT)), cache)
    assert said == []
    logger.info("control: it is heard again")
    assert len(said) == 1
    logger.removeHandler(handler)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_drawn_on_a_terminal_alone(monkeypatch, capsys, is_terminal):
    with terminal_as_stderr(monkeypatch, is_terminal=is_terminal) as terminal:
        with download.progress("counting", 2) as advance:
            advance(2)
    assert ("counting" in terminal.getvalue()) == is_terminal
    assert capsys.readouterr().out == ""


def test_another_md5_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    download.check_md5(path, md5_of(CONTENT))
    with pytest.raises(ValueError, match=rf"a must have md5 {'0' * 32}; got {md5_of(CONTENT)}"):
        download.check_md5(path, "0" * 32)
