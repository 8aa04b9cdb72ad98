"""Feature rows prepared for cosine similarity, and similarities of pairs of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dimlab.devices import check_device
from dimlab.kernels.blocks import blocks

_ELEMENTS = 1 << 22  # elements of a temporary array; float64: 32 MiB
_SAFE_EXPONENT = 300  # squares of values within 2^(+-300) neither overflow nor underflow
_SAFE_FACTOR = 1e15  # rows whose norm is within its range need no scaling in float32
WELL_CONDITIONED = 0.1  # share of a row's energy below which differences are not trusted


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of features, normalised on demand."""

    raw: Tensor  # (N, D) the rows as given
    scaled: Tensor  # (N, D) raw, or divided by a power of two where squares leave float64's range
    factor: Tensor  # (N,) one over the norm of each row of ``scaled``; 0 for a row of zeros

    @classmethod
    def of(cls, features: np.ndarray | Tensor, device: str | torch.device) -> Rows:
        """Prepare features (N, D), a floating array, on a device."""
        check_device(str(device))
        raw = features if isinstance(features, Tensor) else _tensor(features)
        raw = raw.to(device)
        scaled, factor = raw, torch.empty(len(raw), dtype=torch.float64, device=raw.device)
        parts = list(blocks(len(raw), _ELEMENTS // raw.shape[1]))
        if raw.dtype == torch.float64:
            largest = torch.cat([raw[part].abs().amax(1) for part in parts])
            exponent = torch.frexp(largest).exponent.abs()
            if bool((exponent[largest > 0] > _SAFE_EXPONENT).any()):
                scaled = divide_by_power_of_two(raw)
        for part in parts:
            norm = scaled[part].double().square().sum(1).sqrt_()
            factor[part] = torch.where(norm > 0, 1 / norm, 0.0)
        return cls(raw, scaled, factor)

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def n_dimensions(self) -> int:
        """D, the number of columns."""
        return self.raw.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the rows live."""
        return self.raw.device

    def unit(self, index: Any) -> Tensor:
        """Return the normalised rows at an index of any shape, float64."""
        return self.scaled[index].double() * self.factor[index].unsqueeze(-1)

    @cached_property
    def n_nonzero(self) -> Tensor:
        """Number of non-zero entries of each row, shape (N,)."""
        return torch.count_nonzero(self.raw, dim=1)

    def columns(self, dtype: torch.dtype, dimensions: Tensor) -> Tensor:
        """Return normalised columns of some dimensions, (n, N) in float32 or float64."""
        return (self.scaled[:, dimensions].T * self.factor).to(dtype)

    def similarities(self, unit: Tensor) -> Tensor:
        """Products (B, N) of normalised rows (B, D) with all of these, in their precision."""
        # Rows are read as they lie, which may be in a file larger than memory; their norms divide
        # the product, unless products with such rows could leave float32's range.
        result = unit.new_empty(len(unit), len(self))
        for part in blocks(len(self), _ELEMENTS // self.n_dimensions):
            factor = self.factor[part]
            if bool(((factor > _SAFE_FACTOR) | (0 < factor) & (factor < 1 / _SAFE_FACTOR)).any()):
                torch.mm(unit, self.unit(part).to(unit.dtype).T, out=result[:, part])
                continue
            torch.mm(unit, self.scaled[part].to(unit.dtype).T, out=result[:, part])
            result[:, part] *= factor.to(unit.dtype)
        return result


def _tensor(features: np.ndarray) -> Tensor:
    with warnings.catch_warnings():  # a mapped file cannot be written to, and nothing here does
        warnings.filterwarnings("ignore", ".*not writable.*", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(features))


def divide_by_power_of_two(rows: Tensor) -> Tensor:
    """Divide each row by the power of two below its largest absolute value, exactly."""
    largest = rows.abs().amax(-1, keepdim=True)
    exponent = torch.frexp(largest).exponent - 1
    power = torch.ldexp(torch.ones_like(largest), exponent)
    return rows / torch.where(largest > 0, power, 1.0)


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of dimensions that are removed together."""

    indices: list[Tensor] | None  # dimensions of each group; None: each of the D by itself
    n_dimensions: int
    device: torch.device

    @classmethod
    def of(cls, groups: list[np.ndarray] | None, n_dimensions: int, device: torch.device) -> Groups:
        """Prepare groups given as index arrays; None: each dimension by itself."""
        if groups is None or list(map(list, groups)) == [[d] for d in range(n_dimensions)]:
            return cls(None, n_dimensions, device)
        indices = [torch.as_tensor(np.unique(g).astype(np.int64), device=device) for g in groups]
        return cls(indices, n_dimensions, device)

    def __len__(self) -> int:
        return self.n_dimensions if self.indices is None else len(self.indices)

    def __getitem__(self, group: int) -> Tensor:
        if self.indices is None:
            return torch.tensor([group], device=self.device)
        return self.indices[group]

    @cached_property
    def members(self) -> Tensor:
        """Membership (G, D), bool."""
        members = torch.zeros(len(self), self.n_dimensions, dtype=torch.bool, device=self.device)
        for group in range(len(self)):
            members[group, self[group]] = True
        return members

    @cached_property
    def sizes(self) -> Tensor:
        """Number of dimensions in each group (G,), int64."""
        sizes = [len(self[group]) for group in range(len(self))]
        return torch.tensor(sizes, dtype=torch.int64, device=self.device)

    @property
    def largest(self) -> int:
        """Number of dimensions in the largest group."""
        return 1 if self.indices is None else max(len(group) for group in self.indices)

    def sum(self, values: Tensor) -> Tensor:
        """Sum values (..., D) over each group: (..., G)."""
        if self.indices is None:
            return values
        return values @ self.members.to(values.dtype).T

    def zero_(self, rows: Tensor, group: Tensor) -> Tensor:
        """Set the dimensions of one group a row to zero, in place; rows (E, D), group (E,)."""
        if self.indices is None:
            return rows.scatter_(1, group.unsqueeze(1), 0.0)
        return rows.masked_fill_(self.members[group], 0.0)


def pair_similarities(
    test: Rows, train: Rows, groups: Groups, query: Tensor, row: Tensor, group: Tensor
) -> Tensor:
    """Cosine similarities (E,) of test-train pairs without a group each, from the kept entries."""
    result = torch.empty(len(query), dtype=torch.float64, device=train.device)
    for part in blocks(len(query), _ELEMENTS // train.n_dimensions):
        q, x = test.raw[query[part]].double(), train.raw[row[part]].double()
        groups.zero_(q, group[part])
        groups.zero_(x, group[part])
        if torch.float64 in (train.raw.dtype, test.raw.dtype):
            # After the removal: what stays may be smaller by any number of orders.
            q, x = divide_by_power_of_two(q), divide_by_power_of_two(x)
        norms = q.square().sum(1).sqrt_() * x.square().sum(1).sqrt_()
        dots = (q * x).sum(1)
        result[part] = torch.where(norms > 0, dots / norms, 0.0)
    return result
