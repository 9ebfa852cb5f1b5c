"""`openai:MODEL@URL` against a real server: `transformers serve` with a language model of random weights."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mmalign.captioning.captioner import Captioner
from mmalign.captioning.decoders.prompts import chat_prompt, first_caption
from mmalign.captioning.decoders.registry import load_decoder
from mmalign.captioning.retrieval import TextStore
from mmalign.errors import ModelUnavailableError
from tests.captioning.test_captioner import CAPTIONS, QUERY, STORE, Toy

MISSING = [name for name in ("fastapi", "uvicorn", "openai") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install 'transformers[serving]'"),
]
# To start takes some seconds of processor time; a busy machine may take minutes over them.
SECONDS = 400
WORDS = ["<unk>", "</s>", "a", "dog", "dogs", "runs", "snow", "in", "brown", "man", "bike", "the", "rides"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that answers with words of its small vocabulary."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("served") / "tiny"
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    saved.chat_template = TEMPLATE
    saved.save_pretrained(path)
    torch.manual_seed(3)
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(WORDS), n_positions=512, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
        )
    ).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / "server.log"
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hub")}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--device", "cpu"], stdout=stream, stderr=stream, env=environment, cwd=folder.parent
        )
    try:
        until = time.monotonic() + SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, f"no answer after {SECONDS} s: {log.read_text()[-2000:]}"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def greedy(folder: Path, text: str) -> str:
    """What the model says when it is run here, one most likely word after the other."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
    tokens = tokenizer(asked, add_special_tokens=False)["input_ids"]
    start = len(tokens)
    with torch.no_grad():
        while len(tokens) < start + 60 and (len(tokens) == start or tokens[-1] != 1):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return str(tokenizer.decode(tokens[start:], skip_special_tokens=True))


def test_a_picture_is_captioned_by_what_a_server_answers(server: str, folder: Path) -> None:
    told = Captioner(Toy(), STORE, mode=f"openai:{folder}@{server}").caption(QUERY)
    # The three nearest captions are what the model is asked about; the fourth is not.
    assert told.text == first_caption(greedy(folder, chat_prompt(CAPTIONS[:3])))
    assert re.search(r"\w", told.text)
    assert [entry.text for entry in told.evidence] == CAPTIONS[:3]
    assert told.mode == f"openai:{folder}@{server}"


def test_other_captions_are_answered_otherwise(server: str, folder: Path) -> None:
    store = TextStore(CAPTIONS, STORE.vectors[::-1].copy(), fingerprint=Toy.fingerprint)
    told = Captioner(Toy(), store, mode=f"openai:{folder}@{server}").caption(np.array([0, 0, 1], np.float32))
    assert told.text == first_caption(greedy(folder, chat_prompt([entry.text for entry in told.evidence])))
    assert told.evidence[0].text == CAPTIONS[0]


def test_an_address_without_the_api_is_told(server: str, folder: Path) -> None:
    wrong = server.removesuffix("/v1") + "/v2"
    with pytest.raises(ModelUnavailableError, match="refused with status 404"):
        load_decoder(f"openai:{folder}@{wrong}").caption(None, CAPTIONS)
