"""All commands, as one: what `mmalign --help` lists."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from mmalign.cli import (
    aligning,
    auditing,
    benching,
    calibration,
    captioning,
    collections,
    demo,
    doctor,
    eval_captions,
    evaluate,
    models,
    planning,
    query_logging,
    searching,
    train,
)
from mmalign.cli.output import Group, nobody_reads, say

# What Ctrl-C leaves behind, where a command has not said it itself.
_STOPPED = {
    "index": "stopped; what was committed until then is kept. Go on with the same command.",
    "demo": "stopped; what was encoded is kept. Go on with the same command.",
    "bench": "stopped; what was built and measured is kept in --out. Go on with the same command.",
    "audit": "stopped; the database is as it was, and nothing is kept",
    "eval": "stopped; no figures were written",
    "train": "stopped; what was computed and saved until then is kept in --out. Go on with the same command.",
}


def _broken(error: BrokenPipeError) -> typer.Exit:
    """The end of a command whose reader, such as `head`, has gone; typer would call it an error, and say nothing."""
    if not _reader_left():
        # Of another pipe, such as that of a worker that was killed: no success.
        say(f"error: {error}")
        return typer.Exit(1)
    nobody_reads(sys.stdout)
    return typer.Exit(0)


def _reader_left() -> bool:
    """Whether nobody reads any more what goes to standard output."""
    import select

    try:
        waiting = select.poll()
        waiting.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))
    except (AttributeError, OSError, ValueError):
        # Windows has no poll, and what stands in for standard output may be no file.
        return False


class _Commands(Group):
    """Says so where Ctrl-C ended a command that has not said it; typer would end it without a word."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:
            raise _broken(error) from None
        except KeyboardInterrupt:
            say("stopped before anything was done")
            raise typer.Exit(130) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _broken(error) from None
        except KeyboardInterrupt:
            say(_STOPPED.get(ctx.invoked_subcommand, "stopped; nothing was changed"))
            raise typer.Exit(130) from None


app = typer.Typer(
    name="mmalign",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find pictures by describing them.

    Make a collection of a folder once, then search it:

        mmalign index ~/photos

        cd ~/photos && mmalign search two dogs playing in the snow

    Every command takes --json. Results go to standard output; remarks, progress and errors to standard error. The exit
    status is 0 where all went well, 1 where a search found nothing or something is wrong, 2 where the command or a
    value in it means nothing, 130 after Ctrl-C.""",
)
# In the order in which --help lists them.
app.command()(collections.index)
app.command(cls=searching.WordsCommand)(searching.search)
for verb in (
    collections.info,
    collections.remove,
    aligning.align,
    captioning.caption,
    models.models,
    planning.recipes,
    planning.plan,
    auditing.audit,
    doctor.doctor,
    query_logging.log_queries,
    demo.demo,
):
    app.command()(verb)
evaluate.app.command("calibration")(calibration.eval_calibration)
evaluate.app.command("text")(eval_captions.eval_text)
evaluate.app.command("caption")(eval_captions.eval_caption)
app.add_typer(evaluate.app, name="eval")
app.add_typer(train.app, name="train")
app.add_typer(benching.app, name="bench")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"mmalign {installed('mmalign')}")
        raise typer.Exit
