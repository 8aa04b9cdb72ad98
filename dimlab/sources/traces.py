"""How a mask moved, read from one run's trace or from the checkpoints of anyone's run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.sources.reading import reading

if TYPE_CHECKING:
    from dimlab.mask import MaskTrace


def read_trace(paths: list[Path], *, key: str | None = None, sigmoid: bool = False) -> MaskTrace:
    """Read how a mask moved: from one checkpoint's trace, or the masks of several.

    Parameters
    ----------
    paths : list of Path
        A checkpoint or a ``.npz`` of `MaskTrace.save`; or several checkpoints of one run, dimlab's
        or, with ``key``, anyone's torch files, in the order of their steps: a file's own ``step``
        (``global_step``, ``epoch``), else the last number in its name, else its place.
    key : str, optional
        Where the mask stands in others' files, as ``state_dict.mask.weight``.
    sigmoid : bool, default=False
        Whether that holds logits.

    Returns
    -------
    MaskTrace
        At least one record.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    Unreadable
        If one cannot be read or lacks the mask, or two are of one step.
    ValueError
        If a ``.npz`` is one of several files.
    """
    from dimlab.mask import MaskTrace

    if len(paths) > 1 and any(path.suffix == ".npz" for path in paths):
        raise ValueError("files must be one .npz, or checkpoints; got a .npz among several.")
    with reading():
        if paths[0].suffix == ".npz":
            return MaskTrace.load(paths[0])
        if key is None:
            from dimlab.training.checkpoint import load_checkpoint

            checkpoints = [load_checkpoint(path) for path in paths]
            if len(checkpoints) == 1:
                return checkpoints[0].trace
            found = [(each.step, each.trace.weights[-1]) for each in checkpoints]
        else:
            found = [_foreign_mask(path, key, sigmoid, place) for place, path in enumerate(paths)]
        steps = [step for step, _ in found]
        for step in steps:
            if steps.count(step) > 1:
                raise ValueError(
                    f"files must be of different steps; got {step} more than once. Number their "
                    "names."
                )
        return MaskTrace.of_masks(dict(found))


def _foreign_mask(path: Path, key: str, sigmoid: bool, place: int) -> tuple[int, np.ndarray]:
    """Step and weights of a mask in anyone's torch file."""
    import torch

    from dimlab.io.unpickle import read_torch_file

    tensors = dict(_flattened(read_torch_file(path)))
    mask = tensors.get(key)
    if not _is_vector(mask):
        vectors = [name for name, value in tensors.items() if _is_vector(value)]
        listed = ", ".join(vectors[:8]) + (", ..." if len(vectors) > 8 else "")
        raise ValueError(
            f"key must name a vector in {path.name}, one of {listed or 'none'}; got {key!r}."
        )
    weights = torch.as_tensor(mask).detach().double().flatten()
    numbers = re.findall(r"\d+", path.stem)
    named = [
        tensors[name]
        for name in ("step", "global_step", "epoch")
        if isinstance(tensors.get(name), int)
    ]
    step = named[0] if named else int(numbers[-1]) if numbers else place
    return step, (weights.sigmoid() if sigmoid else weights).numpy()


def _is_vector(value: Any) -> bool:
    """Whether a leaf is a floating tensor with one side longer than 1, or one number."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.numel() > 0
        and value.numel() == max(value.shape, default=0)
    )


def _flattened(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings with their dotted names."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _flattened(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, tree
