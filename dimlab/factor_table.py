"""Where `join_factors` stood up to 0.6: scripts import it from here."""

from dimlab.io.tables import join_factors as join_factors
