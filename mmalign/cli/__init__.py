"""The `mmalign` command: each verb parses its words, calls the method of the same name, and prints."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from mmalign.cli import (
    about,
    aligning,
    benching,
    calibration,
    caption_scores,
    captioning,
    collections,
    evaluate,
    planning,
    train,
)
from mmalign.cli.output import say
from mmalign.errors import MMAlignError

app = typer.Typer(
    name="mmalign",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find pictures by describing them.

    Make a collection of a folder once, then search it:

        mmalign index ~/photos

        cd ~/photos && mmalign search "two dogs playing in the snow"

    Every command takes --json.""",
)
# In the order in which --help lists them.
for verb in (
    collections.index,
    collections.search,
    collections.info,
    collections.remove,
    aligning.align,
    captioning.caption,
    about.models,
    planning.recipes,
    planning.plan,
    about.doctor,
    about.demo,
):
    app.command()(verb)
evaluate.app.command("calibration")(calibration.eval_calibration)
evaluate.app.command("text")(caption_scores.eval_text)
evaluate.app.command("caption")(caption_scores.eval_caption)
app.add_typer(evaluate.app, name="eval")
app.add_typer(train.app, name="train")
app.add_typer(benching.app, name="bench")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"mmalign {installed('mmalign')}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command; errors that mmalign raises on purpose end it with one clear text and status 1."""
    try:
        app()
    except MMAlignError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("stopped; the same command goes on where it was")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)
