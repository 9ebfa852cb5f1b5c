"""What a wheel holds, and that an installed mmalign finds its recipes and its gallery."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

FOLDERS = {"mmalign.recipes": "indexes", "mmalign.gallery": "examples/gallery"}


@pytest.fixture(scope="session")
def settings(root: Path) -> dict[str, object]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the files that git would check out."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()]
    assert names, "the wheel is built from a git checkout"
    for name in names:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("*.whl"))


def test_the_list_of_packages_is_the_tree(root: Path, settings: dict) -> None:
    inside = {
        ".".join(path.parent.relative_to(root).parts)
        for path in (root / "mmalign").rglob("__init__.py")
        if "__pycache__" not in path.parts
    }
    assert sorted(settings["tool"]["setuptools"]["packages"]) == sorted(inside | FOLDERS.keys())


def test_the_wheel_holds_recipes_gallery_weights_and_licence(root: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in FOLDERS.items():
        for path in (root / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{package.replace('.', '/')}/{path.relative_to(root / folder).as_posix()}" in names
    assert any(name.startswith("mmalign/recipes/") and name.endswith(".toml") for name in names)
    for path in (root / "mmalign" / "encoders" / "lite" / "weights").iterdir():
        assert f"mmalign/encoders/lite/weights/{path.name}" in names
    assert "mmalign/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"mmalign", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


CHECK = """
import mmalign, json, sys
from importlib.resources import files
from mmalign.regions.proposals import usual_boxes
from mmalign.index.planning.costs import load_costs
from mmalign.index.planning.recipe import list_recipes
load_costs()
usual_boxes()
print(json.dumps([mmalign.__file__, len(list_recipes()),
    sum(1 for line in (files("mmalign.gallery") / "manifest.jsonl").read_text(encoding="utf-8").splitlines())]))
"""


def test_an_installed_wheel_finds_its_data(root: Path, wheel: Path, tmp_path: Path) -> None:
    """Installed into an environment of its own, which borrows only the dependencies of this one."""
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    borrowed = Path(distribution("numpy").locate_file(""))
    # Only a path, so that the .pth file of an editable install is not read and cannot answer for the wheel.
    (site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    run = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", CHECK], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    file, recipes, pictures = __import__("json").loads(run.stdout)
    assert file == str(site / "mmalign" / "__init__.py")
    assert recipes == len(list((root / "indexes").glob("*.toml")))
    assert pictures >= 140


def test_the_editable_install_finds_its_data(root: Path, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", CHECK], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    file, recipes, pictures = __import__("json").loads(run.stdout)
    assert file == str(root / "mmalign" / "__init__.py")
    assert recipes == len(list((root / "indexes").glob("*.toml")))
    assert pictures >= 140


def test_constraints_name_no_registry(root: Path) -> None:
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or line.partition("==")[1], line
        assert "://" not in line
