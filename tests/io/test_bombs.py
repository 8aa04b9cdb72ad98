"""Files made to harm are refused before memory or time is spent on them, and none of them is run.

All are opened in one child process that has 1 GB to spare; it says how much it took of it.
"""

import gzip
import io
import json
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dimlab import datasets
from dimlab.cli.options import Groups
from dimlab.datasets import formats
from dimlab.io.features import load_features
from dimlab.io.tables import join_factors
from dimlab.io.unpickle import open_weights
from dimlab.mask import MaskTrace
from dimlab.representation import Representation
from dimlab.result_file import load_result
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import untrained

SPARE = 1 << 30  # bytes
MOST = 300  # megabytes that a refusal may take
SECONDS = 10
ROOT = Path(__file__).parents[2]


def written(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def header_of(shape, dtype="<f8"):
    buffer = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def zipped(folder, name, members, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / name, "w", kind, compresslevel=1) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    return folder / name


def more_than_memory(folder):
    """Members that unpack to 4 GB each, as the directory says."""
    members = {f"{name}.npy": header_of((2**32 - 200,), "|u1") for name in range(64)}
    path = zipped(folder, "large.npz", members, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    for found in re.finditer(b"PK\x01\x02", bytes(content)):
        content[found.start() + 24 : found.start() + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    return path


def claims(folder, suffix=".npz"):
    arrays = ("features", "steps", "weights", "images", "labels", "tree")
    return zipped(
        folder, f"claims{suffix}", {f"{name}.npy": header_of((10**12,)) for name in arrays}
    )


def two_sizes(folder):
    """A member that claims 2 GB in the directory, and holds a few bytes."""
    path = zipped(folder, "sizes.npz", {"features.npy": header_of((2**31,), "|u1")})
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    return path


def over_and_over(folder):
    """One packed member under a thousand names."""
    path = zipped(
        folder, "over.npz", {"0.npy": header_of((1 << 20,)) + bytes(8 << 20)}, zipfile.ZIP_DEFLATED
    )
    content = path.read_bytes()
    place, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = content[place:end]
    entries = [entry.replace(b"0.npy", f"{i:05d}"[:5].encode()) for i in range(1000)]
    tail = bytearray(content[end:])
    tail[8:12] = struct.pack("<HH", 1000, 1000)
    tail[12:16] = struct.pack("<I", len(entry) * 1000)
    return written(folder, "over.npz", content[:place] + b"".join(entries) + bytes(tail))


def safetensors(folder, entries, content=b"", length=None):
    header = json.dumps(entries).encode()
    size = struct.pack("<Q", len(header) if length is None else length)
    return written(folder, "harm.safetensors", size + header + content)


def entry(shape, begin, end, dtype="F64"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def long_names(folder):
    codes = np.zeros(50_000, np.uint8)
    path = Representation(
        np.ones((50_000, 1), np.float32), factors={"c": codes}
    ).save(folder / "names.safetensors")  # fmt: skip
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    dimlab = json.loads(header["__metadata__"]["dimlab"])
    dimlab["categories"] = {"factor:c": ["x" * 1_000_000]}
    header["__metadata__"]["dimlab"] = json.dumps(dimlab)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + content[8 + length :])
    return path


def torch_file(folder, payload):
    torch.save(payload, folder / "harm.pt")
    return folder / "harm.pt"


def beyond_the_record(folder):
    path = torch_file(folder, {"features": torch.ones(4)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    claimed = struct.pack("<I", 1 << 28)
    for name in [name for name in members if name.endswith("data.pkl")]:
        raw = members[name].replace(b"K\x04tq", b"J" + claimed + b"tq")
        members[name] = raw.replace(b"K\x04\x85", b"J" + claimed + b"\x85")
    return zipped(folder, "harm.pt", members)


def repacked(folder):
    path = torch_file(folder, {"features": torch.zeros(1000, 1000)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return zipped(folder, "harm.pt", members, zipfile.ZIP_DEFLATED)


def bytes_by_number(folder):
    data = b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."
    return zipped(
        folder, "harm.pt", {"a/data.pkl": data, "a/version": b"3\n", "a/byteorder": b"little"}
    )


def numpy_by_number(folder):
    """An array of numpy's that claims 8 TB."""
    pickled = io.BytesIO()
    pickle.dump({"features": np.arange(4.0).reshape(2, 2)}, pickled, 2)
    data = pickled.getvalue()
    large = b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"K\x01\x86"
    assert b"K\x02K\x02\x86" in data
    data = data.replace(b"K\x02K\x02\x86", large)
    return zipped(
        folder, "harm.pt", {"a/data.pkl": data, "a/version": b"3\n", "a/byteorder": b"little"}
    )


def wide(folder):
    config = TrainConfig(n_dimensions=4, hidden=4, steps=2)
    checkpoint = untrained(config, datasets.digits("validation", image_size=8))
    path = checkpoint.save(folder / "wide.pt")
    payload = torch.load(path, weights_only=True)
    payload["config"] = payload["config"].replace('"hidden": 4', '"hidden": 100000000')
    torch.save(payload, path)
    return path


def read_wide(path):
    load_checkpoint(path).encoder()


def pickled(operations):
    return lambda folder: written(folder, "batch", b"\x80\x02}U\x04data" + operations)


def nested_key(folder):
    twice = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    return written(folder, "batch", b"\x80\x02}" + b"K\x00K\x00\x86" + twice + b"K\x01s.")


def read_batch(path):
    formats.read_pickle(path.name, path.read_bytes())


def sparse(folder):
    path = folder / "batch"
    with path.open("wb") as file:
        file.truncate(100 << 30)
    return path


def png(folder):
    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return picture(folder, b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))


def picture(folder, content):
    for name in ("ant", "bee"):
        (folder / name).mkdir(exist_ok=True)
        for i in range(4):
            (folder / name / f"{i}.png").write_bytes(content)
    return folder


def postscript(folder):
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    return picture(folder, head + b"1 quit\n")


def read_pictures(folder):
    np.asarray(datasets.image_folder("train", data_dir=folder, image_size=4).images)


def many_rows(folder):
    table = pd.DataFrame({"row": np.zeros(40_000_000, np.int8)})
    table.to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def table_of(path):
    join_factors(Representation(np.ones((3, 2))), path)


def packed_idx(folder):
    with gzip.open(folder / "a.gz", "wb", 1) as file:
        file.write(b"\0\0\x08\x01" + struct.pack(">I", 5))
        for _ in range(400):
            file.write(bytes(1 << 20))
    return folder / "a.gz"


def deep(folder):
    return written(folder, "deep.json", b"[" * 1_000_000)


BOMBS = {
    "npz: directory claims 256 GB": (more_than_memory, Representation.load),
    "npz: header claims 8 TB": (claims, Representation.load),
    "trace: header claims 8 TB": (claims, MaskTrace.load),
    "images: header claims 8 TB": (claims, lambda path: datasets.npz("test", data_dir=path)),
    "result: header claims 8 TB": (lambda f: claims(f, ".result.npz"), load_result),
    "npz: directory claims 2 GB": (two_sizes, Representation.load),
    "npz: a member a thousand times": (over_and_over, Representation.load),
    "npy: header claims 8 TB": (
        lambda f: written(f, "a.npy", header_of((10**6, 10**6))), load_features
    ),
    "safetensors: header of 2^60 bytes": (
        lambda f: safetensors(f, {}, length=1 << 60), Representation.load
    ),
    "safetensors: shape of 10^12": (
        lambda f: safetensors(f, {"features": entry([10**6, 10**6], 0, 8 * 10**12)}),
        Representation.load,
    ),
    "safetensors: negative offset": (
        lambda f: safetensors(f, {"features": entry([1, 1], -8, 0)}), Representation.load
    ),
    "safetensors: tensors that overlap": (
        lambda f: safetensors(
            f, {"features": entry([1, 1], 0, 8), "labels": entry([1], 0, 8, "I64")}, bytes(8)
        ),
        Representation.load,
    ),
    "safetensors: header too deep": (
        lambda f: written(f, "a.safetensors", struct.pack("<Q", 10**6) + b"[" * 10**6),
        Representation.load,
    ),
    "safetensors: names of 1 MB": (long_names, Representation.load),
    "torch: tensor beyond its record": (beyond_the_record, open_weights),
    "torch: one number as 10^12": (
        lambda f: torch_file(f, {"features": torch.ones(1).expand(10**12)}), open_weights
    ),
    "torch: packed": (repacked, open_weights),
    "torch: bytearray of 2 GB": (bytes_by_number, open_weights),
    "torch: array of numpy of 8 TB": (numpy_by_number, open_weights),
    "checkpoint: 10^8 hidden units": (wide, read_wide),
    "pickle: memo of 2^31": (pickled(b"r\xff\xff\xff\x7f."), read_batch),
    "pickle: string of 10^12": (pickled(b"\x8e" + struct.pack("<Q", 10**12)), read_batch),
    "pickle: bytearray of 2 GB": (pickled(b"\x96" + struct.pack("<Q", 2**31)), read_batch),
    "pickle: key of 2^60 parts": (nested_key, read_batch),
    "pickle: 3 million lists": (pickled(b"]" * 3_000_000 + b"."), read_batch),
    "folder: sparse file of 100 GB": (
        sparse, lambda path: formats.read_members(path.parent, ["batch"])
    ),
    "IDX: 400 MB in 2 MB": (packed_idx, lambda path: formats.read_idx(path, (5,))),
    "PNG: 60,000 x 60,000": (png, read_pictures),
    "PNG: PostScript": (postscript, read_pictures),
    "parquet: 40 million rows": (many_rows, table_of),
    "JSON: a million brackets": (
        deep, lambda path: Groups.of(str(path))
    ),
}  # fmt: skip


def memory():
    """Megabytes held now, and at most since the last question."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return [int(re.search(rf"{name}:\s+(\d+)", status)[1]) // 1024 for name in ("VmRSS", "VmHWM")]


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def opened(folder):
    """In the child: open each file, and say what came of it."""
    before, _ = memory()
    np.ones(50_000_000)
    print(json.dumps(["control", "", memory()[1] - before, 0]))
    for name, (_, read) in BOMBS.items():
        path = Path(json.loads((folder / "paths.json").read_text())[name])
        before, _ = memory()
        started = time.perf_counter()
        try:
            read(path)
            said = "valid"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if any(isinstance(each, MemoryError) for each in chain(error)):
                said = f"MemoryError, asked for all the same: {error}"
        spent = time.perf_counter() - started
        print(json.dumps([name, said, memory()[1] - before, spent]), flush=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_files_made_to_harm_are_refused_before_anything_is_spent(tmp_path):
    paths = {}
    for number, (name, (make, _)) in enumerate(BOMBS.items()):
        (tmp_path / str(number)).mkdir()
        paths[name] = str(make(tmp_path / str(number)))
    (tmp_path / "paths.json").write_text(json.dumps(paths))
    done = subprocess.run(
        [sys.executable, "-m", "tests.io.test_bombs", tmp_path],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    control, *found = [json.loads(line) for line in done.stdout.splitlines()]
    assert control[2] > MOST
    assert [name for name, *_ in found] == list(BOMBS)
    for name, said, megabytes, seconds in found:
        print(f"{name:36} {megabytes:4} MB {seconds:5.2f} s  {said[:150]}")
        assert said.startswith(("Refusal: ", "Unreadable: ")), (name, said)
        assert "\n" not in said
        assert megabytes < MOST, (name, megabytes)
        assert seconds < SECONDS, (name, seconds)


def test_a_pickle_that_torch_would_not_run_is_not_run_either(tmp_path):
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    torch.save({"features": Hostile()}, tmp_path / "harm.pt")
    np.savez(tmp_path / "harm.npz", features=np.array([Hostile()], dtype=object))
    (tmp_path / "harm.npy").write_bytes(b"")
    np.save(tmp_path / "harm.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    for name, read in (
        *((f"harm{ending}", load_features) for ending in (".pt", ".npz", ".npy")),
        *(("harm.npz", each) for each in (Representation.load, MaskTrace.load, load_result)),
        *(("harm.pt", each) for each in (load_checkpoint, open_weights)),
    ):
        with pytest.raises(ValueError, match="harm"):
            read(tmp_path / name)
    assert not canary.exists()
    pickle.loads(pickle.dumps({"features": Hostile()}))  # control: it would have worked
    assert canary.is_dir()


if __name__ == "__main__":
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, resource.RLIM_INFINITY))
    opened(Path(sys.argv[1]))
