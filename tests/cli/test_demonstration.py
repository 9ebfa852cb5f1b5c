"""The demonstration, run as a person runs it: what it found, and a page that is whole, true and safe."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign import Collection, Hit, load_encoder, write_contact_sheet
from mmalign.cli.demo_page import demo_page
from mmalign.cli.demo_results import DemoCaption
from mmalign.cli.demonstration import CAPTIONED, QUERIES, SENTENCES, run_demo
from mmalign.cli.page import document
from mmalign.types import Caption, CaptionEvidence, CaptionSpan, SearchResult, element, joined
from tests.tools.color_encoder import ColorEncoder

HOSTILE = '<script>alert(\'1\')</script>" onerror="x" & <b>'


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Page]:
    folder = tmp_path_factory.mktemp("demo") / "out"
    run = subprocess.run(
        [sys.executable, "-m", "mmalign.cli", "demo", "--output", str(folder), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return folder, json.loads(run.stdout), Page((folder / "demo.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(root: Path) -> dict[str, list[str]]:
    """The gallery's captions by the names of the files, as the manifest has them."""
    lines = (root / "examples" / "gallery" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return {Path(row["image"]).name: row["captions"] for row in map(json.loads, lines)}


def test_the_hits_are_the_nearest_of_all(demo: tuple[Path, dict[str, Any], Page]) -> None:
    folder, told, page = demo
    ids, table = Collection.open(folder / "gallery.mm").snapshot().scan(["id"])
    names = table.column("id").to_pylist()
    _, vectors = Collection.open(folder / "gallery.mm").snapshot().embeddings(ids)
    encoded = load_encoder("lite").encode_text(list(QUERIES))
    pictures = np.asarray(vectors, np.float64)
    scores = encoded @ (pictures / np.linalg.norm(pictures, axis=1, keepdims=True)).T
    for query, row, result in zip(QUERIES, scores, told["results"], strict=False):
        assert result["query"] == query
        assert [hit["id"] for hit in result["hits"]] == [names[place] for place in np.argsort(-row)[:5]]
    assert len(told["results"]) == len(QUERIES) + 1
    assert told["results"][0]["hits"][0]["uri"].endswith("/cameraman-photo.jpg")
    # The page has each hit with its score, best first.
    shown = re.findall(r"\d\. (-?\d\.\d{3})", page.text)
    assert shown == [f"{hit['score']:.3f}" for result in told["results"] for hit in result["hits"]]


def test_the_page_needs_nothing_but_itself(demo: tuple[Path, dict[str, Any], Page]) -> None:
    _, told, page = demo
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    sources = page.values("src")
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    for source in sources:
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2], validate=True)))
        picture.load()
        assert min(picture.size) > 8
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {target.removeprefix("#") for target in page.values("href")} <= set(ids)
    assert all(target.startswith("#") for target in page.values("href"))
    styles = page.text[page.text.index(":root") :][:6000]
    assert "url(" not in styles
    assert "@import" not in styles
    hits = sum(len(result["hits"]) for result in told["results"])
    evidence = sum(name.startswith("evidence-") for name in ids)
    assert len(sources) == hits + len(SENTENCES) + len(CAPTIONED) + evidence
    # Who does not see a picture is told of it.
    assert [bool(value) for value in page.values("alt")].count(False) == evidence


def test_words_are_shown_where_they_were_found(demo: tuple[Path, dict[str, Any], Page]) -> None:
    _, told, page = demo
    assert [each["sentence"] for each in told["alignments"]] == [sentence for _, sentence in SENTENCES]
    astronaut = told["alignments"][0]
    phrases = [phrase["text"] for phrase in astronaut["phrases"]]
    woman = next(link for link in astronaut["links"] if phrases[link["phrase"]] == "a smiling woman")
    x, y, width, height = astronaut["regions"][woman["region"]]["box"]
    # Her face, as a person sees it: about (105, 65) of 256 x 320 pixels.
    assert x < 105 < x + width
    assert y < 65 < y + height
    for each in told["alignments"]:
        for index in each["unmatched_phrases"]:
            assert f"{each['phrases'][index]['text']}not found" in page.text


def test_captions_cite_captions_of_others_that_hold_the_word(
    demo: tuple[Path, dict[str, Any], Page], rows: dict[str, list[str]]
) -> None:
    _, told, page = demo
    assert [Path(each["image"]).name for each in told["captions"]] == list(CAPTIONED)
    everyone = {caption for captions in rows.values() for caption in captions}
    for number, (name, each) in enumerate(zip(CAPTIONED, told["captions"], strict=True), 1):
        retrieved = [entry["text"] for entry in each["evidence"]]
        assert set(retrieved) <= everyone - set(rows[name])
        words = [span for span in each["spans"] if span["kind"] == "word"]
        assert words
        for span in words:
            for index in span["evidence"]:
                assert re.search(rf"\b{re.escape(span['text'])}", retrieved[index], re.IGNORECASE)
        cited = dict.fromkeys(retrieved[index] for span in words for index in span["evidence"][:3])
        for place, text in enumerate(cited, 1):
            # Number and text of each are next to one another on the page, in the order of the words.
            assert f"{place}{text} " in page.text
        assert sum(name.startswith(f"evidence-{number}-") for name in page.values("id")) == len(cited)


def test_it_says_what_it_does_and_may_be_run_again(demo: tuple[Path, dict[str, Any], Page]) -> None:
    folder, told, _ = demo
    run = subprocess.run(
        [sys.executable, "-m", "mmalign.cli", "demo", "--output", str(folder)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert [line[:7] for line in run.stderr.splitlines()] == [f"{step} of 5:" for step in range(1, 6)]
    assert f"look at: {folder / 'demo.html'}  {folder / 'hits.png'}" in run.stdout
    for each in told["captions"]:
        assert each["caption"] in run.stdout
    assert told["page"] == str(folder / "demo.html")
    assert told["sheets"] == [str(folder / "hits.png")]
    with Image.open(folder / "hits.png") as sheet:
        assert sheet.width > 1000


def test_an_encoder_without_a_decoder_shows_the_captions_that_others_agree_with(tmp_path: Path) -> None:
    found, _ = run_demo(tmp_path, encoder=ColorEncoder(), progress=False)
    assert [each.caption.mode for each in found.captioned] == ["consensus"] * len(CAPTIONED)


def test_nothing_on_the_page_is_taken_for_markup(tmp_path: Path) -> None:
    """Queries, captions, names and notes may be anything."""
    found, _ = run_demo(tmp_path, encoder=ColorEncoder(), progress=False)
    hit = Hit("1", f"/nowhere/{HOSTILE}.png", 0.5, {"captions": [HOSTILE]})
    result = SearchResult((hit,), HOSTILE, True, 0.0, "c.mm")
    words = (CaptionSpan(HOSTILE, 2, 2 + len(HOSTILE), "word", (0,), supported=True),)
    caption = Caption(f"a {HOSTILE} b", 0.0, "decoder", (CaptionEvidence(HOSTILE, "?", 0.5),), words)
    hostile = replace(
        found, results=(result,), composed=result, captioned=(DemoCaption(f"/nowhere/{HOSTILE}.png", caption),)
    )
    page = Page(demo_page(hostile).decode("utf-8"))
    assert "script" not in page.tags
    assert not page.values("onerror")
    # Each of the two hits has its rank in bold, and nothing else is.
    assert [tag for tag, _ in page.elements].count("b") == 2
    # As a heading; as the caption of both hits; and as a word and what it rests on.
    assert page.text.count(HOSTILE) == 5
    sheet = Page(write_contact_sheet([result], tmp_path / "sheet.html").read_text(encoding="utf-8"))
    assert "script" not in sheet.tags
    assert not sheet.values("onerror")
    assert sheet.text.count(HOSTILE) == 2


def test_elements_escape_texts_and_keep_elements() -> None:
    inner = element("i", "<&>", title='"', data_of="1", class_="x", id=None)
    assert inner == '<i title="&quot;" data-of="1" class="x">&lt;&amp;&gt;</i>'
    assert element("p", inner, "<") == f"<p>{inner}&lt;</p>"
    assert element("br") == "<br>"
    assert joined(["<", inner], " & ") == f"&lt; &amp; {inner}"
    # Half of a surrogate pair, as a name of a file that is no UTF-8 has, and nothing is lost around it.
    assert b"<p>a?b</p>" in document("t", element("p", "a\udcffb"))
