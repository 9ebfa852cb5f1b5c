"""Views of a picture to train on: as it is, mirrored, or a random part of it in slightly other colours."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image, ImageEnhance

from mmalign.errors import InputError

_LEAST_AREA = 0.5
_ASPECT = 1.25
_COLOUR = 0.2


def check_views(views: Sequence[str], *, cached: bool) -> None:
    """Refuse views that are unknown, doubled or out of order.

    Args:
        views: The names.
        cached: Whether they are computed once; see `mmalign.training.contrastive.config.DataConfig.views`.

    Raises:
        InputError: Such a view; none at all; or cached views of which the first is not `plain`.
    """
    if not views or len(set(views)) < len(views):
        raise InputError(f"views must be one or more different names, got {list(views)}")
    if cached and views[0] != "plain":
        raise InputError(f"views must begin with plain when data.cached is true, got {list(views)}")
    for view in views:
        kind, _, number = view.partition("-")
        numbered = kind == "crop" and cached and number.isdigit() and int(number) > 0
        if not (view in ("plain", "flip") or numbered or (view == "crop" and not cached)):
            known = "plain, flip, crop-1, crop-2, ..." if cached else "plain, flip, crop"
            raise InputError(f"no view is called {view!r}; with data.cached = {str(cached).lower()} they are {known}")


def make_view(picture: Image.Image, *, view: str, seed: str) -> Image.Image:
    """Make one view of a picture.

    Args:
        picture: A picture of mode RGB.
        view: `plain`; `flip`, mirrored; `crop` or `crop-N`, a random part of at least half the area, mirrored every
            other time, with brightness, contrast and colour changed by up to a fifth.
        seed: Of the random choices; the same view, seed and picture always give the same result.

    Returns:
        A picture of mode RGB, for a `crop` perhaps a smaller one.

    Raises:
        InputError: No such view.

    Source: the random crop of Szegedy et al., Going Deeper with Convolutions, 2015, with milder bounds: a caption
    tells of the whole picture.
    """
    kind = view.partition("-")[0]
    if kind == "plain":
        return picture
    if kind == "flip":
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind != "crop":
        raise InputError(f"no view is called {view!r}; the views are plain, flip and crop")
    draw = random.Random(f"{view}/{seed}")
    width, height = picture.size
    side = draw.uniform(_LEAST_AREA, 1) ** 0.5
    aspect = draw.uniform(1 / _ASPECT, _ASPECT) ** 0.5
    part = (min(width, max(1, round(width * side * aspect))), min(height, max(1, round(height * side / aspect))))
    left, top = draw.randint(0, width - part[0]), draw.randint(0, height - part[1])
    result = picture.crop((left, top, left + part[0], top + part[1]))
    if draw.random() < 0.5:
        result = result.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        result = change(result).enhance(draw.uniform(1 - _COLOUR, 1 + _COLOUR))
    return result


def fresh_view(views: Sequence[str], *, seed: str) -> str:
    """Draw the view of a picture that is augmented afresh.

    Args:
        views: Some of `plain`, `flip`, `crop`.
        seed: Of the choice.

    Returns:
        One of them; `flip` turns into `plain` where it stands alone, every other time.
    """
    draw = random.Random(f"view/{seed}")
    return draw.choice([*views, "plain"] if tuple(views) == ("flip",) else list(views))
