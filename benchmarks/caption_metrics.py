"""Scores of captions beside pycocoevalcap's and sacrebleu's: whether they are equal, and what they cost.

The first caption of each picture is judged against the others. All scorers get the same tokens. Times are of the
processor, of scorers that take turns, without tokenization; pycocoevalcap's METEOR and SPICE, which need Java, are not
among them. With --java, and where there is a Java runtime, the sentences are also split by the Penn Treebank tokenizer
that comes with pycocoevalcap, and the scores of both tokenizations are told.

MANIFEST has pictures with captions, such as `flickr8k/manifest.jsonl`.

python -m benchmarks.caption_metrics MANIFEST [--turns TURNS] [--java]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write
from mmalign.evaluation.retrieval import read_captions
from mmalign.metrics.bleu import corpus_bleu
from mmalign.metrics.cider import cider_d
from mmalign.metrics.ptb import PUNCTUATION, Tokens, caption_tokens
from mmalign.metrics.rouge import rouge_l


def ours(said: Sequence[Tokens], wanted: Sequence[Sequence[Tokens]]) -> list[float]:
    """CIDEr-D, BLEU-1 to 4 and ROUGE-L by mmalign."""
    cider, rouge = cider_d(said, wanted), rouge_l(said, wanted)
    return [float(cider.mean()), *corpus_bleu(said, wanted).tolist(), float(rouge.mean())]


def pycocoevalcap(said: Sequence[Tokens], wanted: Sequence[Sequence[Tokens]]) -> list[float]:
    """The same by pycocoevalcap."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    results = {number: [" ".join(tokens)] for number, tokens in enumerate(said)}
    truths = {number: [" ".join(tokens) for tokens in own] for number, own in enumerate(wanted)}
    cider, _ = Cider().compute_score(truths, results)
    bleu, _ = Bleu().compute_score(truths, results, verbose=0)
    rouge, _ = Rouge().compute_score(truths, results)
    return [float(cider), *map(float, bleu), float(rouge)]


def sacrebleu(said: Sequence[Tokens], wanted: Sequence[Sequence[Tokens]]) -> list[float]:
    """BLEU-1 to 4 by sacrebleu."""
    import sacrebleu as package

    most = max(map(len, wanted))
    columns = [[" ".join(own[i]) if i < len(own) else None for own in wanted] for i in range(most)]
    lines = [" ".join(tokens) for tokens in said]
    scorers = (package.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order) for order in range(1, 5))
    return [scorer.corpus_score(lines, columns).score / 100 for scorer in scorers]


def java_tokens(sentences: Sequence[str]) -> list[Tokens]:
    """Split sentences with the tokenizer that the COCO evaluation uses."""
    import pycocoevalcap.tokenizer.ptbtokenizer as wrapper

    jar = Path(wrapper.__file__).with_name(wrapper.STANFORD_CORENLP_3_4_1_JAR)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as stream:
        stream.write("\n".join(" ".join(sentence.split()) for sentence in sentences))
        stream.flush()
        command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        done = subprocess.run([*command, stream.name], capture_output=True, check=True)
    lines = done.stdout.decode("utf-8").split("\n")[: len(sentences)]
    return [tuple(word for word in line.split() if word not in PUNCTUATION) for line in lines]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the seconds of the processor that it took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def measure(manifest: Path, *, turns: int = 3, java: bool = False) -> dict[str, Any]:
    """Compare the scorers on one manifest."""
    pictures = [picture.captions for picture in read_captions(manifest) if len(picture.captions) > 1]
    sentences = [caption for own in pictures for caption in own]
    tokens, seconds = timed(lambda: [caption_tokens(sentence) for sentence in sentences])
    ends = np.cumsum([len(own) for own in pictures])[:-1].tolist()

    def deal(flat: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
        groups = [list(flat[i:j]) for i, j in zip([0, *ends], [*ends, len(flat)], strict=True)]
        return [group[0] for group in groups], [group[1:] for group in groups]

    said, wanted = deal(tokens)
    ratios = []
    for _ in range(turns):
        mine, fast = timed(lambda: ours(said, wanted))
        theirs, slow = timed(lambda: pycocoevalcap(said, wanted))
        ratios.append(slow / fast)
    other = sacrebleu(said, wanted)
    figures: dict[str, Any] = {
        "captions judged": len(said),
        "references": len(sentences) - len(said),
        "largest difference from pycocoevalcap": max(abs(a - b) for a, b in zip(mine, theirs, strict=True)),
        "largest difference of BLEU from sacrebleu": max(abs(a - b) for a, b in zip(mine[1:5], other, strict=True)),
        "times faster than pycocoevalcap": round(statistics.median(ratios), 2),
        "turns": turns,
        "sentences tokenized per second": round(len(sentences) / seconds),
    }
    if java:
        reference = java_tokens(sentences)
        equal = sum(a == b for a, b in zip(tokens, reference, strict=True))
        java_said, java_wanted = deal(reference)
        figures["sentences that Java splits alike"] = f"{equal} of {len(sentences)}"
        for name, pair in (("mmalign", (said, wanted)), ("Java", (java_said, java_wanted))):
            cider, *bleu, rouge = ours(*pair)
            figures[f"CIDEr / BLEU-4 / ROUGE-L, tokens of {name}"] = (
                f"{100 * cider:.3f} / {100 * bleu[3]:.3f} / {100 * rouge:.3f}"
            )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--java", action="store_true", help="also compare with the Java tokenizer")
    words = parser.parse_args()
    figures = measure(words.manifest, turns=words.turns, java=words.java)
    write("caption_metrics", f"first captions against the others, {words.manifest.parent.name}", figures)


if __name__ == "__main__":
    main()
