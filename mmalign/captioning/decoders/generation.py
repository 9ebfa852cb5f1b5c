"""Writing: greedy, beam search and sampling from the nucleus, with blocked trigrams and an explicit end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from mmalign.captioning.decoders.gpt import Cache
from mmalign.captioning.decoders.model import DecoderInputs, MultimodalTransformer
from mmalign.captioning.decoders.tokenizer import BEGIN, END, PADDING
from mmalign.errors import InputError

GenerationMethod = Literal["greedy", "beam", "nucleus"]


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How captions are written.

    Attributes:
        method: The likeliest word each time, the likeliest captions of a search, or drawn ones.
        count: Captions a picture: beams of the search, or draws; one of `greedy`.
        longest: Most words (tokens) of a caption; None for what the decoder can.
        length_penalty: Beams are compared by log-likelihood divided by their length to this power; 0 prefers
            short ones.
        temperature: Divides the scores before a draw.
        nucleus: Words are drawn from the likeliest ones that together have this probability.
        blocked: No run of so many tokens comes twice; 0 allows all.
        seed: Of the draws.

    Source: nucleus, Holtzman et al., The Curious Case of Neural Text Degeneration, 2020; length, Wu et al., Google's
    Neural Machine Translation System, 2016, the simpler form; blocking, Paulus et al., A Deep Reinforced Model for
    Abstractive Summarization, 2018.
    """

    method: GenerationMethod = "beam"
    count: int = 5
    longest: int | None = None
    length_penalty: float = 1.0
    temperature: float = 1.0
    nucleus: float = 0.9
    blocked: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(GenerationMethod):
            raise InputError(
                f"expected a way of writing of {', '.join(get_args(GenerationMethod))}, got {self.method!r}"
            )
        if self.count < 1 or (self.longest is not None and self.longest < 1) or self.blocked < 0:
            raise InputError(
                f"expected a count and a length of at least 1 and blocked of at least 0, got {self.count}, "
                f"{self.longest} and {self.blocked}"
            )
        if self.temperature <= 0 or not 0 < self.nucleus <= 1:
            raise InputError(
                f"expected a temperature above 0 and a nucleus above 0 and at most 1, got {self.temperature} and "
                f"{self.nucleus}"
            )


@dataclass(frozen=True, slots=True)
class GenerationOutput:
    """One caption as tokens.

    Attributes:
        tokens: Without begin and end.
        log_likelihood: Of all its tokens, its end included where it has one; natural logarithm.
        ended: Whether the decoder ended it, rather than the limit of its length.
    """

    tokens: tuple[int, ...]
    log_likelihood: float
    ended: bool

    def score(self, penalty: float) -> float:
        """Log-likelihood by length."""
        length: float = max(1, len(self.tokens) + self.ended) ** penalty
        return self.log_likelihood / length


@torch.inference_mode()
def generate(
    model: MultimodalTransformer,
    inputs: DecoderInputs,
    config: GenerationConfig = GenerationConfig(),
) -> list[list[GenerationOutput]]:
    """Write captions.

    Args:
        model: In evaluation mode.
        inputs: What is known of b pictures.
        config: How.

    Returns:
        For each picture its different captions, best first: `config.count` or fewer.
    """
    count = 1 if config.method == "greedy" else config.count
    limit = model.decoder.longest - 2
    longest = min(limit, config.longest or limit)
    memory, mask = model.remember(inputs)
    pictures = len(memory)
    memory, mask = memory.repeat_interleave(count, 0), mask.repeat_interleave(count, 0)
    votes = inputs.votes.repeat(count)
    search = _Search(config, pictures, count, device=memory.device)
    cache = Cache()
    last = torch.full((pictures * count, 1), BEGIN, device=memory.device)
    for step in range(longest + 1):
        scores = model.decoder(last, memory, mask, votes, cache)[:, -1].log_softmax(-1)
        rows, last = search.advance(scores, final=step == longest)
        if search.done:
            break
        if rows is not None:
            cache.reorder(rows)
    return search.results()


class _Search:
    """The captions under way, `count` a picture, and those that have ended."""

    def __init__(self, config: GenerationConfig, pictures: int, count: int, *, device: torch.device) -> None:
        self._config, self._pictures, self._count = config, pictures, count
        self._tokens: list[list[int]] = [[] for _ in range(pictures * count)]
        self._sums = torch.zeros(pictures * count, device=device)
        # The beams of a picture begin alike: only the first one counts at the first step.
        self._live = [config.method != "beam" or row % count == 0 for row in range(pictures * count)]
        self._ended: list[list[GenerationOutput]] = [[] for _ in range(pictures)]
        self._draw = torch.Generator(device=device).manual_seed(config.seed)

    @property
    def done(self) -> bool:
        return not any(self._live)

    def results(self) -> list[list[GenerationOutput]]:
        found = []
        for captions in self._ended:
            different = {caption.tokens: caption for caption in captions}
            ranked = sorted(different.values(), key=lambda c: -c.score(self._config.length_penalty))
            found.append(ranked[: self._count])
        return found

    def advance(self, scores: torch.Tensor, *, final: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Take log-probabilities (rows, vocabulary) of the next tokens; return rows to keep (None: all) and words."""
        self._block(scores)
        if final:
            # At the limit only the end is left to be told apart from a caption that was cut.
            for row, live in enumerate(self._live):
                if live:
                    self._end(row, float(self._sums[row]), ended=False)
            self._live = [False] * len(self._live)
            return None, torch.full((len(scores), 1), PADDING)
        if self._config.method == "beam":
            return self._beam(scores)
        return self._one_each(scores)

    def _block(self, scores: torch.Tensor) -> None:
        scores[:, [PADDING, BEGIN]] = -torch.inf
        size = self._config.blocked
        for row, tokens in enumerate(self._tokens):
            if not tokens:
                # A caption has a word.
                scores[row, END] = -torch.inf
            if not size or len(tokens) < size:
                continue
            tail = tokens[len(tokens) - size + 1 :]
            repeated = [tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tokens[i : i + size - 1] == tail]
            scores[row, repeated] = -torch.inf

    def _end(self, row: int, total: float, *, ended: bool) -> None:
        self._ended[row // self._count].append(GenerationOutput(tuple(self._tokens[row]), total, ended))

    def _one_each(self, scores: torch.Tensor) -> tuple[None, torch.Tensor]:
        if self._config.method == "greedy":
            chosen = scores.argmax(-1)
        else:
            warm = (scores / self._config.temperature).softmax(-1)
            ordered, places = warm.sort(-1, descending=True)
            # The first word stays, however likely it is.
            ordered[ordered.cumsum(-1) - ordered >= self._config.nucleus] = 0
            # The same draws for every picture: what is written for one does not depend on those beside it.
            draws = torch.rand(self._count, generator=self._draw, device=scores.device).repeat(self._pictures)
            below = ordered.cumsum(-1)
            places_drawn = (below <= draws[:, None] * below[:, -1:]).sum(-1, keepdim=True)
            chosen = places.gather(-1, places_drawn.clamp(max=scores.shape[1] - 1)).squeeze(-1)
        self._sums += scores.gather(-1, chosen[:, None]).squeeze(-1)
        for row, token in enumerate(chosen.tolist()):
            if not self._live[row]:
                continue
            if token == END:
                self._end(row, float(self._sums[row]), ended=True)
                self._live[row] = False
            else:
                self._tokens[row].append(token)
        return None, chosen[:, None]

    def _beam(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = self._count
        dead = torch.tensor([not live for live in self._live], device=scores.device)
        totals = (self._sums[:, None] + scores).masked_fill(dead[:, None], -torch.inf).reshape(self._pictures, -1)
        # Twice as many as are kept, so that captions that end here do not thin the beam out.
        best, places = totals.topk(min(2 * count, totals.shape[1]), dim=1)
        vocabulary = scores.shape[1]
        rows, words, live = list(range(len(scores))), [PADDING] * len(scores), [False] * len(scores)
        tokens = list(self._tokens)
        for picture in range(self._pictures):
            kept = 0
            for rank, (total, place) in enumerate(zip(best[picture].tolist(), places[picture].tolist(), strict=True)):
                row, word = picture * count + place // vocabulary, place % vocabulary
                if total == -torch.inf or kept == count:
                    break
                if word == END:
                    if rank < count:
                        self._end(row, total, ended=True)
                    continue
                target = picture * count + kept
                rows[target], words[target], live[target] = row, word, True
                tokens[target] = [*self._tokens[row], word]
                self._sums[target] = total
                kept += 1
            if self._settled(picture, best[picture, 0].item(), len(tokens[picture * count])):
                live[picture * count : (picture + 1) * count] = [False] * count
        self._tokens, self._live = tokens, live
        return torch.tensor(rows, device=scores.device), torch.tensor(words, device=scores.device)[:, None]

    def _settled(self, picture: int, best: float, length: int) -> bool:
        """Whether enough captions have ended, and none under way is likelier by length than the worst of them."""
        ended: Sequence[GenerationOutput] = self._ended[picture]
        if len(ended) < self._count:
            return False
        penalty = self._config.length_penalty
        worst = sorted((caption.score(penalty) for caption in ended), reverse=True)[self._count - 1]
        reach: float = (length + 1) ** penalty
        return best / reach <= worst
