"""How figures of the gallery are drawn; `conf.py` passes `reset` to sphinx-gallery."""

from typing import Any

import matplotlib as mpl


def reset(gallery_conf: dict[str, Any], name: str) -> None:
    """Set the size of figures before each example, and keep labels outside the axes visible."""
    mpl.rcParams.update({"figure.figsize": (7.5, 4.2), "figure.dpi": 100, "savefig.bbox": "tight"})
