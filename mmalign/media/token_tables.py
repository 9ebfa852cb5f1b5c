"""The captions of Flickr8k and Flickr30k as they are handed out: `picture.jpg#0`, a tab, a caption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmalign.media.rows import TableRow
from mmalign.media.table_text import open_table_text

_LINE = re.compile(r"(?P<picture>[^\t]+\.\w{2,5}(?:\.\d+)?)#(?P<number>[^\t#]{1,10})\t(?P<caption>.*)")


def is_token_line(line: str) -> bool:
    r"""Whether a line is one of a file of numbered captions.

    Args:
        line: The first line of a text.

    Returns:
        True for a picture's name, `#`, a number, a tab and a caption.

    Example:
        >>> is_token_line("1000.jpg#0\tA dog runs ."), is_token_line("photos/1000.jpg")
        (True, False)
    """
    return _LINE.fullmatch(line.strip("\r\n\ufeff")) is not None


def token_rows(path: Path, name: str) -> Iterator[TableRow]:
    """Read numbered captions; the rows of one picture become one item.

    Args:
        path: The file.
        name: What to call it in errors.

    Yields:
        Each row with its place, or the reason why it cannot be used.

    Raises:
        SourceError: The file holds no text.
        OSError: The file cannot be read.
    """
    with open_table_text(path, name) as file:
        for number, line in enumerate(file, 1):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            found = _LINE.fullmatch(text)
            if found is None:
                yield (
                    f"{name}:{number}",
                    f"expected a picture's name, '#', a number, a tab and a caption, got {text!r:.60}",
                )
            else:
                yield f"{name}:{number}", {"image": found["picture"], "caption": found["caption"]}
