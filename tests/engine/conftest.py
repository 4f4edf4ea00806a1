"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lotteryfw.engine.kernels.sparse.backends import backends


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that finds no numba."""
    monkeypatch.setattr("lotteryfw.engine.kernels.sparse.backends.find_spec", lambda name: None)
    backends.cache_clear()
    yield
    backends.cache_clear()
