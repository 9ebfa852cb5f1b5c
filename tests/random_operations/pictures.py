"""A folder of pictures, the collection that follows it, and the oracle."""

from __future__ import annotations

import inspect
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign import Collection
from mmalign.errors import UnreadableItemsError
from tests.random_operations.oracle import FILTERS, Item, Oracle
from tests.tools.color_encoder import COLORS, ColorEncoder, OtherColorEncoder, paint

Step = dict[str, Any]
Content = tuple[str, int]
NAMES = [f"{folder}{stem}.png" for folder in ("", "a/", "a/b/", "c c/") for stem in ("one", "two", "Drei", "vier 4")]
QUERIES = ["red", "blue white", "green", "grey black", "yellow cyan"]
ENCODERS = {ColorEncoder.name: ColorEncoder, OtherColorEncoder.name: OtherColorEncoder}
WEIGHTS = {
    **{"paint": 16, "erase": 5, "move": 5, "copy": 4, "sidecar": 8, "index": 26, "update": 8, "remove": 7},
    **{"search": 18, "captions": 6, "has": 3, "build": 2, "refresh": 3, "reopen": 4, "reencode": 1.5},
}
WRITES = {"index", "update", "remove", "reencode", "build", "refresh"}


class Pictures:
    """The folder, the collection, the oracle, and what can be done to them.

    Args:
        folder: Where all of them are made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "photos"
        self.folder.mkdir()
        self.path = folder / "pictures.mm"
        self.collection = Collection.create(self.path, encoder=ColorEncoder())
        self.oracle = Folder()
        # Collections may fold equal pictures in their hits; what is there is compared one by one.
        self._all = {"copies": True} if "copies" in inspect.signature(Collection.search).parameters else {}

    # What may come next --------------------------------------------------------------------------------------------

    def draw(self, local: random.Random) -> Step:
        """Draw a step; everything that it needs is in it, as JSON."""
        files = sorted(self.oracle.files)
        kind = local.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        step: Step = {"do": kind}
        if kind in ("erase", "move", "copy") and not files:
            kind = step["do"] = "paint"
        if kind == "paint":
            step |= {"file": local.choice(NAMES), "color": local.choice(list(COLORS)), "detail": local.randrange(5000)}
        elif kind == "erase":
            step["file"] = local.choice(files)
        elif kind in ("move", "copy"):
            step |= {"file": local.choice(files), "to": local.choice(NAMES)}
        elif kind == "sidecar":
            step |= {"file": local.choice(files or NAMES)}
            step["text"] = local.choice([None, "", "a red thing\n", "one\ntwo\n", f"words {local.randrange(9)}\n"])
        elif kind == "index":
            step |= {"prune": local.random() < 0.25, "restore": local.random() < 0.1}
        elif kind == "update":
            step |= {"ids": self._some(local), "values": {"number": local.randrange(100)}}
            if local.random() < 0.5:
                step["values"] = {"word": local.choice(["dog", "cat", None])}
        elif kind == "remove":
            step |= {"ids": self._some(local), "purge": local.random() < 0.3}
            if local.random() < 0.2:
                step |= {"ids": None, "where": local.choice(["number >= 50", "word IN ('dog', 'cat')"])}
        elif kind in ("search", "captions"):
            step |= {"query": local.choice(QUERIES), "k": local.choice([1, 5, 1000])}
            step["where"] = local.choice([None, None, "number >= 50", "NOT (word = 'dog')", "word IS NULL"])
        elif kind == "build":
            step["recipe"] = local.choice(["flat", "IVF1,Flat", "auto"])
        elif kind == "reencode":
            step["encoder"] = local.choice(list(ENCODERS))
        elif kind == "has":
            step["id"] = local.choice([*sorted(self.oracle.items), "none"])
        return step

    def _some(self, local: random.Random) -> list[str]:
        known = sorted(self.oracle.items)
        return local.sample(known, min(len(known), local.choice([1, 1, 3]))) or ["none"]

    def can_be_killed(self, step: Step) -> bool:
        return step["do"] in WRITES

    @staticmethod
    def encoder_of(path: Path) -> ColorEncoder:
        """An encoder like the one that the collection was made with."""
        import json

        return ENCODERS[json.loads((path / "collection.json").read_text())["encoder"]]()

    # Doing it ------------------------------------------------------------------------------------------------------

    @staticmethod
    def perform(collection: Collection, step: Step) -> Any:
        """Do a step that writes to a collection; returns what it returned."""
        match step["do"]:
            case "index":
                source = collection.path.parent / "photos"
                return collection.add(
                    source, prune=step["prune"], restore=step["restore"], progress=False, batch_size=4
                )
            case "update":
                return collection.update(step["ids"], step["values"])
            case "remove":
                return collection.remove(step["ids"], where=step.get("where"), purge=step["purge"])
            case "reencode":
                try:
                    collection.reencode(ENCODERS[step["encoder"]](), drop_missing=True, progress=False)
                except UnreadableItemsError:
                    return "unreadable"
            case "build":
                if len(collection) or step["recipe"] == "auto":
                    collection.build_index(step["recipe"], progress=False)
            case "refresh":
                if len(collection):
                    collection.refresh_index(progress=False)
        return None

    def expect(self, step: Step) -> Any:
        """Do the step to the oracle; returns what the collection should return, or None."""
        oracle = self.oracle
        match step["do"]:
            case "index":
                oracle.index(self.folder, prune=step["prune"], restore=step["restore"])
            case "update":
                return oracle.update(step["ids"], step["values"])
            case "remove":
                return len(oracle.remove(step["ids"], step.get("where")))
            case "reencode":
                return oracle.reencode(self.folder, step["encoder"])
        return None

    def run(self, step: Step) -> None:
        """Do the step to all, and compare what they say."""
        match step["do"]:
            case "paint" | "erase" | "move" | "copy" | "sidecar":
                self._change_folder(step)
            case "search":
                self._search(step)
            case "captions":
                self._search_captions(step)
            case "has":
                assert self.collection.has(step["id"]) == (step["id"] in self.oracle.items)
            case "reopen":
                self.reopen()
            case _:
                if not self._knows(step.get("where")) or (step["do"] == "index" and not self.oracle.files):
                    return
                wanted = self.expect(step)
                got = self.perform(self.collection, step)
                if step["do"] == "index":
                    self.oracle.adopt(self.read())
                    assert got.kept_out == self.oracle.kept_out, f"kept out {got.kept_out}, not {self.oracle.kept_out}"
                else:
                    assert wanted is None or got == wanted, f"returned {got}, expected {wanted}"

    def _change_folder(self, step: Step) -> None:
        files, texts = self.oracle.files, self.oracle.texts
        path = self.folder / step["file"]
        sidecar = path.with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        match step["do"]:
            case "paint":
                paint(path, step["color"], detail=step["detail"])
                files[step["file"]] = (step["color"], step["detail"])
            case "erase" if step["file"] in files:
                path.unlink()
                del files[step["file"]]
            case "move" | "copy" if step["to"] != step["file"] and step["file"] in files:
                to = self.folder / step["to"]
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to)
                files[step["to"]] = files[step["file"]]
                if step["do"] == "move":
                    path.unlink()
                    del files[step["file"]]
            case "sidecar":
                texts.pop(step["file"], None)
                sidecar.unlink(missing_ok=True)
                if step["text"] is not None:
                    sidecar.write_text(step["text"], encoding="utf-8")
                    texts[step["file"]] = tuple(step["text"].split("\n")[:-1])

    def reopen(self) -> None:
        """Open the collection again, as another process would."""
        self.collection = Collection.open(self.path, encoder=self.encoder_of(self.path))

    def _knows(self, where: str | None) -> bool:
        names = [name for name in ("number", "word") if where is not None and name in where]
        return all(name in self.collection.columns for name in names)

    def _search(self, step: Step) -> None:
        if not self._knows(step["where"]):
            return
        query = ENCODERS[self.oracle.encoder]().encode_text([step["query"]])[0]
        nearest = self.oracle.nearest(query, lambda content: embedding(content, self.oracle.encoder), step["where"])
        scores = {name: score for score, name in nearest}
        for least in (1.0, None):
            result = self.collection.search(
                step["query"], k=step["k"], where=step["where"], min_recall=least, **self._all
            )
            assert len({hit.id for hit in result}) == len(result)
            for hit in result:
                assert hit.score == pytest.approx(scores[hit.id], abs=2e-3)
                assert hit.uri == self.oracle.items[hit.id].uri
            if least is not None:
                wanted = [score for score, _ in nearest[: step["k"]]]
                assert [hit.score for hit in result] == pytest.approx(wanted, abs=2e-3)

    def _search_captions(self, step: Step) -> None:
        if not self._knows(step["where"]):
            return
        result = self.collection.search_captions(step["query"], k=1000, where=step["where"])
        test = FILTERS[step["where"]] if step["where"] else None
        wanted = {
            (name, text)
            for name, item in self.oracle.items.items()
            if test is None or test(item.values) is True
            for text in item.captions
        }
        got = [(hit.id, hit.metadata["captions"][0]) for hit in result]
        assert sorted(got) == sorted(wanted)

    # Comparing all of it -------------------------------------------------------------------------------------------

    def read(self) -> dict[str, dict[str, Any]]:
        """What the collection holds, each item as `Item.shown` gives it."""
        store = self.collection.snapshot()
        columns = [name for name in store.columns if name in ("number", "word")]
        _, table = store.scan(["id", "uri", "captions", *columns])
        rows = table.to_pylist()
        held = {
            row["id"]: {
                "uri": row["uri"],
                "captions": tuple(row["captions"] or ()),
                **{name: row[name] for name in columns if row[name] is not None},
            }
            for row in rows
        }
        assert len(held) == len(rows) == len(self.collection), "an id stands twice"
        assert len({row["uri"] for row in rows}) == len(rows), "a picture stands twice"
        return held

    def check(self) -> None:
        """Compare everything that is kept."""
        assert self.read() == {name: item.shown() for name, item in self.oracle.items.items()}
        assert self.collection.description.encoder == self.oracle.encoder
        store = self.collection.snapshot()
        _, table = store.scan(["id"])
        _, vectors = store.embeddings()
        for name, vector in zip(table.column("id").to_pylist(), vectors, strict=True):
            wanted = embedding(self.oracle.items[name].vector, self.oracle.encoder)
            assert np.abs(vector.astype(np.float32) - wanted).max() < 1e-3, f"{name} has another vector"

    def settle(self, before: Oracle, step: Step) -> None:
        """After a step was killed: each item is as before or as after it; then the same step once more, to the end."""
        self.reopen()
        held = self.read()
        after = self.oracle
        allowed = [{name: item.shown() for name, item in world.items.items()} for world in (before, after)]
        fresh = {item.uri for item in after.new.values()}
        for name, row in held.items():
            assert row in [one.get(name) for one in allowed] or row["uri"] in fresh, f"{name} was done by halves: {row}"
        lost = before.items.keys() & after.items.keys() - held.keys()
        assert not lost, f"{lost} are lost"
        assert isinstance(before, Folder)
        assert self.collection.description.encoder in {before.encoder, after.encoder}
        again = {name: value for name, value in step.items() if name != "killed_after_s"}
        self.perform(self.collection, again)
        if step["do"] == "index":
            after.adopt(self.read())


class Folder(Oracle):
    """The oracle of a collection that follows a folder.

    Attributes:
        files: What the folder holds: name to colour and detail.
        texts: Text files beside the pictures: the name of the picture to its lines.
        encoder: The encoder's name.
        new: Items that the last `index` should have made, by the names of their files.
        kept_out: Files that it should have kept out since they were removed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Content] = {}
        self.texts: dict[str, tuple[str, ...]] = {}
        self.encoder = ColorEncoder.name
        self.new: dict[str, Item] = {}
        self.kept_out = 0
        self._removed_uris: set[str] = set()
        self._removed_contents: set[Content] = set()

    def remove(self, names: Any, where: str | None) -> list[str]:
        """Remove items, which an `index` does not bring back."""
        items = dict(self.items)
        gone = super().remove(names, where)
        self._removed_uris |= {items[name].uri for name in gone}
        self._removed_contents |= {items[name].vector for name in gone}
        return gone

    def index(self, folder: Path, *, prune: bool, restore: bool) -> None:
        """Follow the folder."""
        uris = {str(folder / name): name for name in self.files}
        by_uri = {item.uri: name for name, item in self.items.items()}
        held = {item.vector for item in self.items.values()}
        self.new, self.kept_out = {}, 0
        self.moves: dict[str, tuple[list[str], str]] = {}
        for uri, name in uris.items():
            content, captions = self.files[name], self._captions(name)
            if uri in by_uri:
                item = self.items[by_uri[uri]]
                item.vector = content
                self._say(item, captions)
                continue
            if not restore and (
                uri in self._removed_uris or (content in self._removed_contents and content not in held)
            ):
                self.kept_out += 1
                continue
            candidates = [
                known
                for known, item in self.items.items()
                if item.vector == content and item.uri not in uris and not Path(item.uri).exists()
            ]
            if candidates:
                self.moves[name] = (candidates, uri)
            else:
                self.new[name] = Item(content, uri=uri, captions=captions, given=captions)
        if restore:
            self._removed_uris -= uris.keys()
            self._removed_contents -= set(self.files.values())
        self._prune = prune
        self._uris = uris

    def adopt(self, held: dict[str, dict[str, Any]]) -> None:
        """Take the ids of new items, and which of several equal pictures has moved, from what the collection says."""
        by_uri = {row["uri"]: name for name, row in held.items()}
        for name, (candidates, uri) in self.moves.items():
            chosen = by_uri.get(uri)
            if chosen in candidates and self.items[chosen].uri not in self._uris:
                item = self.items[chosen]
                item.uri = uri
                self._say(item, self._captions(name))
            else:
                # Every candidate went to another file.
                captions = self._captions(name)
                self.new[name] = Item(self.files[name], uri=uri, captions=captions, given=captions)
        for item in self.new.values():
            chosen = by_uri.get(item.uri)
            assert chosen is not None, f"{item.uri} was not added"
            assert chosen not in self.items, f"{item.uri} took the id of {self.items[chosen].uri}"
            self.items[chosen] = item
        if self._prune:
            gone = [n for n, item in self.items.items() if item.uri not in self._uris and not Path(item.uri).exists()]
            for name in gone:
                del self.items[name]

    def reencode(self, folder: Path, encoder: str) -> str | None:
        """Encode anew, without what cannot be read."""
        if encoder == self.encoder:
            return None
        uris = {str(folder / name): content for name, content in self.files.items()}
        if self.items and not any(item.uri in uris for item in self.items.values()):
            return "unreadable"
        for item in self.items.values():
            item.vector = uris.get(item.uri, item.vector)
        # An embedding is known by the picture's bytes: a file that is gone has one where a copy of it is there.
        read = {item.vector for item in self.items.values() if item.uri in uris}
        self.items = {name: item for name, item in self.items.items() if item.uri in uris or item.vector in read}
        self.encoder = encoder
        return None

    def _captions(self, name: str) -> tuple[str, ...]:
        return self.texts.get(name, ())

    @staticmethod
    def _say(item: Item, captions: tuple[str, ...]) -> None:
        item.captions = item.given = captions


@cache
def embedding(content: Content, encoder: str) -> np.ndarray:
    """The embedding of a picture, float32."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = paint(Path(folder) / "a.png", content[0], detail=content[1])
        vector: np.ndarray = ENCODERS[encoder]().encode_image([path])[0]
    return vector
