"""Why a filter cannot be answered, in words: what Lance says of it, and what a column taken for numbers holds."""

from __future__ import annotations

import re

import lance

from mmalign.store.names import renamed_columns


def why_text(dataset: lance.LanceDataset, column: str, number: str) -> str:
    """Say why a column that is compared with a number is text.

    Args:
        dataset: The items.
        column: A column of texts.
        number: What it is compared with, as the filter has it.

    Returns:
        The first row that makes it text, that none does or that it holds nothing yet; and what to write.
    """
    row = 0
    some = None
    given = renamed_columns(dataset.schema).get(column)
    other = "" if given is None else f"; what was given as {column} is the column {_quoted(given)}"
    # Each once: the column may be that of the ids.
    for batch in dataset.to_batches(columns=list(dict.fromkeys(["id", column]))):
        for name, value in zip(*(batch.column(part).to_pylist() for part in ("id", column)), strict=True):
            row += 1
            if value is not None and not _is_number(value):
                shown = value if len(value) <= 60 else value[:57] + "..."
                return (
                    f"{column} is text, because of row {row}: {shown!r} (item {name!r}), and {number} is a "
                    f"number; compare it with a text, {number!r}, or write TRY_CAST({_quoted(column)} AS "
                    f"DOUBLE), which is NULL where there is no number{other}"
                )
            some = some if value is None else value
    if some is None:
        return (
            f"{column} is text and holds no value at all yet, and {number} is a number; compare it with a text, "
            f"{number!r}{other}"
        )
    return (
        f"{column} is text, though it holds nothing but numbers, such as {some!r}, and {number} is a number; "
        f"compare it with a text, {number!r}, or write CAST({_quoted(column)} AS DOUBLE){other}"
    )


def _quoted(column: str) -> str:
    return column if column.isidentifier() else f'"{column}"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def reason_of_filter(text: str) -> str | None:
    """What is wrong with a filter, of an error that Lance met when it planned or ran it; None for any other error."""
    if (found := re.search(r"(?:Cannot cast|Can't cast)[^,\n]*|Error parsing timestamp from[^,\n]*", text)) is not None:
        return f"{found[0]} for some item; TRY_CAST gives NULL there"
    if "overflow" in text.lower() or "out of range Int64" in text:
        return "what it calculates is more than 64 bits hold for some item; write CAST(... AS DOUBLE)"
    if (found := re.search(r"regex parse error:.*?error: ([^,\n]*)", text, re.DOTALL)) is not None:
        return f"a regular expression cannot be read: {found[1]}"
    if "egular expression did not compile" in text:
        return "a regular expression is too large"
    if "Error parsing statement" in text:
        # It was written here, so that only its depth can be wrong.
        return "it is nested too deeply"
    if (found := re.search(r"Error applying filter expression to batch: ([^\n]*)", text)) is not None:
        return found[1].split(", /home/")[0]
    return None
