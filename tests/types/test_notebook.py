"""What notebooks show: pictures within the page, every text escaped, nothing fetched, and nothing without end."""

from __future__ import annotations

import base64
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign import Aligner, Collection, Hit, Note, SearchResult, StoredItem
from mmalign.types import Box, HitRegion
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
ALLOWED = {"div", "span", "b", "figure", "figcaption", "img", "p", "table", "tr", "td", "th"}


class Page(HTMLParser):
    """Collects what a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def pictures(self) -> list[Image.Image]:
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                head, _, data = (attributes["src"] or "").partition(",")
                assert head == "data:image/jpeg;base64"
                found.append(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
        return found

    def check(self) -> Page:
        """Nothing but the elements that were meant, and nothing that a browser would fetch or run."""
        assert {tag for tag, _ in self.tags} <= ALLOWED
        for _, attributes in self.tags:
            assert set(attributes) <= {"style", "src", "alt", "title"}
            assert "url(" not in (attributes.get("style") or "")
        return self


def page(value: Any) -> Page:
    return Page(value._repr_html_()).check()


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    rows = [
        {"image": str(paint(tmp_path / f"{color}.png", color, size=(900, 300))), "caption": f"all {color}", "n": i}
        for i, color in enumerate(COLORS)
    ]
    made.add(rows, progress=False)
    return made


def test_a_result_shows_its_pictures_as_small_ones(collection: Collection) -> None:
    shown = page(collection.search("green", k=5))
    pictures = shown.pictures()
    assert [picture.size for picture in pictures] == [(200, 67)] * 5
    assert np.abs(np.asarray(pictures[0].convert("RGB"), int)[30, 100] - COLORS["green"]).max() < 12
    text = " ".join(shown.texts)
    assert "green" in text
    assert "all green" in text
    assert "green.png" in text
    assert "n: 1" in text


def test_a_hit_and_an_item_show_theirs(collection: Collection) -> None:
    hit = collection.search("red", k=1)[0]
    likely = replace(hit, probability=0.87, regions=(HitRegion("a red wall", Box(1, 2, 3, 4), 0.5),), copies=("u", "w"))
    text = " ".join(page(likely).texts)
    assert "(87% likely)" in text
    assert "found: a red wall" in text
    assert "stands for 2 more of the same bytes" in text
    assert len(page(hit).pictures()) == 1
    shown = page(collection.get(hit.id))
    assert len(shown.pictures()) == 1
    assert "900 x 300 pixels" in shown.texts
    assert hit.id in shown.texts


def test_every_text_is_escaped(tmp_path: Path) -> None:
    name = EVIL.replace("/", "_")
    picture = paint(tmp_path / "x.png", "red").rename(tmp_path / f"{name[:60]}.png")
    hit = Hit(EVIL, str(picture), 0.5, {"captions": [EVIL], EVIL: EVIL, "kind": "image"})
    result = SearchResult((hit, replace(hit, uri=EVIL)), EVIL, True, 0.1, EVIL, notes=(Note(EVIL),))
    for value in (hit, result, StoredItem(EVIL, EVIL, captions=(EVIL,), metadata={EVIL: [EVIL]})):
        shown = page(value)
        assert EVIL in " ".join(shown.texts)
        assert "<script" not in value._repr_html_()
    assert len(page(result).pictures()) == 1


def test_nothing_is_fetched(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a notebook must not reach out")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("MMALIGN_ALLOW_PRIVATE_NETWORK", "1")
    for uri in ("http://127.0.0.1:9/x.png", "https://example.org/x.jpg", "//example.org/x.png", "ftp://example.org/x"):
        shown = page(Hit("a", uri, 0.5))
        assert shown.pictures() == []
        assert "no picture to show" in shown.texts


def test_what_is_no_picture_is_a_line(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the secret")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    os.mkfifo(tmp_path / "pipe.png")
    uris = [str(tmp_path / name) for name in ("secret.txt", "broken.png", "pipe.png", "gone.png")]
    for uri in (*uris, str(tmp_path), "", "a\0b", "x" * 10_000, "/dev/zero"):
        shown = page(Hit("a", uri, 0.5))
        assert shown.pictures() == []
        assert "secret " not in " ".join(shown.texts)
    assert page(Hit("a", "", float("nan"))).pictures() == []


def test_the_size_is_bounded(collection: Collection) -> None:
    long = "word " * 10_000
    first = collection.search("red", k=1)[0]
    hit = replace(first, id=long, metadata={"captions": [long] * 500} | {f"n{i}": long for i in range(500)})
    result = SearchResult((hit,) * 1000, long, False, 0.1, "c.mm")
    text = result._repr_html_()
    assert len(text) < 24 * 12_000
    shown = page(result)
    assert len(shown.pictures()) == 24
    assert "and 976 more hits" in shown.texts
    assert "and 989 more" in shown.texts
    assert "perhaps not all of the nearest" in " ".join(shown.texts)


def test_an_empty_result_says_so(collection: Collection) -> None:
    shown = page(collection.search("red", k=0))
    assert any(re.match("0 hits in", text) for text in shown.texts)


def test_an_alignment_marks_its_phrases() -> None:
    class Places(ColorEncoder):
        has_patches = True

        def encode_patches(self, image: Any) -> np.ndarray:
            pixels = np.asarray(image.convert("RGB").resize((6, 4), Image.Resampling.NEAREST)).reshape(-1, 3)
            rows = [self.encode_image([Image.fromarray(row[None, None])])[0] for row in pixels]
            return np.stack(rows).reshape(4, 6, -1)

    picture = Image.new("RGB", (60, 40), "red")
    picture.paste((0, 0, 255), (30, 0, 60, 40))
    sentence = "a red wall & a blue <b>door</b>"
    aligner = Aligner(Places(), head="none", parser="rules")
    found = aligner.align(picture, sentence, phrases=["a red wall", "a blue <b>door</b>"])
    shown = page(found)
    text = " ".join(shown.texts)
    assert "a red wall" in text
    assert "a blue <b>door</b>" in text
    assert "".join(shown.texts).startswith(sentence)
    rows = sum(tag == "tr" for tag, _ in shown.tags)
    assert rows == 1 + len(found.links) + len(found.unmatched_phrases)
    hostile = replace(found, sentence=EVIL, notes=(Note(EVIL),))
    assert EVIL in " ".join(page(hostile).texts)
