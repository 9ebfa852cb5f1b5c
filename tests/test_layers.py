"""A module imports only from lower layers, and each heavy library lives in its own room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mmalign"

# Layer by module or room; the longest match counts. Rooms of the second layer never import one another. Within the
# third layer the facade stands on the parts that it joins, and everything else stands on the facade.
LAYERS = {
    "mmalign": 9.0,
    "mmalign.errors": 0.0,
    "mmalign.types": 0.1,
    "mmalign.similarity": 1.0,
    "mmalign.pixels": 1.0,
    "mmalign.locks": 1.0,
    "mmalign.processes": 1.0,
    "mmalign.json_checksum": 1.0,
    "mmalign.progress": 1.05,
    "mmalign.quantities": 1.0,
    "mmalign.metrics": 1.1,
    "mmalign.calibration": 1.2,
    # Encoders take paths, and decode them as ingest does.
    "mmalign.media": 1.9,
    "mmalign.encoders": 2.0,
    "mmalign.store": 2.0,
    "mmalign.index": 2.0,
    "mmalign.alignment": 2.0,
    "mmalign.captioning": 2.0,
    "mmalign.evidence": 2.7,
    "mmalign.aligning": 2.8,
    "mmalign.query_bank": 1.0,
    "mmalign.query": 3.0,
    "mmalign.locate": 3.0,
    "mmalign.reader": 3.0,
    "mmalign.vectors": 3.0,
    "mmalign.coverage": 2.9,
    "mmalign.upkeep": 3.0,
    "mmalign.exact_rows": 2.9,
    "mmalign.search_plan": 2.9,
    "mmalign.searcher": 3.0,
    "mmalign.hits": 3.05,
    "mmalign.confidence": 3.05,
    "mmalign.contact_sheet": 3.0,
    "mmalign.evaluation": 3.0,
    "mmalign.training": 3.15,
    "mmalign.ingest": 3.1,
    "mmalign.caption_search": 3.02,
    "mmalign.captions": 3.15,
    "mmalign.grounding": 3.15,
    "mmalign.caption_items": 3.16,
    "mmalign.promise": 3.05,
    "mmalign.recheck": 3.1,
    "mmalign.generation": 3.1,
    "mmalign.renewal": 3.1,
    "mmalign.reencode": 3.15,
    "mmalign.explaining": 3.15,
    "mmalign.collection": 3.2,
    "mmalign.doctor": 3.3,
    "mmalign.demo": 3.3,
    "mmalign.bench_sources": 3.3,
    "mmalign.benching": 3.35,
    "mmalign.cli": 4.0,
}
HOMES = {
    "faiss": ("mmalign.index.faiss",),
    "open_clip": ("mmalign.encoders.open_clip",),
    "sentence_transformers": ("mmalign.encoders.sentence_transformers",),
    "lance": ("mmalign.store",),
    "sqlglot": ("mmalign.store",),
    "networkx": ("mmalign.alignment",),
    "spacy": ("mmalign.alignment.spacy_phrases",),
    "pymilvus": ("mmalign.index.milvus",),
    "fastapi": ("mmalign.service",),
    "torch": ("mmalign.encoders", "mmalign.captioning", "mmalign.training"),
    "matplotlib": ("mmalign.evaluation",),
    "timm": ("mmalign.encoders", "mmalign.training"),
    "typer": ("mmalign.cli",),
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module, *, at_import: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; type-checking blocks and, on demand, function bodies left out."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def lookup(name: str) -> tuple[str, float]:
    """The longest entry of LAYERS that `name` is or lies in."""
    while name not in LAYERS:
        name = name.rpartition(".")[0]
    return name, LAYERS[name]


def test_every_module_has_a_layer() -> None:
    rooms = {".".join(name.split(".")[:2]) for name, _ in modules()}
    assert sorted(rooms - LAYERS.keys()) == []
    assert sorted(LAYERS.keys() - rooms) == []


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


def test_heavy_libraries_stay_at_home() -> None:
    wrong = []
    for name, tree in modules():
        for target in imports(tree):
            homes = HOMES.get(target.split(".")[0])
            if homes and not any(name == home or name.startswith(home + ".") for home in homes):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_the_checks_can_fail() -> None:
    tree = ast.parse("def f():\n    import faiss\nfrom mmalign.cli import app\n")
    assert sorted(imports(tree)) == ["faiss", "mmalign.cli.app"]
    assert list(imports(tree, at_import=True)) == ["mmalign.cli.app"]
    assert lookup("mmalign.index.faiss.FaissIndex") == ("mmalign.index", 2.0)


@pytest.mark.parametrize("module", ["mmalign", "mmalign.cli"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {*HOMES.keys() - {"typer"}, "numpy", "PIL", "pyarrow", "transformers", "rich.console"}
