"""The notebook widget: its controls are traits, and what is shown follows from them."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anywidget import AnyWidget
from traitlets import Bool, Dict, Int, List, Unicode, validate

from dimlab._explore.background import WhenIdle
from dimlab._explore.state import Explorer, MaskState
from dimlab._explore.words import code_of, parse_spans, spans_of
from dimlab.images import ImageSet
from dimlab.mask import DimensionMask
from dimlab.names import class_names_of
from dimlab.refusals import Refusal

_N_IMAGES = 8
_TALL = 96  # pixels of a shown image
_MOST_CLASSES = 16  # shown one by one

Scores = Callable[[], tuple[np.ndarray, np.ndarray]]  # of each dimension, and what decides ties


class Exploration(AnyWidget):
    """The notebook widget; build it with `explore`."""

    _esm = Path(__file__).with_name("view.js")
    orders = List(Unicode()).tag(sync=True)
    order = Unicode().tag(sync=True)
    largest_first = Bool(True).tag(sync=True)
    n_removed = Int().tag(sync=True)  # the first of the order
    also_removed = Unicode().tag(sync=True)  # beside the first of the order, as 3, 17, 40-60
    kept_anyway = Unicode().tag(sync=True)
    dimension = Int().tag(sync=True)  # whose images are shown
    message = Unicode().tag(sync=True)
    shown = Dict().tag(sync=True)  # all that depends on the mask
    tiles = Unicode().tag(sync=True)  # a PNG as a data URL
    tiles_text = Unicode().tag(sync=True)

    def __init__(
        self,
        explorer: Explorer,
        orders: Mapping[str, Scores],
        images: ImageSet | None,
        removed: Sequence[int],
    ) -> None:
        self.explorer = explorer
        self._class_names = class_names_of(explorer.test.meta, explorer.classes)
        self._orders, self._images = orders, images
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._exact: dict[bytes, float] = {}
        self._posting = threading.RLock()
        self._idle = WhenIdle(self._search, self._failed)
        self.full = explorer.state()
        explorer.remove(removed)
        super().__init__(
            orders=list(orders),
            order=next(iter(orders)),
            also_removed=spans_of(explorer.removed),
        )
        self._changed()
        self.dimension = int(self._sorted[0])
        self._show_images()
        mask = ["order", "largest_first", "n_removed", "also_removed", "kept_anyway"]
        self.observe(self._changed, mask)
        self.observe(self._show_images, "dimension")
        self.on_msg(lambda _, content, __: self.toggle(content["toggle"]))

    def __repr__(self) -> str:
        return f"Exploration({self.explorer.kept.sum()} of {len(self.explorer.kept)} kept)"

    @property
    def removed(self) -> np.ndarray:
        """Dimensions that are removed, ascending."""
        return self.explorer.removed

    @property
    def mask(self) -> DimensionMask:
        """The current mask: 1 for a kept dimension, 0 for a removed one."""
        return DimensionMask(self.explorer.kept.astype(np.float64))

    @property
    def code(self) -> str:
        """Python that reproduces the view's numbers, and the view, from ``train`` and ``test``."""
        return code_of(self.explorer)

    @property
    def exact_accuracy(self) -> float | None:
        """Exact kNN accuracy on the kept dimensions, once it is there."""
        return self._exact.get(self.explorer.kept.tobytes())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the exact search to end, at most ``timeout`` seconds; whether it has."""
        return self._idle.wait(timeout)

    def close(self) -> None:
        """Stop the search and take the widget off the page."""
        self._idle.cancel()
        self._idle.wait()
        super().close()

    def toggle(self, dimension: int) -> None:
        """Keep a removed dimension, or remove a kept one, at any place of the order."""
        removes = bool(self.explorer.kept[dimension])
        try:
            also, anyway = (each - {dimension} for each in self._by_hand())
            if removes != (dimension in self._sorted[: self.n_removed]):
                (also if removes else anyway).add(dimension)
            self.explorer.checked({*self._sorted[: self.n_removed].tolist(), *also} - anyway)
        except ValueError as error:
            self.message = str(error)
            return
        self.also_removed, self.kept_anyway = spans_of(also), spans_of(anyway)
        self.dimension = dimension

    @validate("n_removed", "dimension")
    def _within(self, proposal: Any) -> int:
        return min(max(proposal.value, 0), len(self.explorer.kept) - 1)

    @validate("order")
    def _one_of(self, proposal: Any) -> str:
        if proposal.value not in self._orders:
            raise Refusal(f"order must be one of {list(self._orders)}; got {proposal.value!r}.")
        return proposal.value

    def _changed(self, _: Any = None) -> None:
        """Read the controls and show their mask, or say why it cannot be."""
        try:
            order = self._in_order()
            also, anyway = self._by_hand()
            removed = {*order[: self.n_removed].tolist(), *also} - anyway
            self.explorer.checked(removed)
        except ValueError as error:
            self.message = str(error)
            return
        self._sorted, self._sorted_by = order, self.order
        with self._posting:  # from here on the thread cannot post
            self._idle.cancel()
            self.explorer.remove(removed)
        self.state = self.explorer.state()
        self.message = ""
        self._show()
        self._idle.restart()

    def _in_order(self) -> np.ndarray:
        scores, ties = self._scores(self.order)
        sign = -1 if self.largest_first else 1
        return np.lexsort((sign * ties, sign * scores, np.isnan(scores)))

    def _scores(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in self._known:
            self._known[name] = self._orders[name]()
        return self._known[name]

    def _by_hand(self) -> tuple[set[int], set[int]]:
        also = parse_spans("also removed", self.also_removed)
        return also, parse_spans("kept anyway", self.kept_anyway)

    def _search(self, cancelled: Callable[[], bool]) -> None:
        """Put the exact accuracy in place of the candidates', then choose better candidates."""
        key = self.explorer.kept.tobytes()
        if key not in self._exact:
            accuracy = self.explorer.exact_knn(cancelled)
            with self._posting:
                if accuracy is None or cancelled():
                    return
                self._exact[key] = accuracy
                self._show()
        chosen = self.explorer.choose_candidates(cancelled)
        with self._posting:
            if chosen is not None and not cancelled():
                self.explorer.use_candidates(chosen)

    def _failed(self, error: Exception) -> None:
        self.message = f"The exact kNN search failed: {type(error).__name__}: {error}"

    def _show(self) -> None:
        state, full, n_test = self.state, self.full, len(self.explorer.test)
        if self.exact_accuracy is None:
            some = f"{state.n_knn_rows:,} of {n_test:,} test rows; the full search follows"
            knn = _reading(state.knn_accuracy, full.knn_accuracy, "candidates only", some)
        else:
            before = self._exact.get(full.kept.tobytes())
            knn = _reading(self.exact_accuracy, before, "exact", f"all {n_test:,} test rows")
        first = "largest first" if self.largest_first else "smallest first"
        self.shown = {
            "caption": f"{self._sorted_by} of each dimension, {first}",
            "dimensions": self._sorted.tolist(),
            "scores": _listed(self._scores(self._sorted_by)[0][self._sorted]),
            "mask": state.kept.astype(int).tolist(),
            "ridge": _reading(
                state.ridge_accuracy, full.ridge_accuracy, "exact refit", "all test rows"
            ),
            "knn": knn,
            "rank": _listed(np.array([state.effective_rank, full.effective_rank])),
            "classes": class_changes(state, full, self._class_names),
            "n_classes": int(np.isfinite(state.ridge_per_class).sum()),
            "spectrum": state.singular_values.tolist(),
            "spectrum_of_all": full.singular_values.tolist(),
            "code": self.code,
        }

    def _show_images(self, _: Any = None) -> None:
        if self._images is None:
            return
        values = self.explorer.test.features[:, self.dimension]
        rows = np.argsort(-values, kind="stable")[:_N_IMAGES]
        known, names = self._images.labels, self._images.class_names
        labels = ["no label" if known is None else str(known[row]) for row in rows]
        if known is not None and names:
            labels = [names[known[row]] for row in rows]
        listed = [f"{name} ({value:.3g})" for name, value in zip(labels, values[rows], strict=True)]
        self.tiles = tiles_of(self._images.images[rows])
        self.tiles_text = "Largest activations, class and value from the left: " + ", ".join(listed)


def class_changes(state: MaskState, full: MaskState, names: np.ndarray) -> list[dict[str, Any]]:
    """List the classes in which the ridge's accuracy differs most from that of all dimensions."""
    change = state.ridge_per_class - full.ridge_per_class
    known = np.flatnonzero(~np.isnan(change))
    largest = known[np.argsort(-np.abs(change[known]), kind="stable")[:_MOST_CLASSES]]
    accuracy = state.ridge_per_class
    return [
        {"name": str(names[c]), "accuracy": float(accuracy[c]), "change": float(change[c])}
        for c in np.sort(largest)
    ]


def tiles_of(images: np.ndarray) -> str:
    """Render images (n, C, H, W), uint8, side by side and enlarged, as the URL of a PNG."""
    from PIL import Image

    factor = max(1, _TALL // images.shape[2])
    colour = images if images.shape[1] == 3 else np.repeat(images, 3, axis=1)
    large = colour.repeat(factor, axis=2).repeat(factor, axis=3).transpose(0, 2, 3, 1)
    framed = np.pad(large, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=204)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(framed), axis=1)).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _reading(accuracy: float, before: float | None, kind: str, rows: str) -> dict[str, Any]:
    return {"accuracy": accuracy, "before": before, "kind": kind, "rows": rows}


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]  # JSON has no NaN
