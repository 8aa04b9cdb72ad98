"""Live: what becomes of the dimensions while any loop trains, a report every so many batches."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dimlab.checks import array_of
from dimlab.kernels.correlation import off_diagonal_rms, rooted
from dimlab.kernels.similarity import CosineShares
from dimlab.kernels.spectra import entropy_rank, participation_ratio
from dimlab.readers.linear import Standardiser
from dimlab.refusals import Refusal, WrongType

Sink = Any  # a callable that takes a dict, or a writer with `add_scalar`

_COPY = 0.95  # size of a correlation from which on a dimension counts as a copy
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_OUTPUTS = ("pooler_output", "last_hidden_state")
_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


class DimensionMonitor:
    """Reports ranks, redundancy, dead dimensions and the mask while any loop trains.

    Parameters
    ----------
    every : int, default=100
        Batches between two reports, >= 1.
    sink : callable or SummaryWriter, optional
        What takes a report, ``print`` by default: a callable that is given a dict, such as
        ``wandb.log`` or ``list.append`` of a list; or a TensorBoard writer, for ``add_scalar``.
    rows : int, default=1024
        Rows that a report is measured on, >= 2: those of the last batches before it. The batches
        before these cost nothing.
    mask : callable, optional
        Called without arguments at each report; returns the mask weights (D,).
    prefix : str, default=""
        Written before each name, such as ``"dimensions/"``.

    Raises
    ------
    ValueError
        If a number is too low, or the sink can be neither called nor written to.

    Notes
    -----
    A report holds ``step`` (batches seen), ``n_rows``, and

    - ``effective_rank``: exponential of the entropy of the normalised singular values, not centred;
      ``participation_ratio`` of the same;
    - ``n_dead``: dimensions that do not vary;
    - ``off_diagonal_rms``: root mean square correlation of different dimensions, less what chance
      gives; ``n_copies``: dimensions whose correlation with another one is at least 0.95 in size;
    - ``largest_share``: largest share of the cosine similarity that a dimension has;
    - ``mask_q05`` to ``mask_q95``: quantiles of the mask weights;
    - ``n_not_finite``: rows with a NaN or an infinite value, which are left out;
    - ``seconds`` that the report took.

    With several processes each has the rows of its own; give a sink to one of them.

    References
    ----------
    Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised
    representations by their rank", ICML 2023.

    Examples
    --------
    >>> reports = []
    >>> monitor = DimensionMonitor(every=2, sink=reports.append)
    >>> rng = np.random.default_rng(0)
    >>> for _ in range(4):  # any loop
    ...     features = rng.normal(size=(64, 8)) * [1, 1, 1, 1, 1, 1, 1, 0]
    ...     monitor(features)
    >>> [(report["step"], report["n_rows"], report["n_dead"]) for report in reports]
    [(2, 128, 1), (4, 128, 1)]
    >>> len(monitor.history), monitor.step
    (2, 4)
    """

    def __init__(
        self,
        *,
        every: int = 100,
        sink: Sink = print,
        rows: int = 1024,
        mask: Callable[[], Any] | None = None,
        prefix: str = "",
    ) -> None:
        for name, count, least in (("every", every, 1), ("rows", rows, 2)):
            if count < least:
                raise Refusal(f"{name} must be >= {least}; got {count}.")
        if not (callable(sink) or hasattr(sink, "add_scalar")):
            raise Refusal(
                f"sink must be callable, or have add_scalar; got {type(sink).__name__}. Pass "
                "print, wandb.log or a SummaryWriter."
            )
        self.every, self.rows = every, rows
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._sink, self._mask, self._prefix = sink, mask, prefix
        self._kept: list[np.ndarray] = []  # batches since the last report, the last `rows` rows
        self._batch_size = 1  # learned from the first batch

    def __call__(self, features: Any, *, mask: Callable[[], Any] | None = None) -> None:
        """Take the features of a batch, and report where one is due.

        Parameters
        ----------
        features : array or tensor of shape (B, D)
            On any device, of any floating type. Of shape (B, T, D) the mean over T tokens is taken,
            of (B, C, H, W) the mean over positions.
        mask : callable, optional
            As of the monitor, in its place: for a loop that knows the mask when it calls.

        Raises
        ------
        ValueError
            If the shape is another one, or D is not that of the batches before.
        """
        self.step += 1
        left = -self.step % self.every  # batches until the report
        if left * self._batch_size < self.rows:
            rows = _rows_of(features)
            if self._kept and self._kept[0].shape[1] != rows.shape[1]:
                raise Refusal(
                    f"features must have {self._kept[0].shape[1]} dimensions, as before; got "
                    f"{rows.shape[1]}."
                )
            self._kept.append(rows)
            self._batch_size = max(1, len(rows))
        if left == 0:
            self._report(mask or self._mask)

    def watch(self, module: Any, *, pick: Callable[[Any], Any] | None = None) -> Any:
        """Take what a torch module returns, each time that it is called in training mode.

        Parameters
        ----------
        module : torch.nn.Module
            Such as the backbone of a model.
        pick : callable, optional
            Returns the features among what the module returns. By default a tensor itself, the
            first of a tuple, and of a mapping ``pooler_output`` or else ``last_hidden_state``.

        Returns
        -------
        torch.utils.hooks.RemovableHandle
            Its ``remove()`` ends the watch.

        Examples
        --------
        >>> import torch
        >>> monitor = DimensionMonitor(every=1, sink=lambda report: None)
        >>> backbone = torch.nn.Linear(4, 3)
        >>> handle = monitor.watch(backbone)
        >>> _ = backbone(torch.randn(16, 4))
        >>> handle.remove()
        >>> monitor.history[0]["n_rows"]
        16
        """
        chosen = pick or _features_in

        def hook(watched: Any, given: Any, found: Any) -> None:
            if watched.training:
                self(chosen(found))

        return module.register_forward_hook(hook)

    def lightning_callback(self, layer: str, *, pick: Callable[[Any], Any] | None = None) -> Any:
        """Return a callback of Lightning that watches a layer while a trainer fits.

        Parameters
        ----------
        layer : str
            Name of the module within the LightningModule, such as ``"backbone"``.
        pick : callable, optional
            As in `watch`.

        Returns
        -------
        lightning.pytorch.Callback
            For ``Trainer(callbacks=[...])``.

        Raises
        ------
        ImportError
            If neither ``lightning`` nor ``pytorch_lightning`` is installed.

        Examples
        --------
        >>> monitor = DimensionMonitor(every=100)
        >>> callback = monitor.lightning_callback("backbone")  # doctest: +SKIP
        """
        loaded = [name for name in _LIGHTNING if name in sys.modules]
        base = _first_of(loaded or list(_LIGHTNING)).Callback
        watch = self.watch

        class Watch(base):  # type: ignore[misc, valid-type]
            """Watches a layer while a trainer fits."""

            def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                self.handle = watch(pl_module.get_submodule(layer), pick=pick)

            def on_train_end(self, trainer: Any, pl_module: Any) -> None:
                self.handle.remove()

        return Watch()

    def trainer_callback(self, layer: str, *, pick: Callable[[Any], Any] | None = None) -> Any:
        """Return a callback of Hugging Face's Trainer that watches a layer while it trains.

        Parameters
        ----------
        layer : str
            Name of the module within the model, such as ``"vit"``; empty for the model itself.
        pick : callable, optional
            As in `watch`.

        Returns
        -------
        transformers.TrainerCallback
            For ``Trainer(callbacks=[...])``.

        Raises
        ------
        ImportError
            If ``transformers`` is not installed.

        Examples
        --------
        >>> monitor = DimensionMonitor(every=100)
        >>> callback = monitor.trainer_callback("vit")  # doctest: +SKIP
        """
        base = _first_of(["transformers"]).TrainerCallback
        watch = self.watch

        class Watch(base):  # type: ignore[misc, valid-type]
            """Watches a layer while a trainer trains."""

            def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                self.handle = watch(given["model"].get_submodule(layer), pick=pick)

            def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                self.handle.remove()

        return Watch()

    def _report(self, mask: Callable[[], Any] | None) -> None:
        """Measure the rows that were kept, and give the report to the sink."""
        started = time.perf_counter()
        rows = np.concatenate(self._kept)[-self.rows :]
        self._kept.clear()
        report: dict[str, float] = {"step": self.step, **measured(rows)}
        if mask is not None:
            weights = _array_of(mask())
            for level, each in zip(_QUANTILES, np.quantile(weights, _QUANTILES), strict=True):
                report[f"mask_q{round(100 * level):02d}"] = float(each)
        report["seconds"] = time.perf_counter() - started
        self.history.append(report)
        if hasattr(self._sink, "add_scalar"):
            for name, each in report.items():
                if name != "step":
                    self._sink.add_scalar(f"{self._prefix}{name}", each, self.step)
            return
        self._sink({f"{self._prefix}{name}": each for name, each in report.items()})


def measured(rows: np.ndarray) -> dict[str, float]:
    """Measure rows (N, D): ranks, dead dimensions, what dimensions share."""
    finite = np.isfinite(rows).all(axis=1)
    kept = rows[finite]
    from dimlab.kernels.rows import Rows

    report: dict[str, float] = {"n_rows": len(kept), "n_not_finite": int((~finite).sum())}
    if len(kept) < 2:
        return report
    columns = Standardiser.fit(kept)
    living = columns.scale > 0
    report["n_dead"] = int((~living).sum())
    single = kept.astype(np.float32)
    cosine = CosineShares.of(Rows.of(kept, "cpu"))
    if cosine.n_rows:
        gram = single @ single.T if len(single) < single.shape[1] else single.T @ single
        singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram.astype(np.float64)), 0))
        report["effective_rank"] = entropy_rank(singular)
        report["participation_ratio"] = participation_ratio(singular)
        report["largest_share"] = float(cosine.share.max())
    if living.sum() > 1 and len(kept) > 2:
        scores = columns(kept)[:, living].astype(np.float32)
        correlation = (scores.T @ scores / len(scores)).astype(np.float64)
        np.fill_diagonal(correlation, 0)
        by_chance = 1 / (len(scores) - 1)
        report["off_diagonal_rms"] = float(rooted(off_diagonal_rms(correlation) ** 2 - by_chance))
        report["n_copies"] = int((np.abs(correlation).max(axis=0) >= _COPY).sum())
    return report


def _first_of(names: list[str]) -> Any:
    """Import the first of several packages that is there."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ImportError(f"{names[0]} must be installed for its callback; pip install it.")


def _features_in(found: Any) -> Any:
    """Return the features among what a module returned."""
    if isinstance(found, Mapping):
        names = [name for name in _OUTPUTS if found.get(name) is not None]
        if not names:
            raise Refusal(
                "pick must say which of the module's outputs are the features; got "
                f"{', '.join(found)}."
            )
        return found[names[0]]
    return found[0] if isinstance(found, (tuple, list)) else found


def _array_of(given: Any) -> np.ndarray:
    """Return an array of a tensor on any device, or of anything array-like."""
    array = array_of(given)
    if array.dtype.kind not in "fiu":
        raise WrongType(f"features must be real numbers; got {array.dtype}.")
    return array


def _rows_of(features: Any) -> np.ndarray:
    """Return rows (B, D), a copy, of what a layer gives."""
    if features.ndim == 4:  # the means are taken where the features lie
        features = features.mean((2, 3))
    elif features.ndim == 3:
        features = features.mean(1)
    rows = _array_of(features)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise Refusal(f"features must have shape (B, D); got {rows.shape}.")
    return rows.astype(np.float64 if rows.dtype == np.float64 else np.float32)
