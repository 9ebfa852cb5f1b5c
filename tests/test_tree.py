"""The tests lie as the modules do: `tests/` has mmalign's folders, and what is about a module lies in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path, PurePath

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "mmalign"

# Folders that are named after nothing in mmalign, and what is in them.
OTHERS = {
    "benchmarks": "tests of the scripts in benchmarks/",
    "data": "collections as earlier versions wrote them",
    "examples": "tests of the scripts and the gallery in examples/",
    "flips": "a longer run of its own: bits that flip in a collection's files",
    "kills": "a longer run of its own: SIGKILL of commands",
    "random_operations": "a longer run of its own, and a short one: random operations beside an oracle",
    "tools": "what tests of several folders use",
}
# Tests of no single package, which alone lie at the top, and what they are about.
WHOLE = {
    "api_probes": "every public call, given what it does not take",
    "docs": "README, the pages and the docstrings",
    "layers": "who imports whom",
    "old_collections": "formats on disk, through all that is done with a collection",
    "packaging": "what a wheel holds",
    "page_names": "names in README and the pages",
    "public_api": "the names that `import mmalign` promises",
    "tree": "this tree",
}


def files(folder: Path) -> list[PurePath]:
    """What is in a folder and below it; what Python left there does not count."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts)


def folders(paths: Iterable[PurePath]) -> set[str]:
    return {parent.as_posix() for path in paths for parent in path.parents} - {"."}


def strange_folders(tests: Iterable[PurePath], modules: Iterable[PurePath], others: Set[str]) -> list[str]:
    """The folders of tests that are neither named after a package nor among the others."""
    mirrored = {name for name in folders(tests) if PurePath(name).parts[0] not in others}
    return sorted(mirrored - folders(modules))


def misplaced(tests: Iterable[PurePath], modules: Iterable[PurePath], others: Set[str], whole: Set[str]) -> list[str]:
    """The test files that have the name of a module and lie in another folder, or are loose at the top."""
    homes: dict[str, list[str]] = {}
    for path in modules:
        homes.setdefault(path.stem, []).append(path.parent.as_posix())
    wrong = []
    for path in tests:
        name, folder = path.stem.removeprefix("test_"), path.parent.as_posix()
        if path.suffix != ".py" or not path.stem.startswith("test_") or path.parts[0] in others:
            continue
        if folder == ".":
            wrong += [] if name in whole else [f"{path} lies at the top and is not in WHOLE"]
        elif folder not in homes.get(name, [folder]):
            wrong.append(f"{path} has the name of a module in {', '.join(sorted(homes[name]))}")
    return wrong


def test_folders_are_those_of_mmalign() -> None:
    there, modules = files(TESTS), files(PACKAGE)
    assert strange_folders(there, modules, OTHERS.keys()) == []
    # What has gone, or has become a package, is no reason any more.
    assert sorted(OTHERS.keys() - folders(there)) == []
    assert sorted(OTHERS.keys() & folders(modules)) == []


def test_each_file_lies_in_the_folder_of_its_module() -> None:
    there = files(TESTS)
    assert misplaced(there, files(PACKAGE), OTHERS.keys(), WHOLE.keys()) == []
    assert sorted(WHOLE.keys() - {path.stem.removeprefix("test_") for path in there if len(path.parts) == 1}) == []


def test_every_folder_with_python_is_a_package() -> None:
    there = files(TESTS)
    homes = {path.parent for path in there if path.suffix == ".py"}
    assert sorted(str(home) for home in homes if home / "__init__.py" not in there) == []


def test_the_checks_can_fail() -> None:
    modules = [PurePath(path) for path in ("store/names.py", "index/faiss/scan.py", "index/exact.py")]
    good = ["store/test_names.py", "index/faiss/test_scan.py", "index/test_filters.py", "kills/test_exact.py"]
    bad = ["index/test_scan.py", "test_names.py", "test_whatever.py"]
    paths = [PurePath(path) for path in (*good, *bad, "test_layers.py", "conftest.py", "kills/deep/a.txt")]
    assert strange_folders(paths, modules, {"kills"}) == []
    assert strange_folders(paths, modules, set()) == ["kills", "kills/deep"]
    assert [told.split()[0] for told in misplaced(paths, modules, {"kills"}, {"layers"})] == bad
