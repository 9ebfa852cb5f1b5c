"""The names that `import mmalign` promises."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import mmalign

PUBLIC = [
    "AddReport",
    "Aligner",
    "Alignment",
    "Box",
    "Caption",
    "Captioner",
    "Collection",
    "Encoder",
    "EncoderBase",
    "Hit",
    "IndexManifest",
    "Item",
    "MMAlignError",
    "Note",
    "Phrase",
    "Query",
    "ReencodeReport",
    "Region",
    "Relation",
    "SearchResult",
    "Skip",
    "StoredItem",
    "TextStore",
    "__version__",
    "align",
    "audit",
    "evaluate_calibration",
    "evaluate_captions",
    "evaluate_classes",
    "evaluate_grounding",
    "evaluate_pairs",
    "evaluate_retrieval",
    "load_encoder",
    "register_backend",
    "write_contact_sheet",
]


def test_the_public_names_are_these() -> None:
    assert sorted(mmalign.__all__) == PUBLIC
    assert set(dir(mmalign)) >= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_can_be_imported(name: str) -> None:
    assert getattr(mmalign, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colection'"):
        mmalign.colection  # noqa: B018


def test_all_errors_are_one_family() -> None:
    errors = importlib.import_module("mmalign.errors")
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and kind.__module__ == errors.__name__:
            # Ctrl-C must not be caught by what catches errors.
            assert issubclass(kind, KeyboardInterrupt if name.endswith("Interrupted") else errors.MMAlignError)
            assert name in errors.__doc__, f"{name} is not in the tree of the module's docstring"


def test_import_takes_under_a_fifth_of_a_second_of_work() -> None:
    """Counted in modules, since seconds depend on the machine: nothing beyond the standard library."""
    code = "import sys; before = set(sys.modules); import mmalign; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) == {"mmalign"}
