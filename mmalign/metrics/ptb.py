"""Words of a caption as caption scores count them: Penn Treebank tokens in lower case, without punctuation."""

from __future__ import annotations

import re

Tokens = tuple[str, ...]
"""The words of one caption, in order."""

# What pycocoevalcap takes out. Brackets are `-lrb-` and the like there and, being lower case by then, stay.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_CHANGED = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "…": "...", '"': "''", "£": "#", "¢": "cents", "€": "$",
}  # fmt: skip
# Dashes, quotation marks and fractions of print become those of a typewriter.
_TYPED = {
    0x2013: "--", 0x2014: "--", 0x2015: "--",
    0x2018: "`", 0x2019: "'", 0x201C: "``", 0x201D: "''", 0x201E: "``",
    0xBC: "1/4", 0xBD: "1/2", 0xBE: "3/4",
}  # fmt: skip
# Abbreviations whose full stop is a part of them, and those of which it is one before a number alone.
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|rev|gen|gov|sen|rep|capt|lt|col|sgt|jr|sr|bros|inc|ltd|co|corp|cos|etc|vs|ave|blvd|rd|"
    "dept|univ|assn|ft|mt|feb|jan|apr|aug|sept|oct|nov|dec|tue|tues|wed|thu|thurs|fri|penn|ky|pa|va|fla|calif|conn"
)
_BEFORE_NUMBERS = "no|nos|fig|pp|vol"
_DOMAINS = "com|net|org|edu|gov|mil|info|biz|co[.]uk|uk|cc"
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " "}
# Clipped words that keep their apostrophe.
_CLIPPED = "dunkin'|ol'|nothin'|'n'|'em|'cause|'til|'[0-9]0s"
_LETTER = r"[^\W\d_]"

_TOKEN = re.compile(
    rf"""
    [a-z]+(?![^\s,])                                    # most words, at once
  | https?://[^\s<>()"]*[^\s<>()".,;:!?']
  | [\w.+-]+@[\w-]+(?:[.][\w-]+)+
  | (?:[\w-]+[.])+(?:{_DOMAINS})(?![.]?\w)(?:/[^\s<>()"]*)?
  | </?[a-z][^<>]*>
  | [:;=]'?-?[()](?!\w) | [:;=]-?[dp3](?!\w)
  | (?:{_CLIPPED})(?!\w)
  | (?:{_LETTER}[.])+{_LETTER}(?![\w'])[.]?
  | (?:{_ABBREVIATIONS})[.](?![.\w])
  | (?:{_BEFORE_NUMBERS})[.](?=\s*[0-9])
  | (?!i[.]){_LETTER}[.](?!\w)
  | [0-9]+:[0-9][0-9](?=[ap]m\b) | [0-9]+(?:[.,:/-][0-9]+)+(?![/-]?{_LETTER})
  | '(?:s|m|d|re|ve|ll)(?!\w) | '(?=tis\b|twas\b)
  | [.:][0-9]+
  | n't(?!\w)
  | \w+(?:[-/&._!?']\w+)*
  | [.](?:\s?[.]){{2,}}
  | --+ | `` | \'\' | [!?]+ | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FUSED = {
    "cannot": ["can", "not"], "gonna": ["gon", "na"], "wanna": ["wan", "na"], "gotta": ["got", "ta"],
    "lemme": ["lem", "me"], "gimme": ["gim", "me"],
}  # fmt: skip
_ENDING = re.compile(r"(.*)(n't|'(?:s|m|d|re|ve|ll))")
# Other apostrophes within words: those of names and loans stay, the rest come apart.
_JOINED = re.compile(r"[ldo]'\w+(?:-\w+)*|o'clock|ma'am")


def ptb_tokenize(text: str) -> list[str]:
    """Split a text as Stanford's PTBTokenizer does with `-lowerCase`.

    Args:
        text: A sentence; line breaks count as spaces.

    Returns:
        Its tokens, punctuation included, in lower case.

    Source: Marcus et al., Building a large annotated corpus of English: the Penn Treebank, 1993; the behaviour of
    Stanford CoreNLP 3.4.1, which the COCO evaluation uses. How far they agree is told in docs/caption-model.md.

    Example:
        >>> ptb_tokenize("The dog's ball can't bounce.")
        ['the', 'dog', "'s", 'ball', 'ca', "n't", 'bounce', '.']
    """
    if "&" in text:
        for entity, character in _ENTITIES.items():
            text = text.replace(entity, character)
    tokens: list[str] = []
    for found in _TOKEN.findall(text.translate(_TYPED)):
        token = found.lower()
        if token[0].isalnum() and token[-1] not in ".'":
            tokens += _split_word(token)
        elif token.startswith("..") or token.startswith(". "):
            tokens.append("...")
        elif len(token) > 2 and token.startswith("--"):
            tokens.append("--")
        elif token in _CHANGED:
            tokens.append(_CHANGED[token])
        else:
            tokens.append(token.replace("(", "-lrb-").replace(")", "-rrb-"))
    return tokens


def caption_tokens(text: str) -> Tokens:
    """Give the words of a caption that count: Penn Treebank tokens without punctuation.

    Args:
        text: A caption.

    Returns:
        Its words in lower case; none where it holds none.

    Source: as `ptb_tokenize`, and pycocoevalcap's list of punctuation.

    Example:
        >>> caption_tokens("A man, a dog.")
        ('a', 'man', 'a', 'dog')
    """
    return tuple(token for token in ptb_tokenize(text) if token not in PUNCTUATION)


def _split_word(word: str) -> list[str]:
    if word.isalpha():
        return _FUSED.get(word, [word])
    endings: list[str] = []
    while word and (ending := _ENDING.fullmatch(word)):
        word = ending.group(1)
        endings.insert(0, ending.group(2))
    if "'" in word and not _JOINED.fullmatch(word):
        return [*(part for part in re.split(r"('n'|')", word) if part), *endings]
    return [*_FUSED.get(word, [word] if word else []), *endings]
