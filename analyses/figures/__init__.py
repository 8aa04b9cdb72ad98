"""Figures and tables that no single claim owns; ``python -m figures`` makes them, in ``analyses/``.

Each module has a ``TITLE``, ``measure(place)``, which returns plain numbers, ``draw(kept, figure)``
and ``caption(kept)``: what the paper claims, what is seen here, what would change the conclusion.
The numbers are kept in ``results/figures/``, so that pictures and captions are drawn again without
any training.
"""

NAMES = ("strips", "widths", "masks", "protocol", "encoders")
