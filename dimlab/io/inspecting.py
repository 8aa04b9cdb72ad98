"""What a file is, and how sure that is: layout, prefix, counts of tensors, mask."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.images import Recipe
from dimlab.io.folders import EncoderFolder, FolderTower, folder_at, tower_of
from dimlab.io.layouts import MASKS, role_of
from dimlab.io.places import Match, Wanted
from dimlab.io.refusing import check_partial, refusal, refusal_of_tower, trained
from dimlab.io.source import Source, open_source
from dimlab.io.unpickle import Opened, fault_of, open_weights
from dimlab.io.weights import match_of, wanted_of
from dimlab.mask import DimensionMask
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


_RESULT = ".result.npz"
_FOLDERS = (  # kind, and the files that tell it
    ("report folder", ("report.html", "provenance.json")),
    ("run folder", ("checkpoint.pt",)),
    ("folder of results", ()),
)


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a file holds.

    Parameters
    ----------
    name : str
        Of the file.
    kind : str
        ``features``, ``checkpoint``, ``tensors`` (without an encoder that dimlab knows), ``arrays``
        (without plain features), or what dimlab itself writes: ``moments``, ``mask trace``,
        ``result``, ``report folder``, ``run folder``, ``folder of results``.
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
    pool: str | None = None,
    encoder_option: Sequence[str] | Mapping[str, Any] = (),
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
    trust_pickle: bool = False,
) -> Inspection:
    """Say what a file is: a checkpoint of some tool, features, or anything that dimlab writes.

    Parameters
    ----------
    path : path
        Any file that dimlab reads, or the folder of an encoder, a report or a run.
    encoder, stem, layout, branch, pool : str, optional
        As in `load_encoder`.
    encoder_option, allow_partial, allow_untrained, trust_pickle
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
    folder = _of_folder(path) if path.is_dir() and folder_at(path) is None else None
    if folder is not None:
        return folder
    if path.is_file() and path.name.endswith(_RESULT):
        why = f"{path.name.removesuffix(_RESULT)}, kept whole."
        return Inspection(path.name, "result", {"bytes": path.stat().st_size, "why": why})
    source = open_source(path, trust_pickle=trust_pickle, own=False)
    if source.kind == "features":
        return _of_features(source)
    if source.kind != "weights":
        return _of_own(source)
    known: dict[str, Any] = {
        "encoder": encoder, "stem": stem, "layout": layout, "branch": branch, "pool": pool,
        "encoder_option": encoder_option,
    }  # fmt: skip
    opened, wanted = source.value, wanted_of(known)
    recipe = Recipe()
    if isinstance(opened, EncoderFolder):
        if opened.package == "transformers":
            tower = tower_of(opened, wanted, None)
            return of_tower(tower, loads=refusal_of_tower(tower, allow_untrained) or "yes")
        path, recipe, wanted = opened.weights[0], opened.recipe(), opened.wanted(wanted)
        opened = open_weights(path, trust_pickle=trust_pickle)
    try:
        match = match_of(path.name, opened, wanted)
    except ValueError as error:
        if wanted != Wanted():
            raise
        facts = {"container": opened.kind, "n_tensors": len(opened.tensors), "why": str(error)}
        rows = tuple(_row(key, each, role_of(key)) for key, each in opened.tensors.items())
        return Inspection(path.name, "tensors", facts, rows)
    check_partial(match, allow_partial)
    reason = refusal(path.name, match, allow_partial, allow_untrained)
    return of_match(path, match, loads=reason or "yes", recipe=recipe)


def _of_folder(path: Path) -> Inspection | None:
    """Tell the folder of a report, a run or results."""
    names = sorted(each.name for each in path.iterdir())
    results = [name for name in names if name.endswith(_RESULT)]
    for kind, wanted in _FOLDERS:
        if set(wanted) <= set(names) and (wanted or results):
            facts: dict[str, Any] = {"holds": names[:20], "n_files": len(names)}
            return Inspection(path.name, kind, facts | ({"results": results} if results else {}))
    return None


def _of_own(source: Source) -> Inspection:
    """Describe moments, or a mask's trace."""
    name, value = source.path.name, source.value
    facts: dict[str, Any] = {"bytes": len(source.content)}
    if source.kind == "trace":
        return Inspection(name, "mask trace", facts | value.summary())
    facts |= {"n_samples": int(value.n), "n_dimensions": int(value.mean.shape[-1])}
    return Inspection(name, "moments", facts | {"has_views": bool(value.has_views)})


def of_tower(tower: FolderTower, *, loads: str) -> Inspection:
    """Describe the folder of an encoder of transformers; ``loads`` is as in `of_match`."""
    module, folder = tower.module.module, tower.folder
    state = module.state_dict()
    facts: dict[str, Any] = {
        "loads": loads,
        "bytes": sum(each.stat().st_size for each in folder.weights),
        "container": ", ".join(each.name for each in folder.weights),
        "encoder": f"{type(module).__name__} of transformers",
        "layout": "huggingface",
        "why": f"config.json says that it is a {folder.config['model_type']}.",
        "pool": tower.module.pool,
        "n_dimensions": tower.n_dimensions,
        "recipe": tower.recipe.in_words(),
        "assumed": list(tower.assumed),
        "n_matched": len(state) - len(tower.missing),
        "n_missing": len(tower.missing),
        "n_unexpected": len(tower.unexpected),
        "missing": list(tower.missing[:8]),
        "unexpected": list(tower.unexpected[:8]),
        "left_out": list(tower.beside[:8]),
        "trained": trained(state),
        "normalisation": tower.recipe.normalisation,
        "versions": {"transformers": str(folder.config.get("transformers_version", ""))},
    }
    rows = tuple(_row(key, each, "encoder", key) for key, each in state.items())
    return Inspection(tower.name, "checkpoint", facts, rows)


def of_match(path: Path, match: Match, *, loads: str, recipe: Recipe) -> Inspection:
    """Describe a checkpoint whose encoder is found; ``loads`` is yes, or why it is refused."""
    opened = match.opened
    place, mask = match.place, find_mask(opened)
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
    trace = opened.tensors.get("trace.weights")
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
        "assumed": list(match.assumed),
        "recipe": recipe.in_words(),
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
        "normalisation": _recorded(opened, "normalisation") or recipe.normalisation,
        "method": _recorded(opened, "method"),
        "step": opened.values.get("step", opened.values.get("global_step")),
        "epoch": opened.values.get("epoch"),
        "trace": None if trace is None else _records(trace),
        "versions": opened.versions,
    }
    return Inspection(path.name, "checkpoint", facts, tuple(rows))


def _records(trace: Tensor) -> str:
    return f"{trace.shape[0]} records of {trace.shape[-1]} weights"


def _recorded(opened: Opened, name: str) -> str | None:
    """Field of the configuration, which only dimlab's own checkpoints have."""
    try:
        return str(json.loads(opened.values["config"])[name])
    except (KeyError, TypeError, ValueError):
        return None


def _of_features(source: Source) -> Inspection:
    """Describe what each split of a file of features holds."""
    path, layouts = source.path, source.value.layouts()
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


@dataclass(frozen=True, eq=False)
class FoundMask:
    """The mask of a file: values (D,), their kind (logits or weights), and how that is known."""

    key: str
    values: np.ndarray
    kind: str
    why: str

    def mask(self) -> DimensionMask:
        """Return weights in [0, 1]: |w| / max |w| of raw ones beyond, as `Checkpoint.mask` has."""
        weights = self.values
        if self.kind == "logits":
            weights = 1 / (1 + np.exp(-weights))
        elif weights.min() < 0 or weights.max() > 1:
            weights = np.abs(weights) / np.abs(weights).max()
        return DimensionMask(weights)

    def summary(self) -> dict[str, object]:
        """Return where it is, its size, range and kind."""
        low, high = float(self.values.min()), float(self.values.max())
        size = {"n": len(self.values), "min": low, "max": high}
        return {"key": self.key, **size, "kind": self.kind, "why": self.why}


def find_mask(opened: Opened) -> FoundMask | None:
    """Find the mask of a dimlab or official MetaMask checkpoint."""
    keys = [key for key in opened.tensors if re.search(MASKS, key)]
    if not keys or fault_of(opened.tensors[keys[0]]) is not None:
        return None
    values = opened.tensors[keys[0]].double().flatten().numpy()
    if values.size == 0 or not np.isfinite(values).all():
        return None
    if "config" in opened.values:
        try:
            config = dict(json.loads(opened.values["config"]))
        except (TypeError, ValueError) as error:
            raise Refusal(
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
