"""`ckpt help`: the help of a command, or a text on a topic that several commands share."""

from importlib.resources import files

import click

from ckpt.cli.commands import COMMANDS, TOPICS
from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import Completed
from ckpt.errors import UsageError

_NAME = Completed(lambda _registry: [*COMMANDS, *TOPICS])


@ckpt_command(
    examples="ckpt help\nckpt help rename\nckpt help migrate new\nckpt help refs\n"
    "ckpt help exit-codes",
    reads=True,
)
@click.argument("names", type=_NAME, metavar="[COMMAND|TOPIC]", nargs=-1)
def command(session: Session, names: tuple[str, ...]) -> None:
    """Show the help of a command, or a text on a topic; without either, list both."""
    name = " ".join(names)
    text = _topic(name.replace(" ", "-")) or _help(names)
    session.show(text, lambda text: text, lambda text: {"name": name, "text": text})


def _topic(name: str) -> str:
    if name not in TOPICS:
        return ""
    path = files("ckpt.cli") / "topics" / f"{name}.txt"
    return path.read_text(encoding="utf-8").rstrip()


def _help(names: tuple[str, ...]) -> str:
    """What these words and --help print.

    Raises:
        UsageError: There is no such command.
    """
    context = click.get_current_context().find_root()
    for name in names:
        group = context.command
        known = group.list_commands(context) if isinstance(group, click.Group) else []
        if not isinstance(group, click.Group) or name not in known:
            near = known if len(names) > 1 else [*known, *TOPICS]
            raise UsageError(_unknown(name, near), hint="ckpt help")
        below = group.get_command(context, name)
        assert below is not None
        context = click.Context(below, info_name=name, parent=context)
    return context.command.get_help(context)


def _unknown(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, cutoff=0.5)
    meant = f"; near: {', '.join(near)}" if near else ""
    return f"no command or topic {name!r}{meant}"
