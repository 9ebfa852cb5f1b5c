from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.encoders import encode_query, registry
from mmalign.encoders.registry import load_encoder, newer_version
from mmalign.errors import EncoderSpecError


class Own:
    """A caller's own encoder, whose fingerprint is costly."""

    name = "own@1"
    dim = 2
    modalities = frozenset({"text"})
    asked = 0

    @property
    def fingerprint(self) -> str:
        type(self).asked += 1
        return "0" * 64

    def encode_text(self, texts: Any, *, batch_size: int = 64) -> Any:
        return np.zeros((len(texts), 2), np.float32)

    def encode_image(self, images: Any, *, batch_size: int = 32) -> Any:
        raise NotImplementedError


def test_an_object_with_the_protocol_is_returned_as_it_is() -> None:
    own = Own()
    assert load_encoder(own) is own
    assert Own.asked == 0


def test_an_object_without_roles_encodes_queries_as_texts() -> None:
    asked: list[tuple[list[str], int]] = []

    class Plain(Own):
        def encode_text(self, texts: Any, *, batch_size: int = 64) -> Any:
            asked.append((list(texts), batch_size))
            return np.ones((len(texts), 2), np.float32)

    assert encode_query(load_encoder(Plain()), ["a", "b"], batch_size=7).shape == (2, 2)
    assert asked == [(["a", "b"], 7)]


def test_an_object_that_lacks_something_is_told_what() -> None:
    class Half:
        name = "half"
        dim = 2

        def encode_text(self, texts: Any) -> Any: ...

    with pytest.raises(EncoderSpecError, match="Half lacks fingerprint, modalities, encode_image"):
        load_encoder(Half())  # type: ignore[arg-type]
    with pytest.raises(EncoderSpecError, match="NoneType lacks name"):
        load_encoder(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("modalities", [frozenset(), frozenset({"text", "smell"})])
def test_modalities_must_be_known(modalities: frozenset[str]) -> None:
    own = Own()
    own.modalities = modalities  # type: ignore[misc]
    with pytest.raises(EncoderSpecError, match="must be a subset of"):
        load_encoder(own)


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("lit", "lite"),
        ("openclip:ViT-B-32/openai", "open_clip:ViT-B-32/openai"),
        ("ViT-B-32/laion2b_s34b_b79k", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        ("clip-ViT-B-32", "st:clip-ViT-B-32"),
        ("RN50x4/openai", "open_clip:RN50x4/openai"),
    ],
)
def test_a_wrong_spec_lists_near_matches(spec: str, near: str) -> None:
    with pytest.raises(EncoderSpecError, match="no encoder is called") as caught:
        load_encoder(spec)
    assert near in str(caught.value).partition("near: ")[2].partition(";")[0].split(", ")


class Versioned(Own):
    """A version of lite that does not exist."""

    def __init__(self, *, device: str | None = None) -> None:
        self.device = device


def test_lite_is_its_newest_version(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = list(registry.LITE_VERSIONS)[-1]
    assert newest == registry.LITE_SPEC
    for spec in registry.LITE_VERSIONS:
        monkeypatch.setitem(registry.LITE_VERSIONS, spec, f"{__name__}.Versioned")
    monkeypatch.setitem(registry.LITE_VERSIONS, newest, f"{__name__}.Newest")
    assert type(load_encoder("lite", device="cpu")) is Newest
    assert load_encoder("lite@1", device="cpu").device == "cpu"  # type: ignore[attr-defined]
    for spec in registry.LITE_VERSIONS:
        assert type(load_encoder(spec)) is (Newest if spec == newest else Versioned)


class Newest(Versioned):
    """The newest of them."""


def test_what_has_come_after_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LITE_VERSIONS", {"lite@1": "a.B", "lite@2": "a.C", "lite@3": "a.D"})
    monkeypatch.setattr(registry, "LITE_SPEC", "lite@3")
    specs = ["lite@1", "lite@2", "lite@3", "lite@4", "st:clip-ViT-B-32", None]
    assert [newer_version(spec) for spec in specs] == ["lite@3", "lite@3", None, None, None, None]


@pytest.mark.parametrize("spec", ["lite@99", "lite@0", "lite@", "lite@1.0"])
def test_an_unknown_version_lists_the_known_ones_and_says_upgrade(spec: str) -> None:
    with pytest.raises(EncoderSpecError, match=r"no encoder is called 'lite@.*knows are lite@1\b.*--upgrade mmalign"):
        load_encoder(spec)


def test_every_version_of_lite_has_its_class() -> None:
    for spec, place in registry.LITE_VERSIONS.items():
        module, _, kind = place.rpartition(".")
        assert getattr(import_module(module), kind).name == spec


@pytest.mark.parametrize("spec", ["", "open_clip:", "st:", "onnx:model"])
def test_a_spec_without_meaning_lists_the_forms(spec: str) -> None:
    with pytest.raises(EncoderSpecError, match=r"the forms are: lite, open_clip:MODEL/WEIGHTS, .*st:/path"):
        load_encoder(spec)


def test_the_registry_and_the_catalogue_import_nothing_heavy(root: Path) -> None:
    code = (
        "import sys\n"
        "from mmalign.encoders.registry import load_encoder\n"
        "from mmalign.encoders.catalog import list_models\n"
        "list_models()\n"
        "try: load_encoder('lit')\n"
        "except ValueError: pass\n"
        "heavy = {'torch', 'open_clip', 'transformers', 'sentence_transformers', 'timm', 'torchvision'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
