"""One row a dimension: what every result says of it, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# column: result's class, column of its frame, what stands in the head of the table
_COLUMNS = {
    "importance": ("Ablation", "importance", "accuracy lost without it"),
    "importance_low": ("Ablation", "ci_low", "95 % interval, low"),
    "importance_high": ("Ablation", "ci_high", "95 % interval, high"),
    "importance_fcr_low": ("Ablation", "fcr_low", "interval allowing for selection, low"),
    "importance_fcr_high": ("Ablation", "fcr_high", "interval allowing for selection, high"),
    "importance_q": ("Ablation", "q_value", "q-value of the importance"),
    "r_squared": ("Redundancy", "r_squared", "R² on the other dimensions"),
    "adjusted_r_squared": ("Redundancy", "adjusted_r_squared", "the same, adjusted for chance"),
    "group": ("Redundancy", "group", "redundant group"),
    "group_size": ("Redundancy", "group_size", "dimensions in the group"),
    "dead": ("Redundancy", "dead", "does not vary"),
    "carries": ("Attribution", "leading_factor", "factor of the largest effect"),
    "nuisance_score": ("Attribution", "nuisance_score", "largest effect of a factor, given label"),
    "nuisance_q": ("Attribution", "q_value", "q-value of that factor"),
    "partial_effect": ("Attribution", "partial_effect", "its effect, given all other factors too"),
    "partial_q": ("Attribution", "partial_q_value", "q-value of the partial effect"),
    "label_effect": ("Attribution", "label_effect", "effect of the label, given factors"),
    "view_invariance": ("Attribution", "view_invariance", "correlation of two views"),
    "gradient_share": ("Attribution", "gradient_share", "share of the contrastive gradient"),
    "mask_weight": ("MaskEvolution", "last_weight", "final mask weight"),
    "verdict": ("Attribution", "verdict", "nuisance, mixed, label, undecided, neither or dead"),
}


def dimensions_of(results: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """Join what the results say of each dimension, one row each: the frame, and titles of axes."""
    import pandas as pd

    frames: dict[str, Any] = {}
    for result in results.values():
        kind = type(result).__name__
        wanted = {owner for owner, _, _ in _COLUMNS.values()}
        if kind not in wanted or kind in frames or getattr(result, "basis", "axes") != "axes":
            continue
        frame = result.to_frame()
        if "dimension" in frame:
            frames[kind] = frame.set_index("dimension")
    if not frames:
        return pd.DataFrame(), {}
    size = max(len(frame) for frame in frames.values())
    columns: dict[str, Any] = {"dimension": np.arange(size)}
    titles = {"dimension": "index of the dimension"}
    for name, (owner, column, title) in _COLUMNS.items():
        if owner in frames and column in frames[owner] and len(frames[owner]) == size:
            columns[name] = frames[owner][column].to_numpy()
            titles[name] = title
    return pd.DataFrame(columns), titles
