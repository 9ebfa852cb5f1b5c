"""A module imports only from lower layers, and each heavy library lives in its own room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mmalign"

# Layer by package; within a layer no package imports another.
LAYERS = {
    "mmalign": 11,
    "mmalign.errors": 0,
    "mmalign.types": 1,
    "mmalign.utils": 1,
    "mmalign.metrics": 2,
    "mmalign.calibration": 2,
    "mmalign.media": 2,
    "mmalign.store": 2,
    "mmalign.index": 2,
    "mmalign.parsing": 2,
    "mmalign.matching": 2,
    "mmalign.encoders": 3,
    "mmalign.search": 4,
    "mmalign.regions": 4,
    "mmalign.grounding": 4,
    "mmalign.alignment": 5,
    "mmalign.captioning": 6,
    "mmalign.collection": 7,
    "mmalign.evaluation": 8,
    "mmalign.training": 9,
    "mmalign.cli": 10,
}
HOMES = {
    "faiss": ("mmalign.index.faiss.library",),
    "open_clip": ("mmalign.encoders.open_clip",),
    "sentence_transformers": ("mmalign.encoders.sentence_transformers",),
    "lance": ("mmalign.store",),
    "sqlglot": ("mmalign.store",),
    "networkx": ("mmalign.matching", "mmalign.alignment"),
    "spacy": ("mmalign.parsing.spacy_parser",),
    "hnswlib": ("mmalign.evaluation.index_audit",),
    "lancedb": ("mmalign.evaluation.index_audit",),
    "psycopg": ("mmalign.evaluation.index_audit",),
    "pymilvus": ("mmalign.index.milvus", "mmalign.evaluation.index_audit"),
    "qdrant_client": ("mmalign.evaluation.index_audit",),
    "fastapi": ("mmalign.service",),
    "torch": (
        "mmalign.encoders",
        "mmalign.grounding",
        "mmalign.regions",
        "mmalign.captioning",
        "mmalign.training",
    ),
    "matplotlib": ("mmalign.evaluation",),
    "timm": ("mmalign.encoders", "mmalign.training"),
    "typer": ("mmalign.cli",),
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports, within functions and for type checkers alone as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lookup(name: str) -> tuple[str, int]:
    """The longest entry of LAYERS that `name` is or lies in."""
    while name not in LAYERS:
        name = name.rpartition(".")[0]
    return name, LAYERS[name]


def test_every_module_has_a_layer() -> None:
    rooms = {".".join(name.split(".")[:2]) for name, _ in modules()}
    assert sorted(rooms - LAYERS.keys()) == []
    assert sorted(LAYERS.keys() - rooms) == []


def test_contributors_read_the_same_table() -> None:
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    assert {f"mmalign.{name}": int(layer) for layer, name in rows} | {"mmalign": 11} == LAYERS
    assert len(rows) == len(LAYERS) - 1


def test_nothing_is_loose_at_the_top() -> None:
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "errors.py"]


def test_imports_go_down() -> None:
    wrong = []
    for name, tree in modules():
        room, layer = lookup(name)
        if room == "mmalign":
            continue
        for target in imports(tree):
            if target.startswith("mmalign."):
                other, lower = lookup(target)
                if other != room and lower >= layer:
                    wrong.append(f"{name} ({layer}) imports {target} ({lower})")
    assert wrong == []


def circle(trees: Mapping[str, ast.Module]) -> list[str]:
    """The modules of a circle of imports, the first one again at the end; empty where there is none."""
    graph: dict[str, set[str]] = {name: set() for name in trees}
    for name, tree in trees.items():
        for target in imports(tree):
            while target and target not in trees:
                target = target.rpartition(".")[0]
            if target and target != name:
                graph[name].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_imports_run_in_circles() -> None:
    assert circle({name: tree for name, tree in modules() if name != "mmalign"}) == []


def test_packages_are_entered_by_their_faces() -> None:
    wrong = []
    for name, tree in modules():
        own = ".".join(name.split(".")[:2])
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wrong += [f"{name} imports {one.name}" for one in node.names if one.name.startswith("mmalign.")]
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mmalign."):
                package = ".".join(node.module.split(".")[:2])
                if package in (own, "mmalign.errors"):
                    continue
                face = vars(import_module(package)).get("__all__", ())
                given = {one.name for one in node.names} & {*face, "lifecycle"}
                if node.module != package or len(given) < len(node.names):
                    wrong.append(f"{name} imports {', '.join(one.name for one in node.names)} from {node.module}")
    assert wrong == []


def test_faces_say_the_same_to_type_checkers() -> None:
    for name, tree in modules():
        if name.count(".") != 1 or not hasattr(made := import_module(name), "__getattr__"):
            continue
        told = {
            one.asname or one.name
            for block in tree.body
            if isinstance(block, ast.If)
            for node in ast.walk(block)
            if isinstance(node, ast.ImportFrom)
            for one in node.names
        }
        assert told == set(made.__all__) - {"main"}, name
        for one in made.__all__:
            assert getattr(made, one) is not None


def test_heavy_libraries_stay_at_home() -> None:
    wrong = []
    for name, tree in modules():
        for target in imports(tree):
            homes = HOMES.get(target.split(".")[0])
            if homes and not any(name == home or name.startswith(home + ".") for home in homes):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_the_checks_can_fail() -> None:
    code = "def f():\n    import faiss\nif TYPE_CHECKING:\n    from mmalign.cli import app\n"
    assert sorted(imports(ast.parse(code))) == ["faiss", "mmalign.cli.app"]
    a, b = ast.parse("if TYPE_CHECKING:\n    from p.b import B\n"), ast.parse("def f():\n    from p.a import A\n")
    assert set(circle({"p.a": a, "p.b": b})) == {"p.a", "p.b"}
    assert circle({"p.a": a, "p.b": ast.parse("import p")}) == []
    assert lookup("mmalign.index.faiss.index.FaissIndex") == ("mmalign.index", 2)


@pytest.mark.parametrize("module", ["mmalign", "mmalign.cli"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {*HOMES.keys() - {"typer"}, "numpy", "PIL", "pyarrow", "transformers", "rich.console"}
