"""Fine-tuning of any model of open_clip: end to end, its last blocks, or with one tower locked."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from safetensors.torch import save_file
from torch.nn import functional

from mmalign.encoders import PROBES, OpenClipEncoder, load_encoder, tokens_digest
from mmalign.errors import InputError
from mmalign.training.cache import Arrays
from mmalign.training.contrastive.model import Tensors, TrainableEncoder
from mmalign.training.options import parse_options
from mmalign.utils import write_atomic

_BLOCK = re.compile(r"(?:resblocks|blocks|layers?\d*)\.\d+\.")
_BEFORE_BLOCKS = (
    "conv1",
    "class_embedding",
    "positional_embedding",
    "ln_pre",
    "token_embedding",
    "embeddings",
    "patch_embed",
    "pos_embed",
    "cls_token",
    "stem",
)
_ROWS = 64
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.onnx", "*.h5")


@dataclass(frozen=True, slots=True)
class OpenClipOptions:
    """What `[model]` may say when `kind = "open_clip"`.

    Attributes:
        spec: What to begin with, as for `load_encoder`, with or without `open_clip:`.
        image_layers: Blocks of the picture tower that are trained, counted from its end, with all that follows them;
            -1 trains the whole tower, 0 locks it (its embeddings are then cached).
        text_layers: The same of the text tower.
        image_rate: Factor of the learning rate of the picture tower.
        text_rate: Factor of the learning rate of the text tower.
        layer_decay: Factor of the learning rate from each block to the one before it.
    """

    spec: str
    image_layers: int = -1
    text_layers: int = -1
    image_rate: float = 1.0
    text_rate: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay must be more than 0 and at most 1, got {self.layer_decay}")
        if min(self.image_layers, self.text_layers) < -1:
            raise InputError("image_layers and text_layers must be -1 (all), 0 (locked) or a number of blocks")


class OpenClipModel(TrainableEncoder):
    """A model of open_clip in training.

    A tower that is wholly locked is the frozen part: its embeddings are cached as they are. Otherwise the frozen part
    does nothing but bring pixels and token numbers.

    Args:
        options: As `OpenClipOptions` describes them.
        device: Where the model is to be.
        seed: Not used: all weights are loaded.

    Raises:
        InputError: Unknown options, or blocks that the model does not have.
        EncoderSpecError: No such model.
        ModelUnavailableError: Weights that are not here.

    Source: Zhai et al., LiT: Zero-Shot Transfer with Locked-image text Tuning, 2022, for the locked tower.
    """

    def __init__(self, options: Mapping[str, Any], *, device: torch.device, seed: int) -> None:
        super().__init__()
        self._options = parse_options(OpenClipOptions, options, where="model")
        spec = self._options.spec.removeprefix("open_clip:")
        encoder = load_encoder(f"open_clip:{spec}", device=str(device))
        if not isinstance(encoder, OpenClipEncoder):
            raise InputError(f"model.spec {self._options.spec!r} is no model of open_clip")
        self.dim, self._parts, self._device = encoder.dim, encoder.parts(), device
        self.clip: Any = self._parts.model
        self._names = {name: _side(name) for name, _ in self.clip.named_parameters()}
        self._blocks = {side: _blocks(self._names, side) for side in ("image", "text")}
        self._locked = {"image": self._options.image_layers == 0, "text": self._options.text_layers == 0}
        for side, wanted in (("image", self._options.image_layers), ("text", self._options.text_layers)):
            if wanted > len(self._blocks[side]):
                raise InputError(
                    f"model.{side}_layers is {wanted}, the {side} tower of {encoder.name} has "
                    f"{len(self._blocks[side])} blocks"
                )
        # The loss brings its own, which is written back on export.
        for name in ("logit_scale", "logit_bias"):
            # Of open_clip's models some have a bias, and some no scale.
            parameter = getattr(self.clip, name, None)
            if isinstance(parameter, torch.Tensor):
                parameter.requires_grad_(False)
        preprocessing = json.dumps(dict(self.clip.visual.preprocess_cfg), sort_keys=True, default=str)
        weights = _digest(self.clip) if any(self._locked.values()) else ""
        self.image_version = f"open_clip pixels {preprocessing}" + (weights if self._locked["image"] else "")
        tokens = tokens_digest(self._parts.tokenizer(list(PROBES)).tolist(), None)
        self.text_version = f"open_clip tokens {tokens}" + (weights if self._locked["text"] else "")

    def prepare_image(self, picture: Image) -> NDArray[np.uint8]:
        """Resize and crop a picture as the model's own preprocessing does; see `TrainableEncoder`."""
        tensor = self._parts.preprocess(picture)
        mean, deviation = self._statistics(torch.device("cpu"))
        # Back from the normalised tensor, whatever steps made it: the bytes it was made of come out exactly.
        pixels: NDArray[np.uint8] = ((tensor * deviation + mean) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return pixels

    def freeze_images(self, pictures: NDArray[np.uint8]) -> Arrays:
        """Return the pixels, or the embeddings of a locked tower; see `TrainableEncoder`."""
        if not self._locked["image"]:
            return {"pixels": np.ascontiguousarray(pictures)}
        with torch.inference_mode():
            found = self.clip.encode_image(self._normalised(torch.from_numpy(pictures).to(self._device)))
        return {"embedding": found.float().cpu().numpy()}

    def freeze_texts(self, texts: Sequence[str]) -> Arrays:
        """Return the token numbers, or the embeddings of a locked tower; see `TrainableEncoder`."""
        tokens = self._parts.tokenizer(list(texts))
        if not self._locked["text"]:
            return {"tokens": tokens.numpy().astype(np.int32)}
        with torch.inference_mode():
            parts = [self.clip.encode_text(part.to(self._device)) for part in tokens.split(_ROWS)]
        return {"embedding": torch.cat(parts).float().cpu().numpy()}

    def embed_images(self, inputs: Tensors) -> torch.Tensor:
        """Embed pixels; see `TrainableEncoder`."""
        if self._locked["image"]:
            return functional.normalize(inputs["embedding"], dim=-1)
        found: torch.Tensor = self.clip.encode_image(self._normalised(inputs["pixels"]), normalize=True)
        return found

    def embed_texts(self, inputs: Tensors) -> torch.Tensor:
        """Embed token numbers; see `TrainableEncoder`."""
        if self._locked["text"]:
            return functional.normalize(inputs["embedding"], dim=-1)
        found: torch.Tensor = self.clip.encode_text(inputs["tokens"].long(), normalize=True)
        return found

    def initial_scale(self) -> tuple[float, float] | None:
        """The scale and bias of the weights; see `TrainableEncoder`."""
        scale, bias = getattr(self.clip, "logit_scale", None), getattr(self.clip, "logit_bias", None)
        if scale is None:
            return None
        return float(scale.detach().exp().mean()), float(bias.detach().mean()) if bias is not None else -10.0

    def learning_rate_factor(self, name: str) -> float:
        """Factor of a parameter by its tower and block, 0 where it is locked; see `TrainableEncoder`."""
        name = name.removeprefix("clip.")
        side = self._names[name]
        if side == "loss" or self._locked[side]:
            return 0.0
        options = self._options
        wanted = options.image_layers if side == "image" else options.text_layers
        rate = options.image_rate if side == "image" else options.text_rate
        before = self._blocks_before_end(name, side)
        if wanted >= 0 and before >= wanted:
            return 0.0
        return float(rate * options.layer_decay**before)

    def export(self, folder: Path, *, metadata: Mapping[str, str]) -> Path:
        """Write a folder that `load_encoder("open_clip:local-dir:FOLDER")` loads; see `TrainableEncoder`.

        The file of weights in it also loads by `open_clip:MODEL@FOLDER/open_clip_model.safetensors`.
        """
        with torch.no_grad():
            if getattr(self.clip, "logit_scale", None) is not None:
                self.clip.logit_scale.fill_(math.log(float(metadata["scale"])))
            if getattr(self.clip, "logit_bias", None) is not None and float(metadata["bias"]):
                self.clip.logit_bias.fill_(float(metadata["bias"]))
        if self._parts.folder is not None:
            # Its tokenizer and the configuration of a tower from transformers.
            shutil.copytree(
                self._parts.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_WEIGHT_FILES)
            )
        description = {
            "model_cfg": self._parts.architecture,
            "preprocess_cfg": dict(self.clip.visual.preprocess_cfg),
        }
        (folder / "open_clip_config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        # Copies, since safetensors refuses tensors that share their memory.
        state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.clip.state_dict().items()}
        weights = folder / "open_clip_model.safetensors"
        write_atomic(weights, lambda path: save_file(state, path, metadata=dict(metadata)))
        return folder

    def train(self, mode: bool = True) -> OpenClipModel:
        """Set the mode; a locked picture tower, which may freeze fresh pictures at any time, stays in evaluation."""
        super().train(mode)
        if self._locked["image"]:
            self.clip.visual.eval()
        return self

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, deviation = self._statistics(pixels.device)
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / deviation

    def _statistics(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.clip.visual.preprocess_cfg
        mean, deviation = (torch.tensor(found[key], device=device)[:, None, None] for key in ("mean", "std"))
        return mean, deviation

    def _blocks_before_end(self, name: str, side: str) -> int:
        """How far a parameter is from the end of its tower, in blocks; what follows the blocks counts as the last."""
        blocks = self._blocks[side]
        match = _BLOCK.search(name)
        if match:
            return len(blocks) - 1 - blocks.index(name[: match.end()])
        return len(blocks) if any(part in name for part in _BEFORE_BLOCKS) else 0


def _blocks(names: Mapping[str, str], side: str) -> list[str]:
    """The prefixes of a tower's blocks, in the order in which data flows through them."""
    found = [name[: match.end()] for name, owner in names.items() if owner == side and (match := _BLOCK.search(name))]
    return list(dict.fromkeys(found))


def _side(name: str) -> str:
    if name in ("logit_scale", "logit_bias"):
        return "loss"
    return "image" if name.startswith("visual.") else "text"


def _digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(
            name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
