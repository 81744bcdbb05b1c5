"""The table of commands; each is a module of this package, imported when it is called."""

from importlib import import_module

import click

# Name, and what `ckpt --help` says of it, in the order in which it is said.
COMMANDS = {
    "diff": "What differs between two versions, files or definitions.",
    "rename": "Give the keys of a checkpoint other names, by rules.",
    "show": "The tensors and the record of a version, file or definition.",
    "export": "Turn a version into a file again, or a file into another container.",
    "register": "Make a file the next version of a model.",
    "ls": "The versions in the registry.",
    "alias": "Have a name such as prod point to a version, and move it.",
    "tag": "Put labels on versions.",
    "log": "Where a version, or one of its tensors, comes from.",
    "blame": "The version that last changed a tensor.",
    "rm": "Remove versions from the list.",
    "undo": "Take back the last thing that was done to the registry.",
    "gc": "Remove what no version needs any more.",
    "fsck": "Say what is wrong with registry.json, and make it anew.",
    "git-driver": "Have git merge registry.json without conflict markers.",
    "verify": "Hash all that the registry holds again.",
    "du": "What each version takes of the disk, alone and with others.",
    "plot": "Loss and accuracy by epoch, as text or as a picture.",
    "train": "Train a network; with --register its weights become the next version.",
}

EPILOG = """\b
A file no longer loads after a refactoring:
  ckpt diff old.pt models/mnist_embed.py:Net
  ckpt rename old.pt --rule "conv->embed" --check models/mnist_embed.py:Net
"""


class Commands(click.Group):
    """The group `ckpt`."""

    def __init__(self, *, name: str) -> None:
        super().__init__(
            name=name,
            help="Rename, diff and version PyTorch checkpoints without running them.",
            epilog=EPILOG,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
            params=[_version_option()],
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = f"ckpt.cli.{cmd_name.replace('-', '_')}"
        command: click.Command = import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's own, with "did you mean"."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that --help imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version_option() -> click.Option:
    def show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
        if wanted:
            from ckpt import __version__

            click.echo(f"ckpt {__version__}")
            context.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show_version,
        help="Show the version and exit.",
    )
