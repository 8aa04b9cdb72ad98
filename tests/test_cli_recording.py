"""What is written beside single results: where they are from, and whether that can be had again."""

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
    "correlate": (TEST, "--draws", 5),
    "decompose": (TEST,),
    "redundancy": (TEST,),
    "compare": (TEST, TRAIN),
    "attribute": (*PAIR, "--permutations", 5, "--factors", "factors.csv"),
    "erase": (*PAIR, "--factor", "x", "--random", 2),
    "bound": (TEST, "--bootstrap", 5),
    "evaluate": ("run/checkpoint.pt", "--max-queries", 100),
    "locate": ("run/checkpoint.pt", "--max-queries", 20),
    "follow": ("run/checkpoint.pt", "--no-links"),
    "inspect": ("run/checkpoint.pt",),
}
NO_RESULTS = {"demo", "train", "encode", "report"}


@pytest.fixture(scope="module")
def checkpoint():
    from dimlab.datasets import digits
    from dimlab.training.config import TrainConfig
    from dimlab.training.loop import train

    config = replace(TrainConfig.small(), n_dimensions=8, steps=3, batch_size=16, trace_every=1)
    return train(config, digits("train"))


@pytest.fixture
def files(tmp_path, checkpoint):
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "checkpoint.pt")
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    for name in (TRAIN, TEST):
        features = rng.normal(size=(90, 5)) + np.outer(labels, [2, 0, 0, 0, 0])
        views = features + 0.3 * rng.normal(size=(2, 90, 5))
        x = features[:, 1] + rng.normal(size=90)
        Representation(features, labels=labels, views=views, factors={"x": x}).save(tmp_path / name)
    (tmp_path / "groups.json").write_text("[[0, 1], [2]]")
    rows = "".join(f"{row},{row % 7 / 3}\n" for row in range(90))
    (tmp_path / "factors.csv").write_text(f"row,scanner\n{rows}")
    return tmp_path


def call(dimlab, command, *more):
    quiet = () if command == "inspect" else ("--quiet",)
    return dimlab(command, *CALLS[command], *quiet, *more)


def test_every_command_that_writes_results_is_looked_at():
    assert set(CALLS) | NO_RESULTS == set(cli.COMMANDS)


@pytest.mark.parametrize("command", CALLS)
def test_a_result_has_its_record_and_the_check_reads_it(dimlab, files, command):
    code, _, err = call(dimlab, command, "--out", "o")
    assert (code, err) == (0, ""), err
    record = json.loads((files / "o" / f"{command}.provenance.json").read_text())
    assert record["command"].startswith(f"dimlab {command} ")
    assert {"seed", "device", "dimlab", "numpy", "threads"} <= set(record)
    named = [each for each in map(str, CALLS[command]) if (files / each).is_file()]
    for name in named:
        assert record[f"file {name} (SHA-256)"] == hash_of_file(files / name)
    if named[0] == TEST:
        digests = {value for key, value in record.items() if key.startswith("features of ")}
        assert hash_of_rows(Representation.load(files / TEST).features) in digests
    elif command != "inspect":
        assert "labels of data set digits, train (SHA-256)" in record
    code, out, err = dimlab("report", "--check", "o")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"o/{command} can be reproduced here."
    (files / named[-1]).write_bytes(b"another")
    code, out, err = dimlab("report", "--check", "o")
    assert (code, f"{named[-1]} differs" in " ".join(out.split())) == (3, True)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("more", [(), ("--moments",), ("--data", "digits")])
def test_encoded_features_have_their_record(dimlab, files, more):
    call = ("encode", "run/checkpoint.pt", "--split", "test", "--out", "o", "--quiet", *more)
    ending = "-moments" if more[:1] == ("--moments",) else ""
    for _ in range(2):
        assert dimlab(*call)[0] == 0
    record = json.loads((files / "o" / f"test{ending}.provenance.json").read_text())
    assert record["file run/checkpoint.pt (SHA-256)"] == hash_of_file(
        files / "run" / "checkpoint.pt"
    )
    split = "test" if more[:1] == ("--data",) else "train"
    assert f"labels of data set digits, {split} (SHA-256)" in record
    if not ending:
        encoded = Representation.load(files / "o" / "test.safetensors")
        assert record["features of test (SHA-256)"] == hash_of_rows(encoded.features)
    code, out, _ = dimlab("report", "--check", "o")
    assert (code, out.splitlines()[0]) == (0, f"o/test{ending} can be reproduced here.")
    (files / "run" / "checkpoint.pt").unlink()
    code, _, err = dimlab("report", "--check", "o")
    assert (code, "run/checkpoint.pt is not there" in err) == (3, True)


def test_an_old_record_never_lies_beside_new_features(dimlab, files, monkeypatch):
    call = ("encode", "run/checkpoint.pt", "--split", "test", "--out", "o", "--quiet")
    assert dimlab(*call)[0] == 0

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("dimlab.cli.encoding.keep_record", interrupted)
    assert dimlab(*call, "--views", 2)[0] == 1
    assert [each.name for each in (files / "o").iterdir()] == ["test.safetensors"]


def test_several_results_of_a_folder_are_checked_one_by_one(dimlab, files):
    for command in ("correlate", "ablate"):
        assert call(dimlab, command, "--out", "o")[0] == 0
    code, out, err = dimlab("report", "--check", "o")
    assert (code, err) == (0, "")
    answers = [line for line in out.splitlines() if "can be reproduced" in line]
    assert answers == [f"o/{name} can be reproduced here." for name in ("ablate", "correlate")]
    assert out.count("Run again: dimlab ") == 2
    (files / TRAIN).unlink()
    code, out, err = dimlab("report", "--check", "o")
    assert code == 3
    assert out.startswith("o/ablate cannot be reproduced here: train.safetensors is not there.")
    assert "o/correlate can be reproduced here." in out
    assert err == (
        "dimlab report: o/ablate cannot be reproduced here: train.safetensors is not there.\n"
    )
    code, out, _ = dimlab("report", "--check", "o", "--json")
    found = json.loads(out)
    assert (code, found["reproducible"], list(found["results"])) == (
        3, False, ["ablate", "correlate"],
    )  # fmt: skip
    assert found["results"]["correlate"]["reproducible"]


def test_a_report_and_results_in_one_folder_have_both_their_records(dimlab, files):
    arguments = ("report", *PAIR, "--permutations", 5, "--quiet", "--out", "o")
    assert dimlab(*arguments)[0] == 0
    assert call(dimlab, "redundancy", "--out", "o")[0] == 0
    code, out, _ = dimlab("report", "--check", "o")
    answers = [line for line in out.splitlines() if "can be reproduced" in line]
    assert (code, answers) == (
        0, ["o can be reproduced here.", "o/redundancy can be reproduced here."],
    )  # fmt: skip


def test_a_damaged_record_is_named(dimlab, files):
    assert call(dimlab, "decompose", "--out", "o")[0] == 0
    (files / "o" / "decompose.provenance.json").write_text("[" * 5000)
    code, out, err = dimlab("report", "--check", "o")
    assert (code, out) == (1, "")
    assert err == (
        "dimlab report: o/decompose.provenance.json must be whole; got a damaged file. Run the "
        "command again.\n"
    )


def test_without_out_nothing_is_hashed_or_written(dimlab, files, monkeypatch):
    from dimlab.report import provenance

    monkeypatch.setattr(provenance, "provenance_of", lambda *_, **__: pytest.fail("was asked for"))
    before = sorted(files.rglob("*"))
    assert call(dimlab, "decompose")[0] == 0
    assert sorted(files.rglob("*")) == before


def test_the_matrix_of_correlate_is_written_with_its_other_files_or_not_at_all(dimlab, files):
    assert call(dimlab, "correlate", "--out", "o")[0] == 0
    matrix = np.load(files / "o" / "correlate.npy")
    assert matrix.shape == (5, 5)
    (files / "o" / "correlate.svg").unlink()
    (files / "o" / "correlate.svg").mkdir()  # in the way
    before = {each: each.read_bytes() for each in (files / "o").iterdir() if each.is_file()}
    code, _, err = dimlab("correlate", TRAIN, "--draws", 5, "--quiet", "--out", "o")
    assert (code, err) == (1, "dimlab correlate: o/correlate.svg: Is a directory.\n")
    after = {each: each.read_bytes() for each in (files / "o").iterdir() if each.is_file()}
    assert after == before
    (files / "o" / "correlate.svg").rmdir()
    assert dimlab("correlate", TRAIN, "--draws", 5, "--quiet", "--out", "o")[0] == 0
    assert not np.array_equal(np.load(files / "o" / "correlate.npy"), matrix)


@pytest.mark.slow
def test_a_smaller_report_over_a_larger_one_leaves_nothing_of_it_and_all_of_mine(dimlab, files):
    arguments = ("--permutations", 5, "--quiet", "--out", "o")
    assert dimlab("report", *PAIR, *arguments)[0] == 0
    first = {each.name for each in (files / "o").iterdir()}
    assert {"ablation.csv", "ablation.result.npz", "attribution.svg", "verdicts.json"} <= first
    for name in ("notes.txt", "ablation-mine.csv"):
        (files / "o" / name).write_text("mine")
    (files / "o" / "harmful.csv").write_text("edited")
    assert call(dimlab, "decompose", "--out", "o")[0] == 0
    bare = Representation(np.random.default_rng(1).normal(size=(80, 5)))
    bare.save(files / "bare.safetensors")
    assert dimlab("report", "bare.safetensors", *arguments)[0] == 0
    assert dimlab("report", "bare.safetensors", *arguments[:-1], "alone")[0] == 0
    mine = {"notes.txt", "ablation-mine.csv", "harmful.csv"}
    own = {each.name for each in (files / "o").glob("decompose*")}
    alone = {each.name for each in (files / "alone").iterdir()}
    assert {each.name for each in (files / "o").iterdir()} == alone | mine | own
    assert len(first - alone) > 10  # control: that much had to leave
    assert [(files / "o" / name).read_text() for name in sorted(mine)] == ["mine", "edited", "mine"]


@pytest.mark.parametrize("command", ["ablate", "locate", "encode"])
def test_images_that_changed_under_the_same_labels_are_found(dimlab, files, command):
    from dimlab.datasets import digits

    own = [digits(split).take(range(60)) for split in ("train", "test")]
    kept = {"images": np.concatenate([each.images for each in own])}
    kept |= {"labels": np.concatenate([each.labels for each in own])}
    kept |= {"split": np.repeat(["train", "test"], 60)}
    np.savez(files / "own.npz", **kept)
    arguments = {
        "ablate": ("--reader", "ridge", "--quiet"),
        "locate": ("--quiet",),
        "encode": ("--split", "test", "--quiet"),
    }[command]
    data = ("--data", "npz", "--data-dir", "own.npz", "--out", "o")
    code, _, err = dimlab(command, "run/checkpoint.pt", *arguments, *data)
    assert code == 0, err
    name = "test" if command == "encode" else command
    record = json.loads((files / "o" / f"{name}.provenance.json").read_text())
    recorded = {key.split()[5] for key in record if key.startswith("images of data set npz")}
    assert recorded == ({"train", "test"} if command == "ablate" else {"test"})
    assert dimlab("report", "--check", "o")[0] == 0
    kept["images"][60:] ^= np.uint8(1)  # of test
    np.savez(files / "own.npz", **kept)
    code, out, _ = dimlab("report", "--check", "o")
    words = " ".join(out.split())
    assert (code, "cannot be reproduced here: data set npz has other images of test" in words) == (
        3, True,
    )  # fmt: skip


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


def test_files_of_a_result_that_were_changed_since_are_named(dimlab, files):
    for command in ("decompose", "ablate"):
        assert call(dimlab, command, "--out", "o")[0] == 0
    code, out, _ = dimlab("report", "--check", "o")
    assert (code, out.count("- results: same, 5 of 5 files as written")) == (0, 2), out
    for name in ("ablate.csv", "ablate.json"):
        (files / "o" / name).write_text("better numbers")
    (files / "o" / "ablate.svg").unlink()
    code, out, err = dimlab("report", "--check", "o")
    said = (
        "o/ablate is not what was written: ablate.csv was changed since it was written; "
        "ablate.json was changed since it was written; what was written can be reproduced here."
    )
    assert (code, err) == (3, f"dimlab report: {said}\n")
    words = " ".join(out.split())
    assert "- ablate.csv: changed, ablate.csv was changed since it was written" in words
    assert "- ablate.svg: note, ablate.svg was written, and is not there" in words
    assert "o/decompose can be reproduced here." in words
    code, out, _ = dimlab("report", "--check", "o", "--json")
    assert (code, json.loads(out)["results"]["ablate"]["reproducible"]) == (3, False)


def test_a_record_of_old_says_that_images_and_results_were_not_recorded(dimlab, files):
    assert dimlab("locate", "run/checkpoint.pt", "--quiet", "--out", "o")[0] == 0
    path = files / "o" / "locate.provenance.json"
    record = json.loads(path.read_text())
    old = {key: value for key, value in record.items() if "images" not in key and key != "written"}
    path.write_text(json.dumps(old))
    code, out, _ = dimlab("report", "--check", "o")
    words = " ".join(out.split())
    assert (code, "- images: note, images were not recorded, labels alone" in words) == (0, True)
    assert "- results: note, hashes of the result's own files were not recorded" in words


@pytest.mark.parametrize(
    "odd",
    [
        {"command": ["rm", "-rf"]}, {"device": 3}, {"files": None}, {"written": []},
        {"written": {"../a.csv": ""}}, {"written": {"a.csv": 1}}, {"file a (SHA-256)": 1},
        {"folder of data set digits": 1},
    ],
)  # fmt: skip
def test_a_record_of_other_things_than_texts_is_damaged(dimlab, files, odd):
    assert call(dimlab, "decompose", "--out", "o")[0] == 0
    path = files / "o" / "decompose.provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    code, out, err = dimlab("report", "--check", "o")
    assert (code, out) == (1, "")
    assert "o/decompose.provenance.json must be whole; got a damaged file." in err
