"""Reading all that a collection holds and comparing it with its checksums."""

from __future__ import annotations

from mmalign.collection.generation import Generation
from mmalign.errors import IndexFileError
from mmalign.index import IndexManifest, lifecycle
from mmalign.search import belongs


def check_items(generation: Generation) -> list[str]:
    """Read every item, embedding and row of a view; as `Collection.check_items`.

    Args:
        generation: The collection as it is.

    Returns:
        One sentence for each that is damaged.
    """
    store = generation.latest()
    with store.reads_long():
        found = [one.describe() for one in store.find_damage(again=True)]
    return found + generation.captions.check()


def check_index(generation: Generation) -> IndexManifest | None:
    """Read every byte of the indexes in use; as `Collection.check_index`.

    Args:
        generation: The collection as it is.

    Returns:
        The manifest of the items' index, or None where there is none.

    Raises:
        IndexFileError: A file is missing or damaged, or the index was built from other items.
    """
    loaded = lifecycle.load_current(generation.index, verify=True)
    if loaded is not None and not belongs(generation.latest(), loaded[1]):
        raise IndexFileError(
            f"{generation.index} was built from other items than {generation.items} holds, as happens where a part "
            "of a collection was restored from an older copy; build the index again"
        )
    generation.captions.check_index()
    return None if loaded is None else loaded[1]
