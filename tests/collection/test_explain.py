"""Searches that show where the words are, and put hits in order by what the query says of places."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mmalign import regions
from mmalign.cli import app
from mmalign.collection import hit_regions
from mmalign.collection.collection import Collection
from mmalign.collection.hit_regions import query_text
from mmalign.collection.relations import SHORTLIST, Relations, blend, places_in
from mmalign.errors import InputError, QueryError, SearchInterrupted
from mmalign.search import Query, Ranking, RerankRequest
from mmalign.types import Hit, Note
from tests.tools.color_encoder import COLORS, ColorEncoder

SIZE = (160, 120)


class PlaceEncoder(ColorEncoder):
    """Colours, with an embedding for each cell of a picture."""

    has_patches = True

    def encode_patches(self, image: Image.Image) -> np.ndarray:
        parts = [image.crop((x, y, x + 20, y + 20)) for y in range(0, 120, 20) for x in range(0, 160, 20)]
        return self.encode_image(parts).reshape(6, 8, -1)


def draw(path: Path, things: dict[str, tuple[int, int]], *, side: int = 40) -> None:
    """Squares on white, by their upper left corners."""
    picture = Image.new("RGB", SIZE, COLORS["white"])
    for color, (x, y) in things.items():
        picture.paste(COLORS[color], (x, y, x + side, y + side))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def places(rng: np.random.Generator) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of corners of which the first is to the left of the second, at about the same height."""
    while True:
        y = int(rng.integers(0, 80))
        yield (
            (int(rng.integers(0, 30)), y),
            (int(rng.integers(80, 120)), int(np.clip(y + rng.integers(-10, 10), 0, 80))),
        )


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions from the words' own places and the usual boxes: to take pictures apart is tested elsewhere, and slow."""
    monkeypatch.setattr(regions, "propose_regions", partial(regions.propose_regions, segments=False))


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Collection:
    """Four pictures with red left of blue, four with blue left of red, and one of each alone."""
    folder = tmp_path / "photos"
    for i, (left, right) in zip(range(4), places(rng), strict=False):
        draw(folder / f"{i}-red-left.png", {"red": left, "blue": right})
    for i, (left, right) in zip(range(4), places(rng), strict=False):
        draw(folder / f"{i}-blue-left.png", {"blue": left, "red": right})
    draw(folder / "alone-red.png", {"red": (60, 40)})
    draw(folder / "alone-blue.png", {"blue": (60, 40)})
    made = Collection.create(tmp_path / "photos.mm", encoder=PlaceEncoder())
    made.add(folder, progress=False)
    return made


def names(hits: object) -> list[str]:
    return [Path(hit.uri).stem.partition("-")[2] for hit in hits]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("words", "right"), [("left of", "red-left"), ("to the right of", "blue-left")])
def test_the_right_arrangement_comes_first(photos: Collection, words: str, right: str) -> None:
    query = f"a red square {words} a blue square"
    plain = photos.search(query)
    assert names(plain[:4]).count(right) < 4, "the cosine alone must not be able to tell"
    explained = photos.search(query, explain=True)
    assert [hit.id for hit in explained] == [hit.id for hit in plain], "to explain changes no order"
    assert all(hit.agreement is None for hit in explained)
    result = photos.search(query, rerank="relations")
    assert names(result[:4]) == [right] * 4
    assert {hit.id: hit.score for hit in result} == {hit.id: hit.score for hit in plain}
    wrong = [
        hit.agreement for hit, name in zip(result, names(result), strict=True) if name not in (right, "red", "blue")
    ]
    assert len(wrong) == 4
    assert min(hit.agreement for hit in result[:4]) > 0 > max(wrong)  # type: ignore[type-var]
    assert any(words in note and "order" in note for note in result.notes)


def test_the_order_is_that_of_cosine_and_agreement(photos: Collection) -> None:
    result = photos.search("a red square left of a blue square", k=99, rerank="relations:99")
    scores = np.array([hit.score for hit in result])
    agreements = np.array([hit.agreement for hit in result])
    worth = (scores - scores.mean()) / scores.std() + agreements
    assert (np.diff(worth) <= 1e-9).all()
    assert np.allclose(blend(scores, agreements), worth)
    assert np.allclose(blend([0.3, 0.3], [0.0, 1.0]), [0.0, 1.0])


def test_regions_are_where_the_words_are(photos: Collection) -> None:
    result = photos.search("a red square", k=3, explain=True)
    assert [hit.id for hit in result] == [hit.id for hit in photos.search("a red square", k=3)]
    assert not any("order" in note for note in result.notes)
    for hit in result:
        assert hit.agreement is None
        assert hit.regions is not None
        (region,) = hit.regions
        assert region.phrase == "a red square"
        assert 0 <= region.score <= 1
        left, top, right, bottom = region.box.corners
        inside = np.asarray(Image.open(hit.uri).convert("RGB"))[round(top) : round(bottom), round(left) : round(right)]
        assert (inside == COLORS["red"]).all(axis=-1).mean() > 0.5
    told = json.loads(json.dumps(result[0].to_dict()))["regions"][0]
    assert told["phrase"] == "a red square"
    assert told["box"] == result[0].regions[0].box.to_list()  # type: ignore[index]


def test_a_search_that_explains_nothing_says_what_it_leaves_out(photos: Collection) -> None:
    result = photos.search("a red square left of a blue square")
    assert sum("rerank='relations'" in note for note in result.notes) == 1
    assert result[0].regions is None
    assert "regions" not in result[0].to_dict()
    assert not any("rerank" in note for note in photos.search("a red square on a table").notes)
    for one in photos.search(["a red square left of a blue square"]):
        assert not any("rerank" in note for note in one.notes)


def test_a_list_of_queries_is_explained_one_by_one(photos: Collection) -> None:
    for _ in range(2):
        # From the second time on hits come from memory, and are made late.
        first, second = photos.search(
            ["a red square left of a blue square", "blue"], k=2, rerank="relations", explain=True
        )
        assert names(first) == ["red-left", "red-left"]
        assert len(second) == 2
        assert all(hit.regions and hit.regions[0].phrase == "blue" for hit in second)
        assert [hit.id for hit in second] == [hit.id for hit in photos.search("blue", k=2)]


def test_pictures_that_are_gone_have_no_regions(photos: Collection) -> None:
    gone = photos.search("a red square left of a blue square", k=1, explain=True)[0]
    Path(gone.uri).unlink()
    result = photos.search("a red square left of a blue square", rerank="relations", explain=True)
    assert [hit.regions for hit in result if hit.id == gone.id] == [None]
    assert any(note.startswith("1 of 10 pictures could not be read") for note in result.notes)


@pytest.mark.parametrize("query", [Query(Image.new("RGB", (8, 8))), np.ones(ColorEncoder.dim)])
def test_a_query_without_words_is_refused(photos: Collection, query: object) -> None:
    with pytest.raises(QueryError, match="adds none"):
        photos.search(query, explain=True)


def test_nothing_wanted_or_nothing_there(photos: Collection, tmp_path: Path) -> None:
    assert len(photos.search("red left of blue", k=0, explain=True, rerank="relations")) == 0
    empty = Collection.create(tmp_path / "empty.mm", encoder=PlaceEncoder())
    assert len(empty.search("a red square left of a blue square", explain=True, rerank="relations")) == 0


def test_words_of_another_language_are_looked_for_as_they_are(photos: Collection) -> None:
    hit = photos.search("红色 red", k=1, explain=True)[0]
    assert isinstance(hit, Hit)
    assert hit.regions


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("a dog left of a bicycle", ("left of",)),
        ("A dog to the right of a cat, below a lamp", ("to the right of", "below")),
        ("a cat between a dog and a bird", ("between",)),
        ("a dog bigger than a cat", ("bigger than",)),
        ("a dog on a sofa in the snow near a tree", ()),
        ("a left hand", ()),
        ("bottom", ()),
        ("2:a dog above a cat - leash", ("above",)),
        ("dog - a cat above a bird", ()),
    ],
)
def test_what_a_query_says_of_places(query: str, told: tuple[str, ...]) -> None:
    assert places_in(Query(query)) == told


def test_how_deep_a_search_goes() -> None:
    def depth(k: int, queries: list[Query], shortlist: int = SHORTLIST) -> int:
        return Relations(lambda: pytest.fail("nobody looks"), shortlist).fetch_k(k, queries)

    plain, told = Query("a dog"), Query("a dog left of a cat")
    assert depth(10, [plain]) == 10
    assert depth(10, [plain, told]) == SHORTLIST == 20
    assert depth(SHORTLIST + 1, [told]) == SHORTLIST + 1
    assert depth(10, [told], 15) == 15
    assert depth(10, [told], 5) == 10
    assert depth(10, [plain], 15) == 10
    assert depth(0, [told]) == 0
    assert query_text(Query("2:dog + snow - leash")) == "dog. snow"


QUERY = "a red square left of a blue square"


class Looks:
    """Counts the pictures that are aligned, and may be stopped at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, stop_at: int | None = None) -> None:
        self.seen: list[str] = []
        plain = hit_regions._align

        def look(hit: Hit, text: str, aligner: Any) -> Any:
            if len(self.seen) == stop_at:
                raise KeyboardInterrupt
            self.seen.append(hit.id)
            return plain(hit, text, aligner)

        monkeypatch.setattr(hit_regions, "_align", look)


@pytest.mark.parametrize(
    ("query", "k", "rerank", "explain", "looked"),
    [
        # With a word that says where: what rerank asks for, more or less than k.
        (QUERY, 10, "relations", False, 10),
        (QUERY, 2, "relations", False, 10),
        (QUERY, 2, "relations:5", False, 5),
        (QUERY, 8, "relations:3", False, 3),
        (QUERY, 2, "relations:1", False, 1),
        # To explain takes those that are given, and none twice.
        (QUERY, 8, "relations:3", True, 8),
        (QUERY, 2, "relations:5", True, 5),
        (QUERY, 3, None, True, 3),
        ("a red square", 2, "relations", True, 2),
        ("a red square", 8, "relations:3", True, 8),
        ("a red square", 8, "relations:3", False, 0),
    ],
)
def test_no_more_pictures_are_looked_at_than_asked_for(
    photos: Collection,
    query: str,
    k: int,
    rerank: str | None,
    explain: bool,
    looked: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = [hit.id for hit in photos.search(query, k=10)]
    looks = Looks(monkeypatch)
    came: list[Hit] = []
    result = photos.search(query, k=k, explain=explain, rerank=rerank, on_hit=came.append)
    assert looks.seen == plain[:looked]
    assert [hit.id for hit in came] == plain[:looked]
    assert len(result) == k
    assert [hit.regions is not None for hit in result] == [i < looked for i in range(k)]
    # Those that were not compared follow in the order of their scores.
    assert [hit.id for hit in result][looked:] == plain[looked:k]
    compared = 0 if query != QUERY or rerank is None else min(10, int(rerank.partition(":")[2] or SHORTLIST))
    told = [note for note in result.notes if "follow in the order of their scores" in note]
    assert len(told) == (0 < compared < k)
    if told:
        assert told[0].remedy == f"rerank='relations:{k}' (--rerank relations:{k}) compares all of them"
    by_id = {hit.id: hit for hit in came}
    assert all(hit == by_id[hit.id] for hit in result[:looked])


@pytest.mark.parametrize(
    "rerank",
    [0, True, 2.5, "3", "", "relations:", "relations:0", "relations:-1", "relations:x", "places", object(), [3]],
)
def test_what_is_no_reranker(photos: Collection, rerank: Any) -> None:
    with pytest.raises(InputError, match="rerank is"):
        photos.search(QUERY, rerank=rerank)


class Backwards:
    """A reranker of one's own: of the best five hits, those that come last alphabetically."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.refuse = refuse

    def check(self, queries: Sequence[Query]) -> None:
        if self.refuse:
            raise QueryError(f"not these {len(queries)}")

    def fetch_k(self, k: int, queries: Sequence[Query]) -> int:
        return max(k, 5)

    def apply(self, request: RerankRequest, ranking: Ranking) -> Ranking:
        assert request.k == 2
        hits = [ranking.hits(place) for place in range(len(ranking.queries))]
        assert [len(one) for one in hits] == [5] * len(hits)
        turned = [tuple(sorted(one, key=lambda hit: hit.id, reverse=True)[: request.k]) for one in hits]
        return ranking.with_hits(turned).with_notes([(Note("turned"),)] * len(hits))


@pytest.mark.parametrize("where", [None, ["width > 0", None, "width > 0"]])
def test_a_reranker_of_one_s_own(photos: Collection, where: Any) -> None:
    queries = ["red", "blue", QUERY]
    plain = photos.search(queries, k=5, where=where)
    found = photos.search(queries, k=2, where=where, rerank=[Backwards()], explain=True)
    for one, other in zip(plain, found, strict=True):
        assert [hit.id for hit in other] == sorted((hit.id for hit in one), reverse=True)[:2]
        assert all(hit.regions is not None for hit in other)
        assert "turned" in other.notes
    with pytest.raises(QueryError, match="not these 3"):
        photos.search(queries, rerank=Backwards(refuse=True))


@pytest.mark.parametrize(("query", "ordered"), [(QUERY, True), ("a red square", False)])
def test_ctrl_c_keeps_what_was_looked_at(
    photos: Collection, query: str, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [hit.id for hit in photos.search(query, k=10)]
    looks = Looks(monkeypatch, stop_at=4)
    with pytest.raises(SearchInterrupted) as stop:
        photos.search([query, "blue", query], k=6, explain=True, rerank="relations" if ordered else None)
    first, *others = stop.value.results
    assert looks.seen == plain[:4]
    assert [hit.regions is not None for hit in first] == [True] * 4 + [False] * 2
    assert {hit.id for hit in first[:4]} == set(plain[:4])
    assert [hit.id for hit in first[4:]] == plain[4:6]
    if ordered:
        # The few that are known are in order of both.
        worth = blend([hit.score for hit in first[:4]], [hit.agreement or 0.0 for hit in first[:4]])
        assert (np.diff(worth) <= 1e-9).all()
    rest = "the other 2 follow in the order of their scores" if ordered else "only the first 4 hits were looked at; the"
    assert any(note.startswith(rest) for note in first.notes)
    for result in others:
        assert len(result) == 6
        assert all(hit.regions is None for hit in result)
        assert "its hits were not looked at" in result.notes


def test_the_command_keeps_what_was_looked_at(photos: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.cli.searching.open_collection", lambda path: photos)
    Looks(monkeypatch, stop_at=2)
    done = CliRunner().invoke(app, ["search", "a", "red", "square", "--explain", "-k", "6"])
    assert done.exit_code == 130
    assert [line for line in done.stdout.splitlines() if line.endswith(".png")] == [
        f" {rank}.  {hit.score:.3f}  {hit.uri}" for rank, hit in enumerate(photos.search("a red square", k=6), 1)
    ]
    assert done.stdout.count("a red square: [") == 2
    assert done.stderr.splitlines()[-1] == "stopped; 2 of 6 hits show where the words are"
    as_json = CliRunner().invoke(app, ["search", "a red square", "--explain", "-k", "6", "--json"])
    assert as_json.exit_code == 130
    assert len(json.loads(as_json.stdout)["hits"]) == 6


def test_the_command_shows_hits_as_they_come(photos: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hit is printed before the next picture is looked at; a remark where its place is not known yet."""
    monkeypatch.setattr("mmalign.cli.searching.open_collection", lambda path: photos)
    plain = hit_regions._align
    for query, stream in (("a red square", "stdout"), (QUERY, "stderr")):
        shown: list[int] = []

        def look(hit: Hit, text: str, aligner: Any, shown: list[int] = shown, stream: str = stream) -> Any:
            # A real standard error keeps no line back.
            sys.stderr.flush()
            shown.append(getattr(sys, stream).buffer.getvalue().decode().count(".png"))
            return plain(hit, text, aligner)

        monkeypatch.setattr(hit_regions, "_align", look)
        done = CliRunner().invoke(app, ["search", query, "--explain", "-k", "4", "--rerank", "relations:5"])
        assert done.exit_code == 0, done.output
        assert shown == list(range(4 if stream == "stdout" else 5))
        assert done.stdout.count(".png") == 4


def test_the_command_shows_regions(photos: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.cli.searching.open_collection", lambda path: photos)
    runner = CliRunner()
    query = "a red square left of a blue square"
    shown = runner.invoke(app, ["search", query, "--explain", "-k", "1"])
    assert shown.exit_code == 0, shown.output
    assert "a blue square: [" in shown.output
    printed = runner.invoke(app, ["search", query, "--explain", "-k", "2", "--json"])
    hits = json.loads(printed.stdout)["hits"]
    assert [sorted(region["phrase"] for region in hit["regions"]) for hit in hits] == [
        ["a blue square", "a red square"]
    ] * 2
    refused = runner.invoke(app, ["search", query, "--explain", "--captions"])
    assert "leave it out with --captions" in str(refused.exception)


def test_a_plain_search_loads_no_aligner() -> None:
    code = (
        "import sys, mmalign.collection.collection\n"
        "from mmalign.collection.relations import hint\n"
        "from mmalign.search.query import Query\n"
        "assert hint(Query('a dog left of a cat'))\n"
        "heavy = ('torch', 'spacy', 'mmalign.alignment.aligner', 'networkx', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_filters_of_their_own_leave_explained_hits_in_the_order_of_the_queries(photos: Collection) -> None:
    seen: list[str] = []
    queries, filters = ["red", "blue", "blue and red"], ["width > 0", None, "width > 0"]
    together = photos.search(
        queries, k=1, where=filters, explain=True, progress=False, on_hit=lambda hit: seen.append(hit.id)
    )
    assert seen == [result[0].id for result in together]
    assert [result.query for result in together] == queries
    for query, result in zip(queries, together, strict=True):
        assert result[0].regions == photos.search(query, k=1, explain=True, progress=False)[0].regions
