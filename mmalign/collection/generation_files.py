"""What lies where on disk of a collection's generations, who may write there, and removing those that are not in use.

A search looks at `collection.json` before it begins, and holds no lock; what it may still read therefore stays for an
hour after it was replaced.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.collection.description import FILE, CollectionManifest
from mmalign.collection.query_log import QUERIES
from mmalign.collection.views import remove_views
from mmalign.errors import CollectionError
from mmalign.utils import lock

LOCK = ".lock"
"""Writers share it, and who puts the next generation in use holds it alone: nothing that is written is left behind."""
REENCODE_LOCK = ".reencode.lock"
"""Held by who makes the next generation."""
ITEMS, INDEX = "items.lance", "index"
WORK = "vectors.lance"
"""Embeddings by the digest of a picture's bytes, while a generation is made."""
# How long an earlier generation stays, so that a search in another process can finish with it.
_KEEP_SECONDS = 3600.0
# How long to wait for those that write, where nobody else may.
_WAIT_FOR_WRITERS = 60.0


@contextmanager
def alone_in_writing(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a collection while the block runs; what they are writing is waited for.

    Args:
        path: The collection.

    Raises:
        CollectionError: Another process has been writing for a minute.
    """
    deadline = time.monotonic() + _WAIT_FOR_WRITERS
    while True:
        with lock(path / LOCK, wait=False) as alone:
            if alone:
                yield
                return
        if time.monotonic() > deadline:
            raise CollectionError(f"another process is writing to {path}; wait until it is done, or stop it")
        time.sleep(0.05)


def clear_earlier(path: Path, *, at_once: bool = False) -> None:
    """Remove the generations before the one in use, an hour after that was put in use.

    A search looks at `collection.json` before it begins, so that after an hour none can be at work on them.

    Args:
        path: The collection.
        at_once: Do not wait for the hour: processes that search at this moment may fail, and can search again.
    """
    description = CollectionManifest.read(path)
    if description.generation == 1:
        return
    shutil.rmtree(description.data(path) / WORK, ignore_errors=True)
    earlier = [path, *(folder for number, folder in _generations(path) if number < description.generation)]
    for folder in earlier:
        # No search reads it, and its vectors are of another encoder.
        (folder / QUERIES).unlink(missing_ok=True)
    age = time.time() - (path / FILE).stat().st_mtime
    if not at_once and age < _KEEP_SECONDS:
        return
    for name in (ITEMS, INDEX):
        shutil.rmtree(path / name, ignore_errors=True)
    remove_views(path)
    for number, folder in _generations(path):
        if number < description.generation:
            shutil.rmtree(folder, ignore_errors=True)


def clear_unfinished(path: Path) -> None:
    """Remove a generation that was begun and never put in use; only while `REENCODE_LOCK` is held.

    Args:
        path: The collection.
    """
    used = CollectionManifest.read(path).generation
    for number, folder in _generations(path):
        if number > used:
            shutil.rmtree(folder)


def _generations(path: Path) -> list[tuple[int, Path]]:
    found = [(folder.name.rpartition("-")[2], folder) for folder in path.glob("generation-*")]
    return [(int(number), folder) for number, folder in found if number.isdecimal()]
