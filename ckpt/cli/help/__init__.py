"""`ckpt help`: the help of a command, or a text on a topic that several commands share."""

from importlib.resources import files
from pathlib import Path

import click

from ckpt.cli.commands import COMMANDS, TOPICS
from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.cli.options.completed import Completed
from ckpt.errors import UsageError
from ckpt.io.files import write_whole
from ckpt.show.look.words import printable

_NAME = Completed(lambda _registry: [*COMMANDS, *TOPICS])


@ckpt_command(
    examples="ckpt help\nckpt help rename\nckpt help migrate new\nckpt help refs\n"
    "ckpt help exit-codes\nckpt help --man ~/.local/share/man",
    reads=True,
)
@click.argument("names", type=_NAME, metavar="[COMMAND|TOPIC]", nargs=-1)
@click.option(
    "--man",
    type=PATH,
    metavar="FOLDER",
    help="Write the manual pages of all commands into FOLDER/man1.",
)
def command(session: Session, names: tuple[str, ...], man: Path | None) -> None:
    """Show the help of a command, or a text on a topic; without either, list both.

    man finds the pages of --man in share/man beside each bin folder of PATH.
    """
    if man is not None and names:
        raise UsageError(
            f"--man writes all pages, not those of {' '.join(names)}", hint=f"ckpt help --man {man}"
        )
    if man is not None:
        _write_pages(session, man)
        return
    name = " ".join(names)
    text = _topic(name.replace(" ", "-")) or _help(names)
    session.show(text, lambda text: text, lambda text: {"name": name, "text": text})


def _write_pages(session: Session, folder: Path) -> None:
    from ckpt.cli.help.man import pages

    count = 0
    for name, text in pages(click.get_current_context().find_root()):
        path = folder / "man1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path, replace=True) as file:
            file.write(text.encode("ascii"))
        count += 1
    said = f"wrote {count} pages into {printable(str(folder / 'man1'))}"
    session.show(count, lambda _: said, lambda count: {"folder": str(folder), "pages": count})


def _topic(name: str) -> str:
    if name not in TOPICS:
        return ""
    path = files("ckpt.cli.help") / "topics" / f"{name}.txt"
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
