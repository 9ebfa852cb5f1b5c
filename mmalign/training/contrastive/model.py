"""What the training loop asks of a model: a frozen part, computed once and kept, and a trained part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import nn

from mmalign.training.cache import Arrays

Tensors: TypeAlias = Mapping[str, torch.Tensor]
"""Named arrays as tensors, on the model's device."""


class TrainableEncoder(nn.Module, ABC):
    """Two towers that are trained to agree, each behind a part that is not trained and whose output may be cached.

    A model that is trained from the pixels on has frozen parts that do nothing: `freeze_images` returns the pixels,
    `freeze_texts` the token numbers.

    Attributes:
        dim: Width of the embeddings.
        image_version: Names all that decides what `freeze_images` returns; part of the cache's file names.
        text_version: The same of `freeze_texts`.
        freezes_lists: Whether `freeze_images` takes a list of prepared pictures of different sizes, and spreads over
            the cores by itself. Where False, on a processor it is called in several threads at once with a few
            pictures each, torch kept to one core in each thread.
    """

    dim: int
    image_version: str
    text_version: str
    freezes_lists: bool = False

    @abstractmethod
    def prepare_image(self, picture: Image) -> NDArray[np.uint8]:
        """Make the model's input of a picture, already augmented; called in several worker threads at once.

        Args:
            picture: A picture of mode RGB.

        Returns:
            Array of shape (h, w, 3), uint8, the same h and w for every picture.
        """

    @abstractmethod
    def freeze_images(self, pictures: NDArray[np.uint8]) -> Arrays:
        """Run the frozen part of the picture tower, without gradients.

        Args:
            pictures: Array of shape (b, h, w, 3), uint8.

        Returns:
            Named arrays, each of shape (b, ...), of the same trailing shapes and dtypes for every batch.
        """

    @abstractmethod
    def freeze_texts(self, texts: Sequence[str]) -> Arrays:
        """Run the frozen part of the text tower, without gradients.

        Args:
            texts: n texts.

        Returns:
            Named arrays, each of shape (n, ...), of the same trailing shapes and dtypes for every call.
        """

    @abstractmethod
    def embed_images(self, inputs: Tensors) -> torch.Tensor:
        """Run the trained part of the picture tower.

        Args:
            inputs: What `freeze_images` returned, as tensors.

        Returns:
            Tensor of shape (b, dim), rows of length 1.
        """

    @abstractmethod
    def embed_texts(self, inputs: Tensors) -> torch.Tensor:
        """Run the trained part of the text tower.

        Args:
            inputs: What `freeze_texts` returned, as tensors.

        Returns:
            Tensor of shape (b, dim), rows of length 1.
        """

    def standardise(self, images: Tensors, texts: Tensors) -> None:
        """Set what depends on the data, such as the features' mean and deviation; called once before the first step.

        Args:
            images: What `freeze_images` returned for a sample of the training pictures.
            texts: What `freeze_texts` returned for a sample of the training captions.
        """

    def initial_scale(self) -> tuple[float, float] | None:
        """The inverse temperature and the bias that the weights were trained with, or None where there are none."""
        return None

    def auxiliary_loss(self) -> torch.Tensor | None:
        """A further loss of the step whose embeddings were computed last, or None."""
        return None

    def learning_rate_factor(self, name: str) -> float:
        """What the learning rate is multiplied with for the parameter of this name; 0 freezes it."""
        return 1.0

    @abstractmethod
    def export(self, folder: Path, *, metadata: Mapping[str, str]) -> Path:
        """Write the weights in the form in which they are used.

        Args:
            folder: An existing folder.
            metadata: Licence and provenance, kept with the weights; `scale` and `bias` hold the learned inverse
                temperature and bias as decimal numbers.

        Returns:
            The file or folder written; `load_encoder` or the class that belongs to it reads it.
        """
