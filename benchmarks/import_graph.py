"""The shape of the package, counted from its imports: loose modules, circles, floors, and doors other than the faces.

python -m benchmarks.import_graph [FOLDER_OF_THE_PACKAGE]

A module is a node, and each import of it an arrow, those within functions and those for type checkers alone among
them: whoever names a type knows the module. A package is its `__init__`. The face of a package is what its `__init__`
gives; a module that another package imports by its own name is a door beside it.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx

from benchmarks.results import write

NAME = "mmalign"


def modules(package: Path) -> dict[str, Path]:
    """The modules of a package by dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faces(package: Path) -> dict[str, str]:
    """What the packages give, by the name that it is imported by: the module that it comes from."""
    found = {}
    for name, path in modules(package).items():
        if path.name != "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{name}."):
                found |= {f"{name}.{alias.asname or alias.name}": node.module for alias in node.names}
    return found


def graph(package: Path, *, through: bool) -> nx.DiGraph:
    """An arrow from each module to each that it imports.

    Args:
        package: The folder.
        through: Whether what is taken from a face is an arrow to where it comes from, else it is one to the face.
    """
    known = modules(package)
    given = faces(package) if through else {}
    made = nx.DiGraph()
    made.add_nodes_from(known)
    for name, path in known.items():
        for target in imports(ast.parse(path.read_text(encoding="utf-8"))):
            target = given.get(target, target)
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target and target != name:
                made.add_edge(name, target)
    return made


def package_of(name: str) -> str:
    """The package at the top that a module lies in; a loose module is its own."""
    return ".".join(name.split(".")[:2])


def measure(package: Path) -> dict[str, Any]:
    """Count."""
    found = graph(package, through=True)
    top = {package_of(name) for name in found} - {NAME}
    packages = {name for name in top if (package / name.partition(".")[2]).is_dir()}
    circles = [sorted(part) for part in nx.strongly_connected_components(found) if len(part) > 1]
    floors = nx.condensation(found)
    doors = defaultdict(set)
    for importer, target in graph(package, through=False).edges:
        if NAME in (importer, target) or package_of(importer) == package_of(target):
            continue
        if target != package_of(target):
            doors[package_of(target)].add(target)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(package).items()}
    return {
        "imports_counted": "all, those within functions and under TYPE_CHECKING as well",
        "modules": len(found),
        "arrows": found.number_of_edges(),
        "packages_at_the_top": len(packages),
        "loose_modules_at_the_top": len(top) - len(packages) + 1,
        "modules_imported_from_outside_their_package": sum(map(len, doors.values())),
        "circles": len(circles),
        "modules_in_circles": circles,
        "floors": nx.dag_longest_path_length(floors) + 1,
        "doors_by_package": {name: len(doors[name]) for name in sorted(doors)},
        "largest_files": dict(sorted(lines.items(), key=lambda one: -one[1])[:10]),
    }


def main() -> None:
    """Print what was counted, and write it."""
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / NAME
    figures = measure(package)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if len(sys.argv) == 1:
        write("import_graph", "the imports of mmalign's modules", figures)


if __name__ == "__main__":
    main()
