"""Which collection a command means, and opening it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.cli.output import say
from mmalign.errors import AddInterrupted, InputError

if TYPE_CHECKING:
    from mmalign.collection import Collection
    from mmalign.types import AddReport


def open_collection(collection: Path | None) -> Collection:
    """Open the collection that the option means, else the one that is found."""
    from mmalign.collection import Collection, locate_collection

    return Collection.open(locate_collection(collection))


def say_which(opened: Collection, collection: Path | None) -> None:
    """Say which collection has answered, where the command line names none."""
    if collection is None:
        say(f"collection: {display_path(opened.path)}")


def named(collection: Path | None, place: Path | None) -> Path | None:
    """The collection that a command line names, by `--collection` or as its argument.

    Args:
        collection: The option.
        place: The argument: a collection, or the folder that it was made of.

    Returns:
        Its path; None where neither is given.

    Raises:
        InputError: Both are given.
    """
    from mmalign.collection import FILE
    from mmalign.media import default_collection_path

    if place is None:
        return collection
    if collection is not None:
        raise InputError(f"--collection {collection} and {place} both name a collection; give one of them")
    if (place / FILE).is_file() or not place.is_dir():
        return place
    beside = default_collection_path(str(place))
    return place if beside is None or not (beside / FILE).is_file() else beside


@contextmanager
def no_empty_one(path: Path) -> Iterator[None]:
    """Leave no collection behind that the block made and put nothing into, where it fails or is stopped.

    Args:
        path: The collection; one that was there before stays.
    """
    existed = path.exists()
    try:
        yield
    except BaseException:
        if not existed:
            _remove_empty(path)
        raise


def _remove_empty(path: Path) -> None:
    """Remove a collection that holds nothing, unless another process is writing to it."""
    from mmalign.collection import FILE, LOCK, Collection
    from mmalign.utils import lock

    if not (path / FILE).is_file():
        return
    with lock(path / LOCK, wait=False) as alone:
        if alone and not len(Collection.open(path)):
            shutil.rmtree(path)


def say_left(stop: AddInterrupted[AddReport]) -> None:
    """Say what Ctrl-C has left to do."""
    left = "while the source was read" if stop.left is None else f"with {stop.left:,} pictures left"
    kept = "what was encoded is kept" if stop.report.encoded else "nothing was encoded yet"
    say(f"stopped {left}; {kept}. Go on with the same command.")


def display_path(path: Path) -> str:
    """A path as a person would write it: from the working folder where it lies in it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
