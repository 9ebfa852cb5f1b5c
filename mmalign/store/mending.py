"""Items that are damaged, while their source is read again: what becomes of each, and what is told of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmalign.errors import DamagedError
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

    def pass_over_unreadable(self, store: Store, given: Iterable[tuple[str, str]]) -> None:
        """Let a store pass over the items of which columns cannot be read, as the source is about to give them anew.

        Args:
            store: The items.
            given: URI and id of each of the source's items; gone through only where there are such items.

        Raises:
            DamagedError: The source does not give some of them.
        """
        unreadable = [one for one in self.damage if one.unreadable]
        if not unreadable:
            store.pass_over(())
            return
        wanted = {one.values.get(name) for one in unreadable for name in ("uri", "id")}
        held = {
            (name, value) for pair in given for name, value in zip(("uri", "id"), pair, strict=True) if value in wanted
        }
        left = [one for one in unreadable if not {("uri", one.values.get("uri")), ("id", one.values.get("id"))} & held]
        if left:
            known = [name for one in left if (name := one.values.get("uri") or one.values.get("id")) is not None]
            named = f": {', '.join(known[:_NAMED])}{', ...' if len(known) > _NAMED else ''}" if known else ""
            raise DamagedError(
                f"{len(unreadable):,} items cannot be read ({', '.join(unreadable[0].unreadable)}), and {len(left):,} "
                f"of them are not of this source{named}; index one source that gives them all, such as a list of all "
                "their paths, or make the collection anew: mmalign index SOURCE --collection NEW",
                tuple(map(str, known)),
            )
        nameless = [one.row_id for one in unreadable if "id" in one.unreadable]
        if nameless:
            # Nothing can be written by its id while there are some without.
            store.delete(np.array(nameless, np.int64))
        store.pass_over({one.fragment for one in unreadable})

    @property
    def rows(self) -> frozenset[int]:
        """Row ids of items that are to be made anew from their source: nobody knows which of their columns is right."""
        return frozenset(one.row_id for one in self.damage if one.columns)

    @property
    def ids(self) -> frozenset[str]:
        """Ids of those items, as far as they can be read."""
        return frozenset(_name(one) for one in self.damage if one.columns)

    @property
    def without_embedding(self) -> frozenset[int]:
        """Row ids of the items of which the embedding alone is damaged."""
        return frozenset(one.row_id for one in self.damage if not one.columns)

    def settle(self, store: Store, *, written: Collection[str], finished: bool = True) -> list[Note]:
        """Take away what the source has given anew under another id, and say what became of all.

        Args:
            store: The items, when the source was read.
            written: Ids of the items that were written whole.
            finished: Whether the source was read to its end.

        Returns:
            What to tell.
        """
        if not self.damage:
            return []
        places = self._places(store, written)
        mended = [one for one in self.damage if _name(one) in written]
        moved = [one for one in self.damage if _name(one) not in written and one.values.get("uri") in places]
        # It was its id that was damaged: the item has its own again.
        store.delete(np.array([one.row_id for one in moved if "id" not in one.unreadable], np.int64))
        left = [one for one in self.damage if one not in mended and one not in moved]
        notes = []
        if mended or moved:
            done = len(mended) + len(moved)
            notes.append(Note(f"{done:,} damaged item{'s were' if done > 1 else ' was'} made anew from the source"))
        notes += self._lost(store, [*mended, *moved], places)
        unread = [
            [name for name in ("captions", *store.columns) if name in one.unreadable] for one in [*mended, *moved]
        ]
        if any(unread):
            columns = ", ".join(dict.fromkeys(name for names in unread for name in names))
            text = (
                f"of {sum(map(bool, unread)):,} items {columns} could not be read: what `update` had set there is gone"
            )
            notes.append(Note(text, remedy="set it again with update"))
        if left and finished:
            names = ", ".join(repr(_name(one)) for one in left[:_NAMED])
            more = ", ..." if len(left) > _NAMED else ""
            text = f"{len(left):,} item{'s are' if len(left) > 1 else ' is'} damaged, and not of this source: {names}"
            notes.append(Note(text + more, remedy="index their own source, or remove them"))
        return notes

    def _places(self, store: Store, written: Collection[str]) -> dict[str, str]:
        """The ids of what was written, by the place of the picture."""
        _, table = store.lookup("id", sorted(written), ["id", "uri"], check=False)
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return {uri: name for name, uri in rows if uri is not None}

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
                cells = ", ".join(f"{name}={value!r:.80}" for name, value in gone.items())
                text = f"of item {now[one.row_id]!r} the source does not give what was read of the damaged one: {cells}"
                notes.append(Note(text, remedy="set it again with update where it is right"))
        return notes


def _gone(before: dict[str, Any], now: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: before[name] for name in names if before.get(name) is not None and now.get(name) is None}


def _name(one: Damage) -> str:
    return str(one.values.get("id"))
