"""The `mmalign` command: each verb parses its words, calls the method of the same name, and prints."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from mmalign.cli.commands import app

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Run the command; errors that mmalign raises on purpose end it with one clear text and status 1."""
    try:
        # Late: Ctrl-C while this is read should end in a sentence, too.
        from typer.main import get_command

        from mmalign.cli.commands import app
        from mmalign.errors import MMAlignError

        command = get_command(app)
    except KeyboardInterrupt:
        _end(130, "stopped before anything was done")
    try:
        command()
    except MMAlignError as error:
        _end(1, f"error: {error}")
    except KeyboardInterrupt:
        _end(130, "stopped")
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _end(status: int, text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(status)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmalign.cli.commands import app

    return app
