"""What `mmalign index --reencode` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mmalign.cli.output import if_stopped, print_json, say, shows_progress
from mmalign.errors import ReencodeInterrupted, UnreadableItemsError

if TYPE_CHECKING:
    from mmalign.collection import Collection
    from mmalign.types import ReencodeReport


def run_reencode(opened: Collection, *, encoder: str | None, drop_missing: bool, as_json: bool) -> ReencodeReport:
    """Encode a collection anew, and say how to go on where that was stopped.

    Args:
        opened: The collection.
        encoder: Spec, or None for the newest version of its own.
        drop_missing: Remove items whose picture cannot be read.
        as_json: Whether to print JSON where it stops; a report is left to the caller.

    Returns:
        What was done.
    """
    try:
        # Before the pictures are read, the encoder is.
        with if_stopped("stopped before anything was done", but=ReencodeInterrupted):
            return opened.reencode(encoder, drop_missing=drop_missing, progress=shows_progress(as_json))
    except ReencodeInterrupted as stop:
        if as_json:
            print_json({"reencode": stop.report.to_dict()})
        done = stop.report.encoded + stop.report.kept
        kept = f"the {done:,} of {stop.report.items:,} pictures encoded so far are kept"
        kept = kept if done else "nothing was encoded yet"
        say(f"stopped; {opened.path} is as it was, and {kept}. Go on with the same command.")
        raise typer.Exit(130) from None
    except UnreadableItemsError as error:
        if as_json:
            print_json({"unreadable": [{"uri": skip.uri, "reason": skip.reason} for skip in error.unreadable]})
        raise


def print_reencode(opened: Collection, report: ReencodeReport) -> None:
    """Print what was done for a person to read."""
    for skip in report.dropped[:20]:
        say(f"removed {skip.uri}: {skip.reason}")
    if len(report.dropped) > 20:
        say(f"... and {len(report.dropped) - 20:,} more; --json lists all")
    counts = {
        f"picture{'s' * (report.encoded != 1)} encoded": report.encoded,
        "kept from before": report.kept,
        "edited since": report.updated,
        f"item{'s' * (len(report.dropped) != 1)} removed": len(report.dropped),
    }
    summary = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing to do"
    items = "item" if report.items == 1 else "items"
    print(f"{opened.path}: {report.items:,} {items} made with {report.encoder} ({summary}; {report.seconds:.1f} s)")


def say_notes(opened: Collection) -> None:
    """Say what the owner of a collection should know of it."""
    for note in opened.notes():
        say(f"note: {note}")
