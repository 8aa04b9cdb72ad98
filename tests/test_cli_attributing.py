"""The commands that ask what dimensions carry: from a checkpoint alone, and from files."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from dimlab import load_checkpoint
from dimlab.representation import Representation


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory):
    from dimlab.datasets import load_images
    from dimlab.training.config import TrainConfig
    from dimlab.training.loop import train

    folder = tmp_path_factory.mktemp("run")
    config = replace(
        TrainConfig.small(), n_dimensions=16, steps=4, batch_size=32, checkpoint_every=2,
        keep_checkpoints=True, trace_every=1,
    )  # fmt: skip
    train(config, load_images("digits+hue:0.8", "train"), out=folder)
    return folder / "checkpoint.pt"


@pytest.fixture
def features(tmp_path):
    """Train and test files with a planted shortcut in the first two of five dimensions."""
    rng = np.random.default_rng(0)
    for name, correlation in (("train", 0.8), ("test", 0.0)):
        labels = np.arange(300) % 2
        x = correlation * (2 * labels - 1) + np.sqrt(1 - correlation**2) * rng.normal(size=300)
        signal = rng.normal(size=(300, 5)) + np.outer(labels, [0, 0, 2, 0, 0])
        signal[:, :2] += 2 * x[:, None]
        views = signal + 0.3 * rng.normal(size=(2, 300, 5))
        Representation(
            signal, labels=labels, factors={"x": x}, views=views,
            view_factors={"shift": rng.normal(size=(2, 300))},
            meta={"split": name, "mask": [0.1, 0.2, 0.9, 0.5, 0.6]},
        ).save(tmp_path / f"{name}.safetensors")  # fmt: skip
    return tmp_path / "test.safetensors", "--train", tmp_path / "train.safetensors"


def test_a_checkpoint_alone_says_which_dimensions_carry_the_hue(dimlab, checkpoint_path, tmp_path):
    code, out, err = dimlab(
        "attribute", checkpoint_path, "--permutations", 50, "--out", "here", "--quiet"
    )
    assert (code, err) == (0, "")
    for word in ("Most nuisance first", "hue", "Taking hue out", "in distr.", "random directions"):
        assert word in out
    names = {file.name for file in (tmp_path / "here").iterdir()}
    assert names == {
        "attribute.csv", "attribute.json", "attribute.svg", "attribute-effects.csv",
        "attribute-effects.svg", "attribute-erasure.csv", "attribute-erasure.json",
        "attribute-erasure.svg", "attribute-erasure-sweep.csv", "attribute.provenance.json",
        "attribute.result.npz",
    }  # fmt: skip
    found = json.loads((tmp_path / "here" / "attribute.json").read_text())
    assert found["leading_factor"] == "hue"
    header = (tmp_path / "here" / "attribute.csv").read_text().splitlines()[0].split(",")
    assert {"importance", "mask_weight", "gradient_share", "verdict"} <= set(header)


def test_views_bring_the_parameters_of_the_augmentation(dimlab, checkpoint_path):
    code, out, _ = dimlab(
        "attribute", checkpoint_path, "--views", 2, "--permutations", 5, "--erase", "none",
        "--reader", "none", "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["erasure"] is None
    assert {"hue", "view_hue", "crop_x", "crop_scale", "grey"} <= set(found["factors"])
    assert found["n_test"] == 2 * 359


def test_files_are_attributed_with_a_table_of_ones_own(dimlab, features, tmp_path):
    rows = [
        f"{name},{i},{i % 7},{(i * 37) % 360}" for name in ("train", "test") for i in range(300)
    ]
    (tmp_path / "t.csv").write_text("split,row,site,angle\n" + "\n".join(rows))
    arguments = ("--factors", "t.csv", "--period", "angle=360", "--permutations", 50, "--json")
    code, out, err = dimlab("attribute", *features, *arguments)
    assert (code, err) == (0, "")
    found = json.loads(out)
    kinds = {name: each["kind"] for name, each in found["factors"].items()}
    assert kinds == {"x": "continuous", "site": "categorical", "angle": "periodic"}
    assert found["most_nuisance"] == [0, 1] or found["most_nuisance"] == [1, 0]
    assert found["erasure"]["dimensions"] in ([0, 1], [1, 0])
    _, out, _ = dimlab("attribute", *features, *arguments, "--max-queries", 200)
    assert json.loads(out)["sample"].startswith("200 of 300 test samples")
    code, out, _ = dimlab("attribute", *features, *arguments, "--factor", "site", "--erase", "x")
    assert list(json.loads(out)["factors"]) == ["site"]
    assert json.loads(out)["erasure"]["factor"] == "x"


def test_whole_numbers_that_look_continuous_are_named(dimlab, features, tmp_path):
    rows = [f"{i},{20 + i % 60},{i}" for i in range(300)]
    (tmp_path / "t.csv").write_text("row,age,id\n" + "\n".join(rows))
    arguments = ("--factors", "t.csv", "--permutations", 5, "--json", "--erase", "none")
    code, out, err = dimlab("attribute", *features, *arguments)
    assert code == 0
    assert err == ""
    assert set(json.loads(out)["factors"]) == {"x", "age"}
    notes = json.loads(out)["notes"]
    assert notes["age"].startswith("taken as categories: 60 different whole numbers.")
    assert notes["id"].startswith("left out: 300 different whole numbers in 300 samples.")
    _, out, err = dimlab("attribute", *features, *arguments, "--continuous", "age,id")
    assert err == ""
    assert json.loads(out)["factors"]["age"]["kind"] == "continuous"


def test_whole_numbers_of_the_features_own_file_are_named_and_made_continuous(dimlab, tmp_path):
    rng = np.random.default_rng(0)
    age = rng.permutation(200)
    features = rng.normal(size=(200, 3)) + np.outer(age / 20, [0, 2, 0])
    text = np.char.add(rng.permutation(200).astype(str), ".5")  # numbers, and text
    np.savez(tmp_path / "a.npz", x=features, y=np.arange(200) % 2, age=age, weight=text)
    arguments = ("a.npz", "--permutations", 99, "--reader", "none", "--erase", "none")
    code, _, err = dimlab("attribute", *arguments)
    assert (code, "--continuous age" in err, "--continuous weight" in err) == (2, True, True)
    made = ("--continuous", "age", "--period", "weight=400")
    code, out, err = dimlab("attribute", *arguments, *made, "--json")
    assert code == 0, err
    found = json.loads(out)
    kinds = {name: each["kind"] for name, each in found["factors"].items()}
    assert kinds == {"age": "continuous", "weight": "periodic"}
    assert found["most_nuisance"][0] == 1
    assert found["factors"]["age"]["largest_effect"] > 0.5
    code, out, _ = dimlab("attribute", *arguments, "--continuous", "age")
    assert "weight is left out: 100 different numbers that are text" in " ".join(out.split())
    assert "NaN" not in out
    code, _, err = dimlab("erase", "a.npz", "--factor", "age", "--random", 2)
    assert "dimlab erase: caution: age is left out" in err


def test_a_table_is_of_test_unless_it_says_otherwise(dimlab, features, tmp_path):
    """Features of other programs have no split in them: rows of test are not rows of train."""
    for name in ("train", "test"):
        own = Representation.load(tmp_path / f"{name}.safetensors")
        bare = Representation(np.array(own.features), labels=np.array(own.labels))
        bare.save(tmp_path / f"bare-{name}.safetensors")
    x = Representation.load(tmp_path / "test.safetensors").factors["x"]
    rows = [f"{i},{value!r}" for i, value in enumerate(x.tolist())]
    (tmp_path / "t.csv").write_text("row,z\n" + "\n".join(rows))
    bare = ("bare-test.safetensors", "--train", "bare-train.safetensors", "--factors", "t.csv")
    code, out, err = dimlab("attribute", *bare, "--permutations", 50, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["leading_factor"] == "z"
    assert found["erasure"] is None  # train has no z
    assert "train has no z" in err
    code, _, err = dimlab("erase", *bare, "--factor", "z")
    assert code == 2
    assert "factor must be in every split; got 'z', where train has none" in err


def test_attribution_in_a_basis_erases_on_the_axes(dimlab, features):
    code, out, err = dimlab(
        "attribute", *features, "--basis", "pca", "--permutations", 50, "--json"
    )
    assert code == 0
    assert "basis pca" in err
    found = json.loads(out)
    assert found["basis"] == "pca"
    assert found["erasure"]["dimensions"] in ([0, 1], [1, 0])


def test_erase_prints_all_ways_beside_each_other(dimlab, features, tmp_path):
    code, out, _ = dimlab(
        "erase", *features, "--factor", "x", "--in-distribution", features[2], "--out", "e"
    )
    assert code == 0
    for way in ("nothing", "dimensions", "random dimensions", "directions", "LEACE given label"):
        assert way in out
    assert {file.name for file in (tmp_path / "e").iterdir()} == {
        "erase.csv", "erase.json", "erase.provenance.json", "erase.result.npz", "erase.svg",
        "erase-sweep.csv",
    }  # fmt: skip


def test_locate_shows_images_and_places(dimlab, checkpoint_path, tmp_path):
    code, out, err = dimlab(
        "locate", checkpoint_path, "--dimensions", "3,1", "--images", 2, "--max-queries", 40,
        "--out", "l",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "Images of largest activation" in out
    assert {file.name for file in (tmp_path / "l").iterdir()} == {
        "locate.csv", "locate.json", "locate.provenance.json", "locate.result.npz", "locate.svg",
    }  # fmt: skip
    code, out, _ = dimlab("locate", checkpoint_path, "--max-queries", 40, "--json")
    assert len(json.loads(out)["dimensions"]) == 6


def test_follow_links_the_mask_to_what_dimensions_do(dimlab, checkpoint_path, tmp_path):
    code, out, err = dimlab("follow", checkpoint_path, "--out", "f")
    assert (code, err) == (0, "")
    for word in ("Largest movers", "importance", "redundancy", "nuisance", "inverted"):
        assert word in out
    assert {file.name for file in (tmp_path / "f").iterdir()} == {
        "follow.csv", "follow.json", "follow.svg", "follow-links.csv", "follow-links.svg",
        "follow-quantiles.svg", "follow-steps.csv", "follow.provenance.json", "follow.result.npz",
    }  # fmt: skip


def test_follow_reads_any_sequence_of_masks(dimlab, checkpoint_path, tmp_path):
    trace = load_checkpoint(checkpoint_path).trace
    kept = sorted(checkpoint_path.parent.glob("checkpoint-*.pt"))
    code, out, _ = dimlab("follow", *kept, "--no-links", "--json")
    assert code == 0
    found = json.loads(out)
    assert [found["first_step"], found["last_step"], found["n_steps"]] == [0, 4, 3]
    trace.save(tmp_path / "t.npz")
    _, out, _ = dimlab("follow", "t.npz", "--json")
    assert json.loads(out)["n_steps"] == len(trace)
    for step in (3, 10):  # as the official code names it
        logits = torch.linspace(-1, step, 8).reshape(1, 8)
        torch.save({"state_dict": {"auto_mask.mask": logits}}, tmp_path / f"epoch-{step}.ckpt")
    _, out, _ = dimlab(
        "follow", "epoch-10.ckpt", "epoch-3.ckpt", "--key", "state_dict.auto_mask.mask",
        "--sigmoid", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert [found["first_step"], found["last_step"]] == [3, 10]
    first = dimlab("follow", *kept, "--json")[1]
    assert json.loads(dimlab("follow", *kept[::-1], "--json")[1]) == json.loads(first)
    parameter = torch.nn.Parameter(torch.linspace(0, 1, 8))
    torch.save({"mask": parameter, "step": "ten"}, tmp_path / "own-7.pt")
    assert json.loads(dimlab("follow", "own-7.pt", "--key", "mask", "--json")[1])["last_step"] == 7
    code, _, err = dimlab("follow", "t.npz", "t.npz")
    assert (code, "files must be one .npz, or checkpoints" in err) == (2, True)
    code, _, err = dimlab("follow", "epoch-3.ckpt", "--key", "mask")
    assert code == 1
    assert "key must name a vector in epoch-3.ckpt, one of state_dict.auto_mask.mask" in err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--factors", "no.csv"], 2, "factors must be a .csv or .parquet file; got no.csv"),
        (["--factor", "y"], 2, "factors must be among 'x'; got 'y'."),
        (["--permutations", "0"], 2, "n_permutations must be >= 1; got 0."),
        (["--continuous", "y"], 2, "continuous must name factors, one of 'x'; got 'y'."),
        (["--basis", "axes"], 2, "basis must be one of"),
        (["--erase", "y"], 2, "erase must name a factor of train; got 'y'."),
        (["--seed", "-1"], 2, "seed must be >= 0; got -1."),
        (["--reader", "tree"], 2, "reader must be one of"),
        (["--max-queries", "5"], 2, "attribute needs more than"),
    ],
)
def test_attribute_refuses_in_one_sentence(dimlab, features, arguments, code, sentence):
    found, out, err = dimlab("attribute", *features, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("dimlab attribute: ")
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_a_bad_table_is_a_failure_and_a_bad_dimension_a_misuse(
    dimlab, features, checkpoint_path, tmp_path
):
    (tmp_path / "t.csv").write_text("x\n1\n")
    code, _, err = dimlab("attribute", *features, "--factors", "t.csv")
    assert code == 1
    assert "t.csv must have a column 'row'" in err
    for text, sentence in (("99", "dimensions must lie in [0, 16)"), ("a", "must be numbers"),
                           ("1.5", "must be whole numbers")):  # fmt: skip
        code, _, err = dimlab("locate", checkpoint_path, "--dimensions", text)
        assert code == 2
        assert sentence in err
    code, _, err = dimlab("locate", checkpoint_path, "--max-queries", 0)
    assert (code, "max-queries must be >= 1; got 0." in err) == (2, True)
    for command in ("locate", "bound"):
        code, _, err = dimlab(command, checkpoint_path, "--split", "foo")
        assert (code, "split must be train, validation or test" in err) == (2, True)
    (tmp_path / "u.csv").write_text("row,a\n0,1\n")
    for option in (("--continuous", "b"), ("--period", "a=0"), ("--period", "b=3")):
        assert dimlab("attribute", *features, "--factors", "u.csv", *option)[0] == 2
    code, _, err = dimlab("follow", tmp_path / "none.npz")
    assert code == 2
    np.savez(tmp_path / "damaged.npz", steps=np.arange(2))
    code, _, err = dimlab("follow", tmp_path / "damaged.npz")
    assert code == 1
    code, _, err = dimlab("train", "--data", "digits+hue:7", "--steps", 1)
    assert code == 2
    assert "data must end in +FACTOR:CORRELATION" in err


def test_bound_reports_what_was_proved_what_was_inferred_and_whether_it_held(
    dimlab, features, checkpoint_path, tmp_path
):
    code, out, err = dimlab(
        "bound", features[0], "--negatives", "4,64", "--bootstrap", 20, "--out", "b"
    )
    assert (code, err) == (0, "")
    for word in ("learned", "class_variance", "Inferred form", "not its verbatim theorem"):
        assert word in " ".join(out.split())
    assert {file.name for file in (tmp_path / "b").iterdir()} == {
        "bound.csv", "bound.json", "bound.svg", "bound-terms.csv", "bound-controls.csv",
        "bound-dimensions.csv", "bound.provenance.json", "bound.result.npz",
    }  # fmt: skip
    code, out, _ = dimlab("bound", checkpoint_path, "--bootstrap", 5, "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found["terms"]) == {"none", "learned", "constant", "permuted", "inverted"}
    assert found["n_views"] == 2
    code, _, err = dimlab("bound", features[0], "--negatives", "4.5")
    assert code == 2
    assert "negatives must be whole numbers" in err


@pytest.mark.slow
def test_files_are_whole_though_nobody_reads_the_tables(features, tmp_path):
    """``| head`` closes the pipe before all is printed."""
    command = [sys.executable, "-m", "dimlab", "erase", *map(str, features), "--factor", "x"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "o")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (1, "")
    assert (tmp_path / "o" / "erase.svg").is_file()


def test_a_table_of_factors_is_joined_before_a_file_is_cut_in_halves(dimlab, tmp_path):
    rng = np.random.default_rng(0)
    dose = rng.normal(size=200)
    features = rng.normal(size=(200, 4)) + np.outer(dose, [0, 0, 3, 0])
    np.savez(tmp_path / "d.npz", features=features, labels=np.arange(200) % 2)
    rows = rng.permutation(200)
    pd.DataFrame({"row": rows, "dose": dose[rows]}).to_csv(tmp_path / "f.csv", index=False)
    arguments = ("attribute", "d.npz", "--factors", "f.csv", "--permutations", 99, "--quiet")
    code, _, err = dimlab(*arguments, "--out", "o")
    assert code == 0, err
    frame = pd.read_csv(tmp_path / "o" / "attribute.csv").set_index("dimension")
    effect = frame["nuisance_score"]
    assert effect[2] > 0.8 > 0.2 > effect.drop(2).max()
    pd.DataFrame({"row": range(100), "dose": dose[:100]}).to_csv(tmp_path / "f.csv", index=False)
    code, out, err = dimlab(*arguments)
    assert (code, out) == (1, "")
    assert "f.csv must have a row for each of the 200 samples" in err
    text = ["NA", *dose[1:].astype(str)]
    pd.DataFrame({"row": range(200), "dose": text}).to_csv(tmp_path / "f.csv", index=False)
    code, out, err = dimlab(*arguments)
    assert (code, out) == (1, "")
    assert "f.csv: column 'dose' must be there for every row; got 'NA' in row 0" in err
