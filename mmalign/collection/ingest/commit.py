"""What is to be written, queued and committed every few seconds, with regard to what others have written meanwhile."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmalign.collection.ingest.jobs import Known, NewRow
from mmalign.collection.ingest.known import KnownItems
from mmalign.store import Claim, Removed, Store, merge_claims

# A commit is due after so many seconds or items: what a power cut can cost.
_COMMIT_SECONDS = 5.0
_COMMIT_ITEMS = 4096
# Patches of more different sets of columns than this are made alike before they are committed.
_MOST_PATCHES = 6

Claims = Sequence[Claim]


class Commits:
    """The queue of one run.

    Args:
        store: The items.
        known: What they hold; told of what is about to change.
        removed: What was removed earlier; None for nothing.

    Attributes:
        fields: Columns that the source gives to some item.
        overruled: Items with values that the user has set, and a source says otherwise.
        vanished: Items that another process removed while they were read.
        vanished_updates: Those of them that were counted as updated.
        written: Ids of the items that were written whole, where that is watched.
        watch: Whether to remember `written`.
    """

    def __init__(self, store: Store, known: KnownItems, removed: Removed | None) -> None:
        self.fields: list[str] = []
        self.overruled = self.vanished = self.vanished_updates = 0
        self.written: set[str] = set()
        self.watch = False
        self._store = store
        self._known = known
        self._removed = removed
        self._kept_out: list[tuple[str, str | None]] = []
        self._restored: list[tuple[str, str | None]] = []
        self._rows: list[NewRow] = []
        self._patches: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        # By id, for the items among the patches that were heard: the column `said` before, and what was heard.
        self._merged: dict[str, tuple[str | None, list[Claims]]] = {}
        # The version after which only others have changed rows.
        self._looked = store.version
        self._last = time.monotonic()

    def begin(self) -> None:
        """Count from now on as written by others what this run has not written."""
        self._looked = self._store.version

    def begin_block(self) -> None:
        """Say that nobody holds on to items that were looked up before."""
        if self._known.changes > _COMMIT_ITEMS:
            self.flush()
        if not self._rows and not self._patches:
            self._known.committed()

    def add(self, row: NewRow) -> None:
        """Queue a whole row; it is committed when the caller says `commit_when_due`."""
        self._rows.append(row)

    def patch(self, row: dict[str, Any]) -> None:
        """Queue a change of some columns of an item, by its `id`."""
        self._patches.setdefault(tuple(row), []).append(row)
        self.commit_when_due()

    def merge_claims(self, known: Known, claims: Claims) -> bool:
        """Take over what the source says of an item that is known.

        Args:
            known: The item.
            claims: What is said of it.

        Returns:
            Whether it changes a value.
        """
        known = self._known.current(known)
        merged = merge_claims(known.claims_json, claims, fields=self.fields)
        if merged is None:
            return False
        self._known.change(replace(known, claims_json=merged.claims_json))
        self._merged.setdefault(known.id, (known.claims_json, []))[1].append(claims)
        self.overruled += bool(merged.overruled)
        self.patch({"id": known.id, "said": merged.claims_json, **merged.values})
        return bool(merged.values)

    def move(self, known: Known, uri: str, stamp: Mapping[str, Any]) -> None:
        """Queue that an item lies elsewhere now.

        Args:
            known: The item.
            uri: Where it lies.
            stamp: Size and time of its file, by column.
        """
        self._known.change(replace(self._known.current(known), uri=uri))
        self.patch({"id": known.id, "uri": uri, **stamp})

    def keep_out(self, uri: str) -> None:
        """Remember of a place that what lies there was removed: next time it need not be read to be known."""
        self._kept_out.append((uri, None))

    def restore(self, uri: str, sha256: str) -> None:
        """Forget that an item was removed."""
        self._restored.append((uri, sha256))

    def commit_when_due(self) -> None:
        """Commit what is queued where that is much, or the last time was some seconds ago."""
        queued = len(self._rows) + sum(map(len, self._patches.values()))
        if queued >= _COMMIT_ITEMS or time.monotonic() - self._last > _COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what is queued."""
        if self._removed is not None:
            # What comes back is forgotten first: an item that is there counts as one, whatever is remembered of it.
            self._removed.remember(self._kept_out)
            self._removed.forget(self._restored)
            self._kept_out, self._restored = [], []
        if self._rows or self._patches:
            with self._store.alone():
                theirs = self._changed_by_others()
                self._write_rows(theirs)
                self._merge_again(theirs)
                if len(self._patches) > _MOST_PATCHES:
                    self._patches = self._evened()
                for rows in self._patches.values():
                    self._store.patch(rows)
                self._patches = {}
            # Each commit leaves a fragment, and one run may make thousands.
            self._store.compact()
            self._looked = self._store.version
        self._last = time.monotonic()

    def _changed_by_others(self) -> dict[str, dict[str, Any]]:
        """What others have written to the items that are queued since this run last looked, by id."""
        if self._store.version == self._looked:
            return {}
        row_ids = self._store.row_ids(since=self._looked)
        if not len(row_ids):
            return {}
        queued = {*self._merged, *(row.values["id"] for row in self._rows)}
        ids = self._store.take(row_ids, ["id"], check=False).column("id").to_pylist()
        row_ids = row_ids[[place for place, name in enumerate(ids) if name in queued]]
        table = self._store.take(row_ids, ["id", "captions", "said", *self._store.columns])
        return {row["id"]: row for row in table.to_pylist()}

    def _write_rows(self, theirs: Mapping[str, dict[str, Any]]) -> None:
        """Write whole rows; what the user or an earlier source said of an item outlives an edit of its bytes."""
        before = self._as_they_are([row.row_id for row in self._rows if row.row_id is not None])
        rows, vectors = [], []
        for new in self._rows:
            if new.row_id is not None and new.row_id not in before:
                self.vanished += 1
                self.vanished_updates += 1
                continue
            row = dict(before[new.row_id] if new.row_id is not None else theirs.get(new.values["id"], {}))
            merged = merge_claims(row.get("said"), new.claims, fields=self.fields)
            if merged is not None:
                self.overruled += bool(merged.overruled)
                row |= {**merged.values, "said": merged.claims_json}
            rows.append({**row, **new.values})
            vectors.append(new.vector)
        if rows:
            self._store.upsert(rows, np.stack(vectors))
            if self.watch:
                names = [row["id"] for row in rows]
                self.written.update(names)
                # What was damaged of them is whole now.
                self._known.without -= set(self._store.match(names)[0].tolist())
        self._rows = []

    def _as_they_are(self, row_ids: Collection[int]) -> dict[int, dict[str, Any]]:
        """What items hold now, by row id, without those that are gone."""
        if not row_ids:
            return {}
        there, _ = self._store.take_there(np.array(row_ids, np.int64), ["id"])
        table = self._store.take(there, ["captions", "said", *self._store.columns])
        return dict(zip(there.tolist(), table.to_pylist(), strict=True))

    def _merge_again(self, theirs: Mapping[str, dict[str, Any]]) -> None:
        """Compare once more what sources say of items of which others have changed who said what."""
        for name, (before, rounds) in self._merged.items():
            claims_json = theirs[name]["said"] if name in theirs else before
            if claims_json == before:
                continue
            for rows in self._patches.values():
                rows[:] = [row for row in rows if row["id"] != name or "said" not in row]
            values: dict[str, Any] = {}
            for claims in rounds:
                merged = merge_claims(claims_json, claims, fields=self.fields)
                if merged is not None:
                    self.overruled += bool(merged.overruled)
                    claims_json, values = merged.claims_json, {**values, **merged.values}
            row = {"id": name, "said": claims_json, **values}
            self._patches.setdefault(tuple(row), []).append(row)
        self._merged = {}

    def _evened(self) -> dict[tuple[str, ...], list[dict[str, Any]]]:
        """Patches of the same columns for all: what a patch leaves as it is gets the value that is there.

        Each set of columns is a commit of its own, and rows of which each has other columns could make thousands.
        """
        joined: dict[str, dict[str, Any]] = {}
        for rows in self._patches.values():
            for row in rows:
                joined.setdefault(row["id"], {}).update(row)
        names = sorted({name for row in joined.values() for name in row})
        _, table = self._store.lookup("id", list(joined), names, check=False)
        return {tuple(names): [row | joined[row["id"]] for row in table.to_pylist()]}
