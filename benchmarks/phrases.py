"""How many annotated phrases of captions the parsers find to the letter, and how far the rules agree with spaCy.

Of each picture the caption that holds most of its annotated phrases, two at least. Not every phrase of a caption has a
box, so that no parser can be fully precise.

python -m benchmarks.phrases FOLDER/manifest.jsonl [--split dev] [--count 600]
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from benchmarks import results
from mmalign.parsing.phrases import parse_sentence

Spans = set[tuple[int, int]]


def annotated(manifest: Path, *, split: str, count: int) -> list[tuple[str, Spans]]:
    """Captions with the places of their annotated phrases, the longest first where they overlap."""
    made: list[tuple[str, Spans]] = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        named = sorted({entry["phrase"].lower() for entry in row.get("phrases", ())}, key=len, reverse=True)
        best: tuple[str, Spans] = ("", set())
        for caption in row["captions"] if row.get("split") == split else ():
            spans: Spans = set()
            for phrase in named:
                for match in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", caption.lower()):
                    if not any(start < match.end() and match.start() < end for start, end in spans):
                        spans.add(match.span())
            best = max(best, (caption, spans), key=lambda one: len(one[1]))
        if len(best[1]) > 1:
            made.append(best)
    return made[:count]


def found(caption: str, parser: str) -> Spans:
    return {(phrase.start, phrase.end) for phrase in parse_sentence(caption, parser=parser).phrases}


def compare(pairs: list[tuple[Spans, Spans]]) -> dict[str, float]:
    """Precision, recall and F1 of the first ones against the second ones, in percent."""
    both = sum(len(own & wanted) for own, wanted in pairs)
    own, wanted = sum(len(pair[0]) for pair in pairs), sum(len(pair[1]) for pair in pairs)
    return {
        "precision": round(100 * both / own, 1),
        "recall": round(100 * both / wanted, 1),
        "f1": round(200 * both / (own + wanted), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--count", type=int, default=600)
    options = parser.parse_args()
    captions = annotated(options.manifest, split=options.split, count=options.count)
    rules = [found(caption, "rules") for caption, _ in captions]
    spacy = [found(caption, "spacy") for caption, _ in captions]
    wanted = [spans for _, spans in captions]
    figures = {
        "captions": len(captions),
        "rules_on_annotated": compare(list(zip(rules, wanted, strict=True))),
        "spacy_on_annotated": compare(list(zip(spacy, wanted, strict=True))),
        "rules_on_spacy": compare(list(zip(rules, spacy, strict=True))),
    }
    print(json.dumps(figures, indent=1))
    data = f"{len(captions)} captions of {options.manifest.parent.name}, split {options.split}"
    print(results.write("phrases", data, figures))


if __name__ == "__main__":
    main()
