"""Examination: every probe that two splits allow, for one report."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from dimlab.mask import DimensionMask, MaskTrace
from dimlab.names import FILES, word_of
from dimlab.probes._factors import notes_of, usable
from dimlab.probes.ablate import ablate
from dimlab.probes.attribute import attribute
from dimlab.probes.bound_risk import bound_risk
from dimlab.probes.confirm_harmful import confirm_harmful
from dimlab.probes.correlate import correlate
from dimlab.probes.decompose import decompose
from dimlab.probes.erase import erase
from dimlab.probes.evaluate import evaluate
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.probes.follow import follow
from dimlab.representation import Representation

Working = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]


def examine(
    train: Representation,
    test: Representation,
    *,
    in_distribution: Representation | None = None,
    trace: MaskTrace | None = None,
    mask: DimensionMask | None = None,
    reader: str = "ridge",
    n_permutations: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    working: Working | None = None,
) -> dict[str, Any]:
    """Run the probes that the splits allow, in the order of a report.

    Parameters
    ----------
    train, test : Representation
        Splits of the same D dimensions; without labels in both, what dimensions share is measured,
        and nothing that needs a task. With two views of test, correlations are between views, the
        risk is bounded, and the parameters of the augmentation are factors.
    in_distribution : Representation, optional
        Held-out samples like train, for erasure.
    trace : MaskTrace, optional
        History of the mask: it is followed.
    mask : DimensionMask, optional
        The learned mask.
    reader : {"ridge", "knn", "logistic"}, default="ridge"
        Reader for ablation and confirmed harm.
    n_permutations : int, default=1000
        Permutations of factors.
    seed : int, default=0
        Seed of all probes.
    device : str, default="cpu"
        Where they compute.
    working : callable, optional
        ``working(text)`` is entered for each long probe, and gives its progress.

    Returns
    -------
    dict of str to result
        ``evaluation, ablation, harmful, correlation, spectrum, redundancy``; ``attribution``, where
        there are factors to look at; with a trace ``mask_evolution``; with two views
        ``risk_bound``. Without labels ``correlation, spectrum, redundancy`` and ``mask_evolution``.

    Raises
    ------
    ValueError
        As the probes do.

    Warns
    -----
    UserWarning
        If every factor has a category for most samples, so that nothing is attributed.

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
    ['evaluation', 'ablation', 'harmful', 'correlation', 'spectrum', 'redundancy']
    >>> results["ablation"].needed.tolist(), results["harmful"].confirmed.tolist()
    ([0], [])
    """
    quietly: Working = working or (lambda text: nullcontext())
    views = test.views is not None and len(test.views) > 1
    results: dict[str, Any] = {}
    labelled = train.labels is not None and test.labels is not None
    if labelled:
        with quietly("evaluating") as advance:
            results["evaluation"] = evaluate(
                train, test, mask=mask, readers=("knn", "ridge"), seed=seed, device=device,
                progress=advance,
            )  # fmt: skip
        with quietly("ablating") as advance, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the summary says it: repeated rows
            results["ablation"] = ablate(
                train, test, reader=reader, seed=seed, device=device, progress=advance
            )
        with quietly("confirming") as advance:
            results["harmful"] = confirm_harmful(
                train, test, reader=reader, seed=seed, device=device, progress=advance
            )
    with quietly("correlating") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the summaries say it: few samples, dead ones
        results["correlation"] = correlate(
            test, seed=seed, n_draws=50, device=device, progress=advance
        )
        results["spectrum"] = decompose(test, seed=seed, device=device)
    results["redundancy"] = find_redundancy(test, seed=seed, device=device)
    rows = test.per_view() if views and test.view_factors else test
    if labelled and rows.factors and not usable(rows):
        notes = notes_of(rows).items()
        said = [f"{name} is {note}" for name, note in notes if word_of(name) not in FILES]
        if said:
            warnings.warn(f"nothing is attributed: {' '.join(said)}", UserWarning, stacklevel=2)
    elif labelled and rows.factors:
        with quietly("attributing") as advance:
            found = attribute(
                train, rows, erased=None, n_permutations=n_permutations,
                ablation=results["ablation"], trace=trace, seed=seed, progress=advance,
            )  # fmt: skip
        factor = found.leading_factor
        if factor is not None and factor in train.factors and factor in test.factors:
            with quietly(f"erasing {factor}") as advance:  # of the samples, not of their views
                erasure = erase(
                    train, test, factor=factor, in_distribution=in_distribution, seed=seed,
                    progress=advance,
                )  # fmt: skip
            found = replace(found, erasure=erasure)
        results["attribution"] = found
    if trace is not None:
        results["mask_evolution"] = follow(
            trace, ablation=results.get("ablation"), redundancy=results["redundancy"],
            attribution=results.get("attribution"), seed=seed,
        )  # fmt: skip
    if labelled and views:
        with quietly("bounding the risk") as advance:
            results["risk_bound"] = bound_risk(
                test, mask=mask, seed=seed, device=device, progress=advance
            )
    return results
