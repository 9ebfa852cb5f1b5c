"""Searching captions: what a loop over them finds, kept between calls, and also where nothing may be written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection
from mmalign.encoders import EncoderBase
from mmalign.errors import CollectionError, FilterError, InputError, MetadataError, StorageError
from mmalign.store.lance_store import Store
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

DIM = 16


class WordEncoder(EncoderBase):
    """Each text a vector of its own; counts what it encodes."""

    name = "words@1"
    dim = DIM
    fingerprint = hashlib.sha256(b"words@1").hexdigest()
    modalities = frozenset({"text", "image"})

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        self.texts += texts
        return np.stack([vector_of(text) for text in texts])

    def encode_image(self, images: Sequence[object], *, batch_size: int = 32) -> np.ndarray:
        raise AssertionError("no picture is encoded here")


def vector_of(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def captioned(path: Path, encoder: object, count: int = 40, *, each: int = 3) -> Collection:
    """Items without pictures, with captions of which some are the same in several items."""
    collection = Collection.create(path, encoder=encoder)
    names = [f"i{number}" for number in range(count)]
    vectors = np.random.default_rng(3).normal(size=(count, collection.dim))
    collection.add_embeddings(names, vectors, metadata={"number": list(range(count))})
    texts = [
        [f"a thing of kind {number % 7}"] + [f"{name} in view {view}" for view in range(each - 1)]
        for number, name in enumerate(names)
    ]
    # At once: a call of `update` for each would take most of the tests' time.
    rows = [{"id": name, "captions": own} for name, own in zip(names, texts, strict=True)]
    collection._current().writer().patch(rows)
    return collection


def expected(collection: Collection, query: str, k: int, *, where: str | None = None) -> list[tuple[str, str, float]]:
    """By a loop over what the items hold."""
    _, table = collection.snapshot().scan(["id", "captions"], where=where)
    found = []
    for row in table.to_pylist():
        for text in dict.fromkeys(row["captions"] or []):
            # Rounded to float16 a vector may be a little longer than 1.
            score = min(float(vector_of(text).astype(np.float16).astype(np.float32) @ vector_of(query)), 1.0)
            found.append((row["id"], text, score))
    return sorted(found, key=lambda one: -one[2])[:k]


def check(collection: Collection, query: str, k: int = 12, *, where: str | None = None) -> None:
    result = collection.search_captions(query, k=k, where=where)
    wanted = expected(collection, query, k, where=where)
    assert [hit.score for hit in result] == pytest.approx([score for _, _, score in wanted], abs=1e-5)
    # Equal captions may come in any order.
    whole = {(name, text) for name, text, _ in expected(collection, query, 10_000, where=where)}
    got = [(hit.id, hit.metadata["captions"][0]) for hit in result]
    assert set(got) <= whole
    assert len(set(got)) == len(got)


def test_it_finds_what_a_loop_finds(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    for k in (0, 1, 12, 1000):
        for _ in range(2):
            check(collection, "a thing of kind 3", k=k)
    check(collection, "i7 in view 1", where="number < 20")
    assert len(collection.search_captions("x", where="number < 0")) == 0
    with pytest.raises(FilterError):
        collection.search_captions("x", where="nothing = 1")


def test_search_takes_the_view_to_search(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = captioned(tmp_path / "a.mm", encoder)
    queries = ["a thing of kind 3", "i7 in view 1", vector_of("x"), "i9 in view 0"]
    filters = ["number < 20", None, "number < 20", "number >= 5"]
    results = collection.search(queries, view="captions", k=9, where=filters)
    assert [result.query for result in results[:2]] == queries[:2]
    assert encoder.texts[:3] == [query for query in queries if isinstance(query, str)], "then the captions"
    for text, where, result in zip(
        ("a thing of kind 3", "i7 in view 1", "x", "i9 in view 0"), filters, results, strict=True
    ):
        wanted = expected(collection, text, 9, where=where)
        assert [hit.score for hit in result] == pytest.approx([score for _, _, score in wanted], abs=1e-5)
        whole = {(name, caption) for name, caption, _ in expected(collection, text, 10_000, where=where)}
        assert {(hit.id, hit.metadata["captions"][0]) for hit in result} <= whole
    sugar = collection.search_captions("i7 in view 1", k=9, group_by="item")
    same = collection.search("i7 in view 1", view="captions", k=9, group_by="item")
    assert sugar.hits == same.hits
    assert len({hit.id for hit in same}) == 9


def test_what_belongs_to_another_view_is_refused(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    with pytest.raises(InputError, match=r"^view must be image or captions, got 'pages'$"):
        collection.search("x", view="pages")  # type: ignore[call-overload]
    for options in ({"k": None}, {"k": None, "group_by": "item"}, {"min_score": 2}, {"offset": -1}, {"k": -1}):
        with pytest.raises(InputError, match=r"^view must be image or captions, got 'pages'$"):
            collection.search("x", view="pages", **options)  # type: ignore[call-overload]
    with pytest.raises(InputError, match=r"^k=None is for pictures; say how many captions, such as k=10$"):
        collection.search("x", view="captions", k=None, min_score=0.5)
    with pytest.raises(InputError, match="leave group_by out without view='captions'"):
        collection.search("x", group_by="item")
    refused = {"explain": True, "rerank": "relations", "min_probability": 0.5, "copies": True}
    for option, value in {**refused, "min_score": 0.5, "offset": 1}.items():
        with pytest.raises(InputError, match=rf"^{option} .*; leave it out with view='captions'$"):
            collection.search("x", view="captions", **{option: value})
    assert not (collection.path / "views").exists()


def test_vectors_may_bring_their_captions(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "a.mm", encoder=encoder)
    vectors = np.random.default_rng(4).normal(size=(200, DIM))
    given: list[object] = [[f"thing {i}", f"  seen {i % 3} times "] for i in range(200)]
    given[:5] = ["one sentence", ("two", "three"), None, [], np.array(["of an array", " "])]
    collection.add_embeddings([f"v{i}" for i in range(200)], vectors, captions=given)
    kept = [item.captions for item in collection.get([f"v{i}" for i in range(6)])]
    assert kept == [("one sentence",), ("two", "three"), (), (), ("of an array",), ("thing 5", "seen 2 times")]
    assert collection.to_arrow(where="captions IS NULL").column("id").to_pylist() == ["v2", "v3"]
    check(collection, "thing 8")
    assert len(collection.search_captions("x", k=1000)) == len(expected(collection, "x", 1000)) == 394
    # What an index is measured with.
    encoder.texts.clear()
    collection.build_index("IVF4,Flat", progress=False)
    assert {text for text in encoder.texts if text.startswith("thing ")}
    # Whoever gives a vector anew gives all of the item anew.
    collection.add_embeddings(["v0"], vectors[:1])
    assert collection.get("v0").captions == ()


def test_captions_of_vectors_are_what_a_caption_is_written_from(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    vectors = ColorEncoder().encode_text(list(COLORS))
    collection.add_embeddings(list(COLORS), vectors, captions=[f"all {color}" for color in COLORS])
    assert collection.caption(paint(tmp_path / "x.png", "green"), mode="nearest").text == "all green"


def test_captions_without_an_encoder_advise_what_helps(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    vectors = np.random.default_rng(4).normal(size=(2, DIM))
    collection.add_embeddings(["a", "b"], vectors, captions=["one", "two"])
    for query in (vectors[0], "words"):
        with pytest.raises(CollectionError, match="no encoder, without which captions cannot be searched") as told:
            collection.search_captions(query)
        assert "search it by vector" not in str(told.value)
        assert "view='image'" in str(told.value)
    with pytest.raises(CollectionError, match="search it by vector, and add to it with add_embeddings"):
        collection.search("words")
    assert collection.search(vectors[0], view="image", k=1)[0].id == "a"


def test_what_is_no_caption_is_refused(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=WordEncoder())
    vectors = np.ones((2, DIM))
    with pytest.raises(InputError, match="2 ids but 1 captions"):
        collection.add_embeddings(["a", "b"], vectors, captions=[["x"]])
    with pytest.raises(InputError, match="captions must be a list of n values"):
        collection.add_embeddings(["a", "b"], vectors, captions="words")
    for wrong in (3, [3], [None], {"text": "x"}, b"x", ["\ud800"]):
        with pytest.raises(MetadataError, match="id 'b': "):
            collection.add_embeddings(["a", "b"], vectors, captions=["fine", wrong])  # type: ignore[list-item]
    assert len(collection) == 0
    collection.add_embeddings(["a", "b"], vectors, captions=["fine", "too"])
    for wrong in (3, ["x", None], [3]):
        with pytest.raises(MetadataError, match="a sentence or a list of sentences"):
            collection.update(["a"], {"captions": wrong})
    collection.update(["a"], {"captions": "  other "})
    collection.update(["b"], {"captions": [" "]})
    assert [item.captions for item in collection] == [("other",), ()]


def test_equal_captions_come_in_one_order_in_every_search(tmp_path: Path) -> None:
    """The first search reads them from the store, the later ones ask an index in memory."""
    collection = Collection.create(tmp_path / "a.mm", encoder=WordEncoder())
    names = [f"i{number}" for number in range(300)]
    collection.add_embeddings(names, np.ones((300, DIM)))
    collection.update(names, {"captions": ["the same words"]})
    for k in (1, 5, 40, 299, 300, 1000):
        first = [hit.id for hit in Collection.open(tmp_path / "a.mm", encoder=WordEncoder()).search_captions("x", k=k)]
        assert first == names[:k]
        for _ in range(2):
            assert [hit.id for hit in collection.search_captions("x", k=k)] == first


def test_it_follows_what_happens_to_the_items(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = captioned(tmp_path / "a.mm", encoder)
    check(collection, "x")
    collection.update(["i1", "i2"], {"captions": ["new words", "new words", "i3 in view 0"]})
    check(collection, "new words")
    collection.remove(["i5"])
    check(collection, "i5 in view 0")
    other = Collection.open(tmp_path / "a.mm", encoder=WordEncoder())
    other.update(["i9"], {"captions": []})
    other.search_captions("x")
    check(collection, "i9 in view 0")
    other.add_embeddings(["i5"], np.ones((1, DIM)))
    other.update(["i5"], {"captions": ["back again"]})
    check(collection, "back again")
    collection.update([f"i{number}" for number in range(40)], {"captions": []})
    assert len(collection.search_captions("x")) == 0


def test_each_caption_is_encoded_once_and_nothing_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = WordEncoder()
    collection = captioned(tmp_path / "a.mm", encoder)
    collection.search_captions("first")
    assert len(encoder.texts) == 40 * 3 + 1
    # The second search brings the vectors into memory.
    collection.search_captions("second")
    reads: list[object] = []
    scan, embeddings = Store.scan, Store.embeddings
    monkeypatch.setattr(Store, "scan", lambda *a, **b: (reads.append(a), scan(*a, **b))[1])
    monkeypatch.setattr(Store, "embeddings", lambda *a, **b: (reads.append(a), embeddings(*a, **b))[1])
    for query in ("third", "fourth"):
        assert len(collection.search_captions(query)) == 10
    assert reads == []
    assert len(encoder.texts) == 40 * 3 + 4
    Collection.open(tmp_path / "a.mm", encoder=encoder).search_captions("fifth")
    assert len(encoder.texts) == 40 * 3 + 5


@pytest.mark.parametrize("before", ["never searched", "searched", "searched, then changed"])
def test_captions_of_a_collection_that_may_only_be_read(
    read_only: tuple[Path, Callable[[], None]], before: str
) -> None:
    folder, close = read_only
    collection = captioned(folder / "a.mm", WordEncoder())
    if before != "never searched":
        collection.search_captions("x")
    if before == "searched, then changed":
        collection.update(["i1"], {"captions": ["new words"]})
        collection.remove(["i2"])
    close()
    encoder = WordEncoder()
    opened = Collection.open(folder / "a.mm", encoder=encoder)
    check(opened, "new words", k=1000)
    check(opened, "i1 in view 0", where="number < 20")
    fresh = {"never searched": 120, "searched": 0, "searched, then changed": 1}[before]
    assert len(encoder.texts) == fresh + 2
    notes = opened.search_captions("x").notes
    assert bool(fresh) == any("may only be read" in note for note in notes)
    with pytest.raises(StorageError):
        opened.update(["i1"], {"captions": ["another"]})


def test_a_caption_is_written_for_a_picture_of_a_collection_that_may_only_be_read(
    read_only: tuple[Path, Callable[[], None]], tmp_path: Path
) -> None:
    folder, close = read_only
    collection = Collection.create(folder / "a.mm", encoder=ColorEncoder())
    rows = [{"path": str(paint(tmp_path / f"{c}.png", c)), "caption": f"all {c}"} for c in COLORS]
    collection.add(rows, progress=False)
    close()
    opened = Collection.open(folder / "a.mm", encoder=ColorEncoder())
    wanted = paint(tmp_path / "other.png", "green", detail=3)
    assert opened.caption(wanted, mode="nearest").text == "all green"


def files_with(folder: Path, text: str) -> list[str]:
    """Files of a folder in which some bytes stand."""
    needle = text.encode()
    return [path.name for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def test_a_purge_leaves_no_byte_of_a_caption(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    collection.search_captions("x")
    collection.update(["i8"], {"captions": ["SECRETWORDS"]})
    collection.search_captions("x")
    assert files_with(tmp_path, "SECRETWORDS")
    assert collection.remove(["i8"], purge=True) == 1
    assert files_with(tmp_path, "SECRETWORDS") == []
    assert files_with(tmp_path, "i8 in view 0") == []
    check(collection, "i7 in view 1")
    # What an update has replaced goes with the next purge, too.
    collection.update(["i9"], {"captions": ["OTHERSECRET"]})
    collection.search_captions("x")
    collection.update(["i9"], {"captions": ["harmless"]})
    collection.remove(["i10"], purge=True)
    assert files_with(tmp_path, "OTHERSECRET") == []
