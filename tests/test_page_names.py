"""What README and the pages name in code is there: commands, options, modules, files and attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import mmalign
from mmalign.cli import app

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Code between backticks may run on to the next line.
SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
COMMAND = re.compile(r"^\s*(?:\$ )?(?:[A-Z_]+=\S* )*mmalign (.+)$", re.DOTALL)
OPTION = re.compile(r"(?<!\S)--?[A-Za-z][\w-]*")


@cache
def options_by_command() -> dict[str, set[str]]:
    group: Any = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        inner = {f"{name} {one}": part for one, part in getattr(command, "commands", {}).items()} or {name: command}
        for words, part in inner.items():
            options = [option for parameter in part.params for option in (*parameter.opts, *parameter.secondary_opts)]
            found[words] = {*options, "--help", "-h"}
    return found


def code_in(text: str) -> Iterator[str]:
    """What stands between backticks, and the lines of blocks, with what is continued on the next line."""
    blocks = "\n".join(body for _, body in BLOCK.findall(text))
    text = BLOCK.sub("", text)
    for span in SPAN.findall(text):
        yield " ".join(span.split())
    indented = "\n".join(line for line in text.split("\n") if line.startswith("    "))
    yield from f"{blocks}\n{indented}".replace("\\\n", " ").split("\n")


def gone_options(code: str) -> list[str]:
    """The commands and options in a piece of code that `mmalign` does not have."""
    known = options_by_command()
    groups = {words.split()[0] for words in known}
    gone = []
    for piece in re.split(r"[|;&]| #", code):
        match = COMMAND.match(piece)
        words = match[1].partition(" -- ")[0].split() if match else []
        if not words or not words[0].islower() or words[0].startswith("-"):
            # Such as `mmalign COMMAND` or `mmalign --version`.
            continue
        options = known.get(" ".join(words[:2])) or known.get(words[0])
        if options is None:
            # Of a group alone nothing can be asked but its help.
            gone += [f"mmalign {words[0]}"] if words[0] not in groups else []
            continue
        # A value may follow an option of one letter at once.
        found = OPTION.findall(" ".join(words))
        gone += [f"mmalign {words[0]} {one}" for one in found if one not in options and one[:2] not in options]
    return gone


def gone_names(code: str, root: Path) -> list[str]:
    """The modules, files and attributes in a piece of code that are not there."""
    gone = [name for name in re.findall(r"\bmmalign(?:\.\w+)+", code) if not is_there(name)]
    gone += [
        name
        for name in re.findall(r"\bpython -m ((?:benchmarks|tests)(?:\.\w+)*)", code)
        if not any((root / name.replace(".", "/")).with_suffix(end).exists() for end in ("", ".py"))
    ]
    gone += [
        path
        for path in re.findall(r"(?<![\w./-])(?:benchmarks|examples|indexes|mmalign|tests)/[\w./-]*", code)
        if not (root / path).exists()
    ]
    for owner, name in re.findall(r"(?<![\w.])([A-Z]\w+)\.(\w+)", code):
        kind = getattr(mmalign, owner, None) if owner in mmalign.__all__ else None
        if kind is not None and not hasattr(kind, name) and name not in getattr(kind, "__annotations__", {}):
            gone.append(f"{owner}.{name}")
    return gone


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or something that one gives."""
    try:
        if find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    module, _, last = name.rpartition(".")
    try:
        return hasattr(import_module(module), last)
    except ModuleNotFoundError:
        home, _, owner = module.rpartition(".")
        return bool(home) and is_there(module) and hasattr(getattr(import_module(home), owner), last)


def pages(root: Path) -> list[Path]:
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted(root.glob("docs/*.md"))]


def test_commands_and_options_in_the_pages_exist(root: Path) -> None:
    pieces = [(path, code) for path in pages(root) for code in code_in(path.read_text(encoding="utf-8"))]
    assert sum(COMMAND.match(code) is not None for _, code in pieces) > 20
    assert [f"{path.name}: {one}" for path, code in pieces for one in gone_options(code)] == []


def test_names_in_the_pages_exist(root: Path) -> None:
    pieces = [(path, code) for path in pages(root) for code in code_in(path.read_text(encoding="utf-8"))]
    assert [f"{path.name}: {one}" for path, code in pieces for one in gone_names(code, root)] == []


@pytest.mark.parametrize(
    ("code", "gone"),
    [
        ("mmalign search dogs --rerank relations -k3 | head -1", []),
        ("cd photos && X=1 mmalign eval retrieval --split dev", []),
        ("mmalign search -- --explode", []),
        ("mmalign search dogs --explode", ["mmalign search --explode"]),
        ("mmalign demo && mmalign eval retrieval --explode", ["mmalign eval --explode"]),
        ("mmalign explode photos", ["mmalign explode"]),
    ],
)
def test_an_option_that_is_gone_is_noticed(code: str, gone: list[str]) -> None:
    assert gone_options(code) == gone


@pytest.mark.parametrize(
    ("code", "gone"),
    [
        ("mmalign.search.Query.words, `mmalign.index.lifecycle.publish`", []),
        ("mmalign/index/recall/ and tests/kills", []),
        ("python -m benchmarks.phrases MANIFEST", []),
        ("Collection.search(...), Hit.score, HEIC.anything", []),
        ("mmalign.searcher", ["mmalign.searcher"]),
        ("mmalign.search.Query.verbs", ["mmalign.search.Query.verbs"]),
        ("mmalign/searcher.py", ["mmalign/searcher.py"]),
        ("python -m benchmarks.phrasing", ["benchmarks.phrasing"]),
        ("Collection.seek(...)", ["Collection.seek"]),
    ],
)
def test_a_name_that_is_gone_is_noticed(code: str, gone: list[str], root: Path) -> None:
    assert gone_names(code, root) == gone
