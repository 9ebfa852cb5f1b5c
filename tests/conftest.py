"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data: `$MMALIGN_SHARED`, else `../shared`; the test is skipped where there is none."""
    folder = Path(os.environ.get("MMALIGN_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("shared data not found (set MMALIGN_SHARED)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded random generator, local to the test."""
    return np.random.default_rng(20240229)
