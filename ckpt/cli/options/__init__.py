"""The options that all commands have, and the session that a command gets."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import update_wrapper
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ckpt.errors import DiskWarning
from ckpt.refs import is_url, without_secrets
from ckpt.registry.places import FILE_NAME, seen_file
from ckpt.registry.registry import Registry
from ckpt.show.look.terminal import Terminal
from ckpt.show.look.words import printable

if TYPE_CHECKING:
    from ckpt.registry.adding import Added

T = TypeVar("T")


class _PathOrUrl(click.Path):
    """A path, or a URL as it was typed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leave URLs alone, which paths would shorten, and refuse what would be this folder."""
        if value == "":
            self.fail("the path is empty", param, ctx)
        if isinstance(value, str) and is_url(value):
            return value
        return super().convert(value, param, ctx)


class _PathHere(_PathOrUrl):
    """A path of this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse URLs."""
        found = super().convert(value, param, ctx)
        if isinstance(found, str):
            self.fail(f"{without_secrets(found)} is a URL, expected a path", param, ctx)
        return found


PATH = _PathHere(path_type=Path)
PATH_OR_URL = _PathOrUrl(path_type=Path)


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a command: the terminal it prints to and the registry it uses."""

    terminal: Terminal
    as_json: bool
    registry: Registry

    def show(
        self,
        value: T,
        text: Callable[[T], str],
        data: Callable[[T], object],
        *,
        verbatim: bool = False,
    ) -> None:
        """Print a result, as text or as JSON; a `verbatim` text is not folded."""
        if self.as_json:
            self.terminal.data(data(value))
        else:
            self.terminal.result(text(value), verbatim=verbatim)

    def remark_on_added(self, added: "Added | None") -> None:
        """Print a remark if a registry was created for a version, or became large by it.

        And if the version holds something else than a model.
        """
        if added is not None and added.created_registry is not None:
            path = added.created_registry / FILE_NAME
            self.terminal.remark(f"created a registry: {path}")
        if added is not None and added.kind:
            self.terminal.remark(
                f"{added.version.ref}: {added.kind}, without the weights of a model"
            )
        if added is not None and added.new:
            from ckpt.registry.needs.in_git import became_large
            from ckpt.show.register import large_text

            if nbytes := became_large(self.registry, added):
                self.terminal.remark(large_text(nbytes))

    def remark_on_shards(self, *refs: str) -> None:
        """Print a remark for each file that is named like one part of a checkpoint."""
        from ckpt.formats.folders import shard_of

        for ref in refs:
            path = Path(ref.partition("::")[0])
            if (what := shard_of(path)) and path.exists():
                self.terminal.remark(f"{printable(ref)}: {what}, not the whole model")

    def confirm(self, question: str) -> None:
        """Ask on stderr, and abort unless the answer is yes."""
        click.confirm(printable(question), abort=True, err=True)


def terminal_of(
    root: click.Context, *, quiet: bool = False, wide: bool = False, reads: bool = False
) -> Terminal:
    """The terminal, as the options of `ckpt` itself say."""
    colour = {"always": True, "never": False}.get(root.params["color"])
    pages = reads and not root.params["no_pager"]
    return Terminal(quiet=quiet, colour=colour, wide=wide, pages=pages)


def ckpt_command(
    *,
    examples: str,
    writes: bool = False,
    reads: bool = False,
    kind: type[click.Command] = click.Command,
) -> Callable[[Callable[..., Any]], click.Command]:
    """Turn a function whose first argument is a `Session` into a command with the common options.

    Args:
        examples: Command lines for the end of `--help`.
        writes: Whether it may write to the registry.
        reads: Whether it only reads and prints: it has --wide, and a pager on a terminal.
        kind: The class of the command.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        def run(
            *,
            as_json: bool,
            quiet: bool,
            registry_folder: Path | None,
            wide: bool = False,
            **arguments: Any,
        ) -> None:
            root = click.get_current_context().find_root()
            terminal = terminal_of(root, quiet=quiet, wide=wide, reads=reads)
            registry = Registry(
                registry_folder,
                on_use=lambda found: terminal.remark(f"registry: {printable(str(found))}"),
                on_fetch=lambda text: terminal.remark(printable(text)),
            )
            session = Session(terminal, as_json, registry)
            if not quiet:
                _remark_on_moved_numbers(session)
            if writes:
                _remark_on_locks(session)
            with _disk_warnings_as_remarks(terminal):
                function(session, **arguments)

        wrapped = update_wrapper(run, function)
        for option in reversed((_WIDE, *_COMMON) if reads else _COMMON):
            wrapped = option(wrapped)
        epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.splitlines())
        return click.command(cls=kind, epilog=epilog)(wrapped)

    return decorate


_WIDE = click.option("--wide", is_flag=True, help="Show all columns, and fold no line.")
_COMMON = (
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Suppress remarks and progress bars."),
    click.option(
        "--registry",
        "registry_folder",
        type=PATH,
        metavar="FOLDER",
        help="The registry's folder (default: CKPT_REGISTRY, else the nearest one upwards).",
    ),
)


def metric_values(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """The values of ``NAME=NUMBER`` words, by name."""
    found: dict[str, float] = {}
    for value in values:
        name, mark, number = value.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            mark = ""
        if not (name and mark) or not isfinite(found[name]):
            raise click.BadParameter(f"{value!r} is not NAME=NUMBER")
    return found


def _arguments(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, object]:
    from ast import literal_eval

    found: dict[str, object] = {}
    for value in values:
        name, mark, text = value.partition("=")
        if not mark or not name.isidentifier():
            raise click.BadParameter(f"{value!r} is not NAME=VALUE")
        try:
            found[name] = literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found[name] = text
    return found


yes_option = click.option(
    "--yes", is_flag=True, help="Skip the prompt (required when stdin is not a terminal)."
)
why_option = click.option("-m", "--message", default="", help="Why, for the history.")
metric_option = click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME=NUMBER",
    callback=metric_values,
    help="Metric to store with the version, e.g. accuracy=0.992 (repeatable).",
)
arg_option = click.option(
    "--arg",
    "arguments",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_arguments,
    help="Argument for the model definition: a Python literal, else text (repeatable).",
)


def _remark_on_moved_numbers(session: Session) -> None:
    """Say once which numbers a merge or a pull has moved, but not to git itself."""
    parent = click.get_current_context().parent
    if parent is not None and parent.info_name == "git-driver":
        return
    seen = seen_file(session.registry.folder)
    if seen is None or not seen.exists():
        return
    from ckpt.registry.seen import moved_numbers

    for moved in moved_numbers(session.registry.folder):
        now = f"that version is {moved.now} now" if moved.now else "that version is gone: ckpt fsck"
        session.terminal.remark(printable(f"{moved.ref} is another version since a merge; {now}"))


def _remark_on_locks(session: Session) -> None:
    """Warn where locks do not keep other machines out."""
    doubt = session.registry.doubt_of_locks if session.registry.exists else None
    if doubt is not None:
        session.terminal.remark(
            f"{session.registry.folder}: {doubt}; write from one machine at a time\n"
            "to remember that no other machine can:  ckpt gc --local"
        )


@contextmanager
def _disk_warnings_as_remarks(terminal: Terminal) -> Iterator[None]:
    """Print each warning about a file system once, as a remark."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if not issubclass(category, DiskWarning):
            others(message, category, *rest, **named)
        elif str(message) not in said:
            said.add(str(message))
            terminal.remark(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", DiskWarning)
        others, warnings.showwarning = warnings.showwarning, show
        yield
