"""Every public name, given what it does not take: an `MMAlignError` or a sound result, and never another error.

Each probe gives one argument of one call a value of the wrong kind. Which error it is, the tests of each part say.
"""

from __future__ import annotations

import datetime
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmalign
from mmalign import (
    AddReport,
    Aligner,
    Box,
    Collection,
    Hit,
    Item,
    MMAlignError,
    Note,
    Phrase,
    Query,
    Region,
    Relation,
    SearchResult,
    Skip,
    StoredItem,
    align,
    audit,
    evaluate_retrieval,
    load_encoder,
    write_contact_sheet,
)
from mmalign.search.query import QueryTerm
from tests.tools.color_encoder import ColorEncoder, paint

DIM = ColorEncoder.dim
GOOD = np.random.default_rng(0).standard_normal(DIM).astype(np.float32)


class Locating(ColorEncoder):
    """Embeds the places of a picture as well."""

    has_patches = True

    def encode_patches(self, image: Any) -> np.ndarray:
        pixels = np.asarray(image.convert("RGB").resize((6, 4), Image.Resampling.NEAREST))
        return np.stack(
            [self.encode_image([Image.fromarray(row[None, None])])[0] for row in pixels.reshape(-1, 3)]
        ).reshape(4, 6, -1)


def grown() -> Iterator[int]:
    yield from range(3)


def nested() -> list[Any]:
    """A list that holds itself."""
    made: list[Any] = []
    made.append(made)
    return made


def tensor() -> Any:
    torch = pytest.importorskip("torch")
    return torch.ones(DIM, requires_grad=True)


# Made anew for each probe: some are used up.
VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "0": lambda: 0,
    "-1": lambda: -1,
    "1.5": lambda: 1.5,
    "NaN": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "10**30": lambda: 10**30,
    "10**9": lambda: np.int64(10**9),
    "complex": lambda: 1j,
    "Decimal": lambda: Decimal("0.9"),
    "'0.9'": lambda: "0.9",
    "''": lambda: "",
    "text": lambda: "no such thing",
    "surrogate": lambda: "\ud83d.png",
    "NUL": lambda: "a\0b.jpg",
    "long text": lambda: "x" * 70_000,
    "newline": lambda: "a\nb",
    "bytes": lambda: b"abc",
    "bytearray": lambda: bytearray(b"abc"),
    "list": lambda: [],
    "list of None": lambda: [None],
    "list of texts": lambda: ["a", "b"],
    "list of floats": lambda: GOOD.tolist(),
    "list of NaN": lambda: [float("nan")] * DIM,
    "nested": nested,
    "ragged": lambda: [[1.0, 2.0], [3.0]],
    "dict": dict,
    "dict of objects": lambda: {"a": object(), 3: None},
    "set": lambda: {1, 2},
    "generator": grown,
    "object": object,
    "class": lambda: int,
    "function": lambda: len,
    "path": lambda: Path("no/such/file.png"),
    "folder": lambda: Path(),
    "date": lambda: datetime.date(2020, 1, 1),
    "picture": lambda: Image.new("RGB", (8, 8), "red"),
    "picture without pixels": lambda: Image.new("RGB", (0, 0)),
    "empty array": lambda: np.zeros(0),
    "0-d array": lambda: np.array(1.0),
    "3-d array": lambda: np.ones((1, 2, DIM)),
    "wide array": lambda: np.ones((2, DIM + 1)),
    "strided array": lambda: np.asfortranarray(np.stack([GOOD, GOOD]))[:, ::-1],
    "big-endian array": lambda: GOOD.astype(">f8"),
    "integers": lambda: np.arange(DIM),
    "complex array": lambda: GOOD + 1j,
    "text array": lambda: np.array(["a"] * DIM),
    "object array": lambda: np.array([object()] * DIM),
    "NaN array": lambda: np.full((1, DIM), np.nan),
    "masked array": lambda: np.ma.masked_equal(np.arange(DIM), 3),
    "record array": lambda: np.zeros(2, [("a", "f4")]),
    "read-only array": lambda: np.frombuffer(GOOD.tobytes(), np.float32),
    "tensor": tensor,
    "encoder": ColorEncoder,
    "Query": lambda: Query("red"),
    "Term": lambda: QueryTerm("red"),
    "Box": lambda: Box(0, 0, 4, 4),
    "Hit": lambda: Hit("a", "/no/such.png", 0.5),
}

CALLS: dict[str, Callable[[Any, Any], Any]] = {}
"""By name; takes a collection with three pictures, and what is probed."""
WRITES: set[str] = set()
"""Those that change the collection, and get one of their own."""


def probe(name: str, call: Callable[[Any, Any], Any], *, writes: bool = False) -> None:
    CALLS[name] = call
    if writes:
        WRITES.add(name)


def one_of(found: Any) -> Any:
    """Look at all hits: they are made when somebody looks."""
    for result in found if isinstance(found, list) else [found]:
        json.dumps(result.to_dict(), allow_nan=False)
    return found


ALIGNER = Aligner(Locating(), head="none", parser="rules")
PICTURE = Image.new("RGB", (48, 32), "red")
QUICK: dict[str, Any] = {"progress": False}
STORE = mmalign.TextStore(["a red wall", "a blue wall"], np.stack([GOOD, GOOD]).astype(np.float32))
HITS = SearchResult((Hit("a", "/no/such.png", 0.5),), "red", True, 0.1, "c.mm")


@cache
def aligned() -> mmalign.Alignment:
    return ALIGNER.align(PICTURE, "a red wall")


probe("search", lambda c, value: one_of(c.search(value)))
probe("search in a list", lambda c, value: one_of(c.search([value, "red"])))
for name in (
    "k",
    "where",
    "min_recall",
    "min_probability",
    "min_score",
    "offset",
    "explain",
    "rerank",
    "allow_media",
    "policy",
):
    probe(f"search {name}", lambda c, value, name=name: one_of(c.search("red", **{name: value})))
probe("search where of each", lambda c, value: one_of(c.search(["red", "blue"], where=value)))
probe("search where of one", lambda c, value: one_of(c.search(["red", "blue"], where=[None, value])))
probe("get", lambda c, value: c.get(value))
probe("get an id", lambda c, value: c.get(["red", value]))
probe("embeddings", lambda c, value: c.embeddings(value))
for name in ("columns", "where", "batch_size"):
    probe(f"to_batches {name}", lambda c, value, name=name: list(c.to_batches(**{name: value})))
for name in ("columns", "where"):
    probe(f"to_arrow {name}", lambda c, value, name=name: c.to_arrow(**{name: value}))
    probe(f"to_pandas {name}", lambda c, value, name=name: c.to_pandas(**{name: value}))
probe("search_captions", lambda c, value: one_of(c.search_captions(value)))
for name in ("k", "where", "allow_media", "policy"):
    probe(f"search_captions {name}", lambda c, value, name=name: one_of(c.search_captions("red", **{name: value})))
probe("add", lambda c, value: c.add(value, **QUICK), writes=True)
probe("add a list", lambda c, value: c.add([value], **QUICK), writes=True)
for name in ("metadata", "prune", "batch_size", "policy"):
    probe(f"add {name}", lambda c, value, name=name: c.add("photos", **QUICK, **{name: value}), writes=True)
probe("add_embeddings ids", lambda c, value: c.add_embeddings(value, [GOOD, GOOD]), writes=True)
probe("add_embeddings an id", lambda c, value: c.add_embeddings(["a", value], [GOOD, GOOD]), writes=True)
probe("add_embeddings vectors", lambda c, value: c.add_embeddings(["a", "b"], value), writes=True)
probe("add_embeddings a vector", lambda c, value: c.add_embeddings(["a", "b"], [GOOD, value]), writes=True)
for name in ("metadata", "uris", "captions"):
    probe(
        f"add_embeddings {name}",
        lambda c, value, name=name: c.add_embeddings(["a", "b"], [GOOD, GOOD], **{name: value}),
        writes=True,
    )
probe("add_embeddings a column", lambda c, value: c.add_embeddings(["a"], [GOOD], metadata={"m": value}), writes=True)
probe("add_embeddings a cell", lambda c, value: c.add_embeddings(["a"], [GOOD], metadata={"m": [value]}), writes=True)
probe("add_embeddings a uri", lambda c, value: c.add_embeddings(["a"], [GOOD], uris=[value]), writes=True)
probe("add_embeddings a caption", lambda c, value: c.add_embeddings(["a"], [GOOD], captions=[value]), writes=True)
probe("remove", lambda c, value: c.remove(value), writes=True)
probe("remove an id", lambda c, value: c.remove([value]), writes=True)
for name in ("where", "purge"):
    probe(f"remove {name}", lambda c, value, name=name: c.remove(["a"], **{name: value}), writes=True)
probe("update ids", lambda c, value: c.update(value, {"m": 1}), writes=True)
probe("update an id", lambda c, value: c.update([value], {"m": 1}), writes=True)
probe("update metadata", lambda c, value: c.update(["a"], value), writes=True)
probe("update a value", lambda c, value: c.update(["red"], {"m": value}), writes=True)
probe("update captions", lambda c, value: c.update(["red"], {"captions": value}), writes=True)
probe("make_text", lambda c, value: c.make_text(value), writes=True)
for name in ("recipe", "min_recall", "queries", "memory", "device"):
    probe(f"build_index {name}", lambda c, value, name=name: c.build_index(**QUICK, **{name: value}), writes=True)
probe("refresh_index", lambda c, value: c.refresh_index(value, **QUICK), writes=True)
for name in ("min_recall", "k", "seed"):
    probe(f"check_recall {name}", lambda c, value, name=name: c.check_recall(**QUICK, **{name: value}))
probe("refresh_index rebuild", lambda c, value: c.refresh_index(rebuild=value, **QUICK), writes=True)
probe("log_queries", lambda c, value: c.log_queries(value), writes=True)
for name in ("most", "seed"):
    probe(f"check_live_recall {name}", lambda c, value, name=name: c.check_live_recall(**{name: value}))
probe("caption", lambda c, value: c.caption(value, mode="nearest"))
for name in ("mode", "influence", "ground", "rerank", "floor"):
    probe(
        f"caption {name}", lambda c, value, name=name: c.caption("photos/red.png", **{"mode": "nearest", name: value})
    )
for name in ("mode", "floor"):
    probe(f"captioner {name}", lambda c, value, name=name: c.captioner(**{"mode": "nearest", name: value}))
for name in ("mode", "where", "again"):
    probe(
        f"caption_items {name}",
        lambda c, value, name=name: list(c.caption_items(**QUICK, **{"mode": "nearest", name: value})),
        writes=True,
    )
probe("has", lambda c, value: c.has(value))
probe("open", lambda c, value: Collection.open(value))
for name in ("encoder", "index_device"):
    probe(f"open {name}", lambda c, value, name=name: Collection.open(c.path, **{name: value}))
probe("create", lambda c, value: Collection.create(value, encoder=ColorEncoder()))
for name in ("encoder", "dim", "overwrite"):
    probe(
        f"create {name}",
        lambda c, value, name=name: Collection.create("new.mm", **{"encoder": None, "dim": 3, name: value}),
    )
probe("open_or_create", lambda c, value: Collection.open_or_create(value, encoder=ColorEncoder()))
probe("open_or_create encoder", lambda c, value: Collection.open_or_create("new.mm", encoder=value))
probe("reencode", lambda c, value: c.reencode(value, **QUICK), writes=True)
for name in ("drop_missing", "batch_size"):
    probe(f"reencode {name}", lambda c, value, name=name: c.reencode(Locating(), **QUICK, **{name: value}), writes=True)

probe("Query", lambda c, value: Query(value))
probe("Query of terms", lambda c, value: Query([QueryTerm("red"), value]))
probe("Query of a term", lambda c, value: Query([QueryTerm(value)]).embed(ColorEncoder, dim=DIM))
probe("Query weight", lambda c, value: Query([QueryTerm("red", value)]))
probe("Query.words", lambda c, value: Query.words(value))
probe("Query.picture", lambda c, value: Query.picture(value))
probe("Query +", lambda c, value: Query("red") + value)
probe("Query -", lambda c, value: Query("red") - value)
probe("Query *", lambda c, value: Query("red") * value)
probe("Query embed", lambda c, value: Query(value).embed(ColorEncoder, dim=DIM))

probe("Aligner", lambda c, value: Aligner(value))
for name in ("head", "parser", "device"):
    probe(f"Aligner {name}", lambda c, value, name=name: Aligner(Locating(), **{"head": "none", name: value}).encoder)
probe("align image", lambda c, value: ALIGNER.align(value, "a dog"))
probe("align sentence", lambda c, value: ALIGNER.align(PICTURE, value))
for name in ("solver", "regions", "phrases", "relations", "matching"):
    probe(f"align {name}", lambda c, value, name=name: ALIGNER.align(PICTURE, "a red wall", **{name: value}))
probe("align a region", lambda c, value: ALIGNER.align(PICTURE, "a red wall", regions=[value]))
probe("align a phrase", lambda c, value: ALIGNER.align(PICTURE, "a red wall", phrases=[value]))
probe("align a relation", lambda c, value: ALIGNER.align(PICTURE, "x", phrases=["a", "b"], relations=[value]))
probe("align_many", lambda c, value: ALIGNER.align_many(value, **QUICK))
probe("align_many a pair", lambda c, value: ALIGNER.align_many([value], **QUICK))
probe("evidence", lambda c, value: ALIGNER.score_phrases(PICTURE, value))
probe("heat", lambda c, value: ALIGNER.heat(PICTURE, value))
probe("similarity", lambda c, value: ALIGNER.similarity(PICTURE, value))
probe("align()", lambda c, value: align(value, "a dog", encoder=Locating()))
probe("align() encoder", lambda c, value: align(PICTURE, "a red wall", encoder=value))
probe("explain", lambda c, value: aligned().explain(value))
probe("draw", lambda c, value: aligned().draw(value))

probe("audit", lambda c, value: audit(value))
probe("load_encoder", lambda c, value: load_encoder(value))
probe("load_encoder device", lambda c, value: load_encoder(ColorEncoder(), device=value))
probe("evaluate_retrieval", lambda c, value: evaluate_retrieval(value, encoder=ColorEncoder(), **QUICK))
for name in ("split", "encoder", "batch_size"):
    probe(
        f"evaluate_retrieval {name}",
        lambda c, value, name=name: evaluate_retrieval(
            "rows.jsonl", **{"encoder": ColorEncoder(), name: value}, **QUICK
        ),
    )
for name in ("evaluate_calibration", "evaluate_classes", "evaluate_grounding", "evaluate_pairs"):
    call = getattr(mmalign, name)
    probe(name, lambda c, value, call=call: call(value, encoder=Locating(), **QUICK))
    for option in ("split", "encoder"):
        probe(
            f"{name} {option}",
            lambda c, value, call=call, option=option: call(
                "rows.jsonl", **{"encoder": Locating(), option: value}, **QUICK
            ),
        )
probe("evaluate_captions", lambda c, value: mmalign.evaluate_captions(value, ["rows.jsonl"], encoder=ColorEncoder()))
probe(
    "evaluate_captions datastore",
    lambda c, value: mmalign.evaluate_captions("rows.jsonl", value, encoder=ColorEncoder()),
)
probe("register_backend", lambda c, value: mmalign.register_backend(value, "module:kind"))
probe("register_backend backend", lambda c, value: mmalign.register_backend("probed", value))
probe("EncoderBase", lambda c, value: ColorEncoder().encode([], modality=value))
probe("EncoderBase role", lambda c, value: ColorEncoder().encode([], modality="text", role=value))
probe("TextStore", lambda c, value: mmalign.TextStore(value, np.ones((1, DIM), np.float32)))
probe("TextStore vectors", lambda c, value: mmalign.TextStore(["a", "b"], value))
probe("Captioner", lambda c, value: mmalign.Captioner(ColorEncoder(), STORE, mode=value))
probe("Captioner retrieval", lambda c, value: mmalign.Captioner(ColorEncoder(), STORE, mode="nearest", retrieval=value))
probe("Captioner.caption", lambda c, value: mmalign.Captioner(ColorEncoder(), STORE, mode="nearest").caption(value))
probe("Caption", lambda c, value: json.dumps(mmalign.Caption(value, 0.5, "nearest").to_dict(), allow_nan=False))
probe("ReencodeReport", lambda c, value: json.dumps(mmalign.ReencodeReport(value).to_dict(), allow_nan=False))
probe("write_contact_sheet", lambda c, value: write_contact_sheet(value, "sheet.png"))
probe("write_contact_sheet a result", lambda c, value: write_contact_sheet([value], "sheet.png"))
probe("write_contact_sheet path", lambda c, value: write_contact_sheet([HITS], value))

for place in range(4):
    probe(f"Box {place}", lambda c, value, place=place: Box(*[value if i == place else 1 for i in range(4)]))
probe("Box.clipped", lambda c, value: Box(0, 0, 4, 4).clipped(value, 4))
probe("Hit", lambda c, value: Hit(value, "x", 0.5).to_dict())
probe("Hit metadata", lambda c, value: json.dumps(Hit("a", "x", 0.5, metadata={"m": value}).to_dict(), allow_nan=False))
probe("Item", lambda c, value: Item(value))
probe("StoredItem", lambda c, value: json.dumps(StoredItem("a", metadata={"m": value}).to_dict(), allow_nan=False))
probe("Skip", lambda c, value: Skip("a", value))
probe("Note", lambda c, value: Note(value))
probe("Phrase", lambda c, value: Phrase(value).to_dict())
probe("Region", lambda c, value: Region(Box(1, 1, 1, 1), score=value).to_dict())
probe("Relation", lambda c, value: Relation(0, (1,), value).to_dict())
probe("AddReport", lambda c, value: json.dumps(AddReport(added=value).to_dict(), allow_nan=False))
probe("SearchResult", lambda c, value: json.dumps(SearchResult((), value, True, 0, "").to_dict(), allow_nan=False))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    for color in ("red", "blue", "green"):
        paint(folder / "photos" / f"{color}.png", color)
    rows = [
        {"id": color, "path": str(folder / "photos" / f"{color}.png"), "captions": [f"a {color} wall"], "year": year}
        for year, color in enumerate(("red", "blue", "green"), 2000)
    ]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({**row, "image": row["path"]}) + "\n" for row in rows), encoding="utf-8"
    )
    made = Collection.create(folder / "c.mm", encoder=ColorEncoder())
    made.add(folder / "rows.jsonl", progress=False)
    made.search_captions("red")
    return folder


@pytest.fixture(scope="module")
def shared_collection(template: Path) -> Collection:
    return Collection.open(template / "c.mm", encoder=ColorEncoder())


def test_every_public_name_is_probed() -> None:
    """Those that hold data alone, or that nobody calls, left out."""
    told = " ".join(CALLS)
    for name in set(mmalign.__all__) - {
        "__version__",
        "MMAlignError",
        "Encoder",
        "Alignment",
        "Collection",
        "IndexManifest",
    }:
        assert name in told, name
    own = {name for name in vars(Collection) if not name.startswith("_") and callable(getattr(Collection, name))}
    for name in own - {
        *("info", "notes", "snapshot", "check_index", "check_items", "logged_queries", "forget_queries")
    }:
        assert any(call.split(" ")[0] == name for call in CALLS), name


@pytest.mark.parametrize("name", list(CALLS))
def test_nothing_but_our_own_errors(
    name: str, template: Path, shared_collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = CALLS[name]
    bare = {}
    monkeypatch.setattr("mmalign.alignment.aligner.load_encoder", _known_encoder)
    monkeypatch.setattr("mmalign.collection.collection.load_encoder", _known_encoder)
    for kind, make in VALUES.items():
        folder = tmp_path / str(len(kind)) / kind.replace("/", "")
        folder.mkdir(parents=True)
        shutil.copytree(template / "photos", folder / "photos")
        shutil.copy(template / "rows.jsonl", folder)
        monkeypatch.chdir(folder)
        collection = shared_collection
        if name in WRITES:
            shutil.copytree(template / "c.mm", folder / "c.mm")
            collection = Collection.open(folder / "c.mm", encoder=ColorEncoder())
        try:
            with warnings.catch_warnings():
                # A warning would be an error of its own here.
                warnings.simplefilter("error")
                call(collection, make())
        except MMAlignError as error:
            if not str(error).strip():
                bare[kind] = "an error without a word"
        except Exception as error:
            bare[kind] = f"{type(error).__name__}: {error}"[:200]
    assert bare == {}


def _known_encoder(spec: Any, *, device: str | None = None) -> Any:
    """No model is loaded here: what `lite` would be is left to its own tests."""
    return load_encoder(spec, device=device)


def test_the_probes_can_fail() -> None:
    """What is called here is called for real, with a value that nobody takes."""
    with pytest.raises(MMAlignError, match="a query is"):
        CALLS["Query"](None, None)
    assert len(CALLS) * len(VALUES) > 3000
