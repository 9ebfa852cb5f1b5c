"""What the sources say of items, taken over; and what a run has done so far."""

from __future__ import annotations

from collections.abc import Collection

from mmalign.collection.ingest.commit import Commits
from mmalign.collection.ingest.jobs import Known
from mmalign.collection.ingest.known import KnownItems
from mmalign.store import CALL, ROWS, SIDECAR, Claim, table_key
from mmalign.types import Item, Note, Skip


class Tally:
    """What a run has done so far.

    Attributes:
        counts: Items by what was done with them, as in `AddReport`.
        skipped: Items that could not be used.
        notes: What else to tell.
        left: How many pictures are still to be read; None before that is known.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("added", "updated", "moved", "unchanged", "removed", "encoded", "kept_out"), 0)
        self.skipped: list[Skip] = []
        self.notes: list[Note] = []
        self.left: int | None = None


class ClaimMerger:
    """Takes over what sources say of items beside their bytes.

    Args:
        commits: Where changes go.
        known: What the collection holds.
        tally: Counts the items.

    Attributes:
        by_call: Columns whose values came with the call, and not from the source.
    """

    def __init__(self, commits: Commits, known: KnownItems, tally: Tally) -> None:
        self.by_call: Collection[str] = ()
        self._commits = commits
        self._known = known
        self._tally = tally

    def same_bytes(self, known: Known, item: Item, digest: str | None, own_digest: str | None) -> None:
        """Count an item whose bytes are the same, once what is said of it was taken over."""
        self._tally.counts["updated" if self.merge_claims(known, item, digest, own_digest) else "unchanged"] += 1

    def merge_claims(self, known: Known, item: Item, digest: str | None, own_digest: str | None) -> bool:
        """Take over what the source says of an item that is known; whether it changes a value."""
        if digest is None and self._known.current(known).claims_json is None:
            return False
        return self._commits.merge_claims(known, self.claims(item, digest, own_digest))

    def claims(self, item: Item, digest: str | None, own_digest: str | None) -> list[Claim]:
        """What each of those who speak says of an item: its source, and whoever called."""
        values = {"captions": list(item.captions) or None, **item.metadata}
        by_call = {name: values.pop(name) for name in self.by_call if name in values}
        claims = []
        if item.source is not None or digest is not None:
            claims.append(Claim(_source_key(item), values, digest=own_digest, earlier=digest))
        return [*claims, Claim(CALL, by_call)] if by_call else claims


def _source_key(item: Item) -> str:
    if item.source is None or item.source in (SIDECAR, ROWS):
        return item.source or ROWS
    return table_key(item.source)
