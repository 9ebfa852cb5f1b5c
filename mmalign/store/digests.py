"""Which digests of pictures there are, in eight bytes each."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmalign.store.lance_store import Store

_HEX_DIGITS = 64
# Odd, so that no digit is lost; what two digests share by chance is told apart by all their digits.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 65_536
# Digests that came lately are kept in a set, which is slower to read through but quicker to add to.
_RECENT = 65_536


class Digests:
    """A set of digests; one in a million million that is said to be in it is not.

    One thread may add to it while others ask.

    Args:
        keys: What `digest_keys` gives of the digests that are in it from the beginning.
    """

    def __init__(self, keys: NDArray[np.uint64] | None = None) -> None:
        self._keys = np.zeros(0, np.uint64) if keys is None else np.unique(keys)
        self._recent: set[int] = set()

    @classmethod
    def read(cls, store: Store, *, without: Collection[int] = ()) -> Digests:
        """Read the digests of all items.

        Args:
            store: The items.
            without: Row ids of items that do not count.

        Returns:
            The digests.

        Raises:
            StorageError: The items cannot be read.
        """
        found = [np.zeros(0, np.uint64)]
        left_out = np.array(sorted(without), np.int64)
        for row_ids, batch in store.iter_rows(["sha256"], rows=_BLOCK, check=False):
            digests = batch.column("sha256")
            if len(left_out):
                digests = digests.filter(pa.array(~np.isin(row_ids, left_out)))
            found.append(digest_keys(pc.drop_null(digests)))
        return cls(np.concatenate(found))

    def __contains__(self, digest: str) -> bool:
        key = _key(digest)
        # In this order: what moves from the one to the other is in both meanwhile.
        return int(key) in self._recent or self._holds(key)

    def add(self, digest: str) -> None:
        """Take in a digest.

        Args:
            digest: SHA-256 in hexadecimal.
        """
        self._recent.add(int(_key(digest)))
        if len(self._recent) > _RECENT:
            self._keys = np.union1d(self._keys, np.fromiter(self._recent, np.uint64, len(self._recent)))
            self._recent = set()

    def _holds(self, key: np.uint64) -> bool:
        keys = self._keys
        place = int(np.searchsorted(keys, key))
        return place < len(keys) and bool(keys[place] == key)


def digest_keys(digests: pa.Array) -> NDArray[np.uint64]:
    """A number for each digest: equal for equal ones, and for hardly any others.

    Args:
        digests: SHA-256 in hexadecimal, none of them null.

    Returns:
        uint64 of shape (n,).
    """
    if not len(digests):
        return np.zeros(0, np.uint64)
    offsets = np.frombuffer(digests.buffers()[1], np.int32)[digests.offset : digests.offset + len(digests) + 1]
    if (np.diff(offsets) == _HEX_DIGITS).all():
        flat = np.frombuffer(digests.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        # A copy, as the digits need not begin at a multiple of eight.
        digits = flat.reshape(-1, _HEX_DIGITS)[:, :16].copy().view(np.uint64)
        mixed: NDArray[np.uint64] = digits[:, 0] * _MIX ^ digits[:, 1]
        return mixed
    return np.array([_key(text) for text in digests.to_pylist()], np.uint64)


def _key(text: str) -> np.uint64:
    if len(text) == _HEX_DIGITS and text.isascii():
        return np.uint64(digest_keys(pa.array([text]))[0])
    return np.uint64(hash(text) & 0xFFFF_FFFF_FFFF_FFFF)
