"""A law over all results: an interval contains its estimate, wherever the two stand."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import pandas as pd
import pytest

from dimlab import DimensionMask, MaskTrace, Representation, probes

N_TEST = 60


# What claims to be an interval ---------------------------------------------------------------


def claims(value, path=""):
    """Yield (path, low, estimate, high) of every interval within a result, a summary or a frame.

    ``x_low`` and ``x_high``, ``x_ci_low`` and ``x_ci_high``, or ``x_interval`` are about ``x`` (or
    ``x_difference``), ``x_intervals`` about the entries of ``x``; ``ci_low`` and ``ci_high``, or
    ``low`` and ``high``, about the numbers that stand last before them, and ``fcr_low`` and
    ``fcr_high`` (wider ones for selected rows) about the same. The estimate is None where there are
    none.
    """
    names = named(value)
    for name, each in names.items():
        stem, _, end = name.rpartition("_")
        if end == "low" or name == "low":
            other = f"{stem}_high" if stem else "high"
            if names.get(other) is not None:
                yield f"{path}.{name}", each, estimate_of(names, name, stem), names[other]
        elif end == "interval" and each is not None:
            yield f"{path}.{name}", each[0], estimate_of(names, name, stem), each[1]
        elif end == "intervals" and isinstance(each, dict):
            values = names.get(stem, {})
            for key, (low, high) in each.items():
                yield f"{path}.{name}.{key}", low, values.get(key), high
        else:
            yield from within(each, f"{path}.{name}")


def within(value, path):
    if isinstance(value, (list, tuple)) and not all(map(is_number, value)):
        for place, each in enumerate(value):
            yield from claims(each, f"{path}[{place}]")
    elif not is_number(value) and not isinstance(value, (list, tuple)):
        yield from claims(value, path)


def named(value):
    if is_dataclass(value):
        found = {each.name: getattr(value, each.name) for each in fields(value)}
        for name in dir(type(value)):
            if isinstance(getattr(type(value), name), property):
                found.setdefault(name, getattr(value, name))
        return found
    if isinstance(value, dict):
        return {str(name): each for name, each in value.items()}
    if isinstance(value, pd.DataFrame):
        return {str(name): value[name].to_numpy() for name in value.columns}
    return {}


def estimate_of(names, interval, stem):
    if stem == "fcr" and "ci_low" in names:
        interval = "ci_low"
    elif stem not in ("ci", ""):
        known = (stem, stem.removesuffix("_ci"), f"{stem}_difference")
        return next((names[each] for each in known if each in names), None)
    before = None
    for name, each in names.items():
        if name == interval:
            return before
        if is_number(each) and not isinstance(each, (bool, str)):
            before = each
    return before


def is_number(value):
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind in ("f", "i", "u") or isinstance(value, (int, float, str, bool, type(None)))


def breaches(result):
    """List the intervals of a result, its summary, frame and tables that break the law."""
    found, count = [], 0
    views = {"result": result, "summary": result.summary(), "frame": result.to_frame()}
    views |= getattr(result, "tables", dict)()
    for view, value in views.items():
        for path, low, estimate, high in claims(value, view):
            count += 1
            if estimate is None or np.shape(estimate) != np.shape(low):
                found.append(f"{path}: no estimate beside it")
                continue
            low, estimate, high = (np.asarray(x, dtype=float) for x in (low, estimate, high))
            slack = 1e-9 * np.maximum(1.0, np.abs(np.nan_to_num(estimate)))
            known = ~(np.isnan(low) | np.isnan(high))
            inside = (low - slack <= estimate) & (estimate <= high + slack)
            for index in np.argwhere(known & ~inside)[:1]:
                at = tuple(index)
                found.append(f"{path}{list(at)}: {estimate[at]} in [{low[at]}, {high[at]}]")
    return found, count


# The walk can fail ---------------------------------------------------------------------------


@dataclass
class Measured:
    value: float = 0.2
    ci_low: float = 0.1
    ci_high: float = 0.3
    rank: float = 2.0
    rank_interval: tuple = (1.0, 3.0)
    intervals: tuple = ()

    def to_frame(self):
        return pd.DataFrame({"x": [1.0, 2.0], "x_low": [0.0, 1.0], "x_high": [2.0, 3.0]})

    def summary(self):
        return {"nested": [{"rank": 2.0, "rank_interval": [1.0, 3.0]}]}


def test_the_walk_finds_intervals_and_what_breaks_the_law():
    assert breaches(Measured()) == ([], 4)
    assert len(breaches(Measured(value=0.4))[0]) == 1
    assert len(breaches(Measured(rank=4.0))[0]) == 1
    assert breaches(Measured(ci_low=float("nan"), value=9.0))[0] == []

    class Frame(Measured):
        def to_frame(self):
            return super().to_frame().assign(x=[1.0, 4.0])

    class Nested(Measured):
        def summary(self):
            return {"nested": [{"rank": 9.0, "rank_interval": [1.0, 3.0]}]}

    class Alone(Measured):
        def summary(self):
            return {"rank_interval": [1.0, 3.0]}

    class Within(Measured):
        def summary(self):
            return {"a": {"rank": {"x": 9.0}, "rank_intervals": {"x": (1.0, 3.0)}}}

    for broken in (Frame(), Nested(), Alone(), Within()):
        assert len(breaches(broken)[0]) == 1


# Every probe in several worlds ---------------------------------------------------------------


def world(name, seed):
    """Train and test rows with labels, factors and views."""
    rng = np.random.default_rng(seed)
    n, d = {"tiny": (12, 4), "wide": (24, 30)}.get(name, (N_TEST, 6))

    def split():
        rows = {
            "student": lambda: rng.standard_t(3, size=(n, d)),
            "lognormal": lambda: rng.lognormal(size=(n, d)),
            "sparse": lambda: np.maximum(rng.normal(size=(n, d)) - 1, 0),
            "low rank": lambda: (
                rng.normal(size=(n, 3)) @ np.ones((3, d)).cumsum(axis=1) ** 0.5
                + 1e-9 * rng.normal(size=(n, d))
            ),
        }.get(name, lambda: rng.normal(size=(n, d)))()
        labels = np.arange(n) % 2
        rows[:, 0] += labels
        factors = {"size": rows[:, 1] + rng.normal(size=n), "kind": np.arange(n) % 3}
        views = np.stack([rows, rows + 0.3 * rng.normal(size=rows.shape)])
        return Representation(rows, labels=labels, factors=factors, views=views)

    return split(), split()


def runs(train, test):
    """Call every probe by name, with every reader or score whose intervals differ."""
    call = {name: getattr(__import__(f"dimlab.probes.{name}", fromlist=[name]), name)
            for name in probes.__all__}  # fmt: skip
    rng = np.random.default_rng(0)
    d = train.n_dimensions
    trace = MaskTrace(np.arange(9), rng.uniform(size=(9, d)))
    mask = DimensionMask(trace.weights[-1])
    return {
        "ablate": [
            lambda score=score: call["ablate"](train, test, reader="ridge", score=score)
            for score in ("accuracy", "balanced_accuracy", "log_loss")
        ],
        "ablate_cumulatively": [
            lambda: call["ablate_cumulatively"](train, test, reader="ridge", order="worst-first")
        ],
        "ablate_retrieval": [
            lambda: call["ablate_retrieval"](
                train, test, np.argwhere(test.labels[:, None] == train.labels), score="recall@5",
                n_splits=2,
            )
        ],
        "attribute": [lambda: call["attribute"](train, test, n_permutations=39)],
        "bound_risk": [
            lambda: call["bound_risk"](
                test, mask=mask, n_negatives=(4,), n_bootstrap=99, n_permuted=9
            )
        ],
        "compare": [
            lambda: call["compare"]({"a": test, "b": test.masked(mask), "c": train}, n_blocks=8),
            lambda: call["compare"]({"a": test, "b": test.take(np.arange(len(test) // 2))}),
        ],
        "confirm_harmful": [
            lambda: call["confirm_harmful"](train, test, reader="ridge", n_splits=3)
        ],
        "correlate": [
            lambda: call["correlate"](test, n_draws=9),
            lambda: call["correlate"](test, within=True, n_draws=9, n_blocks=5),
            lambda: call["correlate"](test, n_draws=9, clusters=np.arange(len(test)) // 2),
        ],
        "decompose": [
            lambda: call["decompose"](test),
            lambda: call["decompose"](test, centred=True, n_blocks=5),
            lambda: call["decompose"](test, clusters=np.arange(len(test)) // 2),
        ],
        "erase": [
            lambda: call["erase"](train, test, factor="size", n_random=3, n_bootstrap=99)
        ],
        "evaluate": [lambda: call["evaluate"](train, test, mask=mask, readers=("ridge",))],
        "find_redundancy": [lambda: call["find_redundancy"](test, n_blocks=4)],
        "find_suspects": [lambda: call["find_suspects"](train, test)],
        "follow": [
            lambda: call["follow"](
                trace,
                redundancy=call["find_redundancy"](test, n_blocks=4),
                ablation=call["ablate"](train, test, reader="ridge"),
                n_bootstrap=99, n_permutations=99,
            )
        ],
        "profile": [lambda: call["profile"](test, n_rows=20)],
        "random_masks": [lambda: call["random_masks"](train, test, n_masks=4, drop=(0.5,))],
    }  # fmt: skip


WORLDS = ("gaussian", "student", "lognormal", "sparse", "low rank", "wide", "tiny")


@pytest.mark.parametrize("name", WORLDS)
def test_every_interval_of_every_probe_contains_its_estimate(name):
    table = runs(*world(name, 0))
    assert set(table) == set(probes.__all__)  # a new probe joins the walk
    problems, n_intervals = [], 0
    for probe, calls in table.items():
        for run in calls:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # small worlds are warned of
                try:
                    result = run()
                except ValueError:
                    if name not in ("wide", "tiny", "low rank"):
                        raise
                    continue
            found, count = breaches(result)
            problems += [f"{probe}: {each}" for each in found]
            n_intervals += count
    assert problems == []
    assert n_intervals > 100
