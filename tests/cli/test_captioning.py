"""`mmalign caption` on a collection of three pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from mmalign.captioning.captioner import cite
from mmalign.captioning.verify import AlignmentJudge
from mmalign.cli import app
from mmalign.collection.collection import Collection
from mmalign.errors import InputError
from mmalign.media.uris import path_to_uri
from mmalign.types import Caption, CaptionEvidence


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    colours = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (30, 60, 230)}
    lines = []
    for name, colour in colours.items():
        Image.new("RGB", (48, 48), colour).save(folder / f"{name}.png")
        lines.append({"image": str(folder / f"{name}.png"), "captions": [f"a {name} wall", f"a wall that is {name}"]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Collection.create(folder / "walls.mm").add(folder / "rows.jsonl", progress=False)
    return folder


def run(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, (result.output, result.exception)
    return result.stdout


def test_a_picture_gets_a_caption_that_is_not_its_own(photos: Path) -> None:
    told = run("caption", photos / "red.png", "-c", photos / "walls.mm", "--mode", "nearest", "--json")
    entry = json.loads(told)
    assert entry["caption"] in {"a green wall", "a wall that is green", "a blue wall", "a wall that is blue"}
    written = json.loads(run("caption", photos / "red.png", "-c", photos / "walls.mm", "--json", "--evidence"))
    assert written["caption"]
    assert len(written["evidence"]) == 4
    assert all(isinstance(one["influence"], float) for one in written["evidence"])


def test_the_alignment_has_a_say(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("caption", photos / "red.png", "-c", photos / "walls.mm", "--mode", "nearest", "--json")
    plain = json.loads(run(*words))["caption"]
    wanted = next(c for c in ("a blue wall", "a wall that is green") if c != plain)
    asked: list[str] = []

    def objective(self: AlignmentJudge, captions: Any) -> list[float]:
        asked.extend(captions)
        return [1e6 * (caption == wanted) for caption in captions]

    with monkeypatch.context() as patch:
        patch.setattr(AlignmentJudge, "__call__", objective)
        assert json.loads(run(*words, "--rerank-by-alignment"))["caption"] == wanted
    assert sorted(asked) == ["a blue wall", "a green wall", "a wall that is blue", "a wall that is green"]
    # With the aligner itself, and the place of each phrase.
    told = json.loads(run(*words, "--rerank-by-alignment", "--ground"))
    assert told["caption"] in asked
    assert any(span["kind"] == "phrase" for span in told["spans"])


def test_all_items_are_written_once(photos: Path) -> None:
    words = ("caption", "-c", photos / "walls.mm", "--write", "--mode", "consensus", "--json")
    first = json.loads(run(*words))
    assert len(first) == 3
    assert json.loads(run(*words)) == []
    assert len(json.loads(run(*words, "--again"))) == 3
    collection = Collection.open(photos / "walls.mm")
    kept = {hit.id: hit.metadata["written_caption"] for hit in collection.search("a wall", k=3)}
    assert kept == {entry["id"]: entry["caption"] for entry in first}


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_captioned(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"nothing")
    told = run(
        "caption", photos / "broken.png", photos / "blue.png", "-c", photos / "walls.mm", "--mode", "nearest", status=1
    )
    assert str(photos / "blue.png") in told
    assert "broken" not in told
    # What mmalign prints for a name that is not printable is a picture as well, and several are one document.
    odd = photos / "two\nlines.png"
    Image.new("RGB", (48, 48), (30, 60, 230)).save(odd)
    names = [path_to_uri(odd), str(photos / "broken.png"), (photos / "blue.png").as_uri().replace("blue", "bl%75e")]
    many = json.loads(run("caption", *names, "-c", photos / "walls.mm", "--mode", "nearest", "--json", status=1))
    assert [entry["image"] for entry in many] == names
    assert "not a picture" in many[1]["error"]
    assert "blue" not in many[2]["caption"], "a caption of its own"
    odd.unlink()


def test_every_caption_that_a_word_cites_is_printed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that did little, and lie far behind the five that did most."""
    told = [f"a {'dog' if i in (3, 17, 29) else 'cat' if i > 18 else 'wall'} number {i}" for i in range(30)]
    evidence = tuple(CaptionEvidence(text, str(i), 1 - i / 100, 1.0 / (i + 1)) for i, text in enumerate(told))
    made = Caption("a dog and a cat on a sofa", 0.5, "consensus", evidence, cite("a dog and a cat on a sofa", told))
    monkeypatch.setattr(Collection, "caption", lambda *args, **options: made)
    shown = run("caption", "x.png", "-c", photos / "walls.mm", "--evidence").splitlines()
    cut = shown.index("  retrieved captions by how near they are, and what each did:")
    words = dict(line.strip().split(": ") for line in shown[2:cut])
    assert words["dog"] == "4, 18, 30"
    assert words["sofa"] == "none"
    # A word that very many hold names eight, and says that there are more.
    assert words["cat"] == "20, 21, 22, 23, 24, 25, 26, 27 and 2 more"
    named = {int(number) for text in words.values() for number in re.findall(r"(?<!and )\b\d+", text)}
    listed = {int(line.split()[0]): line for line in shown[cut + 1 : -1]}
    assert set(listed) == named | {1, 2, 3, 4, 5}
    assert all(listed[number].endswith(told[number - 1]) for number in listed)
    assert shown[-1] == f"    and {30 - len(listed)} more; --json lists all"


@pytest.mark.parametrize(
    "words",
    [(), ("x.jpg", "--write"), ("x.jpg", "--again"), ("--write", "--ground"), ("--write", "--rerank-by-alignment")],
)
def test_words_that_do_not_go_together(photos: Path, words: tuple[str, ...]) -> None:
    run("caption", *words, "-c", photos / "walls.mm", status=1)


def test_writing_again_says_why_nothing_was_written(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "walls.mm"
    Collection.create(place).add(photos / "rows.jsonl", progress=False)
    words = ["caption", "-c", str(place), "--write", "--mode", "nearest"]

    def told(*more: str) -> str:
        done = CliRunner().invoke(app, [*words, *more])
        assert (done.exit_code, done.stdout) == (0, "")
        return done.stderr.splitlines()[-1]

    assert told("--where", "uri LIKE '%red.png'") == f"1 caption written as written_caption of {place}"
    assert told() == f"2 captions written as written_caption of {place}"
    nothing = f"0 captions written as written_caption of {place}"
    assert told() == f"{nothing}: none is left without one; --again writes them anew"
    assert told("--again", "--where", "width > 9000") == nothing


def test_a_mode_that_means_nothing_is_told_which_there_are(photos: Path) -> None:
    with pytest.raises(InputError, match=r"mode is decoder, consensus, nearest or .* got 'nearst'"):
        Collection.open(photos / "walls.mm").caption(photos / "red.png", mode="nearst")
