"""Tests of data sets read no cache and no network."""

import pytest


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """An empty cache, and a mirror that has nothing."""
    monkeypatch.setenv("DIMLAB_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("DIMLAB_MIRROR", (tmp_path / "no-mirror").as_uri())
