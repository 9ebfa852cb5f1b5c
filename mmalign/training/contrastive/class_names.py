"""The names of ImageNet's classes, in the order of a classifier's outputs."""

from __future__ import annotations

from typing import Any

CLASS_PROMPT = "a photo of a {}"
"""How a class's name is put into a sentence; see Radford et al., CLIP, 2021."""


def class_names() -> list[str]:
    """Return the first name of each of the 1,000 classes, as WordNet writes it.

    Returns:
        Names such as `tench` and `Afghan hound`; two of them occur twice.
    """
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).split(",")[0].strip() for index in range(info.num_classes())]
