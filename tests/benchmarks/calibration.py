"""Coverage of every interval and level of every p-value, in worlds whose truth is known.

Run by hand: ``python tests/benchmarks/calibration.py [--small] [--write]``. Results of finished
parts stay in a JSON-lines file (``--rows``), so that a run that was stopped goes on where it was; a
change of a measure needs another file or ``VERSION``. ``--write`` puts the tables into
``.docs/calibration.md``.

*Truth.* An interval of a probe with a reader speaks of the population of test samples, given the
train split and the reader fitted on it. Its truth is what the same probe says, with the same train
split, of a test sample of 40,000 rows (``--small``: 8,000). An interval of a measure without a
reader speaks of the population of samples: its truth is the measure of three times as many rows;
that of the risk bound, whose cost grows with their square, the mean of measures of 4,000 rows.

*Null.* For p-values of reading, test labels are permuted independently of the features, whole
clusters where there are any. The accuracy is then the same for every reader where classes are
equally frequent, the balanced accuracy always. The log-loss is not: a reader that is sure of
drawn labels loses by it, so every dimension it uses does harm. Its p-values invert intervals,
whose coverage is shown, and have a null only where train labels are permuted as well. For p-values
of factors the factor is drawn given the label alone.

To add a number, add a `Study`: a function from (train, test, seed) to the intervals and p-values of
one call, a function from (train, population) to the truth, and the worlds that it runs in.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import dimlab
from dimlab import Representation

VERSION = 1  # of worlds and studies: rows of another version are not used
PAGE = Path(__file__).resolve().parents[2] / ".docs" / "calibration.md"
SIZES = {  # train splits, batches of test samples, samples a batch, rows of a population
    "small": (1, 1, 8, 8_000),
    "full": (2, 5, 20, 40_000),
}
Found = dict[str, Any]  # name: (low, high), or p-values
_FOUND = ", of those found"
_AGREEMENT = "view agreement, given the class means"


# Worlds --------------------------------------------------------------------------------------


def as_it_is(features: np.ndarray) -> np.ndarray:
    """Leave features alone."""
    return features


@dataclass(frozen=True)
class World:
    """A population: twelve dimensions of which four follow the label and two the factor ``x``."""

    title: str
    words: str
    noise: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    n: int = 400
    n_dimensions: int = 12
    shares: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
    per_cluster: int = 1
    bend: Callable[[np.ndarray], np.ndarray] = as_it_is

    def draw(self, rng: np.random.Generator, n: int) -> Representation:
        """Draw samples; ``unrelated`` is a factor that depends on the label and on nothing else."""
        n_units = -(-n // self.per_cluster)
        unit = np.repeat(np.arange(n_units), self.per_cluster)[:n]
        k, d = len(self.shares), self.n_dimensions
        of_unit = rng.choice(k, p=self.shares, size=n_units)
        labels = of_unit[unit]
        x, unrelated = 0.5 * of_unit + rng.normal(size=(2, n_units))
        features = self.noise(rng, (n, d))
        if self.per_cluster > 1:
            features = (features + self.noise(rng, (n_units, d))[unit]) / np.sqrt(2)
        features[:, :4] += np.array([1.2, 0.8, 0.5, 0.2]) * np.eye(k)[labels][:, [0, 1, 2 % k, 1]]
        features[:, 4:6] += 0.6 * x[unit, None]
        factors = {"x": x[unit], "unrelated": unrelated[unit]}
        if self.per_cluster > 1:
            factors["patient"] = unit
        features = self.bend(features)
        views = features + 0.5 * self.noise(rng, (2, n * d)).reshape(2, n, d)
        return Representation(features, labels=labels, factors=factors, views=views)

    def clusters(self, probe: Callable[..., Any]) -> dict[str, str]:
        """What tells a probe which rows belong together, where it can be told."""
        told = self.per_cluster > 1 and "clusters" in inspect.signature(probe).parameters
        return {"clusters": "patient"} if told else {}


def gaussian(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Standard normal noise."""
    return rng.normal(size=size)


WORLDS = {
    "gaussian": World("Gaussian", "400 rows, four equal classes", gaussian),
    "t3": World(
        "t3", "the same with noise of Student's t, 3 degrees of freedom",
        lambda rng, size: rng.standard_t(3, size=size),
    ),
    "sparse": World(
        "sparse ReLU", "the same behind max(0, x - 1.5): most entries are 0", gaussian,
        bend=lambda x: np.maximum(x - 1.5, 0),
    ),
    "rare": World(
        "rare classes", "shares of 80, 15, 3, 1 and 1 %, 1,000 rows", gaussian, n=1000,
        shares=(0.80, 0.15, 0.03, 0.01, 0.01),
    ),
    "wide": World("N < D", "60 rows of 100 dimensions, two classes", gaussian, n=60,
                  n_dimensions=100, shares=(0.5, 0.5)),
    "clusters": World(
        "clusters", "40 patients of ten rows; class and factors are the patient's", gaussian,
        shares=(0.5, 0.5), per_cluster=10,
    ),
}  # fmt: skip


_EQUAL = ("gaussian", "t3", "sparse", "wide", "clusters")  # worlds of equal classes


def permuted(test: Representation, rng: np.random.Generator, per_cluster: int) -> Representation:
    """Labels permuted, whole clusters where there are any."""
    order = rng.permutation(len(test) // per_cluster)
    return replace(test, labels=np.repeat(test.labels[::per_cluster][order], per_cluster))


# Studies -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """One call of a probe, and all numbers of it that carry an interval or are a p-value."""

    probe: str
    run: Callable[[World, Representation, Representation, int], Found]
    truth: Callable[[World, Representation, Representation], dict[str, np.ndarray]] | None = None
    worlds: tuple[str, ...] = tuple(WORLDS)
    null: bool = False  # test labels are permuted
    conservative: bool = False  # documented to cover more than it says


def _ablate(world, train, test, reader, score, seed=0, n_bootstrap=999, **more):
    return dimlab.ablate(
        train, test, reader=reader, score=score, n_bootstrap=n_bootstrap, seed=seed,
        **world.clusters(dimlab.ablate), **more,
    )  # fmt: skip


def _bounds(found: Any) -> tuple[np.ndarray, np.ndarray]:
    return found.ci_low, found.ci_high


def _of_ablation(reader: str, score: str, conservative: bool) -> list[Study]:
    """Intervals of importance, those of the groups that were found, and p-values."""
    name = f"importance, {reader}, {score.replace('_', ' ')}"
    selected = name + _FOUND

    def run(world, train, test, seed):
        found = _ablate(world, train, test, reader, score, seed)
        return {name: _bounds(found), selected: (found.fcr_low, found.fcr_high)}

    def truth(world, train, test):
        importance = _ablate(world, train, test, reader, score, n_bootstrap=1).importance
        return {name: importance, selected: importance}

    def null(world, train, test, seed):
        return {name: _ablate(world, train, test, reader, score, seed).p_value}

    studies = [Study("ablate", run, truth, conservative=conservative)]
    if score == "accuracy":
        studies.append(Study("ablate", null, worlds=_EQUAL, null=True))
    elif score == "balanced_accuracy":
        studies.append(Study("ablate", null, null=True))
    return studies


_TRAINED = "importance over train sets, ridge, log loss"


def _over_trains(world, seed, test):
    """A train split of its own for every test sample."""
    train = world.draw(np.random.default_rng([4, seed]), world.n)
    return _ablate(world, train, test, "ridge", "log_loss", seed, resample="train")


def _truth_over_trains(world, train, test):
    draws = (world.draw(np.random.default_rng([5, seed]), world.n) for seed in range(60))
    each = [_ablate(world, t, test, "ridge", "log_loss", n_bootstrap=1).importance for t in draws]
    return {_TRAINED: np.mean(each, axis=0)}


def _null_over_trains(world, train, test, seed):
    rng = np.random.default_rng([6, seed])
    train = permuted(world.draw(rng, world.n), rng, world.per_cluster)
    found = _ablate(world, train, test, "ridge", "log_loss", seed, resample="train")
    return {_TRAINED: found.p_value}


def _masks(world, train, test, n_masks=60):
    return dimlab.random_masks(
        train,
        test,
        drop=(0.25, 0.5),
        n_masks=n_masks,
        seed=0,
        **world.clusters(dimlab.random_masks),
    )


def _run_masks(world, train, test, seed):
    """The seed draws the same masks each time; the interval is that of the one chosen."""
    found = _masks(world, train, test)
    chosen = np.full((2, *found.scores.shape), np.nan)
    for rate, best in enumerate(found.best):
        chosen[:, rate, best] = found.ci_low[rate], found.ci_high[rate]
    return {"gain of the best mask": tuple(chosen)}


def _truth_masks(world, train, test):
    found = _masks(world, train, test)
    return {"gain of the best mask": found.scores - found.full_score}


def _run_masks_null(world, train, test, seed):
    found = _masks(world, train, test)
    return {"gain above 0": np.where(found.ci_low > 0, 0.025, 1.0)}


def _cumulate(world, train, test):
    order = np.arange(train.n_dimensions)[::-1]
    return dimlab.ablate_cumulatively(
        train, test, order=order, n_points=6, **world.clusters(dimlab.ablate_cumulatively)
    )


def _run_cumulative(world, train, test, seed):
    found = _cumulate(world, train, test)
    return {
        "loss of the curve": (found.loss_low[1:], found.loss_high[1:]),
        "score of the curve": _bounds(found),
    }


def _truth_cumulative(world, train, test):
    scores = _cumulate(world, train, test).scores
    return {"loss of the curve": scores[0] - scores[1:], "score of the curve": scores}


def _run_confirm(world, train, test, seed):
    found = dimlab.confirm_harmful(train, test, seed=seed, **world.clusters(dimlab.confirm_harmful))
    return {"any dimension confirmed": found.q_aggregated.min(keepdims=True)}


def _evaluate(world, train, test):
    """Of readers alone: view retrieval depends on the number of rows, and has no population."""
    frame = dimlab.evaluate(
        train, replace(test, views=None), readers=("knn", "ridge"),
        **world.clusters(dimlab.evaluate),
    ).to_frame()  # fmt: skip
    return frame[frame["reader"] != "view-retrieval"]


def _run_evaluate(world, train, test, seed):
    frame = _evaluate(world, train, test)
    return {"accuracy": (frame["ci_low"].to_numpy(), frame["ci_high"].to_numpy())}


def _erase(world, train, test, seed, n_bootstrap=400):
    found = dimlab.erase(
        train,
        test,
        factor="x",
        n_random=2,
        n_bootstrap=n_bootstrap,
        seed=seed,
        **world.clusters(dimlab.erase),
    )
    named = [place for place, way in enumerate(found.ways) if place and "random" not in way]
    changes = {
        "factor lost": found.factor_lost,
        "factor lost, given the label": found.given_label_lost,
        "change of accuracy": found.accuracy_change,
    }
    return {name: values[named, 0] for name, values in changes.items()}


def _run_erase(world, train, test, seed):
    found = _erase(world, train, test, 0)
    return {name: (each[:, 1], each[:, 2]) for name, each in found.items()}


def _run_attribute(world, train, test, seed):
    found = dimlab.attribute(
        train, test, factors=("x", "unrelated"), n_permutations=199, erased=None, seed=seed,
        **world.clusters(dimlab.attribute),
    )  # fmt: skip
    names = {"p_value": "effect given the label", "partial_p_value": "effect given all others"}
    column = found.factors.index("unrelated")
    return {
        name: getattr(found, field)[:, column]
        for field, name in names.items()
        if hasattr(found, field)
    }


def _structure(world, train, test, seed=0, n_draws=20):
    rows = replace(test, labels=None)
    found = dimlab.correlate(rows, n_draws=n_draws, seed=seed, **world.clusters(dimlab.correlate))
    return found, dimlab.decompose(rows, seed=seed, **world.clusters(dimlab.decompose))


def _run_structure(world, train, test, seed):
    correlation, spectrum = _structure(world, train, test, seed)
    return {
        "correlation of the views": (correlation.diagonal_low, correlation.diagonal_high),
        "redundancy": (correlation.redundancy_low, correlation.redundancy_high),
        "off-diagonal RMS": correlation.off_diagonal_rms_interval,
        **{_spoken(name): each for name, each in spectrum.corrected_intervals.items()},
    }


def _spoken(name: str) -> str:
    return "LiDAR" if name == "lidar" else name.replace("_", " ")


def _truth_structure(world, train, test):
    correlation, spectrum = _structure(world, train, test)
    return {
        "correlation of the views": correlation.diagonal,
        "redundancy": correlation.redundancy,
        "off-diagonal RMS": np.array(correlation.off_diagonal_rms),
        **{
            _spoken(name): np.array(np.nan if value is None else value)
            for name in spectrum.corrected_intervals
            for value in [getattr(spectrum, name)]
        },
    }


def _run_band(world, train, test, seed):
    """Independent dimensions: the null band holds what they show in 95 %."""
    rng = np.random.default_rng(seed)
    rows = Representation(world.bend(world.noise(rng, (len(test), train.n_dimensions))))
    found = dimlab.correlate(rows, n_draws=199, seed=seed)
    low, high = found.null_band["off_diagonal_rms"]
    inside = low <= found.off_diagonal_rms <= high
    return {"off-diagonal RMS outside its null band": np.array([1.0 if inside else 0.05])}


def _compare(world, train, test):
    rows = replace(test, labels=None)
    other = rows.features + np.sin(rows.features[:, ::-1])
    pair = {"one": rows, "two": replace(rows, features=other, views=None)}
    return dimlab.compare(pair, **world.clusters(dimlab.compare))


def _run_compare(world, train, test, seed):
    found = _compare(world, train, test)
    return {
        "statistics": (found.corrected_low[1, :5], found.corrected_high[1, :5]),
        "differences": (found.difference_low[1, :5], found.difference_high[1, :5]),
    }


def _truth_compare(world, train, test):
    found = _compare(world, train, test)
    return {"statistics": found.values[1, :5], "differences": found.difference[1, :5]}


def _bound(world, test, n_bootstrap, seed):
    return dimlab.bound_risk(
        test, n_negatives=[64], temperature=0.5, n_bootstrap=n_bootstrap, seed=seed,
        **world.clusters(dimlab.bound_risk),
    )  # fmt: skip


def _run_bound(world, train, test, seed):
    found = _bound(world, test, 200, seed)
    return {
        term.replace("_", " "): (found.ci_low[0, t], found.ci_high[0, t])
        for t, term in enumerate(found.terms)
        if term != "view_agreement"
    }


@lru_cache(maxsize=1)
def _population(world):
    return world.draw(np.random.default_rng(5), 40_000)


def _run_agreement(world, train, test, seed):
    found = _bound(world, test, 2, seed)
    place = found.terms.index("view_agreement")

    def unit(rows):
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)

    anchors = unit(test.views[0])
    means = np.stack([anchors[test.labels == k].mean(axis=0) for k in np.unique(test.labels)])
    first, second = ((unit(view) @ means.T).argmax(axis=1) for view in _population(world).views)
    truth = np.mean(first == second)  # another one for each sample, whose class means it has
    return {_AGREEMENT: (found.ci_low[0, place] - truth, found.ci_high[0, place] - truth)}


def _truth_bound(world, train, test):
    parts = [
        _bound(world, test.take(np.arange(len(test))[s : s + 4000]), 2, 0)
        for s in range(0, len(test), 4000)
    ]
    means = np.mean([part.values[0] for part in parts], axis=0)
    return {t.replace("_", " "): mean for t, mean in zip(parts[0].terms, means, strict=True)}


STUDIES = [
    *_of_ablation("ridge", "accuracy", conservative=True),
    *_of_ablation("knn", "accuracy", conservative=True),
    *_of_ablation("ridge", "balanced_accuracy", conservative=True),
    *_of_ablation("ridge", "log_loss", conservative=False),
    *_of_ablation("knn", "log_loss", conservative=False),
    Study(
        "ablate", lambda w, a, b, seed: {_TRAINED: _bounds(_over_trains(w, seed, b))},
        _truth_over_trains, worlds=("gaussian", "t3", "sparse", "rare"), conservative=True,
    ),
    Study("ablate", _null_over_trains, worlds=("gaussian", "t3", "sparse", "rare"), null=True),
    Study("random_masks", _run_masks, _truth_masks, conservative=True),
    Study("random_masks", _run_masks_null, worlds=_EQUAL, null=True),
    Study("ablate_cumulatively", _run_cumulative, _truth_cumulative, conservative=True),
    Study("confirm_harmful", _run_confirm, null=True),
    Study(
        "evaluate", _run_evaluate,
        lambda w, a, b: {"accuracy": _evaluate(w, a, b)["accuracy"].to_numpy()},
        conservative=True,
    ),
    Study(
        "erase", _run_erase,
        lambda w, a, b: {name: each[:, 0] for name, each in _erase(w, a, b, 0, 2).items()},
        worlds=("gaussian", "t3", "sparse", "rare", "clusters"),
    ),
    Study("attribute", _run_attribute),
    Study("correlate, decompose", _run_structure, _truth_structure),
    Study(
        "correlate", _run_band, worlds=("gaussian", "t3", "sparse", "wide"),
    ),
    Study("compare", _run_compare, _truth_compare),
    Study("bound_risk", _run_bound, _truth_bound),
    Study("bound_risk", _run_agreement, lambda w, a, b: {_AGREEMENT: 0.0}, conservative=True),
]  # fmt: skip


# Running -------------------------------------------------------------------------------------


def parts(size: str) -> Iterator[dict[str, Any]]:
    """Every part of the simulation, each a row of the file."""
    n_trains, n_batches, *_ = SIZES[size]
    for train in range(n_trains):
        for world in WORLDS:
            for place, study in enumerate(STUDIES):
                if world in study.worlds:
                    for batch in range(n_batches):
                        yield {
                            "version": VERSION, "size": size, "world": world, "probe": study.probe,
                            "study": place, "train": train, "batch": batch,
                        }  # fmt: skip


def simulate(part: dict[str, Any], truths: dict[Any, Any]) -> Found:
    """One part: per repetition the share of intervals that cover, or of p-values up to 0.05."""
    study, world = STUDIES[part["study"]], WORLDS[part["world"]]
    train_key = (part["world"], part["train"])
    *_, n_samples, n_rows = SIZES[part["size"]]
    if truths.get("train_key") != train_key:
        truths.clear()
        train = world.draw(np.random.default_rng([1, part["train"]]), world.n)
        truths.update(train_key=train_key, train=train)
    train = truths["train"]
    if study.truth is not None and part["study"] not in truths:
        n = n_rows * (3 if study.run in (_run_structure, _run_compare) else 1)
        population = world.draw(np.random.default_rng([2, part["train"]]), n)
        truths[part["study"]] = study.truth(world, train, population)
    found: Found = {}
    for repetition in range(n_samples):
        seed = part["batch"] * n_samples + repetition
        rng = np.random.default_rng([3, part["train"], seed])
        test = world.draw(rng, world.n)
        if study.null:
            test = permuted(test, rng, world.per_cluster)
        for name, values in study.run(world, train, test, seed).items():
            if study.truth is None:
                values = np.asarray(values)
                hit = (values <= 0.05)[~np.isnan(values)]
            else:
                low, high = map(np.asarray, values)
                truth = np.broadcast_to(truths[part["study"]][name], low.shape)
                hit = ((low <= truth) & (truth <= high))[~np.isnan(low) & ~np.isnan(truth)]
            if hit.size:
                found.setdefault(name, []).append(float(hit.mean()))
    return found


def run(rows: Path, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Simulate what the file lacks, a line a part, and return all wanted rows."""
    known = {}
    for line in rows.read_text().splitlines() if rows.is_file() else []:
        row = json.loads(line)
        known[json.dumps({key: row[key] for key in wanted[0]})] = row
    truths: dict[Any, Any] = {}
    started = time.perf_counter()
    for done, part in enumerate(wanted):
        key = json.dumps(part)
        if key not in known:
            with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                known[key] = {**part, "found": simulate(part, truths)}
            with rows.open("a") as file:
                file.write(json.dumps(known[key]) + "\n")
            seconds = time.perf_counter() - started
            print(f"\r{done + 1} of {len(wanted)} parts, {seconds:.0f} s", end="", flush=True)
    print()
    return [known[json.dumps(part)] for part in wanted]


# The page ------------------------------------------------------------------------------------


def tables(rows: list[dict[str, Any]]) -> str:
    """Two Markdown tables, and the settings that fail."""
    cells: dict[tuple[bool, str, str], dict[str, list[float]]] = {}
    conservative: dict[tuple[bool, str, str], bool] = {}
    for row in rows:
        study = STUDIES[row["study"]]
        for name, values in row["found"].items():
            key = (study.truth is not None, row["probe"], name)
            cells.setdefault(key, {}).setdefault(row["world"], []).extend(values)
            conservative[key] = study.conservative or name.endswith(_FOUND)
    for (intervals, probe, name), by_world in cells.items():
        if name.endswith(_FOUND):  # a sample in which nothing is found has no false interval
            for world, all_groups in cells[intervals, probe, name.removesuffix(_FOUND)].items():
                chosen = by_world.setdefault(world, [])
                chosen += [1.0] * (len(all_groups) - len(chosen))
    failing: list[str] = []
    text = []
    for intervals, title in ((True, "Coverage of 95 % intervals, %"),
                             (False, "P(p <= 0.05) without an effect, %")):  # fmt: skip
        heads = [world.title for world in WORLDS.values()]
        text += [f"## {title}", "", f"| probe | number | {' | '.join(heads)} |"]
        text.append("|" + "---|" * (len(WORLDS) + 2))
        for key, by_world in cells.items():
            if key[0] != intervals:
                continue
            shown = []
            for world in WORLDS:
                values = np.array(by_world.get(world, []))
                if len(values) < 2:
                    shown.append("")
                    continue
                share, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
                if error == 0:  # all alike: Agresti and Coull's
                    middle = (values.sum() + 2) / (len(values) + 4)
                    error = np.sqrt(middle * (1 - middle) / (len(values) + 4))
                number = f"{100 * share:.1f} ± {100 * error:.1f}"
                beyond = _beyond(share, intervals, conservative[key])
                if beyond > 0:
                    sure = beyond > 2 * error
                    if sure:
                        failing.append(f"`{key[1]}`, {key[2]}, {WORLDS[world].title}: {number}")
                    number = f"**{number}**" if sure else f"*{number}*"
                shown.append(number)
            text.append(f"| `{key[1]}` | {key[2]} | {' | '.join(shown)} |")
        text.append("")
    text += ["## Where they fail", ""]
    text += [f"- {each}" for each in failing] or ["Nowhere."]
    return "\n".join(text) + "\n"


def _beyond(share: float, interval: bool, conservative: bool) -> float:
    """How far a share lies outside of what is promised."""
    if interval:
        return max(0.93 - share, 0.0 if conservative else share - 0.97)
    return share - 0.06


def page(rows: list[dict[str, Any]], size: str) -> str:
    """Return the page of the documentation."""
    n_trains, n_batches, n_samples, n_rows = SIZES[size]
    worlds = "\n".join(f"- *{each.title}*: {each.words}." for each in WORLDS.values())
    return f"""# Calibration

How often the 95 % intervals hold the true value, and how often p-values are at most 0.05 where
there is nothing to find: {n_trains * n_batches * n_samples} test samples a cell. The truth of an
interval is the value of the population given the train split and the reader fitted on it, from a
test sample of {n_rows:,} rows or more; for p-values labels or factors are drawn without an effect.
Worlds of twelve dimensions, four of which follow the class and two a factor:

{worlds}

Each cell: per cent ± Monte Carlo standard error. Intervals are to cover 93-97 %, or at least 93 %
where the method is known to be conservative (accuracies); p-values are to be at most 0.05 in at
most 6 %. Bold: missed by more than two standard errors; italic: missed by less. An empty cell: the
probe has no such number there. Where a number fails, its page or summary says so beside it.
Intervals *of those found* promise a false coverage rate of 5 % over samples (Benjamini and
Yekutieli, 2005), so a sample in which nothing is found counts as covered. The view agreement is
that of the class means of the sample, so each sample has a truth of its own.

`python tests/benchmarks/calibration.py --write` makes this page; a run that was stopped goes on.

{tables(rows)}"""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Coverage and levels in worlds of known truth.")
    parser.add_argument("--small", action="store_true", help="few samples: a minute or two")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--rows", type=Path, help="the file of finished parts")
    arguments = parser.parse_args()
    size = "small" if arguments.small else "full"
    rows = arguments.rows or Path(tempfile.gettempdir()) / "dimlab-calibration.jsonl"
    found = run(rows, list(parts(size)))
    if arguments.write:
        PAGE.write_text(page(found, size))
    print(tables(found))


if __name__ == "__main__":
    main()
