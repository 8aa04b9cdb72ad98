"""How a mask moved: read from the trace of a run, or from checkpoints of any program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dimlab.cli.inputs import Inputs, reading
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from torch import Tensor

    from dimlab.io.unpickle import Opened
    from dimlab.mask import MaskTrace


def read_trace(
    inputs: Inputs, paths: Sequence[Path], *, key: str | None = None, sigmoid: bool = False
) -> MaskTrace:
    """Read a ``.npz`` of `MaskTrace.save`, a checkpoint's own trace, or the masks of several."""
    # anyone's torch files, in which `key` names the mask, are ordered by their own step, else by
    # the last number in their names, else by their place
    from dimlab.mask import MaskTrace

    if len(paths) > 1 and any(path.suffix == ".npz" for path in paths):
        raise Refusal("files must be one .npz, or checkpoints; got a .npz among several.")
    with reading():
        if paths[0].suffix == ".npz":
            source = inputs.source(paths[0])
            return source.value if source.kind == "trace" else MaskTrace.load(paths[0])
        if key is None:
            checkpoints = [inputs.checkpoint(path) for path in paths]
            if len(checkpoints) == 1:
                return checkpoints[0].trace
            found = [(each.step, each.trace.weights[-1]) for each in checkpoints]
        else:
            found = [
                _mask_in(path, inputs.source(path, as_weights=True).value, key, sigmoid, place)
                for place, path in enumerate(paths)
            ]
        steps = [step for step, _ in found]
        for step in steps:
            if steps.count(step) > 1:
                raise Refusal(
                    f"files must be of different steps; got {step} more than once. Number their "
                    "names."
                )
        return MaskTrace.of_masks(dict(found))


def _mask_in(
    path: Path, opened: Opened, key: str, sigmoid: bool, place: int
) -> tuple[int, np.ndarray]:
    """Return step and weights (D,) of a mask in a torch file of any program."""
    mask = opened.tensors.get(key)
    if mask is None or not _is_vector(mask):
        vectors = [name for name, value in opened.tensors.items() if _is_vector(value)]
        listed = ", ".join(vectors[:8]) + (", ..." if len(vectors) > 8 else "")
        raise Refusal(
            f"key must name a vector in {path.name}, one of {listed or 'none'}; got {key!r}."
        )
    weights = mask.double().flatten()
    numbers = re.findall(r"\d+", path.stem)
    recorded = [opened.values.get(name) for name in ("step", "global_step", "epoch")]
    named = [each for each in recorded if isinstance(each, int)]
    step = named[0] if named else int(numbers[-1]) if numbers else place
    return step, (weights.sigmoid() if sigmoid else weights).numpy()


def _is_vector(tensor: Tensor) -> bool:
    """Whether a tensor is floating with one side longer than 1, or one number."""
    longest = max(tensor.shape, default=0)
    return tensor.is_floating_point() and tensor.numel() > 0 and tensor.numel() == longest
