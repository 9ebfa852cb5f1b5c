from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants, hf_hub_download

from mmalign.encoders.hub import HubProbe, hub_access, probe_hub, unavailable

GONE = HubProbe("https://hub.invalid", False, "ConnectError: no such host", 0.25)


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        time.sleep(self.server.delay)  # type: ignore[attr-defined]
        self.send_response(404)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    running = HTTPServer(("127.0.0.1", 0), Answer)
    running.delay = 0.0  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{running.server_port}")
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_any_answer_counts_as_reachable(server: HTTPServer) -> None:
    assert probe_hub() == HubProbe(constants.ENDPOINT, True, "", pytest.approx(0, abs=5))


def test_a_hub_that_is_too_slow_counts_as_unreachable(server: HTTPServer) -> None:
    server.delay = 3.0  # type: ignore[attr-defined]
    probe = probe_hub(timeout=0.2)
    assert not probe.reachable
    assert "Timeout" in probe.reason
    assert 0.1 < probe.seconds < 2.5


def test_no_hub_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    probe = probe_hub()
    assert (probe.reachable, probe.endpoint) == (False, "http://127.0.0.1:9")
    assert "ConnectError" in probe.reason or "ConnectionError" in probe.reason


def test_offline_mode_is_not_probed(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    probe = probe_hub()
    assert (probe.reachable, probe.reason) == (False, "HF_HUB_OFFLINE is set")


def test_without_a_hub_the_client_looks_in_its_cache_alone_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    with hub_access(GONE), pytest.raises(OSError, match="cannot find the requested files"):
        hf_hub_download("org/name", "file")
    assert time.perf_counter() - start < 1
    assert constants.HF_HUB_OFFLINE is False


def test_offline_mode_ends_with_the_context_even_after_an_error() -> None:
    def fail() -> None:
        with hub_access(GONE):
            assert constants.HF_HUB_OFFLINE is True
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("probe", [None, GONE, HubProbe("https://hub.invalid", True, "", 0.1)])
def test_logging_is_left_as_it_was(probe: HubProbe | None, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with hub_access(probe):
        logging.info("this call configures logging where no handler is set")
    assert root.handlers == []


def test_the_error_says_what_was_tried_and_what_to_do() -> None:
    text = str(unavailable("open_clip:A/b", GONE, OSError("Couldn't reach it")))
    for part in (
        "open_clip:A/b",
        "https://hub.invalid did not answer",
        "ConnectError: no such host",
        "0.2 s",
        "`lite`",
    ):
        assert part in text
    reached = HubProbe("https://hub.invalid", True, "", 0.1)
    text = str(unavailable("open_clip:A/b", reached, OSError("404: no\n  such repository")))
    assert "could not be loaded from https://hub.invalid: 404: no such repository" in text
    assert "did not answer" not in text
