"""The table of commands; each command is a module of this package, imported when it is called."""

from importlib import import_module
from keyword import iskeyword

import click

from ckpt import __version__

# Name to the line of `ckpt --help`, in the order of that page. Short enough for 80 columns.
_MEANT = {"convert": ["export"]}  # words of other tools
COMMANDS = {
    "diff": "Compare two checkpoints, versions or model definitions.",
    "rename": "Rename the keys of a checkpoint, by rules or to fit a model.",
    "guard": "Tell whether classes still load their checkpoints, for CI.",
    "migrate": "Keep checkpoints loading after a class was refactored.",
    "rules": "Make a rule file of another library's key mapping.",
    "show": "List the tensors of a checkpoint: keys, shapes, dtypes, sizes.",
    "audit": "Tell whether unpickling a file may run code.",
    "export": "Write a version to a file, or convert a checkpoint's format.",
    "register": "Add a checkpoint file as the next version of a model.",
    "copy": "Copy a version into another registry.",
    "import": "Add versions from a folder, MLflow or an OCI registry.",
    "remote": "Add, list, check or remove remotes: buckets or folders.",
    "clone": "Create a registry from the one at a URL, without tensors.",
    "push": "Add versions to a remote.",
    "fetch": "Get the versions of a remote, without tensors.",
    "pull": "Get versions from a remote, with their tensors.",
    "evict": "Free the disk space of versions that a remote has.",
    "ls": "List the versions in the registry.",
    "alias": "Create, move or delete an alias such as prod.",
    "pin": "Print the digest of a version, a ref that never changes.",
    "tag": "Add tags to a version, or remove them.",
    "note": "Add a note to a version.",
    "metric": "Add metrics to a version.",
    "sign": "Sign a version with a private key.",
    "log": "Show the history of a version, or of one of its tensors.",
    "blame": "Show which version last changed a tensor.",
    "rm": "Remove versions from the registry; restore brings them back.",
    "restore": "Bring removed versions back, under their numbers.",
    "undo": "Undo a change to the registry, the last one or any other.",
    "redo": "Bring back the change that the last undo reverted.",
    "gc": "Remove unreferenced objects to free disk space.",
    "fsck": "Check registry.json, or rebuild it.",
    "registry": "Create an empty registry, or share one with a group.",
    "git-driver": "Set up git to merge registry.json and to diff checkpoints.",
    "verify": "Check all stored data for damage, or signatures; repair it.",
    "repair": "Restore a file whose in-place rename was interrupted.",
    "du": "Show the disk usage of each version.",
    "plot": "Plot loss and accuracy by epoch, as text or as an image.",
    "site": "Write the registry as web pages: versions, lineage, comparisons.",
    "card": "Write a model card, as Hugging Face and other hubs read it.",
    "completion": "Print a script by which a shell completes commands and refs.",
    "train": "Train a model; --register adds it as the next version.",
    "help": "Show the help of a command, or a text on a topic.",
}
# Name to its line; the texts are in `help/topics/`.
TOPICS = {
    "refs": "How to name a version, a file or a class.",
    "rename-rules": "How rules change keys, and what they refuse.",
    "verdicts": "What fits, same, certain, proved and other words claim.",
    "exit-codes": "What a script learns from a command.",
    "environment": "Environment variables that ckpt reads.",
    "files": "Files of a registry.",
}

EPILOG = """\b
If a file no longer loads after a refactoring:
  ckpt diff old.pt models/mnist_embed.py:Net
  ckpt rename old.pt --rule "conv->embed" --check models/mnist_embed.py:Net
"""


def module_of(name: str) -> str:
    """The module of a command: `git_driver` of `git-driver`, `import_` of `import`."""
    module = name.replace("-", "_")
    return f"{module}_" if iskeyword(module) else module


class Commands(click.Group):
    """The group `ckpt`."""

    def __init__(self, *, name: str) -> None:
        super().__init__(
            name=name,
            help="Rename, diff and version PyTorch checkpoints without running them.",
            epilog=EPILOG,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )
        click.version_option(__version__, "-V", "--version", message="ckpt %(version)s")(self)
        click.option("--no-pager", is_flag=True, help="Print long results without a pager.")(self)
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            help="When to use colours (auto: on a terminal).",
        )(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"ckpt.cli.{module_of(cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's own, with "did you mean"."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = _MEANT.get(args[0]) or get_close_matches(args[0], COMMANDS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that --help imports no command; and the topics."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        with formatter.section("Topics, for ckpt help TOPIC"):
            formatter.write_dl(list(TOPICS.items()))
