"""The `mmalign` command: each verb parses its words, calls the method of the same name, and prints."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from mmalign.cli.commands import app
    from mmalign.cli.contact_sheet import write_contact_sheet

__all__ = ["app", "main", "write_contact_sheet"]


def main() -> NoReturn:
    """Run the command; what mmalign refuses and what the system refuses end it with one clear text and its status."""
    try:
        _run()
    finally:
        # What is printed only now may find that the reader of a pipe has gone; the status is that of the command.
        from mmalign.cli.output import flush

        flush()


def _run() -> NoReturn:
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
        _end(_status(error), f"error: {error}")
    except KeyboardInterrupt:
        _end(130, "stopped")
    except OSError as error:
        # A full disk, a folder that is not ours: nobody is helped by where in the code it came up.
        if error.strerror is None:
            raise
        _end(1, f"error: {error.strerror}" + ("" if error.filename is None else f": {os.fsdecode(error.filename)}"))
    sys.exit(0)


def _status(error: Exception) -> int:
    """2 where what was typed means nothing, as for an option that there is not; 1 where what it names is at fault."""
    from mmalign.errors import DimensionError, InputError, MetadataError, SourceError

    about_data = isinstance(error, DimensionError | MetadataError | SourceError)
    return 2 if isinstance(error, InputError) and not about_data else 1


def _end(status: int, text: str) -> NoReturn:
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr)
    sys.exit(status)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {"app": "mmalign.cli.commands", "write_contact_sheet": "mmalign.cli.contact_sheet"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
