"""The families that are compared, and the eight configurations that each may choose from."""

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
    """A way of training: what makes a configuration one of it, and what its search draws.

    A family without ``knobs`` takes over the choice of the family ``like``. With ``random_mask``
    it trains under a mask that is drawn once and never moves.
    """

    name: str
    fixed: Mapping[str, Any]
    knobs: tuple[str, ...] = ()
    like: str | None = None
    random_mask: bool = False


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
    """Return the eight configurations that a family's search tries; the first is the given one."""
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
