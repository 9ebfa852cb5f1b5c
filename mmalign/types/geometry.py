"""Places in a picture, and the parts of a sentence that may speak of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

from mmalign.errors import InputError
from mmalign.types.arguments import check_integer, check_number, check_type
from mmalign.types.fields import field_values
from mmalign.types.json_ready import json_ready_dict


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a picture, in pixels from its top left corner.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: More than 0.
        height: More than 0.

    Raises:
        InputError: A number that is not finite, or a width or height of 0 or less.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        values = field_values(self)
        for name in ("x", "y", "width", "height"):
            check_type(f"the {name} of a box", values[name], Real, "a number")
        if not all(map(math.isfinite, self.to_list())) or self.width <= 0 or self.height <= 0:
            raise InputError(
                f"a box is [x, y, width, height] in pixels with width and height above 0, got {self.to_list()}; "
                "two corners [left, top, right, bottom] become [left, top, right - left, bottom - top]"
            )

    @property
    def area(self) -> float:
        """In square pixels."""
        return self.width * self.height

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def clipped(self, width: float, height: float) -> Box:
        """Give the part of the box that lies in a picture.

        Args:
            width: Of the picture, in pixels.
            height: Of the picture, in pixels.

        Returns:
            That part; the same box where all of it does.

        Raises:
            InputError: No part of it does.
        """
        check_number("width", width)
        check_number("height", height)
        left, top, right, bottom = self.corners
        left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        if right <= left or bottom <= top:
            raise InputError(
                f"the box {self.to_list()} lies outside the picture, which is {width:g} x {height:g} pixels"
            )
        return Box(left, top, right - left, bottom - top)

    def to_list(self) -> list[float]:
        """Return [x, y, width, height]."""
        return [self.x, self.y, self.width, self.height]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an item that a hit points to; what is None does not bound it.

    Attributes:
        start_s: Where it begins in a film or sound, in seconds from the start.
        end_s: Where it ends, in seconds, at least `start_s`.
        box: Where it is in a picture, in pixels.
        page: Which page of a document, from 1.

    Raises:
        InputError: Times that are negative, not finite or in the wrong order, or a page below 1.

    Example:
        >>> Part(start_s=2.0, end_s=4.5).to_dict()
        {'start_s': 2.0, 'end_s': 4.5}
    """

    start_s: float | None = None
    end_s: float | None = None
    box: Box | None = None
    page: int | None = None

    def __post_init__(self) -> None:
        values = field_values(self)
        for name in ("start_s", "end_s"):
            seconds = values[name]
            if seconds is not None:
                check_type(f"the {name} of a part", seconds, Real, "a number of seconds")
                if not math.isfinite(seconds) or seconds < 0:
                    raise InputError(f"the {name} of a part must be seconds from 0 on, got {seconds}")
        if self.start_s is not None and self.end_s is not None and self.end_s < self.start_s:
            raise InputError(f"a part ends where it begins or later, got start_s={self.start_s}, end_s={self.end_s}")
        if self.box is not None:
            check_type("the box of a part", self.box, Box, "a Box")
        if self.page is not None:
            check_integer("the page of a part", self.page, least=1)

    def to_dict(self) -> dict[str, Any]:
        """Return what bounds the part as JSON-ready values."""
        box = None if self.box is None else self.box.to_list()
        payload = {"start_s": self.start_s, "end_s": self.end_s, "box": box, "page": self.page}
        return json_ready_dict({name: value for name, value in payload.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture that a phrase may be about.

    Attributes:
        box: Where it is.
        source: What proposed it, such as `segment`, `peak`, `detector`, `given` or `whole`.
        score: How sure that was that something is there, 0 to 1; 1 where it does not say.
        label: What a detector calls it, else empty.
    """

    box: Box
    source: str = "given"
    score: float = 1.0
    label: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the region as JSON-ready values."""
        return json_ready_dict(
            {"box": self.box.to_list(), "source": self.source, "score": self.score, "label": self.label}
        )


@dataclass(frozen=True, slots=True)
class Phrase:
    """A part of a sentence that may name something in a picture.

    Attributes:
        text: The phrase, such as `two small dogs`.
        start: Where it begins in the sentence, in characters; -1 where it was given by itself.
        end: Where it ends, exclusive; -1 likewise.
        head: The noun that it turns on, such as `dogs`; the whole text where nobody says.
        modifiers: Words that narrow the head, such as `small`.
        plural: Whether it speaks of several things.
        count: Of how many, where it says so.
        antecedent: Index of the phrase that a pronoun or a repeated mention stands for, or None.
        abstract: Whether it names nothing that can be seen in one place, such as `the background`, `a sunny day`.
    """

    text: str
    start: int = -1
    end: int = -1
    head: str = ""
    modifiers: tuple[str, ...] = ()
    plural: bool = False
    count: int | None = None
    antecedent: int | None = None
    abstract: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the phrase as JSON-ready values."""
        payload = {"text": self.text, "start": self.start, "end": self.end, "head": self.head, "plural": self.plural}
        return json_ready_dict(payload)


@dataclass(frozen=True, slots=True)
class Relation:
    """What a sentence says of the places of some phrases.

    Attributes:
        subject: Index of the phrase that it is said of.
        objects: Indices of the phrases that it is said with respect to; two for `between`, else one.
        kind: `left of`, `right of`, `above`, `below`, `on`, `in`, `between`, `near`, `holding`, `wearing`, `bigger`,
            `smaller`, or `with` for whatever says no more than that both are there.
        text: The words that say it, such as `next to`.
    """

    subject: int
    objects: tuple[int, ...]
    kind: str
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the relation as JSON-ready values."""
        payload = {"subject": self.subject, "objects": self.objects, "kind": self.kind, "text": self.text}
        return json_ready_dict(payload)
