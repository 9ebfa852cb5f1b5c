from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.collection.collection import Collection
from mmalign.encoders.base import KnownWords
from mmalign.errors import DecodeError, DimensionError, QueryError
from mmalign.search.query import PictureRef, Query, QueryTerm
from mmalign.types import Note
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "beach.jpg", "blue")
    paint(tmp_path / "my dog.png", "red")
    paint(tmp_path / "a + b.png", "red")
    return tmp_path


def parsed(text: str) -> list[tuple[object, float]]:
    return [(term.value, term.weight) for term in Query(text).terms]


BEACH = PictureRef("beach.jpg")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("two dogs in the snow", [("two dogs in the snow", 1)]),
        ("2:dog + beach.jpg - leash", [("dog", 2), (BEACH, 1), ("leash", -1)]),
        ("0.5:beach.jpg +  .25:sunset", [(BEACH, 0.5), ("sunset", 0.25)]),
        ("- leash + dog", [("leash", -1), ("dog", 1)]),
        ("t-shirt and rock'n'roll", [("t-shirt and rock'n'roll", 1)]),
        ("16:9 screen", [("16:9 screen", 1)]),
        ("train at 10:30", [("train at 10:30", 1)]),
        ('"rock + roll" - 2:"beach.jpg"', [("rock + roll", 1), ("beach.jpg", -2)]),
        ("my dog.png", [(PictureRef("my dog.png"), 1)]),
        ("a + b.png", [(PictureRef("a + b.png"), 1)]),
        ("https://example.org/x?y=1 + red", [(PictureRef("https://example.org/x?y=1"), 1), ("red", 1)]),
        ("x" * 10_000, [("x" * 10_000, 1)]),
    ],
)
def test_parse(folder: Path, text: str, terms: list[tuple[object, float]]) -> None:
    assert parsed(text) == terms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the query is empty"),
        ("  \n", "the query is empty"),
        ("dog + ", "an empty term"),
        ("dog +  + cat", "an empty term"),
        ('""', "an empty term"),
        ("- dog", "only takes away"),
        ("no-such.jpg", "no picture at 'no-such.jpg'; to search for these words, put them in double quotes"),
    ],
)
def test_parse_errors(folder: Path, text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Query(text)


def test_python_and_text_forms_agree(folder: Path) -> None:
    built = 2 * Query("dog") + Query(Path("beach.jpg")) - Query("leash")
    assert built.terms == Query("2:dog + beach.jpg - leash").terms
    assert str(built) == "2:dog + beach.jpg - leash"
    assert parsed(str(built)) == parsed("2:dog + beach.jpg - leash")


def test_embed_is_the_weighted_sum(folder: Path) -> None:
    encoder = ColorEncoder()
    red, blue = encoder.encode_text(["red"])[0], encoder.encode_image([folder / "beach.jpg"])[0]
    vector, notes = Query("2:red + beach.jpg").embed(lambda: encoder, dim=encoder.dim)
    expected = 2 * red + blue
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert notes == ()
    picture, _ = Query(Image.open(folder / "beach.jpg")).embed(lambda: encoder, dim=encoder.dim)
    np.testing.assert_allclose(picture, blue, atol=1e-6)


def test_a_vector_needs_no_encoder() -> None:
    def none() -> ColorEncoder:
        raise AssertionError("not needed")

    vector, _ = Query([3.0, 4.0]).embed(none, dim=2)
    assert vector.tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(DimensionError, match="expected dim 3"):
        Query([3.0, 4.0]).embed(none, dim=3)


def test_what_cannot_be_a_query_is_refused() -> None:
    encoder = ColorEncoder()
    with pytest.raises(QueryError, match="cancel out"):
        Query("red - red").embed(lambda: encoder, dim=encoder.dim)
    with pytest.raises(QueryError, match="pass a list for several"):
        Query(np.eye(3))
    with pytest.raises(QueryError, match="got dict"):
        Query({"a": 1})  # type: ignore[arg-type]
    encoder.modalities = frozenset({"text"})  # type: ignore[misc]
    with pytest.raises(QueryError, match="color@1 cannot encode a query of kind 'image'"):
        Query(Image.new("RGB", (2, 2))).embed(lambda: encoder, dim=encoder.dim)


def test_a_text_that_is_too_long_is_said() -> None:
    encoder = ColorEncoder()
    _, notes = Query("red " * 2000).embed(lambda: encoder, dim=encoder.dim)
    assert "its end was ignored" in notes[0]


def test_a_url_is_a_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMALIGN_ALLOW_PRIVATE_NETWORK", "1")
    monkeypatch.setenv("no_proxy", "*")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    encoder = ColorEncoder()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        vector, _ = Query(f"{address}/beach.jpg - 0.5:red").embed(lambda: encoder, dim=encoder.dim)
        expected, _ = Query("beach.jpg - 0.5:red").embed(lambda: encoder, dim=encoder.dim)
        np.testing.assert_allclose(vector, expected, atol=1e-6)
        with pytest.raises(DecodeError, match="HTTP 404"):
            Query(f"{address}/nothing.jpg").embed(lambda: encoder, dim=encoder.dim)
    finally:
        server.shutdown()
        server.server_close()


def test_weights_and_terms_that_are_none() -> None:
    for wrong in ("2", None, True, float("nan"), float("inf"), 1j):
        with pytest.raises(QueryError, match="weight"):
            Query("dog") * wrong  # type: ignore[operator]
        with pytest.raises(QueryError, match="weight"):
            Query((QueryTerm("dog", wrong),))  # type: ignore[arg-type]
    for wrong in ("cat", None, 3):
        with pytest.raises(QueryError, match="make one with Query"):
            Query("dog") + wrong  # type: ignore[operator]
        with pytest.raises(QueryError, match="make one with Query"):
            Query("dog") - wrong  # type: ignore[operator]
    for wrong in (None, b"dog", {}, {1.0}, object(), [QueryTerm("a"), "b"], (QueryTerm(None),)):  # type: ignore[arg-type]
        with pytest.raises(QueryError):
            Query(wrong)  # type: ignore[arg-type]
    for wrong in (None, 3, b"dog", ["dog"], ""):
        with pytest.raises(QueryError):
            Query.words(wrong)  # type: ignore[arg-type]


class Knowing(ColorEncoder):
    """Knows the words for colours."""

    def knows(self, text: str) -> KnownWords:
        words = text.split()
        unknown = tuple(word for word in words if word not in COLORS)
        return KnownWords(len(words), unknown, nothing=len(unknown) == len(words))


def test_words_that_the_encoder_does_not_know_are_said(tmp_path: Path) -> None:
    for color in ("red", "blue"):
        paint(tmp_path / "photos" / f"{color}.png", color)
    encoder = Knowing()
    made = Collection.create(tmp_path / "c.mm", encoder=encoder)
    made.add(tmp_path / "photos", progress=False)
    known, half, none = made.search(["red", "red zwrx", "zwrx \x1b[31m"])
    assert known.notes == ()
    assert half.notes == (
        "color@1 does not know 'zwrx'; put it in plain English words, or use an encoder that was trained on such texts "
        "(`mmalign models`)",
    )
    assert none.notes[0].startswith("color@1 knows no word of 'zwrx \\x1b[31m', so the hits mean nothing")
    assert isinstance(none.notes[0], Note)
    assert none.notes[0].about == "encoder"
    # A sum means something as long as one term does.
    assert "knows no word of 'zwrx'" in made.search("red + zwrx").notes[0]
