"""The command line, driven as a user drives it: exit codes, sentences, files."""

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from dimlab.representation import Representation


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory):
    from dimlab.datasets import digits
    from dimlab.training.config import TrainConfig
    from dimlab.training.loop import train

    folder = tmp_path_factory.mktemp("run")
    config = replace(TrainConfig.small(), n_dimensions=16, steps=3, batch_size=16)
    train(config, digits("train"), out=folder)
    return folder / "checkpoint.pt"


def test_train_then_ablate_with_nothing_else(dimlab, tmp_path):
    code, out, err = dimlab("train", "--steps", 2, "--batch-size", 16)
    assert (code, err) == (0, "")
    assert "checkpoint" in out
    path = tmp_path / "runs" / "digits-convnet-metamask-seed0" / "checkpoint.pt"
    assert path.is_file()
    code, out, err = dimlab("ablate", path)
    assert (code, err) == (0, "")
    assert "No dimensions are needed at q <= 0.05" in out
    assert "lowest estimates, undecided" in out
    code, _, err = dimlab("train", "--steps", 2, "--batch-size", 16)
    assert code == 2
    assert "out must be a folder without a checkpoint.pt" in err


def test_digits_train_small_whatever_is_planted_in_them(dimlab, tmp_path):
    arguments = ("--data", "digits+hue:0.8", "--steps", 2, "--batch-size", 16, "--out", "r")
    from dimlab.training.checkpoint import load_checkpoint
    from dimlab.training.config import TrainConfig

    assert dimlab("train", *arguments)[0] == 0
    found = load_checkpoint(tmp_path / "r" / "checkpoint.pt").config
    assert found == replace(TrainConfig.small(), steps=2, batch_size=16)


def test_ablate_writes_csv_json_and_figure_and_prints_json(dimlab, checkpoint_path, tmp_path):
    code, out, _ = dimlab("ablate", checkpoint_path, "--reader", "ridge", "--out", "here", "--json")
    assert code == 0
    assert json.loads(out)["reader"] == "ridge"
    names = sorted(file.name for file in (tmp_path / "here").iterdir())
    assert names == [
        "ablate-per-class.svg", "ablate.csv", "ablate.json", "ablate.provenance.json",
        "ablate.result.npz", "ablate.svg",
    ]  # fmt: skip
    assert json.loads((tmp_path / "here" / "ablate.json").read_text()) == json.loads(out)


def test_encode_then_ablate_files_equals_ablating_the_checkpoint(dimlab, checkpoint_path, tmp_path):
    code, out, _ = dimlab("encode", checkpoint_path, "--out", "f", "--views", 2)
    assert code == 0
    assert out.split() == ["f/train.safetensors", "f/test.safetensors"]
    assert Representation.load(tmp_path / "f" / "test.safetensors").views.shape[0] == 2
    arguments = ["--reader", "ridge", "--json"]
    _, direct, _ = dimlab("ablate", checkpoint_path, *arguments)
    _, through_files, _ = dimlab(
        "ablate", "f/test.safetensors", "--train", "f/train.safetensors", *arguments
    )
    assert json.loads(direct) == json.loads(through_files)


def test_evaluate_prints_every_source(dimlab, checkpoint_path):
    code, out, _ = dimlab("evaluate", checkpoint_path, "--readers", "knn", "--max-queries", 50)
    assert code == 0
    for source in ("raw pixels", "untrained", "trained", "view-retrieval"):
        assert source in out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["ablate", "nowhere.pt"], 2, "dimlab ablate: checkpoint must be a file; got nowhere.pt"),
        (["ablate", "x.safetensors"], 2, "features must be a file; got x.safetensors, nothing"),
        (["ablate"], 2, "Missing argument"),
        (["ablate", "x.pt", "--nonsense"], 2, "No such option"),
        (["ablate", "x.pt", "--k", "many"], 2, "--k"),
        (["nonsense"], 2, "No such command"),
        (["train", "--data", "digit"], 2, "digits"),
        (["train", "--steps", "0"], 2, "steps must be >= 1; got 0"),
        (["train", "--encoder", "vgg"], 2, "encoder must be one of"),
        (["train", "--preset", "huge"], 2, "preset must be one of small, medium, official"),
        (["train", "--config", "none.toml"], 2, "config must be a TOML file"),
        (["train", "--batch-size", "5000", "--out", "r"], 2, "batch_size must be at most"),
    ],
)
def test_misuse_is_one_sentence_and_exit_code_2(arguments, code, sentence, dimlab):
    got, out, err = dimlab(*arguments)
    assert got == code
    assert sentence in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_values_out_of_range_are_exit_code_2(dimlab, checkpoint_path):
    for flags, sentence in (
        (["--k", 0], "k must"),
        (["--reader", "svm"], "reader must be one of"),
        (["--reader", "ridge", "--penalty", 0], "penalty must be"),
        (["--max-queries", 0], "max-queries must be >= 1; got 0"),
    ):
        code, _, err = dimlab("ablate", checkpoint_path, *flags)
        assert code == 2
        assert sentence in err


def test_a_corrupt_or_hostile_file_is_exit_code_1(dimlab, tmp_path):
    import os

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    code, _, err = dimlab("ablate", "bad.pt")
    assert code == 1
    assert "bad.pt must" in err
    assert not (tmp_path / "canary").exists()
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 30)
    code, _, err = dimlab("ablate", "bad.safetensors", "--train", "bad.safetensors")
    assert code == 1
    assert "must be a complete safetensors file" in err


def test_other_data_than_those_of_training_is_refused(dimlab, checkpoint_path, tmp_path):
    from dataclasses import replace

    from dimlab.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(checkpoint_path)
    strange = replace(checkpoint, data={**checkpoint.data, "labels_hash": "0" * 64})
    strange.save(tmp_path / "strange.pt")
    code, _, err = dimlab("ablate", "strange.pt")
    assert code == 1
    assert "labels with another hash" in err


def test_features_without_labels_say_what_to_do(dimlab, tmp_path):
    Representation(np.eye(4)).save(tmp_path / "a.safetensors")
    code, _, err = dimlab("ablate", "a.safetensors", "--train", "a.safetensors")
    assert code == 2
    assert "labels must stand in a.safetensors or be named; got none. Pass --labels FILE" in err


def test_help_is_quick_to_reach_and_python_m_works():
    output = subprocess.run(
        [sys.executable, "-m", "dimlab", "ablate", "--help"], capture_output=True, text=True
    )
    assert output.returncode == 0
    assert "Remove each dimension" in output.stdout


@pytest.mark.slow
def test_the_demo_makes_a_report(dimlab, tmp_path):
    code, out, err = dimlab("demo", "--out", "d")
    assert (code, err) == (0, "")
    assert "kNN reads" in out
    assert "report.html" in out
    summary = json.loads((tmp_path / "d" / "mask_evolution.json").read_text())
    assert summary["std_weight"] > 0.05  # TrainConfig.small()'s promise
    provenance = json.loads((tmp_path / "d" / "provenance.json").read_text())
    assert provenance["elapsed_seconds"] > 0


@pytest.mark.slow
def test_fashion_mnist_trains_and_its_checkpoint_is_ablated(dimlab):
    from pathlib import Path

    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Fashion-MNIST is not there: install Debian's dataset-fashion-mnist")
    code, _, err = dimlab("train", "--data", "fashion-mnist", "--steps", 5, "--out", "r")
    assert (code, err) == (0, "")
    code, out, err = dimlab("ablate", "r/checkpoint.pt", "--max-queries", 300, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["n_train"] == 54_000


def test_a_run_is_resumed_with_the_same_command_line(dimlab, tmp_path, monkeypatch):
    from dimlab.training.checkpoint import load_checkpoint
    from dimlab.training.step import Stepper

    command = ["train", "--steps", 4, "--batch-size", 16, "--set", "checkpoint_every=2"]
    assert dimlab(*command, "--out", "whole")[0] == 0
    taken, take = [], Stepper.take

    def interrupted(self, *arguments, **options):
        taken.append(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, *arguments, **options)

    monkeypatch.setattr(Stepper, "take", interrupted)
    code, _, err = dimlab(*command, "--out", "cut", "--resume")  # nothing there: it starts
    assert code == 1
    assert err.startswith("dimlab train: stopped after step 2 of 4; cut/checkpoint.pt")
    assert "--resume" in err
    assert dimlab(*command, "--out", "cut", "--resume")[0] == 0
    whole, cut = (load_checkpoint(tmp_path / run / "checkpoint.pt") for run in ("whole", "cut"))
    for name, value in whole.network.items():
        np.testing.assert_array_equal(cut.network[name], value)
    code, _, err = dimlab(*command, "--out", "cut", "--resume", "--learning-rate", 9)
    assert code == 2
    assert (
        "resume must be a checkpoint of the same configuration; got one with learning_rate" in err
    )


def test_fields_of_the_configuration_are_set_and_checked(dimlab, tmp_path):
    from dimlab.training.checkpoint import load_checkpoint

    code, _, err = dimlab(
        "train", "--steps", 2, "--batch-size", 16, "--out", "r", "--hypergradient", "lookahead",
        "--set", "nesterov=true", "--set", "mask_momentum=0.5", "--set", "contrastive=vicreg_loss",
    )  # fmt: skip
    assert (code, err) == (0, "")
    config = load_checkpoint(tmp_path / "r" / "checkpoint.pt").config
    assert (config.nesterov, config.mask_momentum) == (True, 0.5)
    assert (config.contrastive, config.hypergradient) == ("vicreg_loss", "lookahead")
    for pair, sentence in {
        "nonsense=1": "set must be FIELD=VALUE with a field of TrainConfig; got 'nonsense=1'",
        "steps": "set must be FIELD=VALUE",
        "nesterov=maybe": "nesterov must be bool; got 'maybe'",
        "warmup_steps=few": "warmup_steps must be int; got 'few'",
    }.items():
        code, _, err = dimlab("train", "--set", pair)
        assert code == 2
        assert sentence in err


def test_training_is_watched(dimlab, tmp_path):
    code, _, err = dimlab(
        "train", "--steps", 2, "--batch-size", 16, "--out", "r", "--validate-every", 1,
        "--set", "trace_every=1", "--tensorboard",
    )  # fmt: skip
    assert (code, err) == (0, "")
    text = (tmp_path / "r" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert 0 < lines[-1]["knn_accuracy"] <= 1
    events = [file for file in (tmp_path / "r").iterdir() if file.name.startswith("events.out")]
    assert len(events) == 1
    assert events[0].stat().st_size > 500


@pytest.mark.slow
def test_torchrun_trains_and_encodes_as_one_process_does(tmp_path):
    from dimlab.training.checkpoint import load_checkpoint

    command = ["train", "--steps", "3", "--batch-size", "15", "--set", "precision=float64"]
    several = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
    ]
    for launcher, out in (([sys.executable], "one"), (several, "two")):
        for arguments in (
            [*command, "--out", out],
            ["encode", f"{out}/checkpoint.pt", "--split", "test", "--out", out, "--views", "1"],
        ):
            done = subprocess.run(
                [*launcher, "-m", "dimlab", *arguments], cwd=tmp_path, capture_output=True,
                text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    one, two = (load_checkpoint(tmp_path / out / "checkpoint.pt") for out in ("one", "two"))
    assert two.versions["processes"] == "2"
    for name, value in one.network.items():
        np.testing.assert_allclose(two.network[name], value, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(two.mask_logits, one.mask_logits, rtol=1e-9, atol=1e-12)
    features = [Representation.load(tmp_path / out / "test.safetensors") for out in ("one", "two")]
    np.testing.assert_allclose(features[1].features, features[0].features, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features[1].views, features[0].views, rtol=1e-4, atol=1e-6)


# Probes on files of features -------------------------------------------------------------------


@pytest.fixture
def feature_files(tmp_path):
    """Two useful dimensions, one of them twice, and noise."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 200), ("test", 120)):
        labels = np.arange(n) % 2
        features = rng.normal(size=(n, 6))
        features[:, :2] += 2 * labels[:, None] - 1
        features[:, 2] = features[:, 0] + 0.01 * rng.normal(size=n)
        Representation(features, labels=labels).save(tmp_path / f"{name}.safetensors")
    return tmp_path / "test.safetensors", "--train", tmp_path / "train.safetensors"


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["ablate", "--reader", "ridge", "--groups", "redundant:0.9"], "n_needed"),
        (["random-masks", "--n-masks", "4", "--drop", "0.2,0.5"], "verdict"),
        (["cumulate", "--order", "best-first"], "n_dispensable"),
        (["cumulate", "--order", "5,4,3,2,1,0", "--reader", "knn"], "n_dispensable"),
        (["confirm", "--n-splits", "3", "--basis", "pca"], "n_confirmed"),
    ],
)
def test_probes_read_files_and_write_table_json_and_figure(
    dimlab, tmp_path, feature_files, arguments, key
):
    command, *flags = arguments
    code, out, err = dimlab(command, *feature_files, *flags, "--out", "results")
    assert code == 0
    assert ("basis pca" in err) == ("--basis" in flags)
    assert key in out
    for kind in ("csv", "json", "svg"):
        assert (tmp_path / "results" / f"{command}.{kind}").stat().st_size > 0
    code, out, _ = dimlab(command, *feature_files, *flags, "--json")
    assert json.loads(out) == json.loads((tmp_path / "results" / f"{command}.json").read_text())
    if command == "ablate":
        assert json.loads(out)["n_groups"] == 5
        assert (tmp_path / "results" / "ablate-per-class.svg").is_file()


def test_a_subsample_is_named_on_table_and_figure(dimlab, tmp_path, feature_files):
    code, out, _ = dimlab("ablate", *feature_files, "--max-queries", 50, "--out", "results")
    assert code == 0
    assert "(50 of 120 test samples, drawn with seed 0)" in out
    assert "50 of 120 test samples" in (tmp_path / "results" / "ablate.svg").read_text()
    assert json.loads((tmp_path / "results" / "ablate.json").read_text())["n_test"] == 50
    code, out, _ = dimlab("ablate", *feature_files, "--max-queries", 500)
    assert code == 0
    assert "drawn with seed" not in out


def test_groups_from_files(dimlab, tmp_path, feature_files):
    (tmp_path / "lists.json").write_text("[[0, 2], [1]]")
    (tmp_path / "ids.json").write_text("[0, 1, 0, 2, 2, 2]")
    (tmp_path / "broken.json").write_text("[[0, 2")
    code, out, _ = dimlab("ablate", *feature_files, "--groups", "lists.json", "--json")
    assert (code, json.loads(out)["n_groups"]) == (0, 2)
    code, out, _ = dimlab("ablate", *feature_files, "--groups", "ids.json", "--json")
    assert (code, json.loads(out)["n_groups"]) == (0, 3)
    for groups, exit_code, sentence in [
        ("broken.json", 1, "must hold JSON"),
        ("nothere.json", 2, "groups must be 'redundant' or a JSON file; got nothere.json"),
    ]:
        code, _, err = dimlab("ablate", *feature_files, "--groups", groups)
        assert code == exit_code
        assert sentence in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["random-masks", "--drop", "a"], "drop must be numbers separated by commas; got 'a'."),
        (["random-masks", "--drop", "1.5"], "drop must hold shares in (0, 1); got [1.5]."),
        (["cumulate", "--order", "up"], "order must be one of 'worst-first'"),
        (["cumulate", "--order", "0,1"], "order must be a permutation of the 6 groups; got [0, 1]"),
        (["confirm", "--basis", "svd"], "basis must be one of pca, whiten, varimax, ica; got"),
        (["confirm", "--n-splits", "0"], "n_splits must be >= 1; got 0."),
        (["ablate", "--memory", "1e-9"], "memory must be at least"),
        (["ablate", "--k", "500"], "k must be an integer in 1..200"),
    ],
)
def test_wrong_arguments_of_probes_are_one_sentence(dimlab, feature_files, arguments, sentence):
    command, *flags = arguments
    code, out, err = dimlab(command, *feature_files, *flags)
    assert (code, out) == (2, "")
    assert err.startswith(f"dimlab {command}: {sentence}")
    assert err.count("\n") == 1


# Redundancy ----------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    """Features with views in one file, and the same rows cut into two."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    views = np.stack([features, features + 0.3 * rng.normal(size=features.shape)])
    whole = Representation(features, views=views, labels=np.arange(300) % 3)
    paths = []
    for name, rows in (("whole", slice(None)), ("part-a", slice(100)), ("part-b", slice(100, 300))):
        paths.append(whole.take(np.arange(300)[rows]).save(tmp_path / f"{name}.safetensors"))
    return paths


@pytest.mark.parametrize(
    ("arguments", "key", "tables"),
    [
        (["correlate", "--draws", "5"], "off_diagonal_rms", ["correlate-top-pairs.csv"]),
        (["correlate", "--draws", "5", "--within"], "marchenko_pastur_edge", ["correlate.npy"]),
        (["decompose", "--centred"], "effective_rank", ["decompose-statistics.csv"]),
        (["redundancy", "--cut", "0.7"], "median_r_squared", []),
        (["redundancy", "--reader", "ridge"], "n_subset", []),
    ],
)
def test_redundancy_commands_write_tables_json_and_figure(
    dimlab, tmp_path, parts, arguments, key, tables
):
    command, *flags = arguments
    code, out, err = dimlab(command, parts[0], *flags, "--out", "results")
    assert (code, err) == (0, "")
    assert key in out
    kinds = [f"{command}.{kind}" for kind in ("csv", "json", "svg")]
    for name in kinds + tables:
        assert (tmp_path / "results" / name).stat().st_size > 0
    code, out, _ = dimlab(command, parts[0], *flags, "--json")
    assert json.loads(out) == json.loads((tmp_path / "results" / f"{command}.json").read_text())


@pytest.mark.parametrize("command", ["correlate", "decompose", "redundancy"])
def test_parts_and_merged_moments_are_the_whole(dimlab, tmp_path, parts, command):
    flags = ["--draws", "0"] if command == "correlate" else []
    whole, a, b = parts
    expected = json.loads(dimlab(command, whole, *flags, "--json")[1])
    together = json.loads(dimlab(command, a, b, *flags, "--json")[1])
    for name, part in (("a", a), ("b", b)):
        code, _, err = dimlab(command, part, *flags, "--save-moments", f"{name}.safetensors")
        assert code == 0
        assert "wrote" in err
    merged = json.loads(dimlab(command, "a.safetensors", "b.safetensors", *flags, "--json")[1])
    compared = {
        "correlate": ["off_diagonal_rms", "mean_diagonal", "largest_singular_value"],
        "decompose": ["effective_rank", "condition_number", "power_law_exponent"],
        "redundancy": ["median_r_squared", "n_groups"],
    }[command]
    for name in compared:
        np.testing.assert_allclose(together[name], expected[name], rtol=1e-9)
        np.testing.assert_allclose(merged[name], expected[name], rtol=1e-9)


def test_moments_from_the_encoder_are_those_of_its_features(dimlab, checkpoint_path):
    assert dimlab("encode", checkpoint_path, "--split", "test", "--out", "a")[0] == 0
    code, out, _ = dimlab("encode", checkpoint_path, "--split", "test", "--moments", "--out", "a")
    assert (code, out.strip()) == (0, "a/test-moments.safetensors")
    found = [
        json.loads(dimlab("decompose", file, "--json")[1])["effective_rank"]
        for file in ("a/test.safetensors", "a/test-moments.safetensors", checkpoint_path)
    ]
    np.testing.assert_allclose(found, found[0], rtol=1e-4)
    code, _, err = dimlab("encode", checkpoint_path, "--moments", "--views", "3")
    assert (code, "views must be 0 or 2 with --moments; got 3." in err) == (2, True)


def test_checkpoints_of_a_run_are_compared(dimlab, tmp_path):
    fields = ["--set", "keep_checkpoints=true", "--set", "checkpoint_every=2"]
    fields += ["--set", "n_dimensions=16"]
    assert dimlab("train", "--steps", 3, "--batch-size", 16, "--out", "run", *fields)[0] == 0
    kept = sorted((tmp_path / "run").glob("checkpoint-*.pt"))
    assert [path.stem for path in kept] == [f"checkpoint-000000{step}" for step in (0, 2, 3)]
    code, out, err = dimlab("compare", *kept, "run/checkpoint.pt", "--out", "results")
    assert (code, err) == (0, "")
    assert "Statistics, and differences to checkpoint-0000000" in out
    for name in ("csv", "json", "svg"):
        assert (tmp_path / "results" / f"compare.{name}").stat().st_size > 0
    summary = json.loads((tmp_path / "results" / "compare.json").read_text())["representations"]
    assert summary["run"] == summary["checkpoint-0000003"] | {
        "mean_match": pytest.approx(summary["run"]["mean_match"])
    }
    code, _, err = dimlab("compare", kept[0], kept[0])
    assert code == 2
    assert "files must differ; got" in err


def test_redundancy_of_views_takes_each_as_a_sample(dimlab, parts, checkpoint_path):
    plain, stacked = (
        json.loads(dimlab("redundancy", parts[0], *flags, "--json")[1])
        for flags in ([], ["--views", "2"])
    )
    assert (plain["n_samples"], stacked["n_samples"]) == (300, 600)
    assert stacked["median_r_squared"] < plain["median_r_squared"]  # the second view is noisy
    out = dimlab("redundancy", checkpoint_path, "--views", "1", "--split", "validation", "--json")[
        1
    ]
    assert json.loads(out)["n_samples"] == 145


def test_cautions_are_one_sentence_each(dimlab, tmp_path):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(9, 12))
    features[:, 3] = 1.0
    Representation(features).save(tmp_path / "few.safetensors")
    code, _, err = dimlab("decompose", "few.safetensors", "--json")
    assert code == 0
    assert err.startswith("dimlab decompose: caution: N = 9 samples do not exceed D = 12")
    assert err.count("\n") == 1
    code, _, err = dimlab("correlate", "few.safetensors", "--draws", "2")
    assert (code, err) == (
        0,
        "dimlab correlate: caution: 1 of 12 dimensions do not vary and are left out.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["decompose", "none.safetensors"], 2, "none.safetensors"),
        (["decompose", "whole.safetensors", "--basis", "x"], 2, "basis must be one of pca"),
        (["decompose", "whole.safetensors", "--basis", "pca"], 2, "train must name the train"),
        (["correlate", "whole.safetensors", "--draws", "-1"], 2, "n_draws must be >= 0; got -1."),
        (["redundancy", "whole.safetensors", "--cut", "2"], 2, "cut must lie in (0, 1]; got 2."),
        (["redundancy", "whole.safetensors", "--masked"], 2, "masked must be left out"),
        (["compare", "whole.safetensors"], 2, "representations must be two or more; got 1."),
        (
            ["compare", "whole.safetensors", "part-a.safetensors", "--reference", "x"],
            2,
            "reference must be one of 'whole', 'part-a'; got 'x'.",
        ),
    ],
)
def test_bad_redundancy_commands_end_in_one_sentence(dimlab, parts, arguments, code, message):
    found, out, err = dimlab(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_bases_and_several_kinds_of_files(dimlab, tmp_path, parts):
    code, out, err = dimlab("decompose", parts[1], "--basis", "pca", "--train", parts[0], "--json")
    assert code == 0
    assert json.loads(out)["basis"] == "pca"
    assert "basis pca: 6 directions" in err
    dimlab("decompose", parts[0], "--save-moments", "state.safetensors")
    code, _, err = dimlab("decompose", "state.safetensors", parts[0])
    assert code == 2
    assert "files must all be moments" in err


def test_saving_moments_changes_no_result(dimlab, parts):
    for command, flags in (
        ("correlate", ["--draws", "5"]),
        ("decompose", []),
        ("redundancy", ["--reader", "ridge"]),
    ):
        plain = dimlab(command, parts[0], *flags, "--json")[1]
        saved = dimlab(command, parts[0], *flags, "--json", "--save-moments", "m.safetensors")[1]
        assert json.loads(plain) == json.loads(saved)


def test_moments_remember_their_basis(dimlab, parts):
    flags = ["--basis", "pca", "--train", parts[0], "--save-moments", "pca.safetensors", "--json"]
    together = json.loads(dimlab("decompose", *parts[1:], *flags)[1])
    again = json.loads(dimlab("decompose", "pca.safetensors", "--json")[1])
    assert together["basis"] == again["basis"] == "pca"
    assert again["n_samples"] == 300


def test_parts_with_and_without_views_do_not_mix(dimlab, tmp_path, parts):
    bare = Representation(np.array(Representation.load(parts[1]).features))
    bare.save(tmp_path / "bare.safetensors")
    code, _, err = dimlab("correlate", parts[0], "bare.safetensors")
    assert code == 2
    assert "files must all hold two views, or none; got both." in err


def test_a_new_run_leaves_no_checkpoint_of_the_old_one(dimlab, tmp_path):
    flags = ["--batch-size", 16, "--out", "run", "--set", "n_dimensions=16"]
    flags += ["--set", "keep_checkpoints=true", "--set", "checkpoint_every=1"]
    assert dimlab("train", "--steps", 3, *flags)[0] == 0
    assert dimlab("train", "--steps", 1, *flags, "--overwrite")[0] == 0
    kept = sorted(path.stem[-1] for path in (tmp_path / "run").glob("checkpoint-*.pt"))
    assert kept == ["0", "1"]
