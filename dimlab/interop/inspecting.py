"""What a file is, and how sure that is: layout, prefix, counts of tensors, mask."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimlab.interop.features import holds_features, identify_features
from dimlab.interop.matching import Match, find_encoder
from dimlab.interop.opening import Opened, open_weights
from dimlab.interop.own import own_kind
from dimlab.interop.refusing import check_partial, refusal, trained
from dimlab.interop.roles import FoundMask, find_mask, role_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a file holds.

    Parameters
    ----------
    name : str
        Of the file.
    kind : str
        ``features``, ``checkpoint``, ``tensors`` (without an encoder that dimlab knows) or
        ``arrays`` (without plain features).
    facts : dict of str
        What is known of it, ready for JSON; for a checkpoint ``encoder, layout, container, prefix,
        branch, why, trained``, the counts ``n_matched, n_missing, n_unexpected, n_mismatched,
        n_aliases``, the first keys of each that is not empty, ``candidates`` where several encoders
        fit equally well, and ``mask``.
    tensors : tuple of dict
        Key, shape, dtype and role of each tensor, and the encoder's key where it matches one.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "test.npz", emb=np.eye(3), y=[0, 1, 1])
    ...     inspection = inspect_file(Path(folder) / "test.npz")
    >>> inspection.kind, inspection.summary()["holds"]
    ('features', ["features 3 x 3 under 'emb'; labels under 'y'"])
    >>> inspection.to_frame()["role"].tolist()
    ['features', 'labels']
    """

    name: str
    kind: str
    facts: Mapping[str, Any]
    tensors: tuple[Mapping[str, Any], ...] = field(default=())

    def to_frame(self) -> pd.DataFrame:
        """Return one row a tensor.

        Returns
        -------
        DataFrame
            ``key, shape, dtype, role, matches``.
        """
        import pandas as pd

        columns = ["key", "shape", "dtype", "role", "matches"]
        return pd.DataFrame([dict(each) for each in self.tensors], columns=columns)

    def summary(self) -> dict[str, Any]:
        """Return what is known of the file.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return {"file": self.name, "kind": self.kind, **self.facts}


def inspect_file(
    path: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    stem: str | None = None,
    layout: str | None = None,
    branch: str | None = None,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
    trust_pickle: bool = False,
) -> Inspection:
    """Say what a file is: a checkpoint of some tool, features, or anything that dimlab writes.

    Parameters
    ----------
    path : path
        Any file that dimlab reads, or the folder of a report or a run.
    encoder, stem, layout, branch : str, optional
        As in `load_encoder`.
    allow_partial, allow_untrained, trust_pickle
        As in `load_encoder`.

    Returns
    -------
    Inspection
        For a checkpoint also where its encoder lies, why there, and what does not match.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Misnamed
        If a branch, or a key that may be missing, is not there.
    ValueError
        If it cannot be read, or asks for code to be run.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from dimlab.training.encoders import build_encoder
    >>> weights = build_encoder("resnet18", stem="imagenet").state_dict()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({f"module.{key}": each for key, each in weights.items()}, f"{folder}/a.pth")
    ...     facts = inspect_file(f"{folder}/a.pth").facts
    >>> facts["layout"], facts["prefix"], facts["n_missing"], facts["trained"]
    ('ddp', 'module.', 0, 'no')
    """
    path = Path(path)
    own = own_kind(path)
    if own is not None:
        return Inspection(path.name, *own)
    if path.is_file() and _holds_features(path):
        return _of_features(path)
    opened = open_weights(path, trust_pickle=trust_pickle)
    try:
        match = find_encoder(opened, encoder=encoder, stem=stem, layout=layout, branch=branch)
    except ValueError as error:
        if encoder or stem or layout or branch:
            raise
        facts = {"container": opened.kind, "n_tensors": len(opened.tensors), "why": str(error)}
        rows = tuple(_row(key, each, role_of(key)) for key, each in opened.tensors.items())
        return Inspection(path.name, "tensors", facts, rows)
    check_partial(match, opened, allow_partial)
    reason = refusal(
        path.name, opened, match, allow_partial=allow_partial, allow_untrained=allow_untrained
    )
    return of_match(path, opened, match, loads=reason or "yes")


def _holds_features(path: Path) -> bool:
    try:
        return holds_features(path)
    except ValueError:  # tensors that are no arrays: weights, perhaps
        return False


def of_match(path: Path, opened: Opened, match: Match, *, loads: str) -> Inspection:
    """Describe a checkpoint whose encoder is found.

    Parameters
    ----------
    path : Path
        The file.
    opened : Opened
        Its tensors.
    match : Match
        Where the encoder lies.
    loads : str
        ``yes``, or why `load_encoder` refuses it.

    Returns
    -------
    Inspection
        With every tensor's role.
    """
    place, mask = match.candidate, find_mask(opened)
    by_name = {name: key for key, name in place.found.items()}
    wrong = {name: key for key, name in place.mismatched.items()}
    rows = []
    for name, tensor in opened.tensors.items():
        if name in by_name:
            rows.append(_row(name, tensor, "encoder", by_name[name]))
        elif name in match.aliases:
            rows.append(_row(name, tensor, "alias", match.aliases[name]))
        else:
            role = "other" if name in match.unexpected else role_of(name)
            rows.append(_row(name, tensor, role, wrong.get(name, "")))
    facts: dict[str, Any] = {
        "loads": loads,
        "bytes": path.stat().st_size,
        "container": opened.kind,
        "encoder": match.blueprint.in_words(),
        "layout": match.layout.name,
        "under": match.container,
        "prefix": match.prefix,
        "branch": place.branch,
        "why": match.why,
        "n_tensors": len(opened.tensors),
        "n_matched": len(place.found),
        "n_missing": len(place.missing),
        "n_unexpected": len(match.unexpected),
        "n_mismatched": len(place.mismatched),
        "n_aliases": len(match.aliases),
        "missing": list(place.missing[:8]),
        "unexpected": list(match.unexpected[:8]),
        "mismatched": list(place.mismatched.values())[:8],
        "candidates": list(match.choices),
        "copies_not_taken": list(match.copies),
        "trained": trained({key: opened.tensors[name] for key, name in place.found.items()}),
        "mask": None if mask is None else mask.summary(),
        "normalisation": _recorded(opened, "normalisation"),
        "method": _recorded(opened, "method"),
        "step": opened.values.get("step", opened.values.get("global_step")),
        "epoch": opened.values.get("epoch"),
        "trace": _trace(opened),
        "versions": opened.versions,
    }
    return Inspection(path.name, "checkpoint", facts, tuple(rows))


def _recorded(opened: Opened, name: str) -> str | None:
    """Field of the configuration, which only dimlab's own checkpoints have."""
    try:
        return str(json.loads(opened.values["config"])[name])
    except (KeyError, TypeError, ValueError):
        return None


def _trace(opened: Opened) -> str | None:
    weights = opened.tensors.get("trace.weights")
    return None if weights is None else f"{weights.shape[0]} records of {weights.shape[-1]} weights"


def mask_of(opened: Opened, n_dimensions: int) -> FoundMask | None:
    """Find a mask of as many weights as an encoder has dimensions.

    Parameters
    ----------
    opened : Opened
        The file.
    n_dimensions : int
        D.

    Returns
    -------
    FoundMask or None
        None where there is none of this size.
    """
    found = find_mask(opened)
    return found if found is not None and len(found.values) == n_dimensions else None


def _of_features(path: Path) -> Inspection:
    layouts = identify_features(path)
    rows: list[Mapping[str, Any]] = []
    for each in layouts:
        prefix = f"{each.split}: " if each.split else ""
        roles = {each.features: "features", each.labels: "labels", each.views: "views"}
        roles |= dict.fromkeys(each.factors.values(), "factor")
        roles |= dict.fromkeys(each.left_out, "other")
        rows += [
            {"key": f"{prefix}{key}", "shape": "", "dtype": "", "role": role, "matches": ""}
            for key, role in roles.items()
            if key is not None
        ]
    if not layouts:
        why = "No array of it has the shape (N, D) of features, or several do: --features names it."
        return Inspection(path.name, "arrays", {"why": why})
    facts = {"holds": [each.in_words() for each in layouts]}
    return Inspection(path.name, "features", facts, tuple(rows))


def _row(key: str, tensor: Tensor, role: str, matches: str = "") -> dict[str, Any]:
    return {
        "key": key,
        "shape": " x ".join(map(str, tensor.shape)) or "()",
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "role": role,
        "matches": matches,
    }
