"""A representation: features of one split, and what is known of each sample."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.checks import (
    array_of,
    factors_of,
    floating,
    named_classes,
    periods_of,
    refuse_non_finite,
    rows_of,
    with_precision,
)
from dimlab.io.files import (
    check_fits,
    json_of,
    naming,
    read_npz,
    read_safetensors,
    save_safetensors,
)
from dimlab.kernels.rounding import eps_of
from dimlab.refusals import Refusal, WrongType
from dimlab.targets import CLASSES, NAMES, kind_of, target_of

if TYPE_CHECKING:
    from dimlab.mask import DimensionMask

FORMAT = "dimlab-representation-1"
ENDINGS = (".safetensors", ".npz")  # of files that `Representation.load` reads


@dataclass(frozen=True, eq=False)
class Representation:
    """Features of one split, with labels, factors and views of the same samples.

    Parameters
    ----------
    features : ndarray, tensor or DataFrame of shape (N, D), floating
        One row a sample, kept as a float32 or float64 array. Other floating types are cast to
        float32; integers are refused.
    labels : array of shape (N,) or (N, T), optional
        Class ids >= 0, or class names: these become ids in alphabetical order, and
        ``meta["class_names"]`` keeps them. Floating: real values. An integer matrix of 0 and 1:
        several labels a sample.
    factors : mapping of str to ndarray of shape (N,), optional
        What else is known of each sample. Floating: continuous; integer, bool or str: categorical.
    periods : mapping of str to float, optional
        Period of each continuous factor that wraps, as ``{"hue": 2 * np.pi}``.
    views : ndarray of shape (V, N, D), optional
        Encodings of augmentations of the same samples.
    view_factors : mapping of str to ndarray of shape (V, N), optional
        Factors of the views: augmentation parameters.
    meta : mapping, optional
        Where the features come from: source, layer, split, mask weights. Must be serialisable as
        JSON. ``precision`` names the floating type that the features were rounded to, where it is
        coarser than their own; by default it is read off the values.

    Raises
    ------
    TypeError
        If features or views are not floating, or labels or a factor of another type.
    ValueError
        If a shape does not fit the features, a value is NaN or infinite, a label is negative, a
        period is not positive or of no continuous factor, view factors come without views, or
        ``meta["precision"]`` is no floating type.

    Examples
    --------
    >>> features = np.array([[3.0, 4.0], [0.0, 1.0], [2.0, 2.0]])
    >>> split = Representation(features, labels=np.array([0, 1, 1]), factors={"hue": np.ones(3)})
    >>> len(split), split.n_dimensions
    (3, 2)
    >>> half = Representation(np.array([[0.1, 0.7], [1.3, 2.9]], dtype=np.float16))
    >>> half.features.dtype.name, half.precision, half.eps
    ('float32', 'float16', 0.0009765625)
    >>> split[:2].shape, np.asarray(split).shape
    ((2, 2), (3, 2))
    >>> from dimlab.mask import DimensionMask
    >>> mask = DimensionMask(np.array([1.0, 0.25]))
    >>> split.take(split.labels == 1).masked(mask).features.tolist()
    [[0.0, 0.25], [2.0, 0.5]]
    """

    features: np.ndarray
    labels: np.ndarray | None = field(default=None, kw_only=True)
    factors: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)
    periods: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    views: np.ndarray | None = field(default=None, kw_only=True)
    view_factors: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)
    meta: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.meta or {}, Mapping):
            raise WrongType(f"meta must be a mapping; got {type(self.meta).__name__}.")
        given = array_of(self.features)
        features = floating("features", given, ndim=2)
        if features.size == 0:
            raise Refusal(f"features must have shape (N, D), both >= 1; got {features.shape}.")
        refuse_non_finite("features", features)
        put = object.__setattr__
        put(self, "features", features)
        meta = self.meta or {}
        if self.labels is not None:
            ids, names = named_classes(self.labels)
            put(self, "labels", target_of(ids, len(features)))
            meta = {**meta, "class_names": names} if names is not None else meta
        put(self, "factors", factors_of(self.factors, (len(features),), "factors"))
        put(self, "periods", periods_of(self.periods, [self.factors, self.view_factors or {}]))
        if self.views is not None:
            views = floating("views", self.views, ndim=3)
            if views.shape[1:] != features.shape or len(views) == 0:
                raise Refusal(
                    f"views must have shape (V, {features.shape[0]}, {features.shape[1]}) to match "
                    f"features; got {views.shape}."
                )
            refuse_non_finite("views", views.reshape(-1, views.shape[2]))
            put(self, "views", views)
        if self.view_factors and self.views is None:
            raise Refusal("view_factors must come with views; got views=None.")
        if self.views is not None:
            shape = self.views.shape[:2]
            put(self, "view_factors", factors_of(self.view_factors, shape, "view_factors"))
        put(self, "meta", with_precision(dict(meta), given, features))

    def _trusted(self, **changed: Any) -> Representation:
        """Replace parts by parts made from them: these fit, and nothing is checked again."""
        made = object.__new__(Representation)
        made.__dict__.update(self.__dict__, **changed)
        meta = {**made.meta, "precision": self.precision}
        object.__setattr__(made, "meta", with_precision(meta, made.features, made.features))
        return made

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        """Return one line: sizes, type, and what is known of the samples."""
        said = [f"{len(self):,} samples of {self.n_dimensions:,} dimensions", self.precision]
        if self.labels is not None:
            kind = kind_of(self.labels)
            n_classes = len(np.unique(self.labels))
            said.append(f"{n_classes:,} classes" if kind == CLASSES else NAMES[kind])
        if self.factors:
            said.append(f"{len(self.factors):,} factor" + "s" * (len(self.factors) != 1))
        if self.views is not None:
            said.append(f"{len(self.views):,} view" + "s" * (len(self.views) != 1))
        if "basis" in self.meta:
            said.append(f"{self.meta['basis']} basis")
        return f"Representation({', '.join(said)})"

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> Representation:
        """Return the representation of some samples: a slice, indices or a mask."""
        return self.take(np.arange(len(self))[rows] if isinstance(rows, slice) else rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the features, as ``np.asarray`` asks for them."""
        features = np.asarray(self.features, dtype)
        return features.copy() if copy else features

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (N, D) of the features."""
        return len(self.features), self.features.shape[1]

    @property
    def n_dimensions(self) -> int:
        """D, the number of feature dimensions."""
        return self.features.shape[1]

    @property
    def view_columns(self) -> tuple[str, str] | tuple[()]:
        """Factors of a stack of views that name each row's view and sample; else empty."""
        recorded = self.meta.get("per_view")
        if not recorded:
            return ()
        names = recorded if isinstance(recorded, Mapping) else {}  # files of 0.6 hold True
        columns = str(names.get("view", "view")), str(names.get("sample", "sample"))
        return columns if set(columns) <= set(self.factors) else ()

    @property
    def precision(self) -> str:
        """Floating type that the features were rounded to: thresholds of rounding follow it."""
        return str(self.meta.get("precision", self.features.dtype.name))

    @property
    def eps(self) -> float:
        """Distance from 1 to the next number of that type."""
        return eps_of(self.precision)

    def select(self, dimensions: Sequence[int] | np.ndarray) -> Representation:
        """Return the representation with these dimensions only, in this order.

        Parameters
        ----------
        dimensions : sequence of int or ndarray of bool of shape (D,)
            Dimensions to keep, at least one.

        Returns
        -------
        Representation
            Features and views of shape (N, d) and (V, N, d). ``meta["dimensions"]`` says which.

        Raises
        ------
        ValueError
            If a dimension is no integer or out of range, or none is left.

        Examples
        --------
        >>> chosen = Representation(np.array([[1.0, 2.0, 3.0]])).select([2, 0])
        >>> chosen.features.tolist(), chosen.meta["dimensions"]
        ([[3.0, 1.0]], [2, 0])
        """
        index = np.asarray(dimensions)
        if index.dtype == bool:
            if index.shape != (self.n_dimensions,):
                raise Refusal(
                    f"dimensions must have shape ({self.n_dimensions},) as a mask; "
                    f"got {index.shape}."
                )
            index = np.flatnonzero(index)
        if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
            raise Refusal(f"dimensions must be a list of at least one index; got {dimensions!r}.")
        if index.min() < 0 or index.max() >= self.n_dimensions:
            raise Refusal(
                f"dimensions must lie in [0, {self.n_dimensions}); "
                f"got {index.min()}..{index.max()}."
            )
        before = self.meta.get("dimensions")
        kept = [int(before[i] if before else i) for i in index]
        meta = {**self.meta, "dimensions": kept}
        if "mask" in meta:
            meta["mask"] = [meta["mask"][i] for i in index]
        views = None if self.views is None else self.views[:, :, index]
        return self._trusted(features=self.features[:, index], views=views, meta=meta)

    def take(self, rows: Sequence[int] | np.ndarray) -> Representation:
        """Return the representation of these samples only, in this order.

        Parameters
        ----------
        rows : sequence of int or ndarray of bool of shape (N,)
            Samples to keep, at least one.

        Returns
        -------
        Representation
            With the labels, factors and views of the same samples.

        Raises
        ------
        ValueError
            If a row is no integer or out of range, or none is left.
        """
        index = rows_of(rows, len(self))
        return self._trusted(
            features=self.features[index],
            labels=None if self.labels is None else self.labels[index],
            factors={name: value[index] for name, value in self.factors.items()},
            views=None if self.views is None else self.views[:, index],
            view_factors={name: value[:, index] for name, value in self.view_factors.items()},
        )

    def masked(self, mask: DimensionMask) -> Representation:
        """Return the representation with every dimension multiplied by its mask weight.

        Parameters
        ----------
        mask : DimensionMask
            One weight for each of the D dimensions.

        Returns
        -------
        Representation
            The features keep their dtype.

        Raises
        ------
        ValueError
            If the mask has another number of dimensions.
        """
        if len(mask) != self.n_dimensions:
            raise Refusal(
                f"mask must have {self.n_dimensions} weights to match features; got {len(mask)}."
            )
        weights = mask.weights.astype(self.features.dtype)
        views = None if self.views is None else self.views * weights
        meta = {**self.meta, "masked": True}
        return self._trusted(features=self.features * weights, views=views, meta=meta)

    def per_view(self) -> Representation:
        """Stack the views into one representation of V * N rows, each an encoded view.

        Returns
        -------
        Representation
            ``features (V * N, D)``; labels and factors repeated; the view factors become factors,
            and so do ``view`` and ``sample`` (the row's sample in this representation). Where a
            name is taken, the new factor's begins with ``view_``; ``view_columns`` names the last
            two.

        Raises
        ------
        ValueError
            If there are no views.

        Examples
        --------
        >>> views = np.array([[[1.0], [2.0]], [[1.1], [2.1]]])
        >>> rows = Representation(views[0], views=views).per_view()
        >>> rows.view_columns
        ('view', 'sample')
        >>> rows.features.ravel().tolist(), rows.factors["sample"].tolist()
        ([1.0, 2.0, 1.1, 2.1], [0, 1, 0, 1])
        """
        if self.views is None:
            raise Refusal("per_view needs views: encode with n_views=2, or pass views=(V, N, D).")
        n_views, n_samples, n_dimensions = self.views.shape
        factors = {name: np.tile(value, n_views) for name, value in self.factors.items()}

        def added(name: str, values: np.ndarray) -> str:
            while name in factors:  # factor names are the user's
                name = f"view_{name}"
            factors[name] = values
            return name

        named = {name: added(name, each.ravel()) for name, each in self.view_factors.items()}
        named |= {name: name for name, each in self.factors.items() if each.dtype.kind == "f"}
        columns = {
            "view": added("view", np.repeat(np.arange(n_views), n_samples)),
            "sample": added("sample", np.tile(np.arange(n_samples), n_views)),
        }
        return self._trusted(
            features=self.views.reshape(-1, n_dimensions),
            labels=None if self.labels is None else np.concatenate([self.labels] * n_views),
            factors=factors,
            periods={named[name]: period for name, period in self.periods.items()},
            views=None,
            view_factors={},
            meta={**self.meta, "per_view": columns},
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.safetensors`` file; string factors become codes and a JSON list of categories.

        Parameters
        ----------
        path : path
            Must end in ``.safetensors``. Written to a temporary file first, then renamed.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        ValueError
            If the name has another ending.
        TypeError
            If ``meta`` holds what JSON cannot.
        OSError
            If the disk refuses.

        Examples
        --------
        >>> import tempfile
        >>> split = Representation(np.eye(2), factors={"camera": np.array(["front", "rear"])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     loaded = Representation.load(split.save(Path(folder) / "test.safetensors"))
        >>> loaded.factors["camera"].tolist()
        ['front', 'rear']
        """
        tensors: dict[str, np.ndarray] = {"features": self.features}
        categories: dict[str, list[str]] = {}
        if self.labels is not None:
            tensors["labels"] = self.labels
        if self.views is not None:
            tensors["views"] = self.views
        for kind, factors in (("factor", self.factors), ("view_factor", self.view_factors)):
            for name, value in factors.items():
                tensors[f"{kind}:{name}"] = _as_codes(value, f"{kind}:{name}", categories)
        header = {"periods": self.periods, "categories": categories, "meta": self.meta}
        try:
            metadata = {"format": FORMAT, "dimlab": json.dumps(header)}
        except TypeError as error:
            raise WrongType(f"meta must be serialisable as JSON; got: {error}.") from error
        return save_safetensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Representation:
        """Read a ``.safetensors`` file, whose arrays stay memory-mapped, or a numpy ``.npz``.

        Parameters
        ----------
        path : path
            A file written by `save`, or any file of these two kinds with an array ``features`` and,
            if there are any, ``labels``, ``views``, ``factor:<name>`` and ``view_factor:<name>``.

        Returns
        -------
        Representation
            Features and views are read-only memory maps, of a ``.npz`` arrays; half-precision ones
            are cast.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no such file, is cut short, holds no ``features``, a tensor of a type that
            numpy lacks or Python objects, or what it holds makes no representation.
        TypeError
            If the features are not floating or the labels not integers.
        """
        path = Path(path)
        arrays, metadata = (read_npz(path), {}) if path.suffix == ".npz" else read_safetensors(path)
        return representation_in(path, arrays, metadata)


def representation_in(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> Representation:
    """Return the representation that was saved in a file, given what was read from it."""
    if "features" not in arrays:
        what = "an array" if path.suffix == ".npz" else "a tensor"
        raise Refusal(f"{path.name} must hold {what} named 'features'; got {sorted(arrays)[:8]}.")
    header = _header(path, metadata)
    decoded = {
        name: _decoded(path, arrays.get(name), names)
        for name, names in header["categories"].items()
    }
    named: dict[str, dict[str, np.ndarray]] = {"factor": {}, "view_factor": {}}
    for name, value in {**arrays, **decoded}.items():
        kind, _, rest = name.partition(":")
        if rest and kind in named:
            named[kind][rest] = value
    with naming(path):
        return Representation(
            arrays["features"],
            labels=arrays.get("labels"),
            factors=named["factor"],
            periods=header["periods"],
            views=arrays.get("views"),
            view_factors=named["view_factor"],
            meta=header["meta"],
        )


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read what stands in a file beside the arrays: three mappings."""
    try:
        header = json_of(metadata.get("dimlab", "{}"))
        parts = {name: header.get(name, {}) for name in ("periods", "categories", "meta")}
    except (ValueError, AttributeError):
        parts = {"header": None}
    if all(isinstance(each, dict) for each in parts.values()):
        return parts
    raise Refusal(f"{path.name} must hold a valid dimlab header; got a damaged one. Save it again.")


def _decoded(path: Path, codes: np.ndarray | None, names: Any) -> np.ndarray:
    """Text of a factor that is stored as codes."""
    if (
        codes is None
        or codes.dtype.kind not in "iu"
        or not isinstance(names, list)
        or not all(isinstance(each, str) for each in names)
        or (codes.size and not 0 <= codes.min() <= codes.max() < len(names))
    ):
        raise Refusal(
            f"{path.name} must hold a valid dimlab header; got codes without their names. Save it "
            "again."
        )
    longest = max(map(len, names), default=0)
    check_fits(path, 4 * longest * max(codes.size, len(names)))
    return np.asarray(names, dtype=np.str_)[codes]


def _as_codes(value: np.ndarray, name: str, categories: dict[str, list[str]]) -> np.ndarray:
    if value.dtype.kind != "U":
        return value
    names, codes = np.unique(value, return_inverse=True)
    categories[name] = [str(each) for each in names]
    return codes.reshape(value.shape).astype(np.int64)
