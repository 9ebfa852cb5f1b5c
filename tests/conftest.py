"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of one megabyte; where none can be mounted, the test is skipped."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on a file system of its own, and what makes that one that may only be read."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")

    def close() -> None:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)

    yield folder, close
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Child processes that can be interrupted also where this one cannot.

    A shell starts background jobs with SIGINT ignored, and children inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
