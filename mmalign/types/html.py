"""HTML: elements whose texts are escaped, so that no id, caption or name of a file can be markup."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from typing import Final


class Html(str):
    """A text that is HTML already, and is not escaped again."""

    __slots__ = ()


_EMPTY: Final = frozenset({"img", "meta", "br"})


def element(name: str, /, *parts: str | Html, **attributes: str | None) -> Html:
    """Write an element; what is not `Html` yet is escaped.

    Args:
        name: The element.
        parts: What is in it.
        attributes: By name, `class_` for `class` and `_` for `-`; None leaves one out.

    Returns:
        The element.
    """
    rendered = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY:
        return Html(f"<{name}{rendered}>")
    return Html(f"<{name}{rendered}>{joined(parts)}</{name}>")


def joined(parts: Iterable[str | Html], between: str = "") -> Html:
    """Join texts and elements; texts are escaped."""
    return Html(html.escape(between).join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def jpeg_uri(data: bytes) -> str:
    """A picture as an address that holds it.

    Args:
        data: The bytes of a JPEG.
    """
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
