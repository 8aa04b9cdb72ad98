"""Results derive table, summary, repr and file from their declared fields."""

import base64
import html
import re
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from dimlab.mask import MaskTrace
from dimlab.probes.confirm_harmful import HarmfulDimensions
from dimlab.result import ABSENT, Result, column, detail, entries, entry, per, scalar, verdict_of


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Cohesion(Result):
    """How close the samples of a class lie.

    Examples
    --------
    >>> Cohesion.__name__
    'Cohesion'
    """

    TABLES = (("rows", "_rows"), ("nothing", "_nothing"))

    n_samples: int = scalar("Number of samples.", key="n")
    note: str = scalar("A remark.", optional=True, default="")

    @column
    def dimension(self):
        """Index of the dimension."""
        return np.arange(len(self.spread))

    spread: np.ndarray = per("dimension", "Mean spread within the classes.")
    by_class: np.ndarray = per("dimension", "The same of each class.", shape="(D, K)")
    other: np.ndarray | None = per("dimension", "Another.", column="another", default=None)

    @entry
    def n_tight(self):
        """Dimensions whose spread is below 0.1."""
        return (self.spread < 0.1).sum()

    @entry
    def remark(self):
        """Left out where there is nothing to say."""
        return "tight" if (self.spread < 0.1).all() else ABSENT

    @entries
    def of_dimensions(self):
        """One entry a tight dimension."""
        return {f"spread_{d}": value for d, value in enumerate(self.spread) if value < 0.1}

    worst: float = scalar("Largest spread.", default=np.inf)
    kept: tuple = detail("Neither in table nor summary.", default=())

    def _rows(self):
        return self.to_frame()

    def _nothing(self):
        return None


def cohesion(**changes):
    given = {"n_samples": 3, "spread": np.array([0.0, 1.0]), "by_class": np.ones((2, 3))}
    return Cohesion(**given | changes)


def test_the_summary_and_the_table_follow_the_order_of_definition():
    assert cohesion().summary() == {"n": 3, "n_tight": 1, "spread_0": 0.0, "worst": None}
    assert list(cohesion(note="some").summary()) == ["n", "note", "n_tight", "spread_0", "worst"]
    assert cohesion(spread=np.zeros(2)).summary()["remark"] == "tight"
    assert list(cohesion(other=np.ones(2)).to_frame()) == ["dimension", "spread", "another"]


def test_fields_are_documented_by_their_declaration():
    assert "spread : ndarray of shape (D,)\n    Mean spread" in Cohesion.__doc__
    assert Cohesion.__doc__.index("Parameters") < Cohesion.__doc__.index("Examples")
    assert "by_class : ndarray of shape (D, K)" in Cohesion.__doc__


def test_tables_are_named_and_results_within_are_found():
    assert list(cohesion().tables()) == ["rows"]
    inner = cohesion()
    assert cohesion(kept=inner).parts() == {"kept": inner}
    assert inner.parts() == {}


def test_the_repr_is_one_line_and_html_shows_rows():
    assert repr(cohesion()) == "Cohesion(n=3, n_tight=1, spread_0=0)"
    assert "<table" in cohesion()._repr_html_()
    assert "Cohesion(n=3" in cohesion()._repr_html_()
    assert "<img" not in cohesion()._repr_html_()  # it has no figure


def test_html_shows_the_verdict_the_decided_rows_and_a_figure(monkeypatch):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    shown = HarmfulDimensions(
        reader="knn", refit=True, full_score=0.8, n_splits=20, n_train=100, n_test=100,
        groups=tuple(np.array([d]) for d in range(7)), selected_share=np.zeros(7),
        importance=np.array([0.3, -0.2, 0.1, -0.4, 0.0, 0.05, -0.01]),
        q_aggregated=np.array([1, 0.01, 1, 0.04, 1, 1, 1.0]),
    )  # fmt: skip
    text = shown._repr_html_()
    assert html.escape(verdict_of(shown).question) in text
    groups = re.findall(r"<tr>\s*<td>(\d)", text)
    assert groups == ["3", "1", "0", "2", "5"]
    data = re.search(r'src="data:image/png;base64,([^"]+)"', text)[1]
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert plt.get_fignums() == before
    monkeypatch.setitem(sys.modules, "seaborn", None)  # as where it is not installed
    assert "<img" not in shown._repr_html_()


def test_a_figure_without_axes_is_a_new_one():
    import matplotlib.pyplot as plt

    own = plt.figure()
    axes = MaskTrace(np.arange(2), np.full((2, 3), 0.5)).plot()
    assert axes.figure is not own
    assert own.axes == []
    plt.close("all")


def test_results_of_other_packages_are_saved_and_loaded(tmp_path):
    path = cohesion(kept=(1, "a")).save(tmp_path / "cohesion.result.npz")
    again = Cohesion.load(path)
    np.testing.assert_array_equal(again.spread, [0.0, 1.0])
    assert again.kept == (1, "a")

    class Other(Result):
        """Another class."""

    with pytest.raises(TypeError, match=r"class Other; got Cohesion. Read it with Cohesion\.load"):
        Other.load(path)
