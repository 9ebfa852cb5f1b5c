"""CIDEr-D: how like the references a caption is, in words that tell pictures apart."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.metrics.bleu import ORDERS, check_pairs, word_runs
from mmalign.metrics.ptb import Tokens

if TYPE_CHECKING:
    from scipy import sparse

SIGMA = 6.0
"""Words of difference in length at which the score has fallen by 40%."""


@dataclass(frozen=True, slots=True)
class DocumentFrequencies:
    """In how many documents each run of words is; a document is all references of one picture.

    Attributes:
        documents: How many there are, at least 2.
        counts: Documents by run of one to four words; what is not named counts as being in one.
    """

    documents: int
    counts: Mapping[Tokens, int]

    def __post_init__(self) -> None:
        if self.documents < 2:
            raise InputError(
                f"CIDEr weighs words by how few pictures they are said of, and of {self.documents} picture nothing can "
                "be told: every weight would be log(1) = 0; give two pictures or more, or document frequencies of a "
                "larger corpus"
            )

    @classmethod
    def of(cls, documents: Iterable[Sequence[Tokens]]) -> DocumentFrequencies:
        """Count them.

        Args:
            documents: The references of each picture, as words.

        Returns:
            The frequencies.

        Raises:
            InputError: Fewer than two pictures.
        """
        counts: Counter[Tokens] = Counter()
        number = 0
        for captions in documents:
            counts.update({run for caption in captions for run in word_runs(caption)})
            number += 1
        return cls(number, counts)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write them as JSON, so that later runs weigh words alike."""
        counts = {" ".join(run): count for run, count in self.counts.items()}
        text = json.dumps({"documents": self.documents, "counts": counts}, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> DocumentFrequencies:
        """Read what `write` wrote.

        Raises:
            InputError: It cannot be read, or is something else.
        """
        try:
            payload = json.loads(Path(path).read_text(encoding="utf-8"))
            counts = {tuple(run.split(" ")): int(count) for run, count in payload["counts"].items()}
            documents = int(payload["documents"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'the document frequencies {path} cannot be read: {error}; expected {{"documents": n, "counts": '
                '{"a dog": 3, ...}}}, as --write-frequencies writes them'
            ) from error
        return cls(documents, counts)


@dataclass(frozen=True, slots=True)
class CaptionVectors:
    """Captions as TF-IDF vectors of their runs of words, those of each number of words of length 1; see `WordRuns`.

    Attributes:
        once: The weight of the t-th occurrence of each run, a column for each (run, t), shape (n, columns).
        often: The same times how often the caption has the run in all.
        lengths: Number of pairs of neighbouring words, shape (n,).
    """

    once: sparse.csr_matrix
    often: sparse.csr_matrix
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: NDArray[np.int64]) -> CaptionVectors:
        return CaptionVectors(self.once[rows], self.often[rows], self.lengths[rows])


class WordRuns:
    """Numbers the runs of words and weighs them, so that many captions are compared by products of matrices.

    CIDEr-D clips: of a run that one caption has twice and the other once, one counts. min(a, b) is the number of t
    with t <= a and t <= b, so a column for each t-th occurrence makes the clipped sum a plain inner product.

    Args:
        frequencies: Weights of the runs.
    """

    def __init__(self, frequencies: DocumentFrequencies) -> None:
        self._frequencies = frequencies
        self._log_documents = float(np.log(float(frequencies.documents)))
        self._numbers: dict[tuple[Tokens, int], int] = {}
        self._weights: dict[Tokens, float] = {}

    def vectors(self, captions: Sequence[Tokens]) -> CaptionVectors:
        """Weigh the runs of some captions.

        Args:
            captions: n captions as words.

        Returns:
            Their vectors, to be compared with others of the same `WordRuns`.
        """
        from scipy import sparse

        starts = [0]
        columns: list[int] = []
        once: list[float] = []
        often: list[float] = []
        numbers = self._numbers
        for caption in captions:
            weighed = [(run, count, self._weight(run)) for run, count in word_runs(caption).items()]
            squares = [0.0] * ORDERS
            for run, count, weight in weighed:
                squares[len(run) - 1] += (count * weight) ** 2
            scales = [1 / square**0.5 if square else 0.0 for square in squares]
            for run, count, weight in weighed:
                scaled = weight * scales[len(run) - 1]
                for occurrence in range(count):
                    columns.append(numbers.setdefault((run, occurrence), len(numbers)))
                    once.append(scaled)
                    often.append(scaled * count)
            starts.append(len(columns))
        shape = (len(captions), len(numbers))
        return CaptionVectors(
            once=sparse.csr_matrix((once, columns, starts), shape=shape),
            often=sparse.csr_matrix((often, columns, starts), shape=shape),
            lengths=np.array([max(0, len(caption) - 1) for caption in captions], np.int64),
        )

    def _weight(self, run: Tokens) -> float:
        weight = self._weights.get(run)
        if weight is None:
            weight = self._log_documents - math.log(max(1, self._frequencies.counts.get(run, 0)))
            self._weights[run] = weight
        return weight


def cider_pairs(
    candidates: CaptionVectors, references: CaptionVectors, owner: NDArray[np.int64]
) -> NDArray[np.float64]:
    """CIDEr-D of each reference with the candidate that it belongs to.

    Args:
        candidates: n candidates.
        references: m references, weighed by the same `WordRuns`.
        owner: Position of the candidate of each reference, shape (m,).

    Returns:
        Shape (m,), from 0 to 10.
    """
    left, right = _of_one_width(candidates.once, references.often)
    inner: NDArray[np.float64] = np.asarray(left[owner].multiply(right).sum(axis=1), np.float64).ravel()
    inner *= _scale(candidates.lengths[owner] - references.lengths)
    return inner


def cider_table(candidates: CaptionVectors, references: CaptionVectors) -> NDArray[np.float64]:
    """CIDEr-D of every candidate with every reference.

    Args:
        candidates: n candidates.
        references: m references, weighed by the same `WordRuns`.

    Returns:
        Shape (n, m), from 0 to 10.
    """
    left, right = _of_one_width(candidates.once, references.often)
    table: NDArray[np.float64] = (left @ right.T).toarray()
    table *= _scale(candidates.lengths[:, None] - references.lengths[None, :])
    return table


def cider_d(
    candidates: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    *,
    frequencies: DocumentFrequencies | None = None,
) -> NDArray[np.float64]:
    """CIDEr-D of each candidate: runs of 1 to 4 words, sigma 6, clipped.

    Args:
        candidates: n captions as words.
        references: For each of them the captions that people wrote, at least one.
        frequencies: Weights of the runs; counted from the references where None.

    Returns:
        Shape (n,), from 0 to 10; papers print 100 times the mean.

    Raises:
        InputError: Other counts, a candidate without a reference, or one candidate alone without `frequencies`.

    Source: Vedantam et al., CIDEr: consensus-based image description evaluation, 2015.

    Example:
        >>> cats, dogs = [("a", "cat", "sleeps")], [("a", "dog", "runs")]
        >>> cider_d([("a", "cat", "sleeps"), ("a", "cat", "runs")], [cats, dogs]).round(2).tolist()
        [7.5, 1.25]
    """
    check_pairs(candidates, references)
    runs = WordRuns(DocumentFrequencies.of(references) if frequencies is None else frequencies)
    owner = np.repeat(np.arange(len(references)), [len(wanted) for wanted in references])
    wanted = runs.vectors([caption for captions in references for caption in captions])
    pairs = cider_pairs(runs.vectors(candidates), wanted, owner)
    result: NDArray[np.float64] = np.bincount(owner, pairs, len(references)) / np.bincount(owner)
    return result


def _of_one_width(first: sparse.csr_matrix, second: sparse.csr_matrix) -> Iterator[sparse.csr_matrix]:
    # Runs that were first seen after a table was made: it has none of them.
    width = max(first.shape[1], second.shape[1])
    for table in (first, second):
        if table.shape[1] < width:
            table = table.copy()
            table.resize(table.shape[0], width)
        yield table


def _scale(difference: NDArray[np.int64]) -> NDArray[np.float64]:
    penalty: NDArray[np.float64] = np.exp(-(difference.astype(np.float64) ** 2) / (2 * SIGMA**2))
    return 10 / ORDERS * penalty
