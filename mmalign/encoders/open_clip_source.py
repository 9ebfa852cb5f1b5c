"""Which weights an open_clip spec means, and how to ask open_clip for them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.errors import EncoderSpecError, ModelUnavailableError

_CONFIG_NAME = "open_clip_config.json"


@dataclass(frozen=True, slots=True)
class OpenClipSource:
    """What to hand to open_clip.

    Attributes:
        spec: The canonical spec.
        model: `model_name` of open_clip, scheme included.
        pretrained: `pretrained` of open_clip: a tag, the path of a file, or None with a scheme.
        options: Further keyword arguments of `create_model_from_pretrained`.
        needs_hub: Whether something may have to be fetched from the hub.
        architecture: The model's configuration, or None where only the hub has it.
    """

    spec: str
    model: str
    pretrained: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    needs_hub: bool = False
    architecture: Mapping[str, Any] | None = None


def resolve_source(
    library: Any, model: str, *, pretrained: str | None = None, checkpoint: str | Path | None = None
) -> OpenClipSource:
    """Check that a model and its weights are named in a way that open_clip understands.

    Args:
        library: The module `open_clip`.
        model: A model's name, `local-dir:/path` or `hf-hub:org/name`.
        pretrained: A tag of published weights.
        checkpoint: The path of a file of weights.

    Returns:
        The source.

    Raises:
        EncoderSpecError: No such model or tag, none given, or both a tag and a file.
        ModelUnavailableError: The file or folder is not there, or is not what it should be.
    """
    scheme, _, rest = model.partition(":")
    if scheme in ("local-dir", "hf-hub") and rest:
        if pretrained is not None or checkpoint is not None:
            raise EncoderSpecError(f"open_clip:{model} brings its own weights; leave out {pretrained or checkpoint}")
        if scheme == "hf-hub":
            return OpenClipSource(spec=f"open_clip:{model}", model=model, needs_hub=True)
        return _local_dir(Path(rest))
    # As open_clip does: its early releases wrote ViT-B/32.
    model = model.replace("/", "-")
    config = None if ":" in model else library.get_model_config(model)
    if config is None:
        models = library.list_models()
        known = [f"{name}/{tag}" for name, tag in library.list_pretrained()] if pretrained else models
        near = near_matches(f"{model}/{pretrained}" if pretrained else model, known)
        raise EncoderSpecError(f"open_clip has no model {model!r}; near: {_specs(near or near_matches(model, models))}")
    if pretrained is not None and checkpoint is not None:
        raise EncoderSpecError(f"{model}: give a tag ({pretrained}) or a file ({checkpoint}), not both")
    if checkpoint is not None:
        return _checkpoint(library, model, config, Path(checkpoint))
    return _published(library, model, config, pretrained)


def near_matches(text: str, known: Sequence[str], *, most: int = 5, cutoff: float = 0.5) -> list[str]:
    """The entries of `known` that look most like `text`, whatever their case.

    Args:
        text: What was typed.
        known: What there is.
        most: How many to return at most.
        cutoff: How alike they must be, 0 to 1.

    Returns:
        Entries of `known`, the likeliest first; empty where none comes near.
    """
    by_lower = {name.lower(): name for name in known}
    return [by_lower[name] for name in difflib.get_close_matches(text.lower(), list(by_lower), n=most, cutoff=cutoff)]


def _specs(names: Sequence[str]) -> str:
    return ", ".join(f"open_clip:{name}" for name in names) or "none; `mmalign models` lists some"


def _published(library: Any, model: str, config: dict[str, Any], pretrained: str | None) -> OpenClipSource:
    tags = library.pretrained.list_pretrained_tags_by_model(model)
    if pretrained is None:
        some = [f"{model}/{tag}" for tag in tags[:8]]
        raise EncoderSpecError(
            f"open_clip:{model} names no weights; "
            + (f"choose one: {_specs(some)}, or " if some else "none are published; ")
            + f"a file: open_clip:{model}@/path/to/checkpoint"
        )
    published = library.pretrained.get_pretrained_cfg(model, pretrained)
    if not published:
        near = near_matches(pretrained, tags) or tags[:8]
        raise EncoderSpecError(
            f"open_clip has no weights {pretrained!r} for {model}; near: {_specs([f'{model}/{tag}' for tag in near])}; "
            f"a file is named with @: open_clip:{model}@/path/to/checkpoint"
        )
    tag = pretrained.lower().replace("-", "_")
    # open_clip only warns where weights were trained with QuickGELU and the model is built without.
    quick_gelu = bool(published.get("quick_gelu", False))
    return OpenClipSource(
        spec=f"open_clip:{model}/{tag}",
        model=model,
        pretrained=tag,
        options={"force_quick_gelu": quick_gelu},
        needs_hub=True,
        architecture=config | ({"quick_gelu": True} if quick_gelu else {}),
    )


def _checkpoint(library: Any, model: str, config: dict[str, Any], path: Path) -> OpenClipSource:
    path = path.expanduser().absolute()
    spec = f"open_clip:{model}@{path}"
    if path.is_dir():
        raise ModelUnavailableError(f"{spec}: a file was expected, this is a folder; use open_clip:local-dir:{path}")
    if not path.is_file():
        raise ModelUnavailableError(f"{spec}: there is no file {path}")
    beside = path.parent / _CONFIG_NAME
    if beside.is_file():
        preprocessing = _read_config(beside, spec).get("preprocess_cfg", {})
    else:
        preprocessing = published_preprocessing(library, model)
    keys = ("mean", "std", "interpolation", "resize_mode")
    text = config["text_cfg"]
    names = [text[key] for key in ("hf_tokenizer_name", "hf_model_name") if text.get(key)]
    return OpenClipSource(
        spec=spec,
        model=model,
        pretrained=str(path),
        options={f"image_{key}": preprocessing[key] for key in keys if key in preprocessing},
        needs_hub=any(not Path(name).is_dir() for name in names),
        architecture=config,
    )


def published_preprocessing(library: Any, model: str) -> dict[str, Any]:
    """The preprocessing that all published weights of a model share.

    open_clip preprocesses for a file of weights as for OpenAI's CLIP, which is wrong for SigLIP and MobileCLIP.

    Args:
        library: The module `open_clip`.
        model: The model's name.

    Returns:
        `mean`, `std`, `interpolation` and `resize_mode`; empty where weights differ or none are published.
    """
    keys = ("mean", "std", "interpolation", "resize_mode")
    tags = library.pretrained.list_pretrained_tags_by_model(model)
    found = [library.pretrained.get_pretrained_cfg(model, tag) for tag in tags]
    variants = [{key: config[key] for key in keys if key in config} for config in found]
    return variants[0] if variants and all(variant == variants[0] for variant in variants) else {}


def _local_dir(folder: Path) -> OpenClipSource:
    folder = folder.expanduser().absolute()
    spec = f"open_clip:local-dir:{folder}"
    if not folder.is_dir():
        raise ModelUnavailableError(f"{spec}: there is no such folder")
    if not (folder / _CONFIG_NAME).is_file():
        raise ModelUnavailableError(f"{spec}: the folder holds no {_CONFIG_NAME}; is it saved by open_clip?")
    architecture = _read_config(folder / _CONFIG_NAME, spec).get("model_cfg")
    if not isinstance(architecture, dict) or "text_cfg" not in architecture:
        raise ModelUnavailableError(f"{spec}: {_CONFIG_NAME} has no model_cfg with a text_cfg")
    text = architecture["text_cfg"]
    tower = text.get("hf_model_name")
    options: dict[str, Any] = {}
    if tower and (folder / tower / "config.json").is_file():
        # A tower that lies in the folder is named relative to it; transformers would look in the working folder.
        options["text_cfg"] = text | {"hf_model_name": str(folder / tower), "hf_model_pretrained": False}
        tower = None
    return OpenClipSource(
        spec=spec,
        model=f"local-dir:{folder}",
        options=options,
        needs_hub=tower is not None and not Path(tower).is_dir(),
        architecture=architecture,
    )


def _read_config(path: Path, spec: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"{spec}: {path} is not readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelUnavailableError(f"{spec}: {path} holds no JSON object")
    return config
