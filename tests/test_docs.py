"""README's Python runs, every command and public name is documented, and every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import mmalign
from mmalign.cli import app

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def commands() -> list[str]:
    group = typer.main.get_command(app)
    names = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        names += [f"{name} {inner}" for inner in getattr(command, "commands", {})] or [name]
    return names


def blocks(readme: str, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(readme) if kind == language]


@pytest.fixture(scope="session")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme_and_helps(readme: str, command: str) -> None:
    assert f"mmalign {command}" in readme
    run = subprocess.run(
        [sys.executable, "-m", "mmalign.cli", *command.split(), "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "--json" in run.stdout


def test_the_readme_s_python_runs(readme: str, root: Path, tmp_path: Path) -> None:
    """All blocks, in order, as one program, in a folder with some pictures called `photos`."""
    source = "\n".join(blocks(readme, "python"))
    assert "mmalign" in source
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((root / "examples" / "gallery" / "images").iterdir())[:12]:
        shutil.copy(path, photos)
    run = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr


def test_the_readme_s_two_commands_exist(readme: str, root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(blocks(readme, "bash"))))
    assert {"demo", "test"} <= named <= targets


def test_links_lead_somewhere(root: Path) -> None:
    broken = [
        f"{path.relative_to(root)}: {target}"
        for path in [*root.glob("*.md"), *root.glob("docs/*.md")]
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("name", mmalign.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(mmalign, name)
    if callable(value) or isinstance(value, type):
        assert value.__doc__, f"{name} has no docstring"
