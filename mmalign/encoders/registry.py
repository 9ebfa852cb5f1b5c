"""From the name of an encoder to the encoder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmalign.encoders.base import Encoder
from mmalign.encoders.open_clip_source import near_matches
from mmalign.encoders.specs import LITE_SPEC, LITE_VERSIONS
from mmalign.errors import EncoderSpecError

_FORMS = (
    "lite, open_clip:MODEL/WEIGHTS, open_clip:MODEL@/path/to/checkpoint, open_clip:local-dir:/path, "
    "open_clip:hf-hub:org/name, st:MODEL, st:/path, st:MODEL?dim=WIDTH, lite:/path or adapter:/path"
)
_MEMBERS = ("name", "dim", "fingerprint", "modalities", "encode_text", "encode_image")


def load_encoder(spec: str | Encoder, *, device: str | None = None) -> Encoder:
    """Load the encoder that a spec names.

    Args:
        spec: `lite` (or a version of it, such as `lite@1`), `open_clip:MODEL/WEIGHTS`,
            `open_clip:MODEL@/path/to/checkpoint`, `open_clip:local-dir:/path`, `open_clip:hf-hub:org/name`,
            `st:MODEL`, `st:/path`, either with `?dim=WIDTH` behind it for the first components alone, `lite:/path` and
            `adapter:/path` (what a training exported); or an object that has what `Encoder` asks for, which is returned
            as it is.
        device: A torch device such as `cpu` or `cuda:1`; None for CUDA where there is one, else the processor.

    Returns:
        The encoder.

    Raises:
        EncoderSpecError: The spec means nothing (the text lists near matches), or the object lacks something.
        ModelUnavailableError: The weights are not on this machine and cannot be fetched, or are not what they
            should be.
        MissingExtraError: The encoder needs an optional package.

    Example:
        >>> load_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k").dim  # doctest: +SKIP
        512
    """
    if not isinstance(spec, str):
        return _checked(spec)
    name = spec.strip()
    if name == "lite" or name.startswith("lite@"):
        return _lite(LITE_SPEC if name == "lite" else name, device)
    family, colon, rest = name.partition(":")
    if colon and rest and family == "open_clip":
        return _open_clip(rest, device)
    if colon and rest and family == "lite":
        from mmalign.encoders.lite.v2 import Lite2Encoder, trained_weights

        return Lite2Encoder(device=device, weights=trained_weights(rest))
    if colon and rest and family == "adapter":
        from mmalign.encoders.adapted import AdaptedEncoder

        return AdaptedEncoder(rest, load=load_encoder, device=device)
    if colon and rest and family == "st":
        from mmalign.encoders.sentence_transformers import SentenceTransformersEncoder

        model, width = _width(rest)
        return SentenceTransformersEncoder(model, device=device, dim=width)
    raise EncoderSpecError(f"no encoder is called {spec!r}{_near(name)}; the forms are: {_FORMS}")


def _width(rest: str) -> tuple[str, int | None]:
    """A model, and to which width its embeddings are cut; None for none."""
    model, mark, width = rest.rpartition("?dim=")
    if not mark:
        return rest, None
    if not model or not width.isascii() or not width.isdigit() or int(width) < 1:
        raise EncoderSpecError(f"a width is a whole number of at least 1, such as st:MODEL?dim=256, got 'st:{rest}'")
    return model, int(width)


def newer_version(spec: str | None) -> str | None:
    """Say what has come after a version of `lite`.

    Args:
        spec: The spec of any encoder, or None.

    Returns:
        The newest version, or None where `spec` is that, or is not a version of `lite` that is known here.

    Example:
        >>> newer_version("st:clip-ViT-B-32") is None
        True
    """
    return LITE_SPEC if spec in LITE_VERSIONS and spec != LITE_SPEC else None


def _lite(name: str, device: str | None) -> Encoder:
    if name not in LITE_VERSIONS:
        raise EncoderSpecError(
            f"no encoder is called {name!r}; the versions of lite that this mmalign knows are "
            f"{', '.join(LITE_VERSIONS)}. A newer one needs a newer mmalign: pip install --upgrade mmalign"
        )
    module, _, kind = LITE_VERSIONS[name].rpartition(".")
    encoder: Encoder = getattr(import_module(module), kind)(device=device)
    return encoder


def _open_clip(rest: str, device: str | None) -> Encoder:
    from mmalign.encoders.open_clip import OpenClipEncoder

    if rest.startswith(("local-dir:", "hf-hub:")):
        return OpenClipEncoder(rest, device=device)
    # The first @ decides: a path may hold another, a model's name holds none.
    model, at, path = rest.partition("@")
    if at and path:
        return OpenClipEncoder(model, checkpoint=Path(path), device=device)
    model, _, tag = rest.rpartition("/")
    if not model:
        model, tag = tag, ""
    return OpenClipEncoder(model, pretrained=tag or None, device=device)


def _near(name: str) -> str:
    from mmalign.encoders.catalog import SPECS

    family, colon, rest = name.partition(":")
    stem = rest if colon and rest else family
    near = _alike(name, stem, ["lite", *SPECS], cutoff=0.8)
    if not near and "/" in stem:
        # Only now: importing open_clip imports torch, which takes seconds.
        from mmalign.encoders.open_clip import known_specs

        near = _alike(name, stem, known_specs(), cutoff=0.6)
    near = near or _alike(name, stem, ["lite", *SPECS], cutoff=0.5)
    return f"; near: {', '.join(near)}" if near else ""


def _alike(name: str, stem: str, specs: Sequence[str], *, cutoff: float) -> list[str]:
    """Specs that look like `name`, then those whose part after the colon looks like `stem`."""
    by_stem = {spec.partition(":")[2]: spec for spec in specs if ":" in spec}
    whole = near_matches(name, specs, most=3, cutoff=cutoff)
    parts = [by_stem[part] for part in near_matches(stem, list(by_stem), most=3, cutoff=cutoff)]
    return list(dict.fromkeys(whole + parts))


def _checked(encoder: Any) -> Encoder:
    # hasattr would compute a lazy fingerprint, which reads all weights.
    missing = [name for name in _MEMBERS if not _has(encoder, name)]
    if missing:
        raise EncoderSpecError(
            f"an encoder has {', '.join(_MEMBERS)}; {type(encoder).__name__} lacks {', '.join(missing)}"
        )
    unknown = set(encoder.modalities) - {"text", "image"}
    if not encoder.modalities or unknown:
        raise EncoderSpecError(
            f"{type(encoder).__name__}.modalities must be a subset of {{'text', 'image'}} and not empty, "
            f"got {sorted(encoder.modalities)}"
        )
    checked: Encoder = encoder
    return checked


def _has(encoder: object, name: str) -> bool:
    try:
        inspect.getattr_static(encoder, name)
    except AttributeError:
        # What comes from __getattr__ alone, as in a proxy.
        return "__getattr__" in dir(type(encoder)) and hasattr(encoder, name)
    return True
