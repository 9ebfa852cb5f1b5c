"""Any causal language model of Hugging Face as a decoder, prompted with the retrieved captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mmalign.captioning.decoders.base import Draft
from mmalign.captioning.decoders.prefix import PrefixFile
from mmalign.captioning.decoders.prompts import chat_prompt, first_caption, plain_prompt
from mmalign.errors import MissingExtraError, ModelUnavailableError
from mmalign.utils import Float32Array

_WORDS = 40
# Of each of a model's tensors so many values count in its digest.
_SAMPLED = 1024


class LanguageModel:
    """A causal language model and its tokenizer, as both writing and the training of a prefix need them.

    Args:
        source: A name on the hub such as `microsoft/DialoGPT-large`, a folder, or a GGUF file.
        device: A torch device; the processor where None.

    Attributes:
        source: As given.
        model: The network, in evaluation mode, its weights not to be trained.
        tokenizer: The tokenizer.

    Raises:
        MissingExtraError: A GGUF file, and the package `gguf` is not installed.
        ModelUnavailableError: The model cannot be had, its folder is incomplete, or its architecture is unknown.
    """

    def __init__(self, source: str, *, device: str | torch.device | None = None) -> None:
        self.source = source
        self.device = torch.device(device or "cpu")
        self.tokenizer, model = _load(source)
        self.model: Any = model.eval().requires_grad_(False).to(self.device)

    @property
    def width(self) -> int:
        """Width of a token's vector."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def scale(self) -> float:
        """Root mean square of the entries of the tokens' vectors."""
        return float(self.model.get_input_embeddings().weight.float().square().mean().sqrt())

    @property
    def digest(self) -> str:
        """Hex digest of the tensors' names, shapes and some of their values, which tells one model from another."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            found.update(f"{name} {list(tensor.shape)}".encode())
            flat = tensor.detach().reshape(-1)
            step = max(1, flat.numel() // _SAMPLED)
            found.update(flat[::step].to("cpu", torch.float32).numpy().tobytes())
        return found.hexdigest()

    @property
    def answers(self) -> bool:
        """Whether the model answers messages; else it goes on with texts."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def padding(self) -> int:
        """The token that fills up short rows."""
        for number in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if number is not None:
                return int(number)
        return 0

    def prompt(self, context: Sequence[str], *, room: int = _WORDS) -> torch.Tensor:
        """The tokens of what the model is told.

        Args:
            context: Retrieved captions, best first.
            room: Places that have to stay free.

        Returns:
            Shape (1, n), int64; its beginning is cut where the model reads no more.
        """
        if self.answers:
            asked = [{"role": "user", "content": chat_prompt(context)}]
            text = self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        else:
            text = plain_prompt(context)
        # A chat template has its special tokens in the text.
        tokens: torch.Tensor = self.tokenizer(text, return_tensors="pt", add_special_tokens=not self.answers)[
            "input_ids"
        ]
        most = int(getattr(self.model.config, "max_position_embeddings", None) or 2048)
        return tokens[:, -max(1, most - room) :].to(self.device)

    def answer(self, caption: str) -> torch.Tensor:
        """The tokens of the answer that a caption is, its end included.

        Args:
            caption: The caption.

        Returns:
            Shape (n,), int64.
        """
        text = caption if self.answers else f" {caption}\n"
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        if end is not None:
            tokens = [*tokens, int(end)]
        return torch.tensor(tokens[:_WORDS], dtype=torch.int64, device=self.device)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Look up the vectors of tokens.

        Args:
            tokens: int64 of any shape.

        Returns:
            The model's dtype, with the width as one more axis.
        """
        found: torch.Tensor = self.model.get_input_embeddings()(tokens)
        return found


class HFDecoder:
    """A language model that writes a caption from retrieved captions; with a soft prefix it is told of the picture too.

    A model with a chat template is asked; another one goes on with a list of captions.

    Args:
        source: A name on the hub such as `microsoft/DialoGPT-large`, a folder, or a GGUF file.
        prefix: What makes vectors for this model from a picture's embedding; None to write from the captions alone.
        name: The spec that loads it again; `hf:` and the source where None.
        beams: Beams of the search; as many drafts are given.
        device: A torch device; the processor where None.

    Attributes:
        encoder: Name of the encoder whose embeddings the prefix reads; empty without one.
        fingerprint: That encoder's fingerprint.

    Raises:
        MissingExtraError: A GGUF file, and the package `gguf` is not installed.
        ModelUnavailableError: The model cannot be had, its folder is incomplete, its architecture is unknown, or the
            prefix was trained for another one.
    """

    def __init__(
        self,
        source: str,
        *,
        prefix: PrefixFile | None = None,
        name: str | None = None,
        beams: int = 4,
        device: str | None = None,
    ) -> None:
        self.name = name or f"hf:{source}"
        self.encoder = "" if prefix is None else prefix.notes["encoder"]
        self.fingerprint = "" if prefix is None else prefix.fingerprint
        self._beams = beams
        self._language = LanguageModel(source, device=device)
        self._prefix = prefix
        if prefix is not None:
            _check_model(prefix, self._language)
            prefix.prefix.to(self._language.device)

    def caption(self, vector: Float32Array | None, context: Sequence[str]) -> list[Draft]:
        """See `Decoder.caption`; the vector is looked at by a soft prefix alone."""
        language, prefix = self._language, self._prefix
        with torch.inference_mode():
            if prefix is None or vector is None:
                tokens = language.prompt(context)
                shown, length = {"input_ids": tokens}, tokens.shape[1]
            else:
                tokens = language.prompt(context, room=_WORDS + prefix.prefix.length)
                made = prefix.prefix(prefix.moved(vector).to(language.device))
                embedded = language.embed(tokens)
                shown = {"inputs_embeds": torch.cat([embedded, made.to(embedded.dtype)], dim=1)}
                length = shown["inputs_embeds"].shape[1]
            found = language.model.generate(
                **shown,
                attention_mask=torch.ones((1, length), dtype=torch.int64, device=language.device),
                max_new_tokens=_WORDS,
                num_beams=self._beams,
                num_return_sequences=self._beams,
                do_sample=False,
                no_repeat_ngram_size=0,
                pad_token_id=language.padding,
            )
            # Where the prompt is given as vectors, what is returned begins behind it.
            written = found[:, length:] if "input_ids" in shown else found
            likelihoods, lengths = self._likelihoods(shown, written)
        drafts: dict[str, Draft] = {}
        for row, likelihood, count in zip(written, likelihoods, lengths, strict=True):
            text = first_caption(language.tokenizer.decode(row, skip_special_tokens=True))
            if text and text not in drafts:
                drafts[text] = Draft(text, likelihood, likelihood / max(1, count))
        if not drafts:
            # Nothing that is a caption came: the best of what was retrieved is more than an empty line.
            return [Draft(context[0] if context else "", None, float("-inf"))]
        return sorted(drafts.values(), key=lambda draft: -draft.score)

    def _likelihoods(self, shown: dict[str, torch.Tensor], written: torch.Tensor) -> tuple[list[float], list[int]]:
        """Log-likelihood of the first line that was written, and how many tokens that is."""
        language = self._language
        rows = {}
        for name, prompt in shown.items():
            added = written if name == "input_ids" else language.embed(written)
            rows[name] = torch.cat([prompt.expand(len(written), *prompt.shape[1:]), added], dim=1)
        places = next(iter(rows.values())).shape[:2]
        mask = torch.ones(places, dtype=torch.int64, device=language.device)
        scores = language.model(**rows, attention_mask=mask).logits[:, -written.shape[1] - 1 : -1].float()
        each = scores.log_softmax(-1).gather(-1, written[..., None]).squeeze(-1)
        ends = torch.zeros_like(written, dtype=torch.bool)
        for number in {language.padding, language.tokenizer.eos_token_id} - {None}:
            ends |= written == number
        kept = ends.cumsum(1) == 0
        for row, tokens in zip(kept, written.tolist(), strict=True):
            row[self._line(tokens) :] = False
        return (each * kept).sum(1).tolist(), kept.sum(1).tolist()

    def _line(self, tokens: list[int]) -> int:
        """How many tokens there are before the line break behind the first words."""
        for count in range(1, len(tokens) + 1):
            if "\n" in self._language.tokenizer.decode(tokens[:count], skip_special_tokens=True).lstrip():
                return count - 1
        return len(tokens)


def _check_model(prefix: PrefixFile, language: LanguageModel) -> None:
    name = prefix.notes["language_model"]
    if language.width != prefix.prefix.width or language.digest != prefix.notes["language_model_digest"]:
        raise ModelUnavailableError(
            f"the soft prefix was trained for the language model {name}, and hf:{language.source} has other weights; "
            "name that one, or train a prefix for this one with: mmalign train captioner --language-model "
            f"hf:{language.source}"
        )


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
    # What transformers says goes on for a page; its first sentence tells what is wrong.
    text = " ".join(str(error).split()).split(". ")[0][:160].rstrip(".")
    if path.suffix == ".gguf":
        return (
            f"the GGUF file {path} cannot be loaded: {text}; transformers reads some architectures alone: take a file "
            "of another one (llama, qwen2, ...), or serve this one and use openai:MODEL@URL"
        )
    if path.is_dir():
        there = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
        return (
            f"the folder {path} is no complete causal language model: {text}; expected config.json, the tokenizer's "
            f"files and model.safetensors, found {there}"
        )
    return (
        f"the language model {source!r} cannot be loaded: {text}; give a folder with its files, or let it be fetched "
        "from the hub once"
    )
