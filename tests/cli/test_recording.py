"""What is written beside results: where they are from, and whether that can be had again."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dimlab import cli
from dimlab.report.provenance import hash_of_file, hash_of_rows
from dimlab.representation import Representation

TEST, TRAIN = "test.safetensors", "train.safetensors"
PAIR = (TEST, "--train", TRAIN)
CALLS = {
    "ablate": (*PAIR, "--reader", "ridge", "--groups", "groups.json"),
    "confirm": (*PAIR, "--reader", "ridge"),
    "cumulate": PAIR,
    "random-masks": (*PAIR, "--n-masks", 5),
    "ablate-retrieval": (TEST, TRAIN, "--relevance", "qrels.txt", "--n-splits", 2),
    "prune": (*PAIR, "--keep", "0,2,3"),
    "correlate": (TEST, "--draws", 5),
    "decompose": (TEST,),
    "redundancy": (TEST,),
    "compare": (TEST, TRAIN),
    "profile": (TEST, "--rows", 50),
    "attribute": (*PAIR, "--permutations", 5, "--factors", "factors.csv"),
    "erase": (*PAIR, "--factor", "x", "--random", 2),
    "suspects": PAIR,
    "bound": (TEST, "--bootstrap", 5),
    "evaluate": ("run/checkpoint.pt", "--max-queries", 100),
    "locate": ("run/checkpoint.pt", "--max-queries", 20),
    "follow": ("run/checkpoint.pt", "--no-links"),
    "inspect": ("run/checkpoint.pt",),
}
NO_RESULTS = {"demo", "train", "encode", "report"}
NO_FILES = {"validate"}  # see tests/test_validate.py


@pytest.fixture
def world(files, checkpoint, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(checkpoint.read_bytes())
    (tmp_path / "groups.json").write_text("[[0, 1], [2]]")
    (tmp_path / "qrels.txt").write_text("0 0 3 1\n1 0 4 1\n")
    rows = "".join(f"{row},{row % 7 / 3}\n" for row in range(240))
    (tmp_path / "factors.csv").write_text(f"row,scanner\n{rows}")
    return tmp_path


def call(dimlab, command, *more):
    quiet = () if command == "inspect" else ("--quiet",)
    return dimlab(command, *CALLS[command], *quiet, *more)


def checked(dimlab, *arguments):
    """Exit code of ``report --check``, what it says in one line, and its answers."""
    code, out, err = dimlab("report", "--check", *(arguments or ("o",)))
    assert len(err.splitlines()) == (code > 0)
    answers = [line for line in out.splitlines() if not line.startswith("Run again: ")]
    return code, " ".join(out.split()), answers


def test_every_command_that_writes_results_is_looked_at():
    assert set(CALLS) | NO_RESULTS | NO_FILES == set(cli.COMMANDS)


@pytest.mark.parametrize("command", CALLS)
def test_a_result_has_its_record_and_the_check_reads_it(dimlab, world, command):
    code, _, err = call(dimlab, command, "--out", "o")
    assert (code, err) == (0, ""), err
    record = json.loads((world / "o" / f"{command}.provenance.json").read_text())
    assert record["command"].startswith(f"dimlab {command} ")
    assert {"seed", "device", "dimlab", "numpy", "threads", "machine", "torch"} <= set(record)
    named = [each for each in map(str, CALLS[command]) if (world / each).is_file()]
    for name in named:
        assert record[f"file {name} (SHA-256)"] == hash_of_file(world / name)
    if named[0] == TEST:
        digests = {value for key, value in record.items() if key.startswith("features of ")}
        assert hash_of_rows(Representation.load(world / TEST).features) in digests
    elif command != "inspect":
        assert "labels of data set digits+hue:0.8, train (SHA-256)" in record
    code, _, answers = checked(dimlab)
    assert (code, answers[0].split(": ")[0]) == (0, f"o/{command} matches its record")
    (world / named[-1]).write_bytes(b"another")
    code, words, _ = checked(dimlab)
    assert (code, f"{named[-1]} has changed" in words) == (3, True)


@pytest.mark.parametrize("more", [(), ("--moments",), ("--data", "digits+hue:0.8")])
def test_encoded_features_have_their_record(dimlab, world, more):
    call = ("encode", "run/checkpoint.pt", "--split", "test", "--out", "o", "--quiet", *more)
    ending = "-moments" if more[:1] == ("--moments",) else ""
    for _ in range(2):
        assert dimlab(*call)[0] == 0
    record = json.loads((world / "o" / f"test{ending}.provenance.json").read_text())
    path = world / "run" / "checkpoint.pt"
    assert record["file run/checkpoint.pt (SHA-256)"] == hash_of_file(path)
    split = "test" if more[:1] == ("--data",) else "train"
    assert f"labels of data set digits+hue:0.8, {split} (SHA-256)" in record
    if not ending:
        encoded = Representation.load(world / "o" / "test.safetensors")
        assert record["features of test (SHA-256)"] == hash_of_rows(encoded.features)
    code, words, _ = checked(dimlab)
    assert (code, words.split(": ")[0]) == (0, f"o/test{ending} matches its record")
    path.unlink()
    code, words, _ = checked(dimlab)
    assert (code, "run/checkpoint.pt is not there" in words) == (3, True)


def test_an_old_record_never_lies_beside_new_features(dimlab, world, monkeypatch):
    call = ("encode", "run/checkpoint.pt", "--split", "test", "--out", "o", "--quiet")
    assert dimlab(*call)[0] == 0

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("dimlab.cli.encoding.keep_record", interrupted)
    assert dimlab(*call, "--views", 2)[0] == 1
    assert [each.name for each in (world / "o").iterdir()] == ["test.safetensors"]


def test_several_results_of_a_folder_are_checked_one_by_one(dimlab, world):
    for command in ("correlate", "ablate"):
        assert call(dimlab, command, "--out", "o")[0] == 0
    code, words, answers = checked(dimlab)
    assert (code, [each.split(": ")[0] for each in answers]) == (
        0, ["o/ablate matches its record", "o/correlate matches its record"],
    )  # fmt: skip
    assert words.count("Run again: dimlab ") == 2
    (world / TRAIN).unlink()
    code, out, err = dimlab("report", "--check", "o")
    gone = "o/ablate does not match its record: train.safetensors is not there."
    assert (code, err) == (3, f"dimlab report: {gone}\n")
    assert out.startswith(gone)
    assert answers[1] in out
    code, out, _ = dimlab("report", "--check", "o", "--json")
    found = json.loads(out)
    assert (code, found["reproducible"], list(found["results"])) == (
        3, False, ["ablate", "correlate"],
    )  # fmt: skip
    assert found["results"]["correlate"]["reproducible"]


def test_without_out_nothing_is_hashed_or_written(dimlab, world, monkeypatch):
    from dimlab.report import provenance

    monkeypatch.setattr(provenance, "provenance_of", lambda *_, **__: pytest.fail("was asked for"))
    before = sorted(world.rglob("*"))
    assert call(dimlab, "decompose")[0] == 0
    assert sorted(world.rglob("*")) == before


@pytest.mark.parametrize("command", ["ablate", "locate", "encode"])
def test_images_that_changed_under_the_same_labels_are_found(dimlab, world, command):
    from dimlab.datasets import load_images

    own = [load_images("digits+hue:0.8", split).take(range(60)) for split in ("train", "test")]
    kept = {"images": np.concatenate([each.images for each in own])}
    kept |= {"labels": np.concatenate([each.labels for each in own])}
    kept |= {"split": np.repeat(["train", "test"], 60)}
    np.savez(world / "own.npz", **kept)
    arguments = {
        "ablate": ("--reader", "ridge", "--quiet"),
        "locate": ("--quiet",),
        "encode": ("--split", "test", "--quiet"),
    }[command]
    data = ("--data", "npz", "--data-dir", "own.npz", "--out", "o")
    code, _, err = dimlab(command, "run/checkpoint.pt", *arguments, *data)
    assert code == 0, err
    name = "test" if command == "encode" else command
    record = json.loads((world / "o" / f"{name}.provenance.json").read_text())
    recorded = {key.split()[5] for key in record if key.startswith("images of data set npz")}
    assert recorded == ({"train", "test"} if command == "ablate" else {"test"})
    assert checked(dimlab)[0] == 0
    kept["images"][60:] ^= np.uint8(1)  # of test
    np.savez(world / "own.npz", **kept)
    code, words, _ = checked(dimlab)
    said = "does not match its record: data set npz, images of test, has changed"
    assert (code, said in words) == (3, True)


def test_the_hash_of_images_tells_pixels_and_shapes_apart():
    from dimlab.images import ImageSet

    pixels = np.arange(5000 * 4, dtype=np.uint8).reshape(5000, 1, 2, 2)
    labels = np.zeros(5000, int)
    one, other = ImageSet(pixels, labels, name="a"), ImageSet(pixels, labels + 1, name="b")
    assert one.images_hash == other.images_hash == one.images_hash
    turned = ImageSet(pixels.reshape(5000, 1, 1, 4), labels, name="a")
    changed = pixels.copy()
    changed[-1] += 1
    assert len({one.images_hash, turned.images_hash, replace(one, images=changed).images_hash}) == 3


def test_files_of_a_result_that_were_changed_since_are_named(dimlab, world):
    for command in ("decompose", "ablate"):
        assert call(dimlab, command, "--out", "o")[0] == 0
    for name in ("ablate.csv", "ablate.json"):
        (world / "o" / name).write_text("better numbers")
    (world / "o" / "ablate.svg").unlink()
    code, out, err = dimlab("report", "--check", "o")
    said = (
        "o/ablate does not match its record: ablate.csv has changed; ablate.json has changed; "
        "ablate.svg is not there."
    )
    assert (code, err) == (3, f"dimlab report: {said}\n")
    assert "o/decompose matches its record" in out


@pytest.mark.parametrize(
    ("changed", "code", "sentence"),
    [
        ({"numpy": "1.0"}, 0, "up to rounding: numpy "),
        ({"threads": 99}, 0, "up to rounding: threads "),
        ({"dimlab": "0.0.1"}, 3, "here, 0.0.1 in the record"),
        ({"labels of data set digits, middle (SHA-256)": ""}, 3, "data set digits: split must be"),
        ({"file a (SHA-256)": 1}, 3, "a is not there"),
        ({"written": {"../a.csv": 1}}, 3, "../a.csv is not there"),
    ],
)
def test_check_names_what_differs_from_the_record(dimlab, world, changed, code, sentence):
    assert call(dimlab, "decompose", "--out", "o")[0] == 0
    path = world / "o" / "decompose.provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    found, words, _ = checked(dimlab)
    assert (found, sentence in words) == (code, True), words


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (None, 2, "folder must hold a report of dimlab, with provenance.json"),
        ("{", 1, "must be whole; got a damaged file"),
        ("[1]", 1, "must be whole; got a damaged file"),
        ("[" * 5000, 1, "must be whole; got a damaged file"),
        ('{"dimlab": "1", "written": 1}', 1, "must be whole; got a damaged file"),
        ('{"a": 1}', 1, "must be written by dimlab; got one without its version"),
    ],
)
def test_check_refuses_what_is_no_report(refused, tmp_path, text, code, sentence):
    (tmp_path / "report").mkdir()
    if text is not None:
        (tmp_path / "report" / "provenance.json").write_text(text)
    found, err = refused("report", "--check", "report")
    assert (found, sentence in err) == (code, True)
