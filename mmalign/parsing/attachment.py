"""Which phrases of a sentence a relation holds between, by the words that stand between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mmalign.parsing import lexicon as words
from mmalign.parsing.relation_words import MOTION, SPATIAL, match_relation
from mmalign.parsing.tagger import Token, singular
from mmalign.types import Phrase, Relation


class Arcs(Protocol):
    """A parser's answer to what a word is said of."""

    def subjects(self, word: int) -> list[int]:
        """The phrases that a token, a preposition or verb, is said of; none where the parser does not know."""


def attach(
    tokens: Sequence[Token],
    spans: Sequence[tuple[int, int]],
    phrases: Sequence[Phrase],
    *,
    arcs: Arcs | None = None,
) -> tuple[tuple[Relation, ...], frozenset[int]]:
    """Find the relations between phrases that follow one another.

    What a verb says is said of the subject of its clause; what a preposition alone says is said of the phrase before
    it, or of who wears that where it is a garment. Phrases that name no place take no part.

    Args:
        tokens: Tagged.
        spans: First and last token of each phrase.
        phrases: The phrases.
        arcs: What a parser says; None for the rules alone.

    Returns:
        `(relations, narrowed)`: the relations, in the order of the sentence, and the phrases that a preposition
        behind them narrows down, as in `the dog on the sofa`; not `the dog is on the sofa`.
    """
    reader = _Reader(tokens, spans, phrases, arcs)
    for i in range(len(spans)):
        reader.read(i)
    return reader.relations(), frozenset(reader.narrowed)


@dataclass(slots=True)
class _FoundRelation:
    """A relation that is being collected."""

    subjects: list[int]
    objects: list[int]
    kind: str
    text: str


@dataclass(slots=True)
class _Reader:
    """Goes through the phrases, and keeps what the clause so far is about."""

    tokens: Sequence[Token]
    spans: Sequence[tuple[int, int]]
    phrases: Sequence[Phrase]
    arcs: Arcs | None = None
    subjects: list[int] = field(default_factory=list)
    found: list[_FoundRelation] = field(default_factory=list)
    # Whether the clause has its verb.
    moving: bool = False
    narrowed: set[int] = field(default_factory=set)
    # What is said in front of its subject: "In the snow, a dog runs".
    waiting: _FoundRelation | None = None

    def read(self, i: int) -> None:
        """Take the next phrase."""
        begin = self.spans[i - 1][1] + 1 if i else 0
        between = list(range(begin, self.spans[i][0]))
        if i == 0 or not self.subjects or self._new_clause(between):
            self._start(i, between)
            self.moving = False
            return
        bare = [j for j in between if self.tokens[j].tag != "adv" or self._expression(j)]
        if all(self.tokens[j].lower in (",", "and", "or", "&", "but") for j in bare):
            self._join(i, bool(bare))
            return
        found = self._relation(bare)
        if found is None:
            # A sign or a word that relates nothing: what follows is about something else, or more of the same.
            if any(self.tokens[j].tag == "conj" for j in bare):
                self.subjects = [i]
            return
        kind, text, word = found
        subjects = self._subjects(i, bare, text)
        parsed = [j for j in self.arcs.subjects(word) if j < i] if self.arcs is not None else []
        if parsed:
            # A parser may name one of several subjects, or the garment that somebody wears.
            one = [self._owner(parsed[0])] if parsed == [i - 1] else parsed
            subjects = subjects if {*one} < {*subjects} else one
        if kind in SPATIAL and i - 1 in subjects and not any(self.tokens[j].tag in ("verb", "aux") for j in bare):
            self.narrowed.add(i - 1)
        self.found.append(_FoundRelation(subjects, [i], kind, text))

    def _subjects(self, i: int, bare: list[int], text: str) -> list[int]:
        """What the words between two phrases are said of."""
        before = i - 1
        verbs = [j for j in bare if self.tokens[j].tag in ("verb", "aux")]
        if any(self.tokens[j].tag == "rel" for j in bare):
            return [self._owner(before)]
        if not verbs:
            if self.found and self.tokens[bare[0]].tag == "conj":
                # "below the circle and left of the square"
                return list(self.found[-1].subjects)
            going = self.moving and text.lower() in MOTION and before not in self.subjects
            return list(self.subjects) if going else [self._owner(before)]
        done, self.moving = self.moving, True
        participle = bare[0] == verbs[0] and self.tokens[bare[0]].lower.endswith("ing")
        # "next to a woman wearing a hat": she does.
        return [before] if done and participle and self._person(before) else list(self.subjects)

    def _person(self, i: int) -> bool:
        return singular(self.phrases[i].head.lower()) in words.PEOPLE

    def _new_clause(self, between: list[int]) -> bool:
        """Whether the words before a phrase begin a clause of its own."""
        marks = [
            j for j in between if self.tokens[j].lower in (".", ";", "!", "?", "while", "as", "whilst", "where", "when")
        ]
        if not marks:
            return False
        after = [j for j in between if j > marks[-1] and self.tokens[j].tag in ("verb", "prep")]
        # "while holding a ball" goes on about the same subject.
        return not after or self.tokens[marks[-1]].lower in ".;!?"

    def _start(self, i: int, between: list[int]) -> None:
        """A clause begins; it may begin with where it happens."""
        opening = [j for j in between if self.tokens[j].tag in ("prep", "verb")]
        last = self.tokens[between[-1]] if between else None
        if opening and last is not None and last.tag == "prep" and self._relation(between) and not self.subjects:
            kind, text, _ = self._relation(between) or ("", "", 0)
            self.waiting = _FoundRelation([], [i], kind, text)
            self.subjects = []
            return
        self.subjects = [i]
        if self.waiting is not None:
            self.waiting.subjects = [i]
            self.found.append(self.waiting)
            self.waiting = None

    def _join(self, i: int, joined: bool) -> None:
        """A phrase that follows another one directly, or after a comma or `and`."""
        following = self._following(i)
        last = self.found[-1] if self.found and i - 1 in self.found[-1].objects else None
        if last is not None and last.kind == "between" and len(last.objects) == 1:
            last.objects.append(i)
            return
        if not joined:
            # "a man his dog": no telling.
            return
        if i - 1 in self.subjects:
            # "a man and a woman sit": both do.
            self.subjects = [*self.subjects, i] if following != "prep" else [i]
        elif last is not None and (following == "" or self._garment(i)):
            last.objects.append(i)
        else:
            self.subjects = [i]

    def _following(self, i: int) -> str:
        """The class of what comes after a phrase: `verb`, `prep`, or nothing."""
        for token in self.tokens[self.spans[i][1] + 1 :]:
            if token.tag in ("verb", "aux"):
                return "verb"
            if token.tag == "prep":
                return "prep"
            if token.tag != "adv":
                return ""
        return ""

    def _expression(self, j: int) -> bool:
        return match_relation([token.lower for token in self.tokens[j : j + 1]], 0) is not None

    def _relation(self, between: Sequence[int]) -> tuple[str, str, int] | None:
        """The expression nearest to the next phrase: its kind, all words that say it, and its own first word."""
        lowered = [self.tokens[j].lower for j in between]
        found: tuple[str, int, int] | None = None
        j = 0
        while j < len(lowered):
            match = match_relation(lowered, j)
            if match is not None:
                found = (match[1], j, j + match[0])
                j += match[0]
                continue
            if self.tokens[between[j]].tag == "verb":
                found = ("with", j, j + 1)
            j += 1
        if found is None or not found[0]:
            return None
        kind, start, stop = found
        word = between[start]
        if kind == "near" and lowered[start:stop] == ["by"] and start and self._passive(between[start - 1]):
            kind = "with"
        while start and self.tokens[between[start - 1]].tag in ("verb", "adv") and kind not in ("bigger", "smaller"):
            start -= 1
        return kind, " ".join(self.tokens[k].text for k in between[start:stop]), word

    def _passive(self, j: int) -> bool:
        word = self.tokens[j].lower
        return word.endswith("ed") or word in words.PARTICIPLES

    def _garment(self, i: int) -> bool:
        return self.phrases[i].head.lower() in words.CLOTHES

    def _owner(self, i: int) -> int:
        """Who wears a garment, or the phrase itself."""
        for relation in reversed(self.found):
            if (
                i in relation.objects
                and (self._garment(i) or self.phrases[i].abstract)
                and relation.kind in ("wearing", "with", "in")
            ):
                return relation.subjects[0]
        return i

    def relations(self) -> tuple[Relation, ...]:
        """All that was said, one subject and one object (two for `between`) a relation."""
        out = []
        for relation in self.found:
            objects = [j for j in relation.objects if not self.phrases[j].abstract]
            for subject in relation.subjects:
                if self.phrases[subject].abstract or subject in objects:
                    continue
                if relation.kind == "between" and len(objects) == 2:
                    out.append(Relation(subject, (objects[0], objects[1]), "between", relation.text))
                    continue
                out += [Relation(subject, (j,), self._kind(relation, subject, j), relation.text) for j in objects]
        return tuple(out)

    def _kind(self, relation: _FoundRelation, subject: int, j: int) -> str:
        if relation.kind == "between":
            return "near"
        if relation.kind == "in" and relation.text.lower().rsplit(" ", 1)[-1] == "in" and self._garment(j):
            person = self.phrases[subject].head.lower() not in words.CLOTHES
            return "wearing" if person else "in"
        return relation.kind
