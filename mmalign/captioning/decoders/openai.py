"""A model behind an OpenAI-compatible address as a decoder, prompted with the retrieved captions."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from mmalign.captioning.decoders.base import Draft
from mmalign.captioning.decoders.prompts import chat_prompt, first_caption
from mmalign.errors import InputError, ModelUnavailableError
from mmalign.utils import Float32Array

API_KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable whose value is sent as a bearer token, where it is set."""


class OpenAIDecoder:
    """Asks `POST URL/chat/completions`; the picture itself is not sent.

    Args:
        model: The model's name there.
        url: Base of the address, such as `http://localhost:8000/v1`.
        seconds: How long an answer may take.

    Raises:
        InputError: No http(s) address.
    """

    def __init__(self, model: str, url: str, *, seconds: float = 60.0) -> None:
        if not model or not url.startswith(("http://", "https://")):
            raise InputError(
                f"expected openai:MODEL@URL with an http(s) address such as http://localhost:8000/v1, got "
                f"{model!r} and {url!r}"
            )
        self.name = f"openai:{model}@{url}"
        self._model, self._url, self._seconds = model, url.rstrip("/"), seconds

    def caption(self, vector: Float32Array | None, context: Sequence[str]) -> list[Draft]:
        """See `Decoder.caption`; the vector is not looked at.

        Raises:
            ModelUnavailableError: Nobody answers, or the answer is an error or none of this kind.
        """
        message = {"role": "user", "content": chat_prompt(context)}
        answer = self._ask({"model": self._model, "messages": [message], "temperature": 0, "max_tokens": 60})
        try:
            text = first_caption(str(answer["choices"][0]["message"]["content"]))
        except (KeyError, IndexError, TypeError) as error:
            raise ModelUnavailableError(
                f"{self._url} answered with something else; expected an object with choices[0].message.content"
            ) from error
        if not text:
            raise ModelUnavailableError(f"{self.name} answered without a word; try another model")
        return [Draft(text, None, 0.0)]

    def _ask(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(API_KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self._url}/chat/completions", data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=self._seconds) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            # Not what it says: an answer is never repeated, whoever gave it.
            error.close()
            raise ModelUnavailableError(
                f"{self._url} refused with status {error.code}; does the model {self._model!r} exist there, and is "
                f"${API_KEY_VARIABLE} right?"
            ) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            message = str(reason) if isinstance(reason, OSError) else type(error).__name__
            raise ModelUnavailableError(
                f"no answer of an OpenAI-compatible server at {self._url}: {message}; is it running?"
            ) from error
