"""The scripts of `examples/`, run as a newcomer runs them; what they print is compared with what NumPy finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign import Collection, load_encoder

SCRIPTS = ("search", "composed_search", "align", "caption", "own_embeddings", "fine_tune")


@pytest.fixture(scope="module")
def examples(root: Path) -> Path:
    return root / "examples"


@pytest.fixture(scope="module")
def rows(examples: Path) -> dict[str, dict[str, Any]]:
    """The gallery's manifest, by the names of the files without their endings."""
    lines = (examples / "gallery" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return {Path(row["image"]).stem: row for row in map(json.loads, lines)}


def run(script: str, *arguments: str, at: Path) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "examples" / f"{script}.py"), *arguments], cwd=at, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the collection that the first example made, and what it printed."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, run("search", at=folder)


@pytest.fixture(scope="module")
def pictures(searched: tuple[Path, str]) -> tuple[list[str], np.ndarray]:
    """Names and embeddings of all pictures."""
    store = Collection.open(searched[0] / "gallery.mm").snapshot()
    row_ids, table = store.scan(["uri"])
    _, vectors = store.embeddings(row_ids)
    vectors = np.asarray(vectors, np.float64)
    names = [Path(uri).stem for uri in table.column("uri").to_pylist()]
    return names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(query: np.ndarray, pictures: tuple[list[str], np.ndarray]) -> list[str]:
    names, vectors = pictures
    return [names[place] for place in np.argsort(-(vectors @ query))]


def test_the_page_of_the_examples_names_each(examples: Path) -> None:
    assert sorted(path.stem for path in examples.glob("*.py")) == sorted(SCRIPTS)
    page = (examples / "README.md").read_text(encoding="utf-8")
    for script in SCRIPTS:
        assert f"\n| [{script}.py]({script}.py) | " in page
        assert len((examples / f"{script}.py").read_text(encoding="utf-8").splitlines()) <= 70


def test_search(searched: tuple[Path, str], pictures: tuple[list[str], np.ndarray]) -> None:
    folder, printed = searched
    assert "154 pictures added, 0 known already, 0 left out" in printed
    encoder = load_encoder("lite")
    hits = re.findall(r"^ +(\d\.\d{3}) +\d+%  ([a-z-]+)\.\w+$", printed, re.MULTILINE)
    assert [name for _, name in hits] == nearest(encoder.encode_text(["a red car"])[0], pictures)[:3]
    assert hits[0][1] in {"red-car", "red-racing-car"}
    assert "a submarine under the ice: 0 hits; the best hit has probability" in printed
    again = run("search", "a castle", at=folder)
    assert "0 pictures added, 154 known already" in again
    assert re.search(r"^a castle:\n +\d\.\d{3} +\d+%  grey-castle\.png$", again, re.MULTILINE)


def test_composed_search(
    searched: tuple[Path, str],
    pictures: tuple[list[str], np.ndarray],
    rows: dict[str, dict[str, Any]],
    examples: Path,
) -> None:
    folder, _ = searched
    lines = [line.partition(": ") for line in run("composed_search", at=folder).splitlines()]
    found = {title: names.split(", ") for title, _, names in lines}
    rider, dog, animal, flowers, food = load_encoder("lite").encode_text(
        ["a rider", "a dog", "an animal", "flowers", "something to eat"]
    )
    horse = pictures[1][pictures[0].index("galloping-horse")]
    composed = found["like this horse, with a rider and less of a dog"]
    assert composed == nearest(horse + 0.8 * rider - 0.3 * dog, pictures)[:3]
    assert "jockey-on-horse" in composed

    def fits(name: str) -> bool:
        with Image.open(examples / "gallery" / rows[name]["image"]) as picture:
            return rows[name]["licence"] == "CC BY-SA 4.0" and picture.width >= picture.height

    animals = found["animals under CC BY-SA that are not upright"]
    assert animals == [name for name in nearest(animal, pictures) if fits(name)][:3]
    assert sorted(found["of these, by 'a long neck'"]) == sorted(animals)
    assert found["flowers"] == nearest(flowers, pictures)[:3]
    assert found["something to eat"] == nearest(food, pictures)[:3]


def test_align(tmp_path: Path, examples: Path) -> None:
    printed = run("align", at=tmp_path)
    boxes = {
        phrase: (int(x), int(y), int(width), int(height))
        for phrase, width, height, x, y in re.findall(r"^(.+): (\d+) x (\d+) pixels at \((\d+), (\d+)\)", printed, re.M)
    }
    # As a person sees it: her face is about (105, 65), and her suit's badge about (50, 240), of 256 x 320 pixels.
    for phrase, (x, y) in {"a smiling woman": (105, 65), "an orange suit": (50, 240)}.items():
        left, top, width, height = boxes[phrase]
        assert left < x < left + width
        assert top < y < top + height
    assert boxes["an orange suit"][1] > 65
    with Image.open(tmp_path / "aligned.png") as drawn:
        assert drawn.width >= 520
        # The first two colours of Okabe and Ito are on it.
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 24) or ()}
        assert {(230, 159, 0), (86, 180, 233)} <= colours
    picture = str(examples / "gallery" / "images" / "astronaut-photo.jpg")
    assert "a white rocket: not found" in run("align", picture, "a woman left of a white rocket", at=tmp_path)


def test_caption(searched: tuple[Path, str], rows: dict[str, dict[str, Any]]) -> None:
    caption, *lines = run("caption", at=searched[0]).splitlines()
    others = {said for name, row in rows.items() if name != "doctor" for said in row["captions"]}
    cited = 0
    for line in lines[:-1]:
        word, _, said = line.strip().partition(": ")
        assert word in caption
        if said.startswith(("found in", "not found in", "in no ")):
            continue
        for text in said.split(" | "):
            assert text in others
            assert re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE)
            cited += 1
    assert cited >= 3
    assert lines[-1].removeprefix("consensus: ") in others


def test_own_embeddings(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    printed = run("own_embeddings", at=tmp_path)
    told = re.findall(r"asked for (\d\.\d+): found (\d\.\d+) of the true", printed)
    assert [asked for asked, _ in told] == ["0.95", "0.99"]
    assert all(float(found) >= float(asked) for asked, found in told)
    # Not taken on trust: other queries, and the true neighbours by NumPy.
    things = Collection.open(tmp_path / "things.mm")
    assert things.index_manifest is not None
    row_ids, table = things.snapshot().scan(["id", "price"])
    vectors = np.asarray(things.snapshot().embeddings(row_ids)[1], np.float32)
    assert vectors.shape == (20_000, 64)
    ids = np.array(table.column("id").to_pylist(), dtype=np.int64)
    # The promise is one for queries like those that were measured: around the script's centres.
    centres = np.random.default_rng(0).normal(size=(200, 64))
    rng = np.random.default_rng(7)
    queries = centres[rng.integers(200, size=300)] + 0.7 * rng.normal(size=(300, 64))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    truth = ids[np.argsort(-(queries @ vectors.T), axis=1)[:, :10]]
    found = things.search(queries, k=10)
    hits = [len({int(hit.id) for hit in result} & set(row)) for result, row in zip(found, truth.tolist(), strict=True)]
    assert sum(hits) / truth.size >= 0.95
    prices = dict(zip(ids.tolist(), table.column("price").to_pylist(), strict=True))
    cheap = re.findall(r"\((\d+), (\d+)\)", printed.splitlines()[-1])
    assert len(cheap) == 5
    assert all(prices[int(name)] == int(price) < 20 for name, price in cheap)


def test_fine_tune_on_a_folder(tmp_path: Path, examples: Path, rows: dict[str, dict[str, Any]]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in sorted(rows)[:45]:
        shutil.copy(examples / "gallery" / rows[name]["image"], folder)
        (folder / f"{name}.txt").write_text("\n".join(rows[name]["captions"]), encoding="utf-8")
    (folder / "uncaptioned.png").write_bytes((folder / "avocado.png").read_bytes())
    printed = run("fine_tune", str(folder), at=tmp_path)
    losses = [float(loss) for loss in re.findall(r"^epoch \d+: loss (\d+\.\d+)$", printed, re.MULTILINE)]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]
    # What was measured, measured again with a plain loop over the pictures that were kept out.
    kept_out = sorted(path for path in folder.iterdir() if path.with_suffix(".txt").exists() and path.suffix != ".txt")[
        ::3
    ]
    for when, spec in (("before", "lite"), ("after", f"adapter:{tmp_path}/fine-tuned/run/export")):
        encoder = load_encoder(spec)
        shown = encoder.encode_image([str(path) for path in kept_out])
        right = []
        for number, path in enumerate(kept_out):
            for vector in encoder.encode_text(path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()):
                scores = shown @ vector
                right.append((scores > scores[number]).sum() < 5)
        assert f"{when}: {np.mean(right):.1%} of {len(right)} captions" in printed
