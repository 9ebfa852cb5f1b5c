"""Progress where nobody watches: a line now and then, also while one step takes long, and none for short work."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from mmalign.utils import progress
from mmalign.utils.progress import track, track_several


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.05)


def wait_for(capsys: pytest.CaptureFixture[str], pattern: str) -> str:
    """What was printed until a line of the form came."""
    shown = ""
    deadline = time.monotonic() + 60
    while not re.search(pattern, shown, re.MULTILINE):
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)
        shown += capsys.readouterr().err
    return shown


@pytest.mark.usefixtures("quick")
def test_lines_tell_how_far_the_work_is(capsys: pytest.CaptureFixture[str]) -> None:
    with track("Reading", 600) as advance:
        wait_for(capsys, r"^Reading: 0 of 600 \(0%\), after [\d.]+ m?s$")
        advance(100)
        advance(20)
        shown = wait_for(capsys, r"^Reading: 120 of 600 \(20%\), [\d.]+ a second, about [\d.]+ m?s left$")
        # One step that takes long: the lines go on.
        assert len(shown.splitlines()) >= 1
        wait_for(capsys, "^Reading: 120 of 600")
        wait_for(capsys, "^Reading: 120 of 600")
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == "", "no line comes after the work"


@pytest.mark.usefixtures("quick")
def test_work_of_unknown_length(capsys: pytest.CaptureFixture[str]) -> None:
    with track("Scanning", None) as advance:
        advance(1234)
        wait_for(capsys, r"^Scanning: 1,234, [\d.]+ a second$")


@pytest.mark.usefixtures("quick")
def test_several_things_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    with track_several() as show:
        assert show is not None
        show("checking", 3, 4)
        wait_for(capsys, r"^checking: 3 of 4 \(75%\)")
        show("epoch 1 of 2", 5, 10)
        wait_for(capsys, r"^epoch 1 of 2: 5 of 10 \(50%\)")


@pytest.mark.usefixtures("quick")
def test_nothing_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with track("Reading", 10, enabled=False) as advance, track_several(enabled=False) as show:
        advance(1)
        assert show is None
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_short_work_prints_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert progress.FIRST_SECONDS == 10
    assert progress.EVERY_SECONDS == 30
    with track("Reading", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_a_command_in_a_pipe_prints_lines_on_standard_error_and_results_on_standard_output() -> None:
    code = (
        "import time\nfrom mmalign.utils import progress\nprogress.FIRST_SECONDS = progress.EVERY_SECONDS = 0.05\n"
        "with progress.track('Working', 2) as advance:\n    advance(1)\n    print('a result')\n    time.sleep(0.3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a result\n"
    assert done.stderr.startswith("Working: 1 of 2 (50%)")
