"""Where a measurement's figures go: one JSON file each, with what they were measured on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"


def machine() -> str:
    """The processor, its cores that this process may use, and the system."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    """The commit that is checked out, with a + where files of the package differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    # The cards of lite are results themselves.
    cards = ":(exclude)mmalign/encoders/lite/weights/lite-[0-9].json"
    dirty = git("status", "--porcelain", "--", "mmalign", "indexes", "pyproject.toml", cards)
    return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")


def write(name: str, data: str, figures: dict[str, Any]) -> Path:
    """Write what was measured.

    Args:
        name: The measurement.
        data: What it was measured on, in words.
        figures: Name to number or text.

    Returns:
        The file written.
    """
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    told = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "commit": commit(),
        "data": data,
        "figures": figures,
    }
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=2))
    return path
