"""What the collections beside an oracle have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from mmalign import Collection

Step = dict[str, Any]


class World:
    """A collection, an oracle, and what can be done to both.

    Args:
        collection: The collection, empty.
        oracle: What it should hold.

    Attributes:
        columns: The metadata that its items may have.
    """

    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, collection: Collection, oracle: Any) -> None:
        self.collection = collection
        self.path = collection.path
        self.oracle = oracle

    @staticmethod
    def perform(collection: Collection, step: Step) -> Any:
        """Do a step that writes to a collection; returns what it returned."""
        match step["do"]:
            case "update":
                return collection.update(step["ids"], step["values"])
            case "remove":
                return collection.remove(step["ids"], where=step.get("where"), purge=step["purge"])
            case "build":
                if len(collection) or step["recipe"] == "auto":
                    collection.build_index(step["recipe"], view=step.get("view", "image"), progress=False)
            case "refresh":
                if len(collection):
                    collection.refresh_index(progress=False)
        return None

    @staticmethod
    def encoder_of(path: Any) -> Any:
        """With which encoder the collection is opened; None for that of its description."""

    def reopen(self) -> None:
        """Open the collection again, as another process would."""
        self.collection = Collection.open(self.path, encoder=self.encoder_of(self.path))

    def senseless(self, step: Step) -> bool:
        """Whether the step would be an error, which the oracle does not know: a filter over a column never given."""
        where = step.get("where") or ""
        return any(name in where and name not in self.collection.columns for name in self.columns)

    def read(self) -> dict[str, dict[str, Any]]:
        """What the collection holds, each item as `Item.shown` gives it."""
        store = self.collection.snapshot()
        columns = [name for name in store.columns if name in self.columns]
        _, table = store.scan(["id", "uri", "captions", *columns])
        rows = table.to_pylist()
        held = {
            row["id"]: {
                "uri": row["uri"] or "",
                "captions": tuple(row["captions"] or ()),
                **{name: row[name] for name in columns if row[name] is not None},
            }
            for row in rows
        }
        assert len(held) == len(rows) == len(self.collection), "an id stands twice"
        return held
