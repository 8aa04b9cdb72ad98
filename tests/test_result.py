"""Results derive table, summary, repr and file from their declared fields."""

from dataclasses import dataclass

import numpy as np
import pytest

from dimlab.result import ABSENT, Result, column, detail, entries, entry, per, scalar


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


def test_results_of_other_packages_are_saved_and_loaded(tmp_path):
    path = cohesion(kept=(1, "a")).save(tmp_path / "cohesion.result.npz")
    again = Cohesion.load(path)
    np.testing.assert_array_equal(again.spread, [0.0, 1.0])
    assert again.kept == (1, "a")

    class Other(Result):
        """Another class."""

    with pytest.raises(TypeError, match=r"class Other; got Cohesion. Read it with Cohesion\.load"):
        Other.load(path)
