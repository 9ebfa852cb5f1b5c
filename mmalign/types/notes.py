"""Remarks that a person should see: what was noticed, what to do about it, and what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Note(str):
    """A remark in parts; as text it is the remark with its remedy behind it.

    It is a text, so that whoever only prints remarks, or writes them as JSON, need not know of its parts.

    Args:
        text: What was noticed, one line.
        remedy: What to do about it; empty where there is nothing to do.
        about: What it is about, such as `shop.csv:4`, an item's id or `encoder`; empty where it says so itself.

    Example:
        >>> note = Note("lite@2 is newer", remedy="mmalign index --reencode", about="encoder")
        >>> str(note), note.remedy
        ('lite@2 is newer; mmalign index --reencode', 'mmalign index --reencode')
    """

    __slots__ = ("about", "remedy", "text")

    text: str
    remedy: str
    about: str

    def __new__(cls, text: str, *, remedy: str = "", about: str = "") -> Note:
        """Join the parts; a text is made here and cannot be changed later."""
        made = super().__new__(cls, f"{text}; {remedy}" if remedy else text)
        made.text, made.remedy, made.about = text, remedy, about
        return made

    @classmethod
    def read(cls, kept: Any) -> Note:
        """Read what `to_dict` gave, or a remark that was kept as text, which has no parts.

        Args:
            kept: A dictionary of the parts, or any other value for its text.

        Returns:
            The remark.
        """
        if not isinstance(kept, Mapping):
            return cls(str(kept))
        text, remedy, about = (str(kept.get(part, "")) for part in ("text", "remedy", "about"))
        return cls(text, remedy=remedy, about=about)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.text, self.remedy, self.about)

    def to_dict(self) -> dict[str, str]:
        """Return the parts as JSON-ready values."""
        return {"text": self.text, "remedy": self.remedy, "about": self.about}


def _make(text: str, remedy: str, about: str) -> Note:
    return Note(text, remedy=remedy, about=about)
