"""Files and folders that dimlab itself writes, besides checkpoints and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dimlab.mask import MaskTrace
from dimlab.moments import Moments

_RESULT = ".result.npz"
_FOLDERS = (  # kind, and the files that tell it
    ("report folder", ("report.html", "provenance.json")),
    ("run folder", ("checkpoint.pt",)),
    ("folder of results", ()),
)
Kind = tuple[str, dict[str, Any]]


def own_kind(path: Path) -> Kind | None:
    """Tell a report, a run, moments, a mask's trace or a whole result.

    Parameters
    ----------
    path : Path
        A file or a folder.

    Returns
    -------
    tuple of str and dict, or None
        The kind, and facts about it ready for JSON. None for any other file, and for a folder
        without anything of these.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return None
    size = {"bytes": path.stat().st_size}
    if path.name.endswith(_RESULT):
        return "result", size | {"why": f"{path.name.removesuffix(_RESULT)}, kept whole."}
    if path.suffix == ".safetensors" and Moments.is_state(path):
        moments = Moments.load(path)
        return "moments", size | {
            "n_samples": int(moments.n),
            "n_dimensions": int(moments.mean.shape[-1]),
            "has_views": bool(moments.has_views),
        }
    if path.suffix == ".npz":
        return _trace(path, size)
    return None


def _folder(path: Path) -> Kind | None:
    names = sorted(each.name for each in path.iterdir())
    results = [name for name in names if name.endswith(_RESULT)]
    for kind, wanted in _FOLDERS:
        if set(wanted) <= set(names) and (wanted or results):
            facts: dict[str, Any] = {"holds": names[:20], "n_files": len(names)}
            return kind, facts | ({"results": results} if results else {})
    return None


def _trace(path: Path, size: dict[str, Any]) -> Kind | None:
    try:
        trace = MaskTrace.load(path)
    except (ValueError, TypeError, OSError):
        return None
    return "mask trace", size | trace.summary()
