"""The commands that measure: from a checkpoint alone, and from files; what they write and print."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dimlab import DimensionMask, cli, encode, load_checkpoint, load_features
from dimlab.datasets import load_images
from dimlab.probes.ablate import ablate
from dimlab.probes.evaluate import evaluate
from dimlab.probes.find_suspects import find_suspects
from dimlab.representation import Representation
from tests.cli.conftest import MASK, split_of

# what scripts may rely on; adding keys is free, losing one is not
JSON_KEYS = {
    "ablate": {
        "reader", "refit", "fill", "score", "basis", "n_train", "n_test", "n_dimensions",
        "n_groups", "full_score", "n_needed", "n_harmful", "most_needed", "most_harmful",
        "certified_share", "constant_dimensions", "intervals",
    },
    "confirm": {"reader", "n_splits", "full_score", "n_confirmed", "confirmed", "verdict"},
    "cumulate": {"reader", "n_test", "n_dimensions", "n_dispensable"},
    "random-masks": {"reader", "n_test", "n_dimensions", "full_score", "verdict"},
    "attribute": {
        "n_test", "n_dimensions", "basis", "n_permutations", "leading_factor", "factors",
        "most_nuisance", "verdicts", "effect", "mutual_information", "erasure",
    },
    "erase": {
        "factor", "kind", "reader", "directions_of", "n_train", "n_test", "n_random", "dimensions",
        "directions", "splits", "in_words",
    },
    "correlate": {"kind", "n_samples", "off_diagonal_rms", "marchenko_pastur_edge"},
    "decompose": {"effective_rank", "n_samples", "n_dimensions"},
    "redundancy": {"n_groups", "basis", "median_r_squared", "n_subset"},
    "profile": {"n_samples", "n_dimensions", "n_outliers", "n_dead", "hubness", "mean_cosine"},
    "suspects": {"reader", "n_suspects", "confirmed", "p_value", "full_score", "score_without"},
    "bound": {"risk", "terms", "held", "proved", "inferred", "assumption", "verdict", "permuted"},
}  # fmt: skip
TABLES = {  # what a command writes besides <command>.csv, .json, .svg and the whole result
    "ablate": {"-per-class.svg"},
    "correlate": {"-top-pairs.csv", ".npy"},
    "decompose": {"-statistics.csv"},
    "attribute": {
        "-effects.csv", "-effects.svg", "-erasure.csv", "-erasure.json", "-erasure.svg",
        "-erasure-sweep.csv", "-erasure-sweep.svg",
    },
    "erase": {"-sweep.csv", "-sweep.svg"},
    "redundancy": {"-subset.svg"},
    "bound": {"-terms.csv", "-controls.csv", "-dimensions.csv"},
    "follow": {"-links.csv", "-links.svg", "-quantiles.svg", "-steps.csv"},
}  # fmt: skip
OF_SUSPECTS = ("association", "association_q", "score", "gain", "gain_low", "gain_high")
PAIRS = {"ablate", "confirm", "cumulate", "random-masks", "attribute", "erase", "suspects"}
CALLS = [
    ("ablate", "--reader ridge --groups redundant:0.9", "lowest estimates, undecided"),
    ("random-masks", "--n-masks 4 --drop 0.2,0.5", "one row for each share removed"),
    ("cumulate", "--order best-first", "best-first"),
    ("cumulate", "--order 5,4,3,2,1,0 --reader knn", "Accuracy while dimensions are removed"),
    ("confirm", "--n-splits 3 --basis pca", "Smallest q-values first"),
    ("profile", "--rows 50 --k 3", "Largest shares of the cosine similarity first"),
    ("attribute", "--permutations 19", "Taking x out"),
    ("erase", "--factor x --random 2 --in-distribution train.safetensors", "LEACE given label"),
    ("correlate", "--draws 5", "Strongest"),
    ("correlate", "--draws 5 --within", "Strongest"),
    ("decompose", "--centred", "Spectrum"),
    ("redundancy", "--cut 0.7 --reader ridge", "Most redundant first"),
    ("suspects", "--reader knn --max-directions 2", "rely on directions"),
    ("bound", "--negatives 4,64 --bootstrap 20", "Inferred form"),
]


@pytest.mark.parametrize(("command", "flags", "title"), CALLS)
def test_a_probe_of_files_writes_tables_json_and_figures(
    dimlab, found, files, tmp_path, command, flags, title
):
    arguments = (command, *(files if command in PAIRS else files[:1]), *flags.split())
    code, out, err = dimlab(*arguments, "--out", "o")
    assert code == 0, err
    said = re.search(r"\nNext: dimlab ([^\n]+)\nIt [^\n]+\.\n$", out)
    following, *given = shlex.split(said[1])
    values = cli.command(following).make_context(following, given).params  # it knows all of them
    assert str(values.get("source") or values["sources"][0]) == files[0]
    assert values["train"] is not None or command not in PAIRS
    assert "none\n" not in out
    assert "0/None" not in err
    assert ("basis pca: 6 directions" in err) == ("--basis" in flags)
    assert title in out
    endings = {".csv", ".json", ".svg", ".result.npz", ".provenance.json"}
    endings |= TABLES.get(command, set())
    written = {each.name.removeprefix(command) for each in (tmp_path / "o").iterdir()}
    assert written == endings
    assert all(each.stat().st_size > 0 for each in (tmp_path / "o").iterdir())
    summary = found(*arguments)
    assert summary == json.loads((tmp_path / "o" / f"{command}.json").read_text())
    assert JSON_KEYS[command] <= set(summary)
    if "redundant" in flags:
        assert summary["n_groups"] == 5  # one dimension is a copy


@pytest.mark.parametrize(
    ("arguments", "following"),
    [
        (("inspect", "test.safetensors"), "report"),
        (("inspect", "CHECKPOINT"), "evaluate"),
        (("encode", "CHECKPOINT", "--out", "a b"), "report"),
        (("encode", "CHECKPOINT", "--split", "test", "--moments"), "decompose"),
    ],
)
def test_encode_and_inspect_say_what_comes_next(dimlab, files, checkpoint, arguments, following):
    del files  # they are written
    given = [str(checkpoint) if each == "CHECKPOINT" else each for each in arguments]
    code, out, err = dimlab(*given)
    assert code == 0, err
    if given[0] == "encode":  # stdout is for the paths of the features
        assert all(Path(line).is_file() for line in out.splitlines())
    said = re.search(r"\nNext: dimlab ([^\n]+)\nIt [^\n]+\.\n$", out + err)
    name, *rest = shlex.split(said[1])
    assert name == following
    values = cli.command(name).make_context(name, rest).params
    source = values.get("source") or values["sources"][0]
    assert Path(source).is_file()


def test_new_arguments_of_a_probe_are_options(found, files, tmp_path):
    rows = [f"{name},{i},{i // 4}" for name in ("train", "test") for i in range(240)]
    (tmp_path / "t.csv").write_text("split,row,patient\n" + "\n".join(rows))
    ridge = (*files, "--reader", "ridge")
    plain = found("ablate", *ridge)
    clustered = found("ablate", *ridge, "--factors", "t.csv", "--clusters", "patient")
    assert plain["full_score"] == clustered["full_score"]
    assert clustered["n_clusters"] == 60
    wider = found("ablate", *ridge, "--resample", "train", "--alone")
    assert wider["intervals"] != plain["intervals"]
    assert found("decompose", files[0], "--fit-range", "1,4")["power_law_range"] == [1, 4]


def test_a_probe_of_the_checkpoint_is_that_of_its_encoded_features(dimlab, found, checkpoint):
    code, out, _ = dimlab("encode", checkpoint, "--out", "f", "--views", 2)
    assert code == 0
    assert out.split() == ["f/train.safetensors", "f/test.safetensors"]
    pair = ("f/test.safetensors", "--train", "f/train.safetensors")
    direct = found("ablate", checkpoint, "--reader", "ridge")
    assert direct == found("ablate", *pair, "--reader", "ridge")
    assert dimlab("encode", checkpoint, "--split", "test", "--moments", "--out", "f")[0] == 0
    ranks = [
        found("decompose", file)["effective_rank"]
        for file in ("f/test.safetensors", "f/test-moments.safetensors", checkpoint)
    ]
    np.testing.assert_allclose(ranks, ranks[0], rtol=1e-4)
    code, _, err = dimlab("encode", checkpoint, "--moments", "--views", "3")
    assert (code, "views must be 0 or 2 with --moments; got 3." in err) == (2, True)
    out = found("redundancy", checkpoint, "--views", "1", "--split", "validation")
    assert out["n_samples"] == 145


def test_a_subsample_is_named_on_table_and_figure(dimlab, found, files, tmp_path):
    code, out, _ = dimlab("ablate", *files, "--max-queries", 50, "--out", "o")
    assert code == 0
    assert "(50 of 240 test samples, drawn with seed 0)" in out
    assert "50 of 240 test samples" in (tmp_path / "o" / "ablate.svg").read_text()
    few = found("ablate", *files, "--max-train", 30, "--max-queries", 20, "--seed", 3)
    assert (few["n_train"], few["n_test"]) == (30, 20)
    assert few["sample"] == (
        "20 of 240 test samples, drawn with seed 3; 30 of 240 train samples, drawn with seed 3"
    )
    assert "drawn with seed" not in dimlab("ablate", *files, "--max-queries", 500)[1]


def test_groups_from_files(found, files, tmp_path):
    (tmp_path / "lists.json").write_text("[[0, 2], [1]]")
    (tmp_path / "ids.json").write_text("[0, 1, 0, 2, 2, 2]")
    for name, count in (("lists", 2), ("ids", 3)):
        assert found("ablate", *files, "--groups", f"{name}.json")["n_groups"] == count


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("random-masks --drop 1.5", "drop must hold shares in (0, 1); got [1.5]."),
        ("cumulate --order up", "order must be one of"),
        ("cumulate --order 0,1", "order must be a permutation of the 6 groups; got [0, 1]"),
        ("ablate --memory 1e-9", "memory must be at least"),
        ("ablate --k 500", "k must be an integer in 1..240"),
        ("ablate --reader ridge --penalty 0", "penalty must be"),
        ("ablate --clusters nobody", "nobody"),
        ("attribute --factors no.csv", "table must be a file; got no.csv, which is not there"),
        ("attribute --factor y", "factors must be among 'x'"),
        ("attribute --continuous y", "continuous must name factors, one of 'x'; got"),
        ("attribute --erase y", "erase must name a factor of train; got 'y'."),
        ("attribute --max-queries 5 --reader none", "attribute needs more than"),
        ("redundancy --cut 2", "cut must lie in (0, 1]; got 2."),
        ("decompose --basis pca", "train must name the train"),
        ("compare", "representations must be two or more; got 1."),
        ("compare train.safetensors --reference x", "reference must be one of 'test', 'train';"),
        ("compare test.safetensors", "files must differ; got"),
        ("evaluate train.safetensors", "files must be checkpoints of dimlab train where there are"),
        ("locate", "must be a file of dimlab train; got features, test."),
        ("encode --data digits", "must hold an encoder; got features"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_probes_are_one_sentence(refused, files, arguments, sentence):
    command, *flags = arguments.split()
    named = files if command in PAIRS else files[:1]
    code, err = refused(command, *named, *flags)
    assert code == 2
    assert sentence in err


def test_a_bad_table_is_a_failure_and_a_bad_dimension_a_misuse(
    refused, files, checkpoint, tmp_path
):
    (tmp_path / "t.csv").write_text("x\n1\n")
    (tmp_path / "u.csv").write_text("row,a\n0,1\n")
    np.savez(tmp_path / "damaged.npz", steps=np.arange(2))
    for arguments, code, sentence in (
        (
            ("attribute", *files, "--factors", "t.csv"),
            1,
            "t.csv must share a column",
        ),
        (("attribute", *files, "--factors", "u.csv", "--continuous", "b"), 2, "continuous must"),
        (("locate", checkpoint, "--dimensions", "99"), 2, "dimensions must lie in [0, 16)"),
        (("evaluate", checkpoint, "--train", "t.csv"), 2, "train must be left out for a check"),
        (("evaluate", checkpoint, "--clusters", "x"), 2, "clusters must be left out for a check"),
        (("follow", tmp_path / "none.npz"), 2, "none.npz"),
        (("follow", tmp_path / "damaged.npz"), 1, "damaged.npz"),
    ):
        got, err = refused(*arguments)
        assert (got, sentence in err) == (code, True), err


# Redundancy --------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    """Features with views in one file, and the same rows cut into two."""
    whole = split_of("whole")
    rows = {"whole": np.arange(240), "a": np.arange(100), "b": np.arange(100, 240)}
    return [whole.take(each).save(tmp_path / f"{name}.safetensors") for name, each in rows.items()]


@pytest.mark.parametrize(
    ("command", "compared"),
    [
        ("correlate", ["off_diagonal_rms", "mean_diagonal", "largest_singular_value"]),
        ("decompose", ["effective_rank", "condition_number", "power_law_exponent"]),
        ("redundancy", ["median_r_squared", "n_groups"]),
    ],
)
def test_parts_and_merged_moments_are_the_whole(dimlab, found, parts, command, compared):
    flags = ["--draws", "0"] if command == "correlate" else []
    whole, a, b = parts
    expected = found(command, whole, *flags)
    assert expected == found(command, whole, *flags, "--save-moments", "whole-moments.safetensors")
    for name, part in (("ma", a), ("mb", b)):
        code, _, err = dimlab(command, part, *flags, "--save-moments", f"{name}.safetensors")
        assert (code, "wrote" in err) == (0, True)
    together = found(command, a, b, *flags)
    merged = found(command, "ma.safetensors", "mb.safetensors", *flags)
    for name in compared:
        np.testing.assert_allclose(together[name], expected[name], rtol=1e-9)
        np.testing.assert_allclose(merged[name], expected[name], rtol=1e-9)


def test_what_parts_must_be(dimlab, found, refused, tmp_path, parts):
    whole, *halves = parts
    flags = ("--basis", "pca", "--train", whole, "--save-moments", "pca.safetensors")
    again = [found("decompose", *halves, *flags), found("decompose", "pca.safetensors")]
    assert [(each["basis"], each["n_samples"]) for each in again] == [("pca", 240)] * 2
    assert "files must all be moments" in refused("decompose", "pca.safetensors", whole)[1]
    Representation(np.array(Representation.load(whole).features)).save(
        tmp_path / "bare.safetensors"
    )
    code, err = refused("correlate", whole, "bare.safetensors")
    assert (code, "files must all hold two views, or none; got both." in err) == (2, True)
    stacked = found("redundancy", whole, "--views", "2")  # each view is a sample
    assert stacked["n_samples"] == 480


def test_cautions_are_one_sentence_each(dimlab, tmp_path):
    features = np.random.default_rng(2).normal(size=(9, 12))
    features[:, 3] = 1.0
    np.save(tmp_path / "few.npy", features)
    code, _, err = dimlab("decompose", "few.npy", "--json")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("dimlab decompose: caution: N = 9 samples do not exceed D = 12")
    code, _, err = dimlab("correlate", "few.npy", "--draws", "2")
    said = "dimlab correlate: caution: 1 of 12 dimensions do not vary and are left out.\n"
    assert (code, err) == (0, said)


def test_checkpoints_of_a_run_are_compared(dimlab, run, tmp_path):
    kept = sorted(run.glob("checkpoint-*.pt"))
    assert [path.stem for path in kept] == [f"checkpoint-000000{step}" for step in (0, 2, 4)]
    code, out, err = dimlab("compare", *kept, run / "checkpoint.pt", "--out", "o")
    assert (code, err) == (0, "")
    assert "Statistics, and differences to checkpoint-0000000" in out
    last = json.loads((tmp_path / "o" / "compare.json").read_text())["representations"]
    other = last["checkpoint-0000004"]
    name = next(each for each in last if not each.startswith("checkpoint-"))
    assert last[name] == other | {"mean_match": pytest.approx(last[name]["mean_match"])}


# What dimensions carry ---------------------------------------------------------------------------


def test_a_checkpoint_alone_says_which_dimensions_carry_the_hue(dimlab, checkpoint, tmp_path):
    code, out, err = dimlab("attribute", checkpoint, "--permutations", 50, "--out", "o", "--quiet")
    assert (code, err) == (0, "")
    for word in ("Most nuisance first", "hue", "Taking hue out", "in distr.", "random directions"):
        assert word in out
    assert json.loads((tmp_path / "o" / "attribute.json").read_text())["leading_factor"] == "hue"
    header = (tmp_path / "o" / "attribute.csv").read_text().splitlines()[0].split(",")
    assert {"importance", "mask_weight", "gradient_share", "verdict"} <= set(header)


def test_views_bring_the_parameters_of_the_augmentation(found, checkpoint):
    none = ("--erase", "none", "--reader", "none")
    summary = found("attribute", checkpoint, "--views", 2, "--permutations", 5, *none)
    assert summary["erasure"] is None
    assert {"hue", "view_hue", "crop_x", "crop_scale", "grey"} <= set(summary["factors"])
    assert summary["n_test"] == 2 * 359


def test_files_are_attributed_with_a_table_of_ones_own(dimlab, found, files, tmp_path):
    rows = [f"{name},{i},{i % 7},{i * 37 % 360}" for name in ("train", "test") for i in range(240)]
    (tmp_path / "t.csv").write_text("split,row,site,angle\n" + "\n".join(rows))
    table = ("--factors", "t.csv", "--period", "angle=360", "--permutations", 50)
    summary = found("attribute", *files, *table)
    kinds = {name: each["kind"] for name, each in summary["factors"].items()}
    assert kinds == {"x": "continuous", "site": "categorical", "angle": "periodic"}
    assert sorted(summary["most_nuisance"]) == sorted(summary["erasure"]["dimensions"]) == [0, 1]
    few = found("attribute", *files, *table, "--max-queries", 200)
    assert few["sample"].startswith("200 of 240 test samples")
    one = found("attribute", *files, *table, "--factor", "site", "--erase", "x", "--basis", "pca")
    assert list(one["factors"]) == ["site"]
    assert (one["basis"], one["erasure"]["factor"]) == ("pca", "x")  # erased on the axes
    assert sorted(one["erasure"]["dimensions"]) == [0, 1]
    assert found("ablate", *files, "--factors", "t.csv", "--clusters", "site")["n_clusters"] == 7


def test_whole_numbers_that_look_continuous_are_named(dimlab, found, tmp_path):
    rng = np.random.default_rng(0)
    age = rng.permutation(200)
    features = rng.normal(size=(200, 3)) + np.outer(age / 20, [0, 2, 0])
    text = np.char.add(rng.permutation(200).astype(str), ".5")  # numbers, and text
    np.savez(tmp_path / "a.npz", x=features, y=np.arange(200) % 2, age=age, weight=text)
    arguments = ("a.npz", "--permutations", 99, "--reader", "none", "--erase", "none")
    code, _, err = dimlab("attribute", *arguments)
    assert (code, "--continuous age" in err, "--continuous weight" in err) == (2, True, True)
    summary = found("attribute", *arguments, "--continuous", "age", "--period", "weight=400")
    kinds = {name: each["kind"] for name, each in summary["factors"].items()}
    assert kinds == {"age": "continuous", "weight": "periodic"}
    assert summary["most_nuisance"][0] == 1
    assert summary["factors"]["age"]["largest_effect"] > 0.5
    code, out, _ = dimlab("attribute", *arguments, "--continuous", "age")
    assert "weight is left out: 100 different numbers that are text" in " ".join(out.split())
    assert "NaN" not in out
    _, _, err = dimlab("erase", "a.npz", "--factor", "age", "--random", 2)
    assert "dimlab erase: caution: age is left out" in err


def test_a_table_is_of_test_unless_it_says_otherwise(dimlab, files, tmp_path):
    """Features of other programs have no split in them: rows of test are not rows of train."""
    for name in ("train", "test"):
        own = split_of(name)
        bare = Representation(np.array(own.features), labels=np.array(own.labels))
        bare.save(tmp_path / f"bare-{name}.safetensors")
    rows = [f"{i},{value!r}" for i, value in enumerate(split_of("test").factors["x"].tolist())]
    (tmp_path / "t.csv").write_text("row,z\n" + "\n".join(rows))
    bare = ("bare-test.safetensors", "--train", "bare-train.safetensors", "--factors", "t.csv")
    code, out, err = dimlab("attribute", *bare, "--permutations", 50, "--json")
    assert code == 0
    assert json.loads(out)["leading_factor"] == "z"
    assert json.loads(out)["erasure"] is None
    assert "train has no z" in err
    code, _, err = dimlab("erase", *bare, "--factor", "z")
    assert code == 2
    assert "factor must be in every split; got 'z', where train has none" in err


def test_a_table_of_factors_is_joined_before_a_file_is_cut_in_halves(dimlab, refused, tmp_path):
    rng = np.random.default_rng(0)
    dose = rng.normal(size=200)
    features = rng.normal(size=(200, 4)) + np.outer(dose, [0, 0, 3, 0])
    np.savez(tmp_path / "d.npz", features=features, labels=np.arange(200) % 2)
    rows = rng.permutation(200)
    pd.DataFrame({"row": rows, "dose": dose[rows]}).to_csv(tmp_path / "f.csv", index=False)
    arguments = ("attribute", "d.npz", "--factors", "f.csv", "--permutations", 99, "--quiet")
    code, _, err = dimlab(*arguments, "--out", "o")
    assert code == 0, err
    effect = pd.read_csv(tmp_path / "o" / "attribute.csv").set_index("dimension")["nuisance_score"]
    assert effect[2] > 0.8 > 0.2 > effect.drop(2).max()
    pd.DataFrame({"row": range(100), "dose": dose[:100]}).to_csv(tmp_path / "f.csv", index=False)
    code, err = refused(*arguments)
    assert (code, "f.csv must have a row for each of the 200 samples" in err) == (1, True)
    text = ["NA", *dose[1:].astype(str)]
    pd.DataFrame({"row": range(200), "dose": text}).to_csv(tmp_path / "f.csv", index=False)
    code, err = refused(*arguments)
    said = "f.csv: column 'dose' must be there for every row; got 'NA' in row 0"
    assert (code, said in err) == (1, True)


def test_locate_looks_along_the_directions_of_suspects(dimlab, found, checkpoint, tmp_path):
    features = np.random.default_rng(0).normal(size=(300, 16))
    split = Representation(features, labels=np.arange(300) % 3)
    none = find_suspects(split, split)
    directions = np.linalg.qr(features[:16, :2])[0]
    several = replace(none, directions=directions, **dict.fromkeys(OF_SUSPECTS, np.zeros(2)))
    several.save(tmp_path / "two.result.npz")
    replace(several, directions=directions[:, :0]).save(tmp_path / "none.result.npz")
    ablate(split, split, reader="ridge").save(tmp_path / "other.result.npz")
    few = ("--max-queries", 20, "--images", 2)
    shown = found("locate", checkpoint, "--along", "two.result.npz", *few)
    assert list(shown["dimensions"]) == ["0", "1"]
    for name, what in (("none", "one that found none"), ("other", "Ablation")):
        code, _, err = dimlab("locate", checkpoint, "--along", f"{name}.result.npz", *few)
        assert (code, err.count("\n"), f"with directions; got {what}." in err) == (2, 1, True)
    code, _, err = dimlab("locate", checkpoint, "--along", "absent.result.npz", *few)
    assert (code, "absent.result.npz, which is not there" in err) == (2, True)


def test_locate_shows_images_and_places(dimlab, found, checkpoint):
    few = ("--max-queries", 40)
    code, out, err = dimlab(
        "locate", checkpoint, "--dimensions", "3,1", "--images", 2, *few, "--out", "l"
    )
    assert (code, err) == (0, "")
    assert "Images of largest activation" in out
    assert len(found("locate", checkpoint, *few)["dimensions"]) == 6


def test_follow_links_the_mask_and_reads_any_sequence_of_masks(dimlab, found, refused, run):
    checkpoint, kept = run / "checkpoint.pt", sorted(run.glob("checkpoint-*.pt"))
    code, out, err = dimlab("follow", checkpoint, "--out", "f")
    assert (code, err) == (0, "")
    for word in ("Largest movers", "importance", "redundancy", "nuisance", "inverted"):
        assert word in out
    summary = found("follow", *kept, "--no-links")
    assert [summary[name] for name in ("first_step", "last_step", "n_steps")] == [0, 4, 3]
    assert found("follow", *kept[::-1], "--no-links") == summary
    trace = load_checkpoint(checkpoint).trace
    trace.save("t.npz")
    assert found("follow", "t.npz")["n_steps"] == len(trace)
    for step in (3, 10):  # as the official code names it
        logits = torch.linspace(-1, step, 8).reshape(1, 8)
        torch.save({"state_dict": {"auto_mask.mask": logits}}, f"epoch-{step}.ckpt")
    named = ("--key", "state_dict.auto_mask.mask", "--sigmoid")
    summary = found("follow", "epoch-10.ckpt", "epoch-3.ckpt", *named)
    assert [summary["first_step"], summary["last_step"]] == [3, 10]
    parameter = torch.nn.Parameter(torch.linspace(0, 1, 8))
    torch.save({"mask": parameter, "step": "ten"}, "own-7.pt")
    assert found("follow", "own-7.pt", "--key", "mask")["last_step"] == 7
    code, err = refused("follow", "t.npz", "t.npz")
    assert (code, "files must be one .npz, or checkpoints" in err) == (2, True)
    code, err = refused("follow", "epoch-3.ckpt", "--key", "mask")
    said = "key must name a vector in epoch-3.ckpt, one of state_dict.auto_mask.mask"
    assert (code, said in err) == (1, True)


def test_bound_compares_the_learned_mask_with_others(found, checkpoint):
    summary = found("bound", checkpoint, "--bootstrap", 5)
    assert set(summary["terms"]) == {"none", "learned", "constant", "permuted", "inverted"}
    assert summary["n_views"] == 2


# Evaluation --------------------------------------------------------------------------------------


def test_evaluate_prints_every_source_of_a_run(dimlab, checkpoint):
    code, out, _ = dimlab("evaluate", checkpoint, "--readers", "knn", "--max-queries", 50)
    assert code == 0
    for source in ("raw pixels", "untrained", "trained", "view-retrieval"):
        assert source in out


def test_features_are_evaluated_as_python_evaluates_them(dimlab, found, files, tmp_path):
    readers = ("knn", "ridge", "logistic")
    summary = found("evaluate", *files, "--readers", ",".join(readers), "--k", 7)
    pair, mask = (split_of("train"), split_of("test")), DimensionMask(np.array(MASK))
    expected = evaluate(*pair, mask=mask, readers=readers, k=7).summary()
    assert summary == json.loads(json.dumps(expected))
    assert set(summary["accuracy"]) == {*readers, "view-retrieval"}
    np.savez(tmp_path / "a.npz", features=pair[0].features, labels=pair[0].labels)
    code, out, err = dimlab("evaluate", "a.npz")
    assert (code, "120 of its 240 samples are train" in err) == (0, True)
    assert ["knn", "none"] in [line.split()[:2] for line in out.splitlines() if line.strip()]


@pytest.fixture
def others(tmp_path):
    """Weights of other tools, and thirty images of train and of test."""
    from dimlab.training.encoders import build_encoder

    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    split = np.repeat(["train", "test"], 30)
    np.savez(tmp_path / "own.npz", images=pixels, labels=np.arange(60) % 2, split=split)
    with torch.random.fork_rng():
        module = build_encoder("resnet18", stem="cifar", in_channels=1)
    torch.save({"state_dict": module.state_dict()}, tmp_path / "fresh.pth")
    module.train()(torch.from_numpy(pixels[:8, None]).float() / 255)
    torch.save({"state_dict": module.state_dict()}, tmp_path / "plain.pth")
    trained = {f"backbone.{name}": each for name, each in module.state_dict().items()}
    beside = {"projector.0.weight": torch.ones(8, 512), "classifier.weight": torch.ones(10, 512)}
    lightning = {"pytorch-lightning_version": "2.0", "global_step": 9, "epoch": 1}
    torch.save(lightning | {"state_dict": trained | beside}, tmp_path / "s.ckpt")
    return "--data", "npz", "--data-dir", "own.npz", "--quiet"


def test_encoders_of_other_tools_are_measured_with_data(found, refused, others):
    summary = found("evaluate", "plain.pth", *others, "--max-train", 20)
    sizes = [summary[name] for name in ("n_train", "n_test", "n_dimensions")]
    assert sizes == [20, 30, 512]
    assert {"knn", "ridge", "view-retrieval"} == set(summary["accuracy"])
    ends = "That flag is dimlab encode's: encode {} with it first, and name the features.\n"
    code, err = refused("ablate", "fresh.pth", *others)
    assert (code, "(--allow-untrained)" in err) == (1, True)
    assert err.endswith(ends.format("fresh.pth"))
    code, err = refused("evaluate", "s.ckpt", *others)
    assert (code, "stem must be named" in err) == (1, True)
    assert err.endswith(ends.format("s.ckpt"))


# Retrieval -----------------------------------------------------------------------------------


@pytest.fixture
def retrieval(tmp_path):
    """Features of a corpus and of queries with ids, and qrels; query dimension 2 is noise."""
    rng = np.random.default_rng(0)
    corpus = rng.normal(size=(200, 6))
    queries = corpus[:80] + 0.3 * rng.normal(size=(80, 6))
    queries[:, 2] = 4 * rng.normal(size=80)
    ids = {"corpus": "d", "queries": "q"}
    for name, features in (("corpus", corpus), ("queries", queries)):
        named = np.array([f"{ids[name]}{row}" for row in range(len(features))])
        np.savez(tmp_path / f"{name}.npz", emb=features, id=named)
    lines = "".join(f"q{row} 0 d{row} 1\n" for row in range(80))
    (tmp_path / "qrels.txt").write_text(lines)
    return "corpus.npz", "queries.npz", "--relevance", "qrels.txt", "--quiet"


def test_retrieval_is_ablated_from_three_files(dimlab, found, retrieval, tmp_path):
    code, out, err = dimlab("ablate-retrieval", *retrieval, "--out", "out", "--n-splits", "4")
    assert code == 0, err
    for said in ("Most needed first", "ndcg@10 by dimensions kept", "confirmed on queries"):
        assert said in out
    assert "\nNext: dimlab redundancy corpus.npz\n" in out  # the queries are no part of it
    endings = {path.name.removeprefix("ablate-retrieval") for path in (tmp_path / "out").iterdir()}
    assert endings >= {".csv", ".json", ".svg", "-truncation.csv", "-truncation.svg"}
    summary = found("ablate-retrieval", *retrieval, "--score", "mrr@5", "--truncate", "2,3")
    assert (summary["score"], summary["n_queries"], summary["confirmed"]) == ("mrr@5", 80, [[2]])
    assert set(summary["enough"]) == {"importance", "first", "pca", "random"}
    few = found("ablate-retrieval", *retrieval, "--max-queries", "30", "--basis", "pca")
    assert (few["n_queries"], few["basis"]) == (30, "pca")
    assert few["sample"] == "30 of 80 queries, drawn with seed 0"


@pytest.mark.slow
def test_two_commands_lead_from_vectors_to_the_answers_on_retrieval(dimlab, retrieval, tmp_path):
    code, _, err = dimlab("ablate-retrieval", *retrieval, "--out", "out", "--n-splits", "4")
    assert code == 0, err
    path = "out/ablate-retrieval.result.npz"
    code, out, err = dimlab("report", "corpus.npz", "--result", path, "--quiet")
    assert code == 0, err
    assert "harmful (1): 2" in out
    assert "needed for retrieval (" in out
    answers = pd.read_csv(tmp_path / "report" / "answers.csv")
    assert answers["answer"][2] == "harmful"
    assert "keep, needed for retrieval" in set(answers["answer"])
    assert "neighbourhood" not in out  # what neighbours lose says of no dimension that it is good
    for wrong, *expected in (("no.npz", 2, "must be a file"), ("qrels.txt", 1, "must be a whole")):
        code, _, err = dimlab("report", "corpus.npz", "--result", wrong)
        assert [code, expected[1] in err] == [expected[0], True]


def test_retrieval_refuses_what_is_missing(dimlab, refused, retrieval):
    corpus, queries, *rest = retrieval
    code, err = refused("ablate-retrieval", corpus, *rest)
    assert (code, "files must be features of a corpus and of queries; got 1." in err) == (2, True)
    code, err = refused("ablate-retrieval", corpus, queries, "--relevance", "no.txt")
    assert (code, "no.txt, which is not there" in err) == (2, True)
    code, _, err = dimlab("ablate-retrieval", corpus, queries)
    assert (code, "--relevance" in err) == (2, True)


def test_other_samples_are_compared_without_similarities_and_it_is_said(dimlab, tmp_path):
    for name, n in (("test", 100), ("train", 120)):
        split_of(name, n).save(tmp_path / f"{name}.safetensors")
    code, out, err = dimlab("compare", "test.safetensors", "train.safetensors")
    assert code == 0, err
    assert "test and train are not of the same samples: no similarity is measured." in out
    assert "nan" not in out.lower()


@pytest.mark.parametrize("flags", ["--keep 1,4", "--keep-directions 3"])
def test_a_checkpoint_becomes_smaller_and_its_layer_loads_into_torch_alone(
    dimlab, checkpoint, tmp_path, flags
):
    rows = ("--max-queries", "40", "--max-train", "120", "--quiet")
    code, out, err = dimlab("prune", str(checkpoint), *flags.split(), *rows, "--out", "o")
    assert code == 0, err
    assert "Does the smaller representation lose accuracy?" in out
    smaller = load_features(tmp_path / "o" / "pruned-test.safetensors")
    weights = load_file(tmp_path / "o" / "prune-layer.safetensors")
    n_kept = len(weights["weight"])
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 16, n_kept, bias=False)
    layer.load_state_dict(weights)
    whole = encode(load_checkpoint(checkpoint), load_images("digits+hue:0.8", "test"))
    expected = layer(torch.from_numpy(whole.features)).detach().numpy()
    assert smaller.features.shape == (40, n_kept)
    if n_kept == 2:
        np.testing.assert_array_equal(expected, whole.features[:, [1, 4]])
    # the rows that were drawn are among those of the whole split
    distance = np.abs(expected[None] - smaller.features[:, None]).max(axis=2).min(axis=1)
    assert distance.max() < 1e-5
