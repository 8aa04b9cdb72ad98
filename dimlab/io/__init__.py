"""Files come in and go out here: features, tables, weights, and how they are written."""
