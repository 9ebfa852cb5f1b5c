"""Items that are damaged, while their source is read again: what becomes of each, and what is told of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmalign.similarity import Int64Array
from mmalign.store.lance_store import Store
from mmalign.store.verifying import Damage
from mmalign.types import Note

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Mending:
    """The damaged items of a collection, as they were before a source was read.

    Attributes:
        damage: One entry each.
    """

    damage: tuple[Damage, ...]

    @classmethod
    def find(cls, store: Store) -> Mending:
        """Read all items, and compare them with their checksums.

        Args:
            store: The items.
        """
        return cls(tuple(store.find_damage()))

    @property
    def rows(self) -> frozenset[int]:
        """Row ids of items that are to be made anew from their source: nobody knows which of their columns is right."""
        return frozenset(one.row_id for one in self.damage if one.columns)

    @property
    def ids(self) -> frozenset[str]:
        """Ids of those items, as far as they can be read."""
        return frozenset(_name(one) for one in self.damage if one.columns)

    def without_embedding(self, row_ids: Int64Array) -> frozenset[int]:
        """Places of the items of which the embedding alone is damaged.

        Args:
            row_ids: Row ids of items, shape (n,).

        Returns:
            Places in `row_ids`.
        """
        wanted = [one.row_id for one in self.damage if not one.columns]
        return frozenset(np.flatnonzero(np.isin(row_ids, wanted)).tolist() if wanted else ())

    def settle(self, store: Store, *, written: Collection[str]) -> list[Note]:
        """Take away what the source has given anew under another id, and say what became of all.

        Args:
            store: The items, when the source was read.
            written: Ids of the items that were written whole.

        Returns:
            What to tell.
        """
        if not self.damage:
            return []
        places = self._places(store, written)
        mended = [one for one in self.damage if _name(one) in written]
        moved = [one for one in self.damage if _name(one) not in written and one.values.get("uri") in places]
        if moved:
            # It was its id that was damaged: the item has its own again.
            store.delete(np.array([one.row_id for one in moved], np.int64))
        left = [one for one in self.damage if one not in mended and one not in moved]
        notes = []
        if mended or moved:
            done = len(mended) + len(moved)
            notes.append(Note(f"{done:,} damaged item{'s were' if done > 1 else ' was'} made anew from the source"))
        notes += self._lost(store, [*mended, *moved], places)
        if left:
            names = ", ".join(repr(_name(one)) for one in left[:_NAMED])
            more = ", ..." if len(left) > _NAMED else ""
            text = f"{len(left):,} item{'s are' if len(left) > 1 else ' is'} damaged, and not of this source: {names}"
            notes.append(Note(text + more, remedy="index their own source, or remove them"))
        return notes

    def _places(self, store: Store, written: Collection[str]) -> dict[str, str]:
        """The ids of what was written, by the place of the picture."""
        _, table = store.scan(["id", "uri"], check=False)
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return {uri: name for name, uri in rows if name in written and uri is not None}

    def _lost(self, store: Store, made: list[Damage], places: dict[str, str]) -> list[Note]:
        """Tell of values that the source did not give again, such as what `update` had set."""
        now = {one.row_id: places.get(str(one.values.get("uri")), _name(one)) for one in made if one.columns}
        if not now:
            return []
        names = ["captions", *store.columns]
        row_ids, _ = store.match(list(dict.fromkeys(now.values())))
        table = store.take(row_ids, ["id", *names]).to_pylist()
        held = {row["id"]: row for row in table}
        notes = []
        for one in made:
            if not one.columns or now[one.row_id] not in held:
                continue
            gone = _gone(one.values, held[now[one.row_id]], names)
            if gone:
                told = ", ".join(f"{name}={value!r:.80}" for name, value in gone.items())
                text = f"of item {now[one.row_id]!r} the source does not give what was read of the damaged one: {told}"
                notes.append(Note(text, remedy="set it again with update where it is right"))
        return notes


def _gone(before: dict[str, Any], now: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: before[name] for name in names if before.get(name) is not None and now.get(name) is None}


def _name(one: Damage) -> str:
    return str(one.values.get("id"))
