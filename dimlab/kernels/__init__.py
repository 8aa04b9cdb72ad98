"""Arithmetic that must be fast: pure functions of arrays, blocked, on a device."""
