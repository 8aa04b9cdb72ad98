"""Files of data sets are read exactly; a damaged one is named, a hostile one is not run."""

import gzip
import os
import pickle

import numpy as np
import pytest

from dimlab.datasets.formats import read_idx, read_members, read_pickle
from tests.datasets.files import idx, tar_of, write_files


@pytest.mark.parametrize("shape", [(5, 3, 2), (7,)])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_back(tmp_path, rng, shape, ending):
    array = rng.integers(0, 256, shape)
    path = tmp_path / f"a-ubyte{ending}"
    path.write_bytes(gzip.compress(idx(array)) if ending else idx(array))
    read = read_idx(path, shape)
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
            read_idx(path, (5, 28, 28))


def test_a_gzip_file_that_is_cut_short_says_how_much_there_is(tmp_path, rng):
    noise = rng.integers(0, 256, (200, 28, 28))
    path = tmp_path / "images.gz"
    packed = gzip.compress(idx(noise))
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"hold 200 images .* got (9\d|100) \(the file is cut"):
        read_idx(path, (200, 28, 28))


def test_a_damaged_gzip_file_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    packed = bytearray(gzip.compress(idx(LONG)))
    packed[-6] ^= 1  # the checksum
    for content in (bytes(packed), b"<html>404</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"images.gz must be a gzip file; got a damaged one"):
            read_idx(path, LONG.shape)


def test_members_are_the_same_from_folder_and_archive(tmp_path):
    members = {"inner/a": b"one", "inner/b": b"", "inner/unused": b"three"}
    write_files(tmp_path, members)
    dotted = {f"./{name}": content for name, content in members.items()}
    (tmp_path / "plain.tar.gz").write_bytes(tar_of(members))
    (tmp_path / "dotted.tar.gz").write_bytes(tar_of(dotted))
    for source in (tmp_path, tmp_path / "plain.tar.gz", tmp_path / "dotted.tar.gz"):
        read = read_members(source, ["inner/b", "inner/a"])
        assert read == {"inner/a": b"one", "inner/b": b""}


def test_a_missing_member_is_named_and_a_link_is_none(tmp_path):
    packed = tar_of({"inner/a": b"one"}, links=[("inner/b", "/etc/hostname")])
    (tmp_path / "a.tar.gz").write_bytes(packed)
    for source in (tmp_path, tmp_path / "a.tar.gz"):
        with pytest.raises(ValueError, match=rf"{source} must hold inner/b; got no such file"):
            read_members(source, ["inner/b"])


def test_a_damaged_archive_is_refused(tmp_path, rng):
    path = tmp_path / "a.tar.gz"
    whole = tar_of({"inner/a": rng.bytes(50_000), "inner/b": b""})
    for content in (whole[:20_000], whole[:5], b"<html>404</html>", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.tar.gz must be a whole tar.gz archive; got a dam"):
            read_members(path, ["inner/b"])


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_bytes_are_read_back(rng, protocol, order):
    data = np.array(rng.integers(0, 256, (3, 4)), np.uint8, order=order)
    batch = {"data": data, "labels": [3, 1, 2], "names": ["a", "b"], "n": 3}
    read = read_pickle("batch", pickle.dumps(batch, protocol))
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
    read = read_pickle("batch", payload)
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
            read_pickle("batch", payload)
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
        read_pickle("batch", payload)


def test_noise_in_a_pickle_raises_one_kind_of_error(rng):
    whole = pickle.dumps({"data": np.arange(64, dtype=np.uint8), "labels": list(range(9))}, 2)
    for _ in range(300):
        noisy = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            noisy[place] = rng.integers(0, 256)
        said = "batch must"  # it need not be refused
        try:
            read_pickle("batch", bytes(noisy))
        except ValueError as error:
            said = str(error)
        assert said.startswith("batch must")
