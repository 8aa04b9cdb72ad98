"""The families that are compared, and the eight configurations each may choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dimlab.training.config import TrainConfig

N_TRIED = 8
_BOTH = {"method": "simclr+barlow-twins"}
_MASKED = {"method": "metamask"}


@dataclass(frozen=True)
class Family:
    """A way of training.

    Parameters
    ----------
    name : str
        As it stands in tables.
    fixed : mapping of str to value
        What makes a configuration one of this family.
    knobs : tuple of str
        What its search draws, of `KNOBS`.
    like : str or None
        A family whose choice it takes over, having no knob of its own.
    random_mask : bool, default=False
        Whether it trains under a mask that is drawn once and never moves.
    """

    name: str
    fixed: Mapping[str, Any]
    knobs: tuple[str, ...] = ()
    like: str | None = None
    random_mask: bool = False

    @property
    def learns_mask(self) -> bool:
        """Whether the mask moves."""
        return self.fixed["method"] == "metamask" and self.fixed["hypergradient"] != "none"


_RATES = ("learning_rate", "temperature")
_TWO = (*_RATES, "redundancy_weight")
_META = (*_TWO, "mask_learning_rate", "trial_loss", "meta_batch")
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("simclr", {"method": "simclr"}, _RATES),
        Family("barlow-twins", {"method": "barlow-twins"}, ("learning_rate", "barlow_weight")),
        Family("both", _BOTH, _TWO),
        Family("frozen mask", {**_MASKED, "hypergradient": "none"}, like="both"),
        Family("random mask", {**_MASKED, "hypergradient": "none"}, like="both", random_mask=True),
        Family("joint", {**_MASKED, "hypergradient": "joint"}, (*_TWO, "mask_learning_rate")),
        Family("first-order", {**_MASKED, "hypergradient": "first_order"}, _META),
        Family("exact", {**_MASKED, "hypergradient": "exact"}, _META),
        Family("lookahead", {**_MASKED, "hypergradient": "lookahead"}, _META[:-2]),
    )
}

# Ranges of the search: (low, high) on a log scale, or choices. Stated before the first run; the
# same uniform numbers draw the shared knobs of every family, so that no family draws luckier ones.
KNOBS: dict[str, Any] = {
    "learning_rate": (0.03, 0.6),
    "temperature": (0.07, 0.5),
    "redundancy_weight": (1e-3, 0.1),
    "barlow_weight": (1e-3, 0.1),
    "mask_learning_rate": (0.5, 200.0),
    "trial_loss": ("contrastive", "total"),
    "meta_batch": ("same", "held-out"),
}
FIELDS = {"barlow_weight": "redundancy_weight"}


def tried_configurations(family: Family, config: TrainConfig) -> list[TrainConfig]:
    """Return the configurations that a family's search tries: the first is the given one.

    Parameters
    ----------
    family : Family
        With knobs of its own.
    config : TrainConfig
        Steps, data pipeline, and the values that the first configuration has.

    Returns
    -------
    list of TrainConfig
        Eight; the others are drawn from `KNOBS` with a fixed seed.

    Raises
    ------
    ValueError
        If the family has no knobs.

    Examples
    --------
    >>> tried = tried_configurations(FAMILIES["simclr"], TrainConfig.medium())
    >>> len(tried), tried[0].learning_rate, len({each.learning_rate for each in tried})
    (8, 0.15, 8)
    """
    if not family.knobs:
        raise ValueError(f"family must have knobs; got {family.name!r}, which is like another.")
    tried = [replace(config, **family.fixed)]
    for place in range(1, N_TRIED):
        drawn = {}
        for knob in family.knobs:
            # one stream a knob, so that a family with more knobs draws the shared ones the same
            share = np.random.default_rng([place, *knob.encode()]).random()
            value: Any = KNOBS[knob]
            if isinstance(value[0], str):
                value = value[int(share * len(value))]
            else:
                low, high = value
                value = float(f"{low * (high / low) ** share:.3g}")
            drawn[FIELDS.get(knob, knob)] = value
        tried.append(replace(tried[0], **drawn))
    return tried
