"""The figure of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimlab.figures.house import (
    BLUE,
    GREY,
    ORANGE,
    axes_or_current,
    finished,
    name_points,
    several,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.probes.profile import Profile

_FEW = 150  # dimensions, at most, whose dots are large


def plot_profile(result: Profile, *, ax: Axes | None = None) -> Axes:
    """Show each dimension by its mean and its share of the cosine similarity; outliers stand out.

    Parameters
    ----------
    result : Profile
        From `profile`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Dots above the upper dashed line, or to the right of the other one, are outliers: coloured
        and numbered. The dotted line is the share of each dimension if all were alike. Dead
        dimensions are not drawn, and counted in the title.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import profile
    >>> rng = np.random.default_rng(0)
    >>> found = profile(rng.normal(size=(200, 30)) + np.eye(30)[3] * 9)
    >>> axes = plot_profile(found, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.texts], axes.get_yscale()
    (['3'], 'log')
    """
    ax = axes_or_current(ax)
    n_dimensions = len(result)
    living = ~result.dead & (result.share > 0)
    ratio = np.abs(result.mean_over_deviation)
    size = 22 if n_dimensions <= _FEW else 8
    for colour, chosen, text in (
        (BLUE, living & ~result.outlier, "dimension"),
        (ORANGE, living & result.outlier, "outlier"),
    ):
        ax.scatter(
            ratio[chosen], result.share[chosen], c=colour, s=size, lw=0, alpha=0.8,
            label=f"{several(int(chosen.sum()), text)}", rasterized=n_dimensions > 500,
        )  # fmt: skip
    ax.axhline(10 / n_dimensions, color="black", lw=0.8, ls="--", label="rules of outliers")
    ax.axvline(5, color="black", lw=0.8, ls="--")
    ax.axhline(1 / n_dimensions, color=GREY, lw=0.8, ls=":", label="all alike")
    ax.set_yscale("log")
    shares = result.share[living]
    ax.set_ylim(
        min(0.3 / n_dimensions, shares.min(initial=1.0) / 2),
        2.5 * max(10 / n_dimensions, shares.max(initial=0.0)),
    )
    ax.set_xlim(-0.3, 1.15 * max(6.0, float(ratio[living].max(initial=0.0))))
    named = [d for d in result.outliers if living[d]]
    name_points(ax, ratio[named], result.share[named], [str(d) for d in named], most=10)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    dead = f", {result.n_dead} dead" if result.n_dead else ""
    title = titled(f"{several(result.n_outliers, 'outlier')} of {n_dimensions}{dead}", result)
    return finished(ax, "|mean| over standard deviation", "share of the cosine similarity", title)
