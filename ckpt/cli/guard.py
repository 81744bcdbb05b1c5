"""`ckpt guard`."""

import click

from ckpt.cli.options import Session, arg_option, ckpt_command
from ckpt.ops.guard import guard, take_snapshots
from ckpt.ops.guard.result import GuardResult
from ckpt.show.guard import (
    annotations,
    guard_data,
    guard_report,
    guard_text,
    left_text,
    taken_data,
    taken_text,
)
from ckpt.show.look.markdown import markdown

_UNBUILT = 3  # exit code, if nothing is known to be broken


@ckpt_command(
    examples="ckpt guard\nckpt guard models/net.py:Net --against git:origin/main\n"
    "ckpt guard --fix\nckpt guard --snapshot"
)
@click.argument("definitions", metavar="[DEF]...", nargs=-1)
@click.option(
    "--against",
    metavar="git:REV",
    help="Compare with the class as another revision has it, such as git:origin/main; needs "
    "neither a registry nor a snapshot.",
)
@click.option(
    "--fix", is_flag=True, help="Write the missing migrations, where nothing is ambiguous."
)
@click.option(
    "--snapshot",
    is_flag=True,
    help="Write the keys of each class into migrations/schemas/, to compare with from now on.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "markdown"]),
    default="text",
    help="github annotates the line of a class in a pull request; markdown suits a comment.",
)
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long a definition may take to build (default: 60).",
)
@arg_option
def command(
    session: Session,
    definitions: tuple[str, ...],
    against: str | None,
    fix: bool,
    snapshot: bool,
    form: str,
    seconds: float | None,
    arguments: dict[str, object],
) -> None:
    """Tell whether classes still load the checkpoints that they must load.

    Without DEF, checks the classes that `guard` in the table [tool.ckpt] of pyproject.toml lists.
    They must load the versions of the registry that were made with them, and their snapshots. A
    checkpoint that migrations lead to the class loads. Definitions run in another process.

    Exit code 1 if a class no longer loads a checkpoint, 3 if one cannot be built.
    """
    if snapshot:
        if against or fix:
            raise click.UsageError("--snapshot compares nothing; leave --against and --fix out")
        taken = take_snapshots(*definitions, arguments=arguments, seconds=seconds)
        session.show(taken, taken_text, taken_data)
        for it in taken:
            if it.left:
                session.terminal.remark(left_text(it))
        return
    found = guard(
        *definitions,
        against=against,
        arguments=arguments,
        seconds=seconds,
        fix=fix,
        registry=session.registry,
    )
    _show(session, found, "json" if session.as_json else form)
    for failed in found.failed:
        session.terminal.error(failed.problem or "", failed.hint)
    if not found.holds:
        click.get_current_context().exit(1 if found.broken else _UNBUILT)


def _show(session: Session, found: GuardResult, form: str) -> None:
    match form:
        case "json":
            session.terminal.data(guard_data(found))
        case "markdown":
            session.terminal.result(markdown(guard_report(found)), verbatim=True)
        case _:
            if text := guard_text(found, width=session.terminal.width):
                session.terminal.result(text)
    if form == "github":
        for line in annotations(found):
            session.terminal.result(line, verbatim=True)
