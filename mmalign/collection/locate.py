"""Which collection is meant where a command names none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mmalign.collection.description import FILE, as_folder
from mmalign.errors import CollectionNotFoundError

VARIABLE = "MMALIGN_COLLECTION"


def locate_collection(
    explicit: str | Path | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Path:
    """Find the collection that is meant: the one named, else `$MMALIGN_COLLECTION`, else the nearest `*.mm`.

    Nearest means: in the working folder or the first of its parents that holds any, where the working folder's own
    collection (`photos.mm` beside `photos/`) goes before others.

    Args:
        explicit: What the caller named, if anything.
        environ: The environment; the process's own by default.
        folder: The working folder; the process's own by default.

    Returns:
        Path of the collection; that it exists is checked only for those found by searching.

    Raises:
        CollectionNotFoundError: None was found, or several are equally near; the text lists them.
        InputError: What was named is no folder of this machine.
    """
    if explicit is not None:
        return as_folder(explicit)
    named = (os.environ if environ is None else environ).get(VARIABLE)
    if named:
        return as_folder(named)
    start = (Path.cwd() if folder is None else folder).resolve()
    inside: str | None = None
    for parent in (start, *start.parents):
        found = _collections(parent)
        own = [path for path in found if path.name == f"{inside}.mm"]
        if len(own or found) == 1:
            return (own or found)[0]
        if found:
            names = "\n".join(f"  {path}" for path in found)
            raise CollectionNotFoundError(
                f"several collections in {parent}:\n{names}\nsay which with --collection, or set {VARIABLE}"
            )
        inside = parent.name
    raise CollectionNotFoundError(
        f"no collection in {start} or its parents; make one with `mmalign index FOLDER`, "
        f"name one with --collection, or set {VARIABLE}"
    )


def _collections(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.glob("*.mm") if (path / FILE).is_file())
    except OSError:
        return []
