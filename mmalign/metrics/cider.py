"""CIDEr-D: how like the references a caption is, in words that tell pictures apart."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
            told = json.loads(Path(path).read_text(encoding="utf-8"))
            counts = {tuple(run.split(" ")): int(count) for run, count in told["counts"].items()}
            documents = int(told["documents"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'the document frequencies {path} cannot be read: {error}; expected {{"documents": n, "counts": '
                '{"a dog": 3, ...}}}, as --write-frequencies writes them'
            ) from error
        return cls(documents, counts)


@dataclass(frozen=True, slots=True)
class CaptionVectors:
    """Captions as TF-IDF vectors of their runs of words; see `WordRuns`.

    Attributes:
        once: The weight of the t-th occurrence of each run, a column for each (run, t): (n, columns), one for each
            order.
        often: The same times how often the caption has the run in all.
        norms: Length of each TF-IDF vector, shape (n, 4).
        lengths: Number of pairs of neighbouring words, shape (n,).
    """

    once: tuple[sparse.csr_matrix, ...]
    often: tuple[sparse.csr_matrix, ...]
    norms: NDArray[np.float64]
    lengths: NDArray[np.int64]


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
        self._numbers: tuple[dict[tuple[Tokens, int], int], ...] = tuple({} for _ in range(ORDERS))
        self._weights: dict[Tokens, float] = {}

    def vectors(self, captions: Sequence[Tokens]) -> CaptionVectors:
        """Weigh the runs of some captions.

        Args:
            captions: n captions as words.

        Returns:
            Their vectors, to be compared with others of the same `WordRuns`.
        """
        from scipy import sparse

        rows: list[list[int]] = [[] for _ in range(ORDERS)]
        columns: list[list[int]] = [[] for _ in range(ORDERS)]
        once: list[list[float]] = [[] for _ in range(ORDERS)]
        often: list[list[float]] = [[] for _ in range(ORDERS)]
        norms = np.zeros((len(captions), ORDERS))
        for row, caption in enumerate(captions):
            for run, count in word_runs(caption).items():
                order = len(run) - 1
                weight = self._weight(run)
                norms[row, order] += (count * weight) ** 2
                numbers = self._numbers[order]
                for occurrence in range(count):
                    rows[order].append(row)
                    columns[order].append(numbers.setdefault((run, occurrence), len(numbers)))
                    once[order].append(weight)
                    often[order].append(weight * count)

        def table(values: list[list[float]], order: int) -> sparse.csr_matrix:
            shape = (len(captions), len(self._numbers[order]))
            return sparse.csr_matrix((values[order], (rows[order], columns[order])), shape=shape)

        return CaptionVectors(
            once=tuple(table(once, order) for order in range(ORDERS)),
            often=tuple(table(often, order) for order in range(ORDERS)),
            norms=np.sqrt(norms),
            lengths=np.array([max(0, len(caption) - 1) for caption in captions], np.int64),
        )

    def _weight(self, run: Tokens) -> float:
        weight = self._weights.get(run)
        if weight is None:
            weight = self._log_documents - float(np.log(max(1.0, float(self._frequencies.counts.get(run, 0)))))
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
    total: NDArray[np.float64] = np.zeros(len(owner))
    for order in range(ORDERS):
        width = max(candidates.once[order].shape[1], references.often[order].shape[1])
        left, right = (_widen(one, width) for one in (candidates.once[order], references.often[order]))
        inner = np.asarray(left[owner].multiply(right).sum(axis=1)).ravel()
        total += _divide(inner, candidates.norms[owner, order] * references.norms[:, order])
    total *= 10 / ORDERS * _length_penalty(candidates.lengths[owner] - references.lengths)
    return total


def cider_table(candidates: CaptionVectors, references: CaptionVectors) -> NDArray[np.float64]:
    """CIDEr-D of every candidate with every reference.

    Args:
        candidates: n candidates.
        references: m references, weighed by the same `WordRuns`.

    Returns:
        Shape (n, m), from 0 to 10.
    """
    total: NDArray[np.float64] = np.zeros((len(candidates.lengths), len(references.lengths)))
    for order in range(ORDERS):
        width = max(candidates.once[order].shape[1], references.often[order].shape[1])
        left, right = (_widen(one, width) for one in (candidates.once[order], references.often[order]))
        total += _divide((left @ right.T).toarray(), np.outer(candidates.norms[:, order], references.norms[:, order]))
    total *= 10 / ORDERS * _length_penalty(candidates.lengths[:, None] - references.lengths[None, :])
    return total


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


def _widen(table: sparse.csr_matrix, width: int) -> sparse.csr_matrix:
    # Runs that were first seen after a table was made: it has none of them.
    if table.shape[1] < width:
        table = table.copy()
        table.resize(table.shape[0], width)
    return table


def _divide(inner: NDArray[np.float64], norms: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.divide(inner, norms, out=np.zeros_like(inner), where=norms > 0)
    return result


def _length_penalty(difference: NDArray[np.int64]) -> Any:
    return np.exp(-(difference.astype(np.float64) ** 2) / (2 * SIGMA**2))
