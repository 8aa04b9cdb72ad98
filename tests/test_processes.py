"""Several processes that share rows measure what one process measures."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from dimlab import processes
from dimlab.kernels.permutation import permutation_p_values
from dimlab.probes._reading import Task
from dimlab.probes.ablate import ablate
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.ablate_retrieval import ablate_retrieval
from dimlab.probes.attribute import attribute
from dimlab.probes.decompose import decompose
from dimlab.probes.evaluate import evaluate
from dimlab.processes import World, shared, sharing, sharing_in, sharing_world, summed
from dimlab.readers import KNN
from dimlab.refusals import Refusal
from dimlab.representation import Representation

N_TRAIN, N_TEST = 151, 101  # neither is a multiple of 2 or 3
HOW = {"n_bootstrap": 50, "seed": 3}


def split(n, seed):
    """Five classes, a factor on dimension 4, a constant dimension and a copy."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 5
    x = rng.normal(size=n)
    centres = np.random.default_rng(9).normal(size=(5, 8))
    features = centres[labels] + 1.5 * rng.normal(size=(n, 8))
    features[:, 3], features[:, 5] = 7.0, features[:, 6]
    features[:, 4] += 2 * x
    views = features + 0.3 * rng.normal(size=(2, n, 8))
    return Representation(features, labels=labels, factors={"x": x}, views=views)


class _Nearest:
    """A reader of nobody's: the class of the nearest mean."""

    def fit(self, features, target):
        self.means = np.stack([features[target == each].mean(axis=0) for each in range(5)])
        return self

    def predict(self, features):
        return -((features[:, None] - self.means) ** 2).sum(axis=2)


def outcomes(train, test):
    """Outcomes of every kind of reader: predictions, then losses."""
    for name, reader, refit, fill in (
        ("knn", "knn", True, None),
        ("ridge", "ridge", True, None),
        ("ridge, frozen", "ridge", False, None),
        ("ridge, shuffled", "ridge", False, "shuffle"),
        ("logistic, noise", "logistic", False, "noise"),
        ("logistic, fitted again", "logistic", True, None),
        ("another", _Nearest(), True, None),
        ("another, frozen", _Nearest(), False, None),
    ):
        found = Task.of("ablate", train, test, reader, refit=refit, fill=fill).outcomes()
        assert found.ablated.shape == (len(test), 8)
        yield f"predicted by {name}", np.column_stack([found.full, found.ablated])
        yield f"losses of {name}", np.column_stack([found.full_loss, found.ablated_loss])


def measured():
    """Numbers of probes on uneven parts, and on fewer rows than there are processes."""
    train, test = split(N_TRAIN, 1), split(N_TEST, 2)
    found = dict(outcomes(train, test)) | {
        f"few, {name}": each for name, each in outcomes(train, test[:2])
    }
    values = [(each.features, each.features[:, :2] @ [[1, 2], [0, 1]]) for each in (train, test)]
    results = {
        "knn": ablate(train, test, reader="knn", **HOW),
        "values": ablate(*values, reader="ridge", **HOW),
        "neighbours' values": ablate(*values, reader="knn", **HOW),
        "views": ablate(None, test, score="view_retrieval", **HOW),
        "neighbourhood": ablate(train, test, score="neighbourhood", **HOW),
        "cumulative": ablate_cumulatively(train, test, order="worst-first", reader="ridge"),
    }
    for name, result in results.items():
        found[f"scores, {name}"] = result.scores
    shuffled = ablate(*values, reader="ridge", refit=False, fill="shuffle", **HOW)
    found["scores, shuffled"] = shuffled.scores
    pairs = np.column_stack([np.arange(N_TEST), np.arange(N_TEST)])
    retrieval = ablate_retrieval(train, test, pairs, score="ndcg@3", truncate=[2], n_bootstrap=50)
    found["scores, retrieval"] = np.append(retrieval.scores, retrieval.certified_share)
    evaluation = evaluate(train, test)
    found["predicted by evaluate"] = evaluation.n_correct
    attribution = attribute(train, test, n_permutations=25, seed=5)
    found["attribution"] = np.stack([attribution.p_value, attribution.partial_p_value])
    found["information"] = attribution.mutual_information  # what is drawn behind permutations
    spectrum = decompose(test)
    found["spectrum"] = spectrum.singular_values
    found["ranks"] = np.array(
        [spectrum.effective_rank, *spectrum.corrected_intervals["stable_rank"]]
    )
    return found


class _OnOne:
    """A reader that one process cannot use."""

    def fit(self, features, target):
        return self

    def predict(self, features):
        if dist.get_rank() == 1:
            raise Refusal("this reader must not be used; got rank 1.")
        return np.zeros((len(features), 5))


def process(rank, size, folder):
    """Be one process: measure, and say how all of them fail together."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    try:
        with sharing() as world:
            assert world == sharing_world() == World(rank, size)
            found = measured()
            task = Task.of("ablate", split(N_TRAIN, 1), split(N_TEST, 2), _OnOne(), refit=False)
            with pytest.raises(Refusal, match="got rank 1"):
                task.outcomes()
            with pytest.raises(Refusal, match="processes must make the same calls"):
                shared(5 + rank, lambda rows: [np.zeros(rows.stop - rows.start)])
        assert sharing_world() == World()  # outside, a process may measure alone
        np.savez(os.path.join(folder, f"{rank}.npz"), **found)
    finally:
        dist.destroy_process_group()


@cache
def alone():
    return measured()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_processes_that_share_rows_find_what_one_finds(tmp_path, size):
    torch.multiprocessing.spawn(process, args=(size, str(tmp_path)), nprocs=size, join=True)
    for rank in range(size):
        found = np.load(tmp_path / f"{rank}.npz")
        for name, each in alone().items():
            if "predicted" in name:
                np.testing.assert_array_equal(found[name], each, err_msg=name)
            else:
                np.testing.assert_allclose(found[name], each, rtol=1e-10, atol=1e-12, err_msg=name)


def test_one_process_computes_all_rows_at_once():
    with sharing() as world:
        assert world == World()
        assert not processes.is_sharing()
        given = shared(7, lambda rows: [np.array([rows.start, rows.stop])])
    np.testing.assert_array_equal(given[0], [0, 7])
    np.testing.assert_array_equal(summed(7, lambda rows: [np.arange(7)[rows].sum()])[0], 21)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Keep what takes any time in a folder; return how to compute there."""
    monkeypatch.setattr(processes, "_WORTH_KEEPING", 0.0)

    def call(compute, length=10):
        with sharing_in(World(), lambda: tmp_path):
            return shared(length, compute, step=3)[0]

    return call


def test_a_killed_loop_goes_on_behind_its_finished_blocks(kept, tmp_path):
    asked = []

    def squares(rows, last):
        asked.append((rows.start, rows.stop))
        if rows.start >= last:
            raise KeyboardInterrupt
        return [np.arange(10)[rows] ** 2]

    with pytest.raises(KeyboardInterrupt):
        kept(lambda rows: squares(rows, 6))
    assert asked == [(0, 3), (3, 6), (6, 9)]
    asked.clear()
    np.testing.assert_array_equal(kept(lambda rows: squares(rows, 99)), np.arange(10) ** 2)
    assert asked == [(6, 9), (9, 10)]
    assert len(list(tmp_path.iterdir())) == 4


def test_permutations_are_the_same_where_a_killed_run_goes_on(kept, tmp_path, rng):
    cells = np.arange(30) % 3
    columns = rng.normal(size=(30, 1))
    for cell in range(3):
        columns[cells == cell] -= columns[cells == cell].mean(axis=0)
    features = columns @ [[1.0, 0.0]] + rng.normal(size=(30, 2))

    def found(over=None):
        state = np.random.default_rng(4)
        more = {} if over is None else {"over": over}
        given = permutation_p_values(
            features, [columns / np.linalg.norm(columns)], cells, 10, state, **more
        )
        return [given.given_label, given.given_all, state.normal()]

    def over(length, compute):
        return [kept(compute, length)]

    for _ in range(2):
        for each, expected in zip(found(over), found(), strict=True):
            np.testing.assert_allclose(each, expected, rtol=1e-12)
        last = max(tmp_path.iterdir())
        last.unlink()


@pytest.fixture
def files(tmp_path):
    """Write train and test, and return the arguments that name them."""
    for name, n, seed in (("train", N_TRAIN, 1), ("test", N_TEST, 2)):
        split(n, seed).save(tmp_path / f"{name}.safetensors")
    return "test.safetensors", "--train", "train.safetensors", "--quiet"


@pytest.mark.slow
def test_a_killed_command_goes_on_and_leaves_its_result_alone(dimlab, files, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_WORTH_KEEPING", 0.0)
    monkeypatch.setattr(processes, "_STEP", 40)
    read, n_rows = KNN.predict_without, []

    def killed(reader, features, groups, **more):
        n_rows.append(len(features))
        if sum(n_rows) > 80:
            raise KeyboardInterrupt
        return read(reader, features, groups, **more)

    command = ("ablate", *files, "--reader", "knn", "--json")
    _, expected, _ = dimlab(*command)
    monkeypatch.setattr(KNN, "predict_without", killed)
    code, _, err = dimlab(*command, "--out", "r")
    assert (code, err, n_rows) == (1, "dimlab ablate: interrupted.\n", [40, 40, 21])
    assert len(list((tmp_path / "r" / ".ablate.parts").rglob("*.npz"))) == 2
    n_rows[:] = [-1000]
    code, again, err = dimlab(*command, "--out", "r")
    assert (code, err, n_rows[1]) == (0, "", 21)
    assert json.loads(again) == json.loads(expected)
    assert not (tmp_path / "r" / ".ablate.parts").exists()
    n_rows[:] = [0]
    dimlab(*command, "--out", "r")  # killed again
    split(N_TEST, 7).save(tmp_path / "test.safetensors")
    n_rows[:] = [-1000]
    dimlab(*command, "--out", "r")
    assert n_rows[1:4] == [40, 40, 21]  # of other files nothing is taken up


@pytest.mark.slow
def test_torchrun_prints_what_one_process_prints_and_one_says_why_it_fails(dimlab, files, tmp_path):
    _, expected, _ = dimlab("ablate", *files, "--json")

    def run(*arguments):
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        return subprocess.run(
            [sys.executable, *launcher, "-m", "dimlab", "ablate", *arguments], cwd=tmp_path,
            capture_output=True, text=True, timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    done = run(*files, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("full_score") == 1
    assert json.loads(done.stdout) == json.loads(expected)
    (tmp_path / "train.safetensors").unlink()
    refused = run(*files)
    sentence = "dimlab ablate: checkpoint must be a file; got train.safetensors, which is not"
    assert (refused.stdout, refused.stderr.count(sentence)) == ("", 1)
