"""Model hub access that fails fast: one short probe instead of minutes of retries."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from mmalign.errors import ModelUnavailableError

_PROBE_SECONDS = 5.0
_SWITCH = threading.Lock()


@dataclass(frozen=True, slots=True)
class HubProbe:
    """Whether the Hugging Face hub answers.

    Attributes:
        endpoint: The URL that was tried.
        reachable: Whether anything answered there.
        reason: Why not, in a few words; empty where reachable.
        seconds: How long the attempt took.
    """

    endpoint: str
    reachable: bool
    reason: str
    seconds: float


def probe_hub(*, timeout: float = _PROBE_SECONDS) -> HubProbe:
    """Ask the hub for an answer, once, through the hub client's own session (its proxies and certificates).

    Args:
        timeout: Seconds to wait at most.

    Returns:
        What was found; offline mode (`HF_HUB_OFFLINE`) counts as unreachable and touches no network.
    """
    from huggingface_hub import constants, get_session

    endpoint = str(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return HubProbe(endpoint, False, "HF_HUB_OFFLINE is set", 0.0)
    start = time.perf_counter()
    try:
        get_session().head(endpoint, timeout=timeout)
    except Exception as error:  # requests, httpx and httpx2, by version of the client, share no base class
        reason = f"{type(error).__name__}: {error}"
        return HubProbe(endpoint, False, reason, time.perf_counter() - start)
    return HubProbe(endpoint, True, "", time.perf_counter() - start)


@contextmanager
def hub_access(probe: HubProbe | None) -> Iterator[None]:
    """Load a model within this context: from the cache alone where the hub does not answer.

    The libraries retry each file for up to 25 s otherwise, cached or not. Their log messages are held back: open_clip
    reports through the root logger, which would configure logging for the whole process.

    Args:
        probe: What `probe_hub` found, or None for a model that needs no hub.

    Yields:
        Nothing.
    """
    from huggingface_hub import constants

    root = logging.getLogger()
    silence = None if root.handlers else logging.NullHandler()
    offline = probe is not None and not probe.reachable
    with _SWITCH if offline else nullcontext():
        before = constants.HF_HUB_OFFLINE
        if offline:
            constants.HF_HUB_OFFLINE = True
        if silence is not None:
            root.addHandler(silence)
        try:
            yield
        finally:
            if silence is not None:
                root.removeHandler(silence)
            if offline:
                constants.HF_HUB_OFFLINE = before


def unavailable(spec: str, probe: HubProbe | None, error: BaseException) -> ModelUnavailableError:
    """Return the error for weights that are not here and did not come.

    Args:
        spec: The encoder that was asked for.
        probe: What `probe_hub` found, or None where no hub was involved.
        error: What the library raised.

    Returns:
        The error, to be raised from `error`.
    """
    from huggingface_hub import constants

    if probe is None or probe.reachable:
        where = "" if probe is None else f" from {probe.endpoint}"
        return ModelUnavailableError(
            f"{spec} could not be loaded{where}: {_first_line(error)}; check the name, or use `lite`, which needs no "
            "download"
        )
    return ModelUnavailableError(
        f"{spec} is not on this machine and could not be fetched: {probe.endpoint} did not answer"
        f" ({probe.reason}; tried for {probe.seconds:.1f} s), and {constants.HF_HUB_CACHE} does not hold it. "
        "Connect once to fetch it, or copy the weights here and name them (open_clip:MODEL@/path/to/checkpoint, "
        "open_clip:local-dir:/path, st:/path), or use `lite`, which needs no network"
    )


def _first_line(error: BaseException, *, limit: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[:limit] + "..."
