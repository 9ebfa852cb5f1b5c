"""Whether the files that a collection names are still where they were."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.media import uri_to_path
from mmalign.types import Note

if TYPE_CHECKING:
    from mmalign.collection import Collection

# To ask for each file takes microseconds on a disk, and milliseconds over a network.
_LOOKED = 200


def gone_note(uris: Iterable[str], *, what: str, collection: Path) -> Note | None:
    """Say how many files are gone.

    Args:
        uris: Where they were; addresses on the web are passed over.
        what: What they are, in words.
        collection: Whose they are.

    Returns:
        The remark; None where all that were looked at, the first 200, are there.
    """
    paths = [path for uri in uris if uri and (path := uri_to_path(uri)) is not None][:_LOOKED]
    gone = sum(not path.exists() for path in paths)
    if not gone:
        return None
    return Note(
        f"{gone:,} of {len(paths):,} {what} are gone",
        remedy=f"where their folder was moved, mmalign index NEWFOLDER --collection {shlex.quote(str(collection))} "
        "finds them again",
        about="files",
    )


def gone_items(opened: Collection) -> Note | None:
    """Look at some files of a collection, spread over all of it.

    Args:
        opened: The collection.

    Returns:
        The remark; None where all that were looked at are there.
    """
    store = opened.snapshot()
    rows = store.row_ids(where="kind <> 'vector'")
    chosen = rows[:: max(1, len(rows) // _LOOKED)][:_LOOKED]
    if not len(chosen):
        return None
    what = "files" if len(chosen) == len(rows) else f"files looked at, out of {len(rows):,},"
    return gone_note(store.take(chosen, ["uri"]).column("uri").to_pylist(), what=what, collection=opened.path)
