"""What a collection says of itself: figures, and what its owner should know."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmalign.collection.generation import Generation
from mmalign.collection.recall import drift_notes, profile_of, recall_summary
from mmalign.collection.reencode import reencode_notes
from mmalign.errors import IndexFileError
from mmalign.index import check_estimate, lifecycle
from mmalign.types import Note


def summarize(generation: Generation) -> dict[str, Any]:
    """Say what a collection holds, as `Collection.info`.

    Args:
        generation: The collection as it is.

    Returns:
        Figures by name, and notes.
    """
    store, description = generation.latest(), generation.description
    manifest = lifecycle.read_manifest(generation.index)
    return {
        "collection": str(generation.path),
        "items": len(store),
        "encoder": description.encoder,
        "dim": description.dim,
        "metric": description.metric,
        "columns": {name: str(kind) for name, kind in store.columns.items()},
        "renamed": store.renamed,
        "index": None if manifest is None else manifest.recipe,
        "indexed": 0 if manifest is None else manifest.rows,
        "index_cost": None if manifest is None else manifest.cost(),
        "recall": recall_summary(profile_of(manifest)),
        "bytes": _bytes_under(generation.path),
        "query_log": _query_log(generation),
        "views": {generation.captions.name: generation.captions.summary()},
        "notes": owner_notes(generation),
    }


def owner_notes(generation: Generation) -> list[Note]:
    """Say what the owner of a collection should know, as `Collection.notes`.

    Args:
        generation: The collection as it is.
    """
    notes = reencode_notes(generation.path, generation.description)
    try:
        manifest = lifecycle.read_manifest(generation.index)
    except IndexFileError:
        return notes
    profile = profile_of(manifest)
    notes += () if profile is None else profile.notes
    notes += drift_notes(generation.latest(), manifest)
    if manifest is None:
        return notes
    cost = manifest.cost()
    return notes + check_estimate(cost["estimated"], cost["taken"], rows=manifest.rows)


def _query_log(generation: Generation) -> dict[str, Any] | None:
    """How many queries are kept, of how many, and how many at most; None where they never were."""
    asked = generation.description.query_log
    if asked is None:
        return None
    logged = generation.logged_queries()
    return {"kept": len(logged), "seen": logged.seen, "most": asked.most}


def _bytes_under(folder: Path) -> int:
    """Size of all files below a folder; what another process removes meanwhile counts nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118 - thousands of files
    return total
