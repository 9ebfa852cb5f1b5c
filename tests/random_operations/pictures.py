"""A folder of pictures, the collection that follows it, and the oracle."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest

from mmalign import Collection
from mmalign.errors import UnreadableItemsError
from tests.random_operations.oracle import FILTERS, Item, Oracle
from tests.random_operations.world import Step, World
from tests.tools.color_encoder import COLORS, ColorEncoder, OtherColorEncoder, paint

Content = tuple[str, int]
NAMES = [f"{folder}{stem}.png" for folder in ("", "a/", "a/b/", "c c/") for stem in ("one", "two", "Drei", "vier 4")]
QUERIES = ["red", "blue white", "green", "grey black", "yellow cyan"]
ENCODERS = {ColorEncoder.name: ColorEncoder, OtherColorEncoder.name: OtherColorEncoder}
WEIGHTS = {
    **{"paint": 16, "erase": 5, "move": 5, "copy": 4, "sidecar": 8, "index": 26, "update": 8, "remove": 7},
    **{"search": 18, "captions": 6, "has": 3, "build": 2, "refresh": 3, "reopen": 4, "reencode": 1.5},
}
WRITES = {"index", "update", "remove", "reencode", "build", "refresh"}


class File(NamedTuple):
    """A picture in the folder.

    Attributes:
        content: Its colour and detail.
        changed: When it was changed; no two writes happen at the same time.
    """

    content: Content
    changed: int


class Pictures(World):
    """The folder, the collection, the oracle, and what can be done to them.

    Args:
        folder: Where all of them are made.
    """

    columns = ("number", "word")

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "photos"
        self.folder.mkdir()
        super().__init__(Collection.create(folder / "pictures.mm", encoder=ColorEncoder()), Folder())
        self._clock = 0

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
            # As in a run of hours: what was committed earlier in it must not mislead what follows.
            step["often"] = local.random() < 0.3
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
            step["view"] = local.choice(["image", "captions"])
        elif kind == "reencode":
            step["encoder"] = local.choice(list(ENCODERS))
        elif kind == "has":
            step["id"] = local.choice([*sorted(self.oracle.items), "none"])
        return step

    def _some(self, local: random.Random) -> list[str]:
        known = sorted(self.oracle.items)
        return local.sample(known, min(len(known), local.choice([1, 1, 3]))) or ["none"]

    def can_be_killed(self, step: Step) -> bool:
        # A run that was killed between two commits may leave more than one state that is right.
        return step["do"] in WRITES and not step.get("often")

    def senseless(self, step: Step) -> bool:
        """Whether the step would be an error: an empty folder is one."""
        return super().senseless(step) or (step["do"] == "index" and not self.oracle.files)

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
                commits = patch("mmalign.collection.ingest.commit._COMMIT_ITEMS", 1) if step["often"] else nullcontext()
                with commits:
                    return collection.add(
                        source, prune=step["prune"], restore=step["restore"], progress=False, batch_size=4
                    )
            case "reencode":
                try:
                    collection.reencode(ENCODERS[step["encoder"]](), drop_missing=True, progress=False)
                except UnreadableItemsError:
                    return "unreadable"
            case _:
                return World.perform(collection, step)
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
                wanted = self.expect(step)
                got = self.perform(self.collection, step)
                if step["do"] == "index":
                    self.oracle.adopt(self.read())
                    assert got.kept_out == self.oracle.kept_out, f"kept out {got.kept_out}, not {self.oracle.kept_out}"
                else:
                    assert wanted is None or got == wanted, f"returned {got}, expected {wanted}"

    def _change_folder(self, step: Step) -> None:
        files, texts = self.oracle.files, self.oracle.texts
        name, to = step["file"], step.get("to", step["file"])
        path, target = self.folder / name, self.folder / to
        for one in (path, target):
            one.parent.mkdir(parents=True, exist_ok=True)
        match step["do"]:
            case "paint":
                paint(path, step["color"], detail=step["detail"])
                self._written(name, (step["color"], step["detail"]))
            case "erase" if name in files:
                path.unlink()
                del files[name]
            case "move" if to != name and name in files:
                path.replace(target)
                files[to] = files.pop(name)
            case "copy" if to != name and name in files:
                shutil.copy(path, target)
                self._written(to, files[name].content)
            case "sidecar":
                sidecar = path.with_suffix(".txt")
                texts.pop(name, None)
                sidecar.unlink(missing_ok=True)
                if step["text"] is not None:
                    sidecar.write_text(step["text"], encoding="utf-8")
                    texts[name] = tuple(step["text"].split("\n")[:-1])

    def _written(self, name: str, content: Content) -> None:
        # By a clock of our own: that of a file system may stand still between two writes.
        self._clock += 1
        os.utime(self.folder / name, (self._clock, self._clock))
        self.oracle.files[name] = File(content, self._clock)

    def _search(self, step: Step) -> None:
        query = ENCODERS[self.oracle.encoder]().encode_text([step["query"]])[0]
        nearest = self.oracle.nearest(query, lambda content: embedding(content, self.oracle.encoder), step["where"])
        scores = {name: score for score, name in nearest}
        for least in (1.0, None):
            result = self.collection.search(
                step["query"], k=step["k"], where=step["where"], min_recall=least, copies=True
            )
            assert len({hit.id for hit in result}) == len(result)
            for hit in result:
                assert hit.score == pytest.approx(scores[hit.id], abs=2e-3)
                assert hit.uri == self.oracle.items[hit.id].uri
            if least is not None:
                wanted = [score for score, _ in nearest[: step["k"]]]
                assert [hit.score for hit in result] == pytest.approx(wanted, abs=2e-3)

    def _search_captions(self, step: Step) -> None:
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
        grouped = self.collection.search_captions(step["query"], k=step["k"], where=step["where"], group_by="item")
        assert len({hit.id for hit in grouped}) == len(grouped) == min(step["k"], len({name for name, _ in wanted}))
        assert {(hit.id, hit.metadata["captions"][0]) for hit in grouped} <= wanted

    # Comparing all of it -------------------------------------------------------------------------------------------

    def read(self) -> dict[str, dict[str, Any]]:
        """What the collection holds; no picture may stand in it twice."""
        held = super().read()
        assert len({row["uri"] for row in held.values()}) == len(held), "a picture stands twice"
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
        fresh = {*after.new, *after.moves}
        for name, row in held.items():
            assert row in [one.get(name) for one in allowed] or row["uri"] in fresh, f"{name} was done by halves: {row}"
        lost = before.items.keys() & after.items.keys() - held.keys()
        # Only what is gone may have been pruned, and what has moved was not gone: `adopt` sees to that.
        lost -= set(after.gone()) if step.get("prune") else set()
        assert not lost, f"{lost} are lost"
        assert isinstance(before, Folder)
        assert self.collection.description.encoder in {before.encoder, after.encoder}
        again = {name: value for name, value in step.items() if name != "killed_after_s"}
        self.perform(self.collection, again)
        if step["do"] == "index":
            after.adopt(self.read())


class Folder(Oracle):
    """The oracle of a collection that follows a folder.

    What was removed stays out until `restore`: the same place, whatever lies there, and the same bytes elsewhere unless
    an item has them; the other place then counts as removed as well. A file at such a place is taken to be an item that
    has moved where size, time and bytes say so.

    Attributes:
        files: What the folder holds, by name.
        texts: Text files beside the pictures: the name of the picture to its lines.
        encoder: The encoder's name.
        new: Items that the last `index` should have made, by URI.
        moves: Files that items should have moved to in it: URI to the name, and the ids of the items that it may be.
        kept_out: How many files it should have kept out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, File] = {}
        self.texts: dict[str, tuple[str, ...]] = {}
        self.encoder = ColorEncoder.name
        self.new: dict[str, Item] = {}
        self.moves: dict[str, tuple[str, list[str]]] = {}
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

    def gone(self) -> list[str]:
        """Ids of items whose file was not there at the last `index`."""
        return [name for name, item in self.items.items() if item.uri not in self._uris]

    def index(self, folder: Path, *, prune: bool, restore: bool) -> None:
        """Follow the folder, as far as that can be told without knowing which ids the collection has chosen."""
        self._uris = {str(folder / name) for name in self.files}
        self._prune, self._restore = prune, restore
        self.new, self.moves, self.kept_out = {}, {}, 0
        by_uri = {item.uri: item for item in self.items.values()}
        held = {item.vector for item in self.items.values()}
        gone: dict[Content, list[str]] = {}
        for name in self.gone():
            gone.setdefault(self.items[name].vector, []).append(name)
        times = {self.items[name].changed for names in gone.values() for name in names}
        for name, file in self.files.items():
            uri = str(folder / name)
            removed = not restore and uri in self._removed_uris
            if uri in by_uri:
                item = by_uri[uri]
                item.vector, item.changed, item.captions = file.content, file.changed, self._captions(name)
            elif removed and (file.changed not in times or file.content not in gone):
                self.kept_out += 1
            elif not restore and file.content in self._removed_contents and file.content not in held:
                self.kept_out += 1
                self._removed_uris.add(uri)
            elif file.content in gone:
                self.moves[uri] = name, gone[file.content]
            else:
                self._add(uri, name)

    def _add(self, uri: str, name: str) -> None:
        file = self.files[name]
        self.new[uri] = Item(file.content, uri, self._captions(name), changed=file.changed)

    def adopt(self, held: dict[str, dict[str, Any]]) -> None:
        """Take the ids of new items, and which of several equal pictures has moved, from what the collection says."""
        by_uri = {row["uri"]: name for name, row in held.items()}
        for uri, (name, candidates) in self.moves.items():
            chosen = by_uri.get(uri)
            if chosen is not None and chosen in candidates:
                item = self.items[chosen]
                item.uri, item.changed, item.captions = uri, self.files[name].changed, self._captions(name)
                continue
            for one in candidates:
                went = held.get(one, {}).get("uri")
                assert went in self.moves, f"{uri} is {one}, and was not taken to be it"
            if not self._restore and uri in self._removed_uris:
                self.kept_out += 1
            else:
                self._add(uri, name)
        for uri, item in self.new.items():
            chosen = by_uri.get(uri)
            assert chosen is not None, f"{uri} was not added"
            assert chosen not in self.items, f"{uri} took the id of {self.items[chosen].uri}"
            self.items[chosen] = item
        if self._restore:
            # What came back; what was there all the time, or has moved there, is still remembered.
            self._removed_uris -= self.new.keys()
            self._removed_contents -= {item.vector for item in self.new.values()}
        if self._prune:
            for name in self.gone():
                del self.items[name]

    def reencode(self, folder: Path, encoder: str) -> str | None:
        """Encode anew, without what cannot be read."""
        if encoder == self.encoder:
            return None
        files = {str(folder / name): file for name, file in self.files.items()}
        read = {files[item.uri].content for item in self.items.values() if item.uri in files}
        if self.items and not read:
            return "unreadable"
        for name, item in list(self.items.items()):
            # An embedding is known by the picture's bytes: where any file has them, an item keeps its own.
            if item.vector in read:
                continue
            if item.uri in files:
                item.vector, item.changed = files[item.uri]
            else:
                del self.items[name]
        self.encoder = encoder
        return None

    def _captions(self, name: str) -> tuple[str, ...]:
        return self.texts.get(name, ())


@cache
def embedding(content: Content, encoder: str) -> np.ndarray:
    """The embedding of a picture, float32."""
    with tempfile.TemporaryDirectory() as folder:
        path = paint(Path(folder) / "a.png", content[0], detail=content[1])
        vector: np.ndarray = ENCODERS[encoder]().encode_image([path])[0]
    return vector
