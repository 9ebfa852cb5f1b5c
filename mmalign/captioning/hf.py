"""Any causal language model of Hugging Face as a decoder, prompted with the retrieved captions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mmalign.captioning.drafts import Draft
from mmalign.captioning.prompts import chat_prompt, first_caption, plain_prompt
from mmalign.errors import MissingExtraError, ModelUnavailableError
from mmalign.similarity import Float32Array

_WORDS = 40


class HFDecoder:
    """A language model that writes a caption from retrieved captions alone; it does not see the picture.

    A model with a chat template is asked; another one goes on with a list of captions.

    Args:
        source: A name on the hub such as `microsoft/DialoGPT-large`, a folder, or a GGUF file.
        beams: Beams of the search; as many drafts are given.
        device: A torch device; the processor where None.

    Raises:
        MissingExtraError: A GGUF file, and the package `gguf` is not installed.
        ModelUnavailableError: The model cannot be had, its folder is incomplete, or its architecture is unknown.
    """

    def __init__(self, source: str, *, beams: int = 4, device: str | None = None) -> None:
        self.name = f"hf:{source}"
        self._beams = beams
        self._device = torch.device(device or "cpu")
        self._tokenizer, model = _load(source)
        self._model = model.eval().to(self._device)

    def caption(self, vector: Float32Array | None, context: Sequence[str]) -> list[Draft]:
        """See `Decoder.caption`; the vector is not looked at."""
        chat = bool(getattr(self._tokenizer, "chat_template", None))
        if chat:
            asked = [{"role": "user", "content": chat_prompt(context)}]
            text = self._tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        else:
            text = plain_prompt(context)
        # A chat template has its special tokens in the text.
        tokens = self._tokenizer(text, return_tensors="pt", add_special_tokens=not chat)["input_ids"]
        room = int(getattr(self._model.config, "max_position_embeddings", None) or 2048) - _WORDS
        tokens = tokens[:, -room:].to(self._device)
        with torch.inference_mode():
            found = self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=_WORDS,
                num_beams=self._beams,
                num_return_sequences=self._beams,
                do_sample=False,
                no_repeat_ngram_size=0,
                pad_token_id=self._padding(),
            )
            likelihoods, lengths = self._likelihoods(found, tokens.shape[1])
        drafts: dict[str, Draft] = {}
        for row, likelihood, length in zip(found, likelihoods, lengths, strict=True):
            answer = self._tokenizer.decode(row[tokens.shape[1] :], skip_special_tokens=True)
            said = first_caption(answer)
            if said and said not in drafts:
                drafts[said] = Draft(said, likelihood, likelihood / max(1, length))
        if not drafts:
            # Nothing that is a caption came: the best of what was retrieved is more than an empty line.
            return [Draft(context[0] if context else "", None, float("-inf"))]
        return sorted(drafts.values(), key=lambda draft: -draft.score)

    def _padding(self) -> int:
        for number in (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id):
            if number is not None:
                return int(number)
        return 0

    def _likelihoods(self, rows: torch.Tensor, start: int) -> tuple[list[float], list[int]]:
        """Log-likelihood of the first line that was written, and how many tokens that is."""
        scores = self._model(rows, attention_mask=torch.ones_like(rows)).logits[:, start - 1 : -1].float()
        written = rows[:, start:]
        each = scores.log_softmax(-1).gather(-1, written[..., None]).squeeze(-1)
        ends = torch.zeros_like(written, dtype=torch.bool)
        for number in {self._padding(), self._tokenizer.eos_token_id} - {None}:
            ends |= written == number
        kept = ends.cumsum(1) == 0
        for row, tokens in zip(kept, written.tolist(), strict=True):
            row[self._line(tokens) :] = False
        return (each * kept).sum(1).tolist(), kept.sum(1).tolist()

    def _line(self, tokens: list[int]) -> int:
        """How many tokens there are before the line break behind the first words."""
        for count in range(1, len(tokens) + 1):
            if "\n" in self._tokenizer.decode(tokens[:count], skip_special_tokens=True).lstrip():
                return count - 1
        return len(tokens)


def _load(source: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(source)
    options: dict[str, Any] = {}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelUnavailableError(f"there is no GGUF file {path}")
        for package in ("gguf", "accelerate"):
            if find_spec(package) is None:
                raise MissingExtraError("reading GGUF files", package=package, extra="gguf")
        options, source = {"gguf_file": path.name}, str(path.parent)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
    except Exception as error:  # transformers raises whatever its readers raise
        raise ModelUnavailableError(_reason(source, path, error)) from error
    return tokenizer, model


def _reason(source: str, path: Path, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    if path.suffix == ".gguf":
        return (
            f"the GGUF file {path} cannot be loaded: {said}; transformers reads some architectures alone: take a file "
            "of another one (llama, qwen2, ...), or serve this one and use openai:MODEL@URL"
        )
    if path.is_dir():
        there = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
        return (
            f"the folder {path} is no complete causal language model: {said}; expected config.json, the tokenizer's "
            f"files and model.safetensors, found {there}"
        )
    return (
        f"the language model {source!r} cannot be loaded: {said}; give a folder with its files, or let it be fetched "
        "from the hub once"
    )
