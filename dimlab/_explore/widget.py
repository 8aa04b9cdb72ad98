"""The notebook widget: controls, readouts, and the exact search in the background."""

from __future__ import annotations

import html
import importlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dimlab._explore.background import WhenIdle
from dimlab._explore.drawing import as_png, draw_classes, draw_spectrum, strip_of, tiles_of
from dimlab._explore.state import Explorer
from dimlab._explore.words import code_of, pages_of, parse_spans, reading_of, spans_of
from dimlab.figures.house import BLUE, ORANGE
from dimlab.images import ImageSet
from dimlab.mask import DimensionMask

_PAGE = 32  # dimensions shown as buttons
_N_IMAGES = 8

Scores = Callable[[], tuple[np.ndarray, np.ndarray]]  # of each dimension, and what decides ties


class Exploration:
    """The notebook widget; build it with `explore`."""

    def __init__(
        self,
        explorer: Explorer,
        orders: Mapping[str, Scores],
        images: ImageSet | None,
        removed: Sequence[int],
    ) -> None:
        self.explorer = explorer
        self._orders, self._images = orders, images
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._exact: dict[bytes, float] = {}
        self._lock, self._quiet = threading.RLock(), False
        self._idle = WhenIdle(self._search, self._failed)
        self.full = explorer.state()
        self._chosen = next(iter(orders))
        self._sorted = self._order(self._chosen, True)
        explorer.remove(removed)
        self._build(spans_of(explorer.removed))
        self._show_page()
        self._show_images()
        self._apply()

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
        for widget in (*_widgets_of(self.box), self.dimension, self.tiles_text, self.tiles):
            widget.close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    # What is on the page

    def _build(self, removed: str) -> None:
        w = load_ipywidgets()
        n_dimensions = self.explorer.train.n_dimensions
        wide, style = w.Layout(width="98%"), {"description_width": "initial"}
        self.order = w.Dropdown(options=list(self._orders), description="sort by", style=style)
        self.direction = w.ToggleButtons(
            options=["largest first", "smallest first"], style={"button_width": "10em"}
        )
        self.slider = w.IntSlider(
            *(0, 0, max(n_dimensions - 1, 1)),
            description="dimensions removed",
            style=style,
            layout=wide,
            disabled=n_dimensions == 1,
        )
        self.strip, self.classes, self.spectrum = (w.Image(format="png") for _ in range(3))
        self.strip.layout = wide
        self.readout, self.caption, self.message = w.HTML(), w.HTML(), w.HTML()
        spans = {"continuous_update": False, "style": style, "layout": wide}
        spans["placeholder"] = "dimensions and ranges, such as 3, 17, 40-60"
        self.also_removed = w.Text(removed, description="also removed", **spans)
        self.kept_anyway = w.Text("", description="kept anyway", **spans)
        self.page = w.Dropdown(
            options=pages_of(n_dimensions, _PAGE), description="places", style=style
        )
        self.buttons = [
            w.ToggleButton(layout=w.Layout(width="auto")) for _ in range(min(_PAGE, n_dimensions))
        ]
        grid = w.GridBox(
            self.buttons,
            layout=w.Layout(grid_template_columns="repeat(8, 1fr)", grid_gap="2px", width="98%"),
        )
        self.dimension = w.BoundedIntText(
            int(self._sorted[0]), min=0, max=n_dimensions - 1, description="dimension", style=style
        )
        self.tiles, self.tiles_text = w.Image(format="png"), w.HTML()
        self.mask_text, self.code_text = (
            w.Textarea(rows=rows, layout=wide, description=name, style=style)
            for rows, name in ((3, "mask"), (16, "code"))
        )
        parts = {
            "Dimensions": w.VBox([self.also_removed, self.kept_anyway, self.page, grid]),
            "Images": w.VBox([self.dimension, self.tiles_text, self.tiles]),
            "Export": w.VBox([self.mask_text, self.code_text]),
        }
        if self._images is None:
            del parts["Images"]
        self.parts = w.Tab(list(parts.values()), titles=list(parts))
        self.box = w.VBox(
            [
                w.HBox([self.order, self.direction]),
                *(self.slider, self.caption, self.strip, self.message, self.readout),
                w.HBox([self.classes, self.spectrum], layout=w.Layout(flex_flow="row wrap")),
                self.parts,
            ]
        )
        for control in (self.order, self.direction, self.slider):
            control.observe(self._changed, "value")
        for control in (self.also_removed, self.kept_anyway):
            control.observe(self._changed, "value")
        for place, button in enumerate(self.buttons):
            button.observe(lambda change, place=place: self._pressed(place, change.new), "value")
        self.page.observe(lambda _: self._show_page(), "value")
        self.dimension.observe(lambda _: self._show_images(), "value")

    # What happens

    def _changed(self, _: Any = None) -> bool:
        """Read the controls and show their mask; whether it could be."""
        if self._quiet:
            return True
        try:
            order = self._order(self.order.value, self.direction.index == 0)
        except ValueError as error:  # the dimensions cannot be sorted by that
            self._put(self.order, self._chosen)
            self._say(str(error))
            return False
        try:
            removed = set(order[: self.slider.value].tolist())
            removed |= parse_spans("also removed", self.also_removed.value)
            removed -= parse_spans("kept anyway", self.kept_anyway.value)
            self.explorer.checked(removed)
        except ValueError as error:
            self._say(str(error))
            return False
        self._sorted, self._chosen = order, self.order.value
        with self._lock:  # from here on the thread cannot post
            self._idle.cancel()
            self.explorer.remove(removed)
        self._apply()
        return True

    def _pressed(self, place: int, removed: bool) -> None:
        if self._quiet:
            return
        dimension = int(self._sorted[self._shown[place]])
        texts = self.also_removed.value, self.kept_anyway.value
        by_slider = dimension in self._sorted[: self.slider.value]
        try:
            also = parse_spans("also removed", texts[0]) - {dimension}
            anyway = parse_spans("kept anyway", texts[1]) - {dimension}
        except ValueError as error:
            self._say(str(error))
            self._show_page()
            return
        if removed != by_slider:
            (also if removed else anyway).add(dimension)
        self._put(self.also_removed, spans_of(also))
        self._put(self.kept_anyway, spans_of(anyway))
        if not self._changed():
            self._put(self.also_removed, texts[0])
            self._put(self.kept_anyway, texts[1])
            self._show_page()
        self.dimension.value = dimension

    def _put(self, control: Any, value: Any) -> None:
        """Set a control without acting on it."""
        self._quiet = True
        control.value = value
        self._quiet = False

    def _apply(self) -> None:
        """Show the state of the current mask, and search exactly when idle."""
        self.state = self.explorer.state()
        self._say("")
        self._show_readout()
        self._show_page()
        scores = self._scores(self._chosen)[0][self._sorted]
        self.strip.value = strip_of(scores, self.state.kept[self._sorted])
        self.caption.value = (
            f"{html.escape(self._chosen)} of each dimension, {self.direction.value}; "
            f'<span style="color:{ORANGE}">orange: removed</span>, '
            f'<span style="color:{BLUE}">blue: kept</span>'
        )
        self.classes.value = as_png(draw_classes(self.state, self.full, self.explorer.classes))
        self.spectrum.value = as_png(draw_spectrum(self.state, self.full))
        self.mask_text.value = json.dumps(self.state.kept.astype(int).tolist())
        self.code_text.value = self.code
        self._idle.restart()

    def _search(self, cancelled: Callable[[], bool]) -> None:
        """Put the exact accuracy in place of the candidates', then choose better candidates."""
        key = self.explorer.kept.tobytes()
        if key not in self._exact:
            accuracy = self.explorer.exact_knn(cancelled)
            with self._lock:
                if accuracy is None or cancelled():
                    return
                self._exact[key] = accuracy
                self._show_readout()
        chosen = self.explorer.choose_candidates(cancelled)
        with self._lock:
            if chosen is not None and not cancelled():
                self.explorer.use_candidates(chosen)

    def _failed(self, error: Exception) -> None:
        self._say(f"The exact kNN search failed: {type(error).__name__}: {error}")

    def _order(self, name: str, largest_first: bool) -> np.ndarray:
        scores, ties = self._scores(name)
        sign = -1 if largest_first else 1
        return np.lexsort((sign * ties, sign * scores, np.isnan(scores)))

    def _scores(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in self._known:
            self._known[name] = self._orders[name]()
        return self._known[name]

    # What is shown

    def _say(self, text: str) -> None:
        shown = f'<div role="alert" style="color:{ORANGE}">{html.escape(text)}</div>'
        self.message.value = shown if text else ""

    def _show_readout(self) -> None:
        state, full = self.state, self.full
        exact = self.exact_accuracy
        if exact is not None:
            before = self._exact.get(full.kept.tobytes())
            knn = exact, before, "exact", f"all {len(self.explorer.test):,} test rows"
        else:
            some = f"{state.n_knn_rows:,} of {len(self.explorer.test):,} test rows"
            knn = (
                state.knn_accuracy,
                full.knn_accuracy,
                "candidates only",
                f"{some}; the full search follows",
            )
        ridge = state.ridge_accuracy, full.ridge_accuracy, "exact refit", "all test rows"
        rank = f"{state.effective_rank:.1f} (all dimensions: {full.effective_rank:.1f})"
        n_kept = int(state.kept.sum())
        self.readout.value = (
            '<div aria-live="polite" style="font-size:1.1em; line-height:1.6">'
            f"{reading_of('ridge', *ridge)}<br>{reading_of('knn', *knn)}<br>"
            f"<b>effective rank</b> {rank} · <b>kept</b> {n_kept} of {len(state.kept)}</div>"
        )

    def _show_page(self) -> None:
        first = int(self.page.value)
        self._shown = range(first, min(first + _PAGE, len(self._sorted)))
        scores = self._scores(self._chosen)[0]
        self._quiet = True
        for place, button in enumerate(self.buttons):
            with button.hold_sync():
                there = place < len(self._shown)
                button.disabled = not there
                button.layout.visibility = "visible" if there else "hidden"
                if there:
                    dimension = int(self._sorted[self._shown[place]])
                    removed = not self.explorer.kept[dimension]
                    button.value = removed
                    button.description = f"✕ {dimension}" if removed else str(dimension)
                    button.button_style = "warning" if removed else ""
                    button.tooltip = f"dimension {dimension}: {scores[dimension]:.4g}"
        self._quiet = False

    def _show_images(self) -> None:
        if self._images is None:
            return
        values = self.explorer.test.features[:, self.dimension.value]
        rows = np.argsort(-values, kind="stable")[:_N_IMAGES]
        self.tiles.value = tiles_of(self._images.images[rows])
        known, names = self._images.labels, self._images.class_names
        ids = [] if known is None else known[rows].tolist()
        labels = [str(names[label] if names else label) for label in ids] or ["no label"] * len(
            rows
        )
        listed = ", ".join(
            f"{label} ({value:.3g})" for label, value in zip(labels, values[rows], strict=True)
        )
        self.tiles_text.value = html.escape(
            f"Largest activations, class and value from the left: {listed}"
        )


def load_ipywidgets() -> Any:
    """Import ipywidgets, or say how to install it."""
    try:
        return importlib.import_module("ipywidgets")
    except ImportError as error:
        raise ImportError(
            "explore must have ipywidgets installed; got no such package. Run pip install "
            '"dimlab[notebooks]".'
        ) from error


def _widgets_of(widget: Any) -> Iterator[Any]:
    for child in getattr(widget, "children", ()):
        yield from _widgets_of(child)
    yield widget
