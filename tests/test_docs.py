"""Python and commands of README and the pages run, every command and public name is documented, every link leads on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import mmalign
from benchmarks import report
from mmalign.cli import app
from tests.conftest import ROOT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def pages() -> list[str]:
    """README and what it links to, as a reader finds it."""
    named = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    return ["README.md", *dict.fromkeys(name for name in named if name.startswith("docs/") and name.endswith(".md"))]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind == language]


def commands() -> dict[str, typer.core.TyperCommand]:
    group = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {})
        found |= {f"{name} {other}": inner[other] for other in inner} or {name: command}
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_its_page_and_helps(root: Path, command: str) -> None:
    table = (root / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `mmalign {command}\b", table, re.MULTILINE)
    run = subprocess.run(
        [sys.executable, "-m", "mmalign.cli", *command.split(), "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "--json" in run.stdout


@pytest.mark.parametrize("page", pages())
def test_the_commands_of_a_page_have_the_options_that_it_gives_them(page: str) -> None:
    known = commands()
    for line in "".join(blocks(page, "bash")).splitlines():
        for part in re.split(r"\s(?:&&|\|)\s", line):
            words = shlex.split(part, comments=True)
            if words[:1] != ["mmalign"]:
                continue
            name = next((each for each in (" ".join(words[1:3]), " ".join(words[1:2])) if each in known), None)
            assert name is not None, part
            options = {option for parameter in known[name].params for option in parameter.opts}
            given = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
            assert given <= options, part


@pytest.fixture(scope="module")
def with_photos(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which README's Python was run, beside a folder `photos` with captions; and what it printed."""
    folder = tmp_path_factory.mktemp("pages")
    photos = folder / "photos"
    photos.mkdir()
    gallery = root / "examples" / "gallery"
    for line in (gallery / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        path = Path(row["image"])
        # Those of a to c: the twelve first ones, the astronaut among them, and some more.
        if path.name[0] in "abc":
            shutil.copy(gallery / path, photos)
            (photos / f"{path.stem}.txt").write_text("\n".join(row["captions"]), encoding="utf-8")
    return folder, ran("README.md", folder)


def ran(page: str, folder: Path) -> str:
    """What the Python of a page prints, all blocks as one program."""
    source = "\n".join(blocks(page, "python"))
    run = subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, f"{page}: {run.stderr}"
    return run.stdout


def test_readme_s_python_does_what_it_says(with_photos: tuple[Path, str]) -> None:
    folder, printed = with_photos
    assert (folder / "photos.mm" / "collection.json").is_file()
    assert "bitten-apple.png" in printed
    assert "Link(phrase=0" in printed


@pytest.mark.parametrize("page", [page for page in pages()[1:] if blocks(page, "python")])
def test_the_python_of_a_page_runs(page: str, with_photos: tuple[Path, str], tmp_path: Path) -> None:
    """In a folder of its own, with the collection that README's Python made."""
    folder = tmp_path / "pages"
    shutil.copytree(with_photos[0], folder)
    if "Collection.create(" in "".join(blocks(page, "python")):
        shutil.rmtree(folder / "photos.mm")
    assert ran(page, folder).strip()


def test_the_pages_that_tell_of_python_show_some() -> None:
    """An emptied page would pass all else."""
    shown = {page for page in pages() if blocks(page, "python")}
    assert shown >= {"README.md", *(f"docs/{name}.md" for name in ("python", "search", "indexes", "align", "caption"))}


def test_the_readme_is_short_and_names_the_two_commands(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(blocks("README.md", "bash"))))
    assert {"demo", "test"} <= named <= targets


def test_the_readme_leads_to_every_page(root: Path) -> None:
    assert {f"docs/{path.name}" for path in root.glob("docs/*.md")} == set(pages()[1:])


def test_links_lead_somewhere(root: Path) -> None:
    broken = [
        f"{path.relative_to(root)}: {target}"
        for path in [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("examples/*.md")]
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert broken == []


def test_measured_tables_are_those_of_the_results(root: Path) -> None:
    """What stands between the marks is what `python -m benchmarks.report` writes there."""
    found = []
    for page in pages():
        for mark in report.MARK.finditer((root / page).read_text(encoding="utf-8")):
            result = json.loads((root / "benchmarks" / "results" / f"{mark[2]}.json").read_text(encoding="utf-8"))
            assert mark[0] == f"{mark[1]}\n{report.table(result, mark[3])}\n{mark[4]}", f"{page}: {mark[2]}"
            found.append(mark[2])
    assert {"retrieval", "classes_imagenet", "classes_ucm", "pairs", "index_peers"} <= set(found)
    assert {"make_times", "cold_search", "index_folder", "encode"} <= set(found)


@pytest.mark.parametrize("name", mmalign.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(mmalign, name)
    if callable(value) or isinstance(value, type):
        assert value.__doc__, f"{name} has no docstring"
