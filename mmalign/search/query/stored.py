"""The embedding of a picture that is in the collection: it needs no encoder to be searched with."""

from __future__ import annotations

import numpy as np

from mmalign.media import Media, MediaPolicy, is_url, read_media, sha256_hex, to_uri, uri_to_path
from mmalign.store import Store
from mmalign.utils import Float32Array, Int64Array, l2_normalize


def stored_picture(store: Store, uri: str, *, policy: MediaPolicy | None = None) -> Float32Array | Media | None:
    """Find the embedding of a picture among the items.

    A file is known by its place, as long as its size and its time are those that it was read with; any picture by the
    SHA-256 of its bytes.

    Args:
        store: The items.
        uri: A path, a `file://` URI or an http(s) URL.
        policy: What may be read; None for that of the environment.

    Returns:
        The embedding, shape (dim,), float32, of length 1 (it is kept as float16); or what was read to find that there
        is none; or None for an empty collection.

    Raises:
        DecodeError: The picture cannot be read.
    """
    if not len(store):
        return None
    policy = MediaPolicy.from_environment() if policy is None else policy
    path = None if is_url(uri) else uri_to_path(uri)
    if path is not None and policy.allow_files:
        rows, table = store.find("uri", to_uri(uri), ["bytes", "mtime_ns", "sha256"])
        try:
            status = path.stat()
        except OSError:
            # To read it says why.
            rows = rows[:0]
        for row, kept in zip(rows, table.to_pylist(), strict=False):
            if kept["sha256"] and (kept["bytes"], kept["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
                return _embedding(store, np.array([row], np.int64))
    media = read_media(uri if path is None else to_uri(uri), policy=policy)
    rows, _ = store.find("sha256", sha256_hex(media.data), ["id"])
    return _embedding(store, rows[:1]) if len(rows) else media


def _embedding(store: Store, rows: Int64Array) -> Float32Array:
    vector: Float32Array = l2_normalize(store.embeddings(rows)[1].astype(np.float32))[0]
    return vector
