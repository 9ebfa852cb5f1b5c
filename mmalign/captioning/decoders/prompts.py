"""What a language model that knows nothing of pictures is told, and what of its answer is the caption."""

from __future__ import annotations

import re
from collections.abc import Sequence

INSTRUCTION = (
    "These captions describe pictures like mine. Write one caption for my picture, of the same kind, that says what "
    "most of them say. Answer with the caption alone."
)
PROMPTED = 3
"""Most retrieved captions that a language model is prompted with."""
_MOST = 8
_LETTERS = 200
# "Caption 1: ...", "The caption is "...", "Here is one caption for your picture: ...".
_LABEL = re.compile(
    r"^\s*(?:(?:here|this) is )?(?:the |a |one |my |your )?(?:caption|answer|description)"
    r"(?: for (?:my|your|the) picture)?(?: is| would be| could be)?\s*\d*\s*(?::\s*|(?=[\"\u201c]))",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*\u2022]+|\d+[.)])\s+")


def prompt_captions(context: Sequence[str]) -> list[str]:
    """The captions that go into a prompt: the best ones, none of them longer than a caption."""
    return [" ".join(caption.split())[:_LETTERS] for caption in context[:_MOST] if caption.strip()]


def chat_prompt(context: Sequence[str]) -> str:
    """What a model that answers instructions is asked.

    Args:
        context: Retrieved captions, best first.

    Returns:
        The text of the message.
    """
    return "\n".join([INSTRUCTION, "", *(f"- {caption}" for caption in prompt_captions(context))])


def plain_prompt(context: Sequence[str]) -> str:
    """What a model that only goes on with a text is given.

    Args:
        context: Retrieved captions, best first.

    Returns:
        A text whose next line is the caption; it ends with a space-less mark, since tokenizers put the space before a
        word into the word.
    """
    lines = [f"Caption: {caption}" for caption in prompt_captions(context)]
    return "\n".join(["Captions of one picture, by different people:", *lines, "Caption:"])


def first_caption(answer: str) -> str:
    r"""The caption in an answer: its first line with words, without quotes, bullets and labels.

    Args:
        answer: What the model wrote.

    Returns:
        The caption, empty where there is none.

    Example:
        >>> first_caption('Caption: "Two dogs run."\nCaption: A dog.')
        'Two dogs run.'
    """
    for line in answer.splitlines():
        text = _LABEL.sub("", _BULLET.sub("", line)).strip().strip("\"'\u201c\u201d").strip()
        if re.search(r"\w", text):
            return text
    return ""
