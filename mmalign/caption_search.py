"""Image-to-text: the captions in a collection's metadata as texts that a query can find.

Text and picture embeddings lie apart from one another in a contrastive space, so captions are kept in a store of
their own beside the items: mixed in, they would crowd the pictures out of every text query's hits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from mmalign.encoders.base import Encoder
from mmalign.errors import CollectionFormatError
from mmalign.progress import track
from mmalign.searcher import Searcher
from mmalign.similarity import Float32Array
from mmalign.store.lance_store import Store
from mmalign.types import Hit

# One commit: some ten seconds of encoding, which is what a power cut can cost.
_CHUNK = 4096


def refresh_captions(
    path: Path, items: Store, encoder: Callable[[], Encoder], *, dim: int, progress: bool = True
) -> Store | None:
    """Bring the store of captions in line with the captions of the items; only new captions are encoded.

    Args:
        path: Where the store of captions is, or will be.
        items: The items, at the version to follow.
        encoder: Gives the encoder; called only when a caption must be encoded.
        dim: Width of its embeddings.
        progress: Whether to show a progress bar.

    Returns:
        The store of captions: `id` is made of item and text, `uri` holds the item's id, `captions` the text. None
        where no item has a caption.

    Raises:
        StorageError: The disk refused.
    """
    _, table = items.scan(["id", "captions"], where="captions IS NOT NULL")
    wanted = {
        _caption_id(item, caption): (item, caption)
        for item, captions in zip(*(column.to_pylist() for column in table.columns), strict=True)
        for caption in captions
    }
    if not wanted and not path.exists():
        return None
    store = _open(path, dim)
    row_ids, present = store.scan(["id"])
    have = present.column("id").to_pylist()
    store.delete(row_ids[[i for i, name in enumerate(have) if name not in wanted]])
    known = set(have)
    missing = [(name, *pair) for name, pair in wanted.items() if name not in known]
    with track("Captions", len(missing), enabled=progress and bool(missing)) as advance:
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            vectors = encoder().encode_text([caption for _, _, caption in chunk])
            rows = [
                {"id": name, "uri": item, "kind": "caption", "captions": [caption]} for name, item, caption in chunk
            ]
            store.upsert(rows, vectors)
            advance(len(chunk))
    store.compact()
    return store


def search_captions(
    captions: Store, items: Store, vector: Float32Array, k: int, *, where: str | None = None
) -> tuple[Hit, ...]:
    """Find the captions nearest to a vector.

    Args:
        captions: What `refresh_captions` gave.
        items: The items that they belong to.
        vector: Shape (dim,), float32, of length 1.
        k: How many, at least 0.
        where: SQL over the columns of the items.

    Returns:
        One hit a caption, best first: `id` and `uri` of its item, and `metadata["captions"]` holding it alone.

    Raises:
        FilterError: The filter names an unknown column or is not valid SQL.
    """
    _, table = items.scan(["id", "uri"], where=where)
    uris = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    row_ids, table = captions.scan(["uri"])
    allowed = row_ids[[item in uris for item in table.column("uri").to_pylist()]]
    found = Searcher(captions, None, None).search(vector[None], k, allowed=allowed)
    told = captions.take(found.row_ids[0], ["uri", "captions"]).to_pylist() if found.row_ids.size else []
    return tuple(
        Hit(row["uri"], uris[row["uri"]] or "", float(score), metadata={"captions": row["captions"]})
        for score, row in zip(found.scores[0], told, strict=True)
    )


def _open(path: Path, dim: int) -> Store:
    try:
        return Store.open(path)
    except CollectionFormatError:
        # Not there yet, or half made by a process that was killed: nothing in it is worth keeping.
        return Store.create(path, dim=dim, overwrite=path.exists())


def _caption_id(item: str, caption: str) -> str:
    return hashlib.blake2b(f"{item}\n{caption}".encode(), digest_size=12).hexdigest()
