"""What the tensors of a checkpoint are for, and the mask among them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np

from dimlab.interop.opening import Opened, fault_of
from dimlab.mask import DimensionMask

ROLES = ("encoder", "projector", "head", "mask", "optimiser", "alias", "other")
_MASKS = ("auto_mask.mask", "mask_logits")
_PATTERNS = (  # the first that fits anywhere in a key; whole parts of it
    ("optimiser", r"(^|\.)(optimi[sz]er\w*|optim|lr_scheduler\w*|scaler|loss_scaler\w*)\."),
    ("mask", r"(^|\.)(auto_mask\.mask|mask_logits)$"),
    (
        "head",
        r"(^|\.)(predict(or|ion)\w*|prototypes?|\w*classifier|\w*probe|online_linear\w*|linear)(\.|$)",
    ),
    (
        "projector",
        r"(^|\.)(\w*proj(ector|ection)\w*|neck|contrastive|redundancy|\w*mlp_head)(\.|$)",
    ),
    ("projector", r"(^|\.)module\.bn\.|(^|\.)(cl|bl)_mlp\."),
    ("head", r"(^|\.)(fc|\w*head\w*|linear)(\.|$)"),
)
_BESIDE = re.compile(  # what training keeps beside an encoder, and no image passes through
    r"queue\w*|memory_bank\w*|center|n_averaged|initted|steps?|epoch|logit_scale|temperature"
    r"|\w*loss\w*|criterion\w*|decoder\w*|mask_token|num_batches_tracked"
)


def role_of(key: str) -> str:
    """Say what a tensor is for, by its name.

    Parameters
    ----------
    key : str
        Of the file; not one of the encoder's.

    Returns
    -------
    str
        One of `ROLES`.

    Examples
    --------
    >>> role_of("state_dict.projection_head.layers.0.weight"), role_of("fc.bias"), role_of("step")
    ('projector', 'head', 'other')
    """
    return next((role for role, pattern in _PATTERNS if re.search(pattern, key)), "other")


def is_known_beside(key: str) -> bool:
    """Say whether a tensor under an encoder's prefix is known to be no part of it, by its name.

    Parameters
    ----------
    key : str
        Without the prefix. Only what it begins with counts: a part called ``fc`` inside a block is
        no head.

    Returns
    -------
    bool
        True for heads, projectors, masks, optimisers, and what training counts or compares with.

    Examples
    --------
    >>> [is_known_beside(key) for key in ("fc.0.weight", "queue", "layer1.0.se.fc.0.weight")]
    [True, True, False]
    """
    first = key.split(".")[0]
    known = role_of(f"{first}.") != "other" or role_of(key) == "mask"
    return known or _BESIDE.fullmatch(first) is not None


@dataclass(frozen=True, eq=False)
class FoundMask:
    """The mask of a file.

    Parameters
    ----------
    key : str
        Where it stands.
    values : ndarray of shape (D,), floating
        As they stand there.
    kind : str
        ``logits`` or ``weights``.
    why : str
        How that is known.
    """

    key: str
    values: np.ndarray
    kind: str
    why: str

    def mask(self) -> DimensionMask:
        """Give it as weights in [0, 1].

        Returns
        -------
        DimensionMask
            The sigmoid of logits. Raw weights that left [0, 1] are given as |w| / max |w|, as in
            `Checkpoint.mask`.
        """
        weights = self.values
        if self.kind == "logits":
            weights = 1 / (1 + np.exp(-weights))
        elif weights.min() < 0 or weights.max() > 1:
            weights = np.abs(weights) / np.abs(weights).max()
        return DimensionMask(weights)

    def summary(self) -> dict[str, object]:
        """Return where it is, its size, range and kind.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return {
            "key": self.key,
            "n": len(self.values),
            "min": float(self.values.min()),
            "max": float(self.values.max()),
            "kind": self.kind,
            "why": self.why,
        }


def find_mask(opened: Opened) -> FoundMask | None:
    """Find the mask of a dimlab or official MetaMask checkpoint.

    Parameters
    ----------
    opened : Opened
        The file.

    Returns
    -------
    FoundMask or None
        None where there is none.
    """
    keys = [key for key in opened.tensors if re.search(_PATTERNS[1][1], key)]
    if not keys or fault_of(opened.tensors[keys[0]]) is not None:
        return None
    values = opened.tensors[keys[0]].double().flatten().numpy()
    if values.size == 0 or not np.isfinite(values).all():
        return None
    if "config" in opened.values:
        try:
            config = dict(json.loads(opened.values["config"]))
        except (TypeError, ValueError) as error:
            raise ValueError(
                "network must fit the configuration beside it; got one that is damaged."
            ) from error
        if config.get("method") != "metamask":
            return None
        kind = "logits" if config.get("mask") == "sigmoid" else "weights"
        return FoundMask(keys[0], values, kind, "its configuration says so")
    for name, value in opened.values.items():
        if name.endswith(("disable_sigmoid", "enable_sigmoid")) and isinstance(value, bool):
            raw = value == name.endswith("disable_sigmoid")
            return FoundMask(keys[0], values, "weights" if raw else "logits", f"{name} is {value}")
    raw = abs(values.mean() - 1) < abs(values.mean())
    start = "1, where raw weights start" if raw else "0, where logits start"
    why = f"nothing is recorded, and its mean lies nearer to {start}"
    return FoundMask(keys[0], values, "weights" if raw else "logits", why)
