"""Examination: every probe that two splits allow, for one report."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from dimlab.given import RepresentationLike, as_representations
from dimlab.mask import DimensionMask, MaskTrace
from dimlab.names import FILES, word_of
from dimlab.probes import __all__ as own_probes
from dimlab.probes import needs_of, outside_probes, probe_named
from dimlab.probes._factors import notes_of, usable
from dimlab.probes._reading import ReaderLike
from dimlab.probes.erase import erase
from dimlab.readers.base import name_of as name_of_reader
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import name_of
from dimlab.targets import CLASSES, NEIGHBOURHOOD, VIEW_RETRIEVAL, kind_of

Working = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]

_SAID_IN_SUMMARY = {"ablate", "correlate", "decompose"}  # whose warnings need not be repeated
_WORDS = {
    "train": "a train split",
    "labels": "labels of both splits",
    "classes": "labels that are classes",
    "views": "two views of each sample",
    "factors": "factors of the test rows",
    "trace": "the history of a learned mask",
}


class Examination(dict[str, Any]):
    """Results by name; ``not_measured`` says of each probe that could not run why, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.not_measured: dict[str, str] = {}
        self.failed: dict[str, Exception] = {}  # mistakes in probes or readers, by probe


def examine(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    in_distribution: RepresentationLike | None = None,
    trace: MaskTrace | None = None,
    mask: DimensionMask | None = None,
    reader: ReaderLike = "ridge",
    n_permutations: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    working: Working | None = None,
) -> Examination:
    """Run the probes that the splits allow, in the order of a report.

    Parameters
    ----------
    train, test : Representation, or pair of features and labels
        Splits of the same D dimensions; without labels in both, what dimensions share is measured,
        and nothing that needs a task. With two views of test, correlations are between views, the
        risk is bounded, and the parameters of the augmentation are factors.
    in_distribution : the same, optional
        Held-out samples like train, for erasure.
    trace : MaskTrace, optional
        History of the mask: it is followed.
    mask : DimensionMask, optional
        The learned mask.
    reader : {"ridge", "knn", "logistic"} or reader, default="ridge"
        Reader for ablation, confirmed harm and erasure; evaluated beside kNN and ridge. Random
        masks are read by ridge regression; other readers erase 5 random subspaces in place of 20.
    n_permutations : int, default=1000
        Permutations of factors.
    seed : int, default=0
        Seed of all probes.
    device : str, default="cpu"
        Where they compute.
    working : callable, optional
        ``working(text)`` is entered for each probe, and gives its progress.

    Returns
    -------
    dict of str to result
        ``evaluation, ablation, masked_scores, harmful, correlation, spectrum, redundancy,
        profile``; ``attribution``, where there are factors; ``suspects``; with a trace
        ``mask_evolution``; with two views ``risk_bound``; results of other packages' probes by the
        names of their classes. Without labels ``ablation`` (of view retrieval where there are
        views, else of the neighbourhood in train), ``correlation, spectrum, redundancy, profile``
        and ``mask_evolution``. Its attribute
        ``not_measured`` says in a sentence why a probe was left out, by the probe's name.

    Warns
    -----
    UserWarning
        If a probe is left out, or no factor can be looked at.

    Notes
    -----
    What the probes need is looked up before anything is computed. A probe that refuses the data,
    such as too few samples, is left out. So is a probe that fails for another reason, a mistake in
    it or in the reader: ``failed`` holds the error by the probe's name.

    References
    ----------
    Those of the probes, each of which names its own.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 2
    >>> features = rng.normal(size=(60, 3)) + np.outer(labels, [4, 0, 0])
    >>> split = Representation(features, labels=labels)
    >>> results = examine(split, split)
    >>> list(results)
    ['evaluation', 'ablation', 'masked_scores', 'harmful', 'correlation', 'spectrum', 'redundancy',
     'profile', 'suspects']
    >>> results["ablation"].needed.tolist(), results["harmful"].confirmed.tolist()
    ([0], [])
    >>> results.not_measured["bound_risk"]
    'bound_risk needs two views of each sample.'
    """
    splits = as_representations(train=train, test=test, in_distribution=in_distribution)
    train, test = splits.get("train"), splits["test"]
    in_distribution = splits.get("in_distribution")
    enter: Working = working or (lambda text: nullcontext())
    views = test.views is not None and len(test.views) > 1
    rows = test.per_view() if views and test.view_factors else test
    there = _what_is_there(train, test, rows, trace)
    readers = {"knn": "knn", "ridge": "ridge"} | {name_of_reader(reader): reader}
    settings: dict[str, dict[str, Any]] = {
        "evaluate": {"readers": list(readers.values())},
        "random_masks": {"reader": "ridge", "n_masks": 100},  # kNN takes minutes
        "correlate": {"n_draws": 50},
        "profile": {"n_rows": 500},
        "attribute": {"erased": None, "n_permutations": n_permutations},
    }
    given = {
        "train": train, "representation": test, "test": test, "trace": trace, "mask": mask,
        "in_distribution": in_distribution, "seed": seed, "device": device,
    }  # fmt: skip
    if "labels" not in there:
        score = VIEW_RETRIEVAL if views else NEIGHBOURHOOD
        settings["ablate"] = {"score": score, "reader": "knn"}
        if not views:  # nothing that a mask is trained for
            settings["follow"] = {"ablation": None}
    results = Examination()
    for name in (*own_probes, *outside_probes()):
        with _suited(name, results):
            probe = probe_named(name)
            parameters, needs = inspect.signature(probe).parameters, needs_of(probe)
            if not _is_of_a_report(parameters, given):
                continue
            need = min(needs, key=lambda each: len(each - there))
            if need - there:
                results.not_measured[name] = _lacking(name, need - there, rows)
                continue
            of_train = {"reader": reader} if "train" in need else {}
            of_views = {"test": rows} if "factors" in need else {}
            known = {**given, **results, **of_train, **of_views, **settings.get(name, {})}
            with enter(name.replace("_", " ")) as advance:
                known["progress"] = advance
                found = probe(**{key: each for key, each in known.items() if key in parameters})
            results[name_of(type(found))] = found
        if name == "attribute" and "attribution" in results:
            own: dict[str, Any] = {
                "reader": reader,
                "in_distribution": in_distribution,
                "seed": seed,
            }
            if name_of_reader(reader) != "ridge":  # has no closed form: minutes at 20 draws
                own["n_random"] = 5
            _erase_leading(results, train, test, enter, **own)
    return results


def _what_is_there(
    train: Representation | None, test: Representation, rows: Representation, trace: Any
) -> set[str]:
    """Name what there is of what probes need."""
    labelled = test.labels is not None and (train is None or train.labels is not None)
    there = {
        "train": train is not None,
        "labels": labelled,
        "classes": labelled and test.labels is not None and kind_of(test.labels) == CLASSES,
        "views": test.views is not None and len(test.views) > 1,
        "factors": bool(usable(rows)),
        "trace": trace is not None,
    }
    if labelled and rows.factors and not there["factors"]:
        said = _left_out(rows)
        if said:
            warnings.warn(f"nothing is attributed: {said}", UserWarning, stacklevel=3)
    return {name for name, is_there in there.items() if is_there}


def _is_of_a_report(parameters: Any, given: dict[str, Any]) -> bool:
    """Whether all that a probe cannot do without is among what a report has."""
    required = {name for name, each in parameters.items() if each.default is each.empty}
    return required <= given.keys()


def _left_out(rows: Representation) -> str:
    """Say which factors cannot be looked at, but for names of files."""
    notes = notes_of(rows).items()
    return " ".join(f"{name} is {note}" for name, note in notes if word_of(name) not in FILES)


def _lacking(name: str, lacking: set[str], rows: Representation) -> str:
    """Say in a sentence what a probe would need."""
    said = f"{name} needs {' and '.join(_WORDS.get(each, each) for each in sorted(lacking))}."
    return f"{said} {_left_out(rows)}".strip() if "factors" in lacking else said


@contextmanager
def _suited(name: str, results: Examination) -> Iterator[None]:
    """Note that the data do not suit a probe, or that it failed; the others are still measured."""
    with warnings.catch_warnings():
        if name in _SAID_IN_SUMMARY:
            warnings.simplefilter("ignore", UserWarning)
        try:
            yield
            return
        except (Refusal, MemoryError) as error:
            said = f"{name} is left out: {error}"
        except Exception as error:
            said = f"{name} failed: internal error, {type(error).__name__}: {error}"
            results.failed[name] = error
    results.not_measured[name] = said
    warnings.warn(said, UserWarning, stacklevel=4)


def _erase_leading(
    results: Examination, train: Representation, test: Representation, enter: Working, **own: Any
) -> None:
    """Erase the leading factor of the samples, not of their views, where both splits have it."""
    factor = results["attribution"].leading_factor
    if factor is None or factor not in train.factors or factor not in test.factors:
        results.not_measured["erase"] = "erase needs a leading factor that both splits have."
        return
    with _suited("erase", results), enter(f"erase {factor}") as advance:
        erasure = erase(train, test, factor=factor, progress=advance, **own)
        results["attribution"] = replace(results["attribution"], erasure=erasure)
