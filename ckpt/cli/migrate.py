"""`ckpt migrate`."""

from pathlib import Path
from typing import Any

import click

from ckpt.cli.options import PATH, Session, arg_option, ckpt_command
from ckpt.cli.options.asking import accept_option
from ckpt.cli.options.inputs import input_option
from ckpt.cli.options.opaque import opaque_options, remark_on_written
from ckpt.cli.options.rules import rule_options
from ckpt.errors import UsageError
from ckpt.migrate.described import USUAL_SECONDS
from ckpt.ops.migrate import (
    check_migrations,
    export_migrations,
    list_migrations,
    migrate,
    new_migration,
)
from ckpt.ops.migrate.export import TARGETS
from ckpt.ops.rename import RuleOptions
from ckpt.show.migrate import (
    checked_data,
    checked_text,
    drafted_data,
    drafted_text,
    explained_data,
    explained_text,
    exported_data,
    exported_text,
    listed_data,
    listed_text,
    migrated_data,
    migrated_text,
)

_where = click.argument("where", metavar="[DEF|FOLDER]", required=False)


@click.group()
def command() -> None:
    """Keep checkpoints loading after a refactoring: make, try and apply migrations.

    A migration is a TOML file in the folder migrations/ beside the file of its class. It says how
    the keys of the class changed, and belongs into the commit that changes the class.
    """


@ckpt_command(
    examples="ckpt migrate new models/net.py:Net --from old.pt -m 'conv becomes embed'\n"
    "ckpt migrate new models/net.py:Net --from net@prod --rule 'conv->embed'\n"
    "ckpt migrate new net.py:Net --from git:HEAD~1\n"
    "ckpt migrate new net.py:Net --from old_net.py:Net --also 'net.py:Net(bias=False)'"
)
@click.argument("definition", metavar="DEF")
@click.option(
    "--from",
    "source",
    metavar="FILE|REF|DEF|git:REV",
    required=True,
    help="The old form of the class: a checkpoint of it, a version, the old class, or the class as "
    "a revision of git has it, such as git:HEAD~1 (git:HEAD~1:DEF if it had another name).",
)
@click.option("-m", "--message", default="", help="What changed; the file is named after it.")
@arg_option
@click.option(
    "--also",
    multiple=True,
    metavar="DEF",
    help="Another configuration of the class: keys that it lacks are optional (repeatable).",
)
@accept_option("Accept the best guess for ambiguous keys.")
@click.option(
    "--prove/--no-prove",
    default=True,
    help="Run the old class and the new one where both can be built, and refuse to write a "
    "migration with which their outputs differ (default: --prove).",
)
@input_option
@click.option(
    "--run-stored",
    is_flag=True,
    help="Run the class that a version was trained with, as the version stores it, although no "
    "commit here has its source. Whoever made the registry wrote that code.",
)
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=USUAL_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the old class may take to build, where another process builds it.",
)
@click.option("--dry-run", is_flag=True, help="Show the migration and write nothing.")
@rule_options
def new(session: Session, definition: str, source: str, rules: RuleOptions, **options: Any) -> None:
    """Write the migration from an old form of a class to the class as it is now.

    Without rules, they are inferred, as by ckpt rename --to.
    """
    if options["inputs"] and not options["prove"]:
        raise UsageError("--input is for a proof, which --no-prove leaves out")
    drafted = new_migration(definition, source, rules, registry=session.registry, **options)
    session.show(drafted, drafted_text, drafted_data, verbatim=drafted.path is None)


@ckpt_command(examples="ckpt migrate ls\nckpt migrate ls models/net.py:Net", reads=True)
@_where
def ls(session: Session, where: str | None) -> None:
    """List the migrations of a class or a folder."""
    session.show(list_migrations(where), listed_text, listed_data)


@ckpt_command(
    examples="ckpt migrate show conv-to-embed\nckpt migrate show models/net.py:Net conv-to-embed",
    reads=True,
)
@click.argument("words", metavar="[DEF|FOLDER] NAME", nargs=-1, required=True)
def show(session: Session, words: tuple[str, ...]) -> None:
    """Show one migration: its rules, and the keys that they change."""
    *where, name = words
    if len(where) > 1:
        raise click.UsageError("more than a class or folder, and the name of a migration")
    listed = list_migrations(*where)
    found = next((it for it in listed.migrations if it.name == name), None)
    if found is None:
        names = ", ".join(it.name for it in listed.migrations) or "none"
        raise UsageError(f"{listed.folder}: no migration {name!r}", hint=f"there are: {names}")
    session.show(found, explained_text, explained_data)


@ckpt_command(examples="ckpt migrate check\nckpt migrate check models/net.py:Net")
@_where
@arg_option
def check(session: Session, where: str | None, **options: Any) -> None:
    """Try the rules of migrations on the schemas that they hold, and look for gaps and cycles.

    A class that is named is built, to see whether all its migrations lead to it.
    Exit code 1 if something is wrong.
    """
    listed, findings = check_migrations(where, **options)
    session.show((listed, findings), checked_text, checked_data)
    if findings:
        raise click.exceptions.Exit(1)


@ckpt_command(
    examples="ckpt migrate run old.pt --to models/net.py:Net\n"
    "ckpt migrate run v1\n"
    "ckpt migrate run new.pt --to released/net.py:Net --by models/net.py:Net",
    writes=True,
)
@click.argument("source", metavar="SRC")
@click.option(
    "--to", metavar="DEF", help="The class; for a version, by default, the one it was made for."
)
@arg_option
@click.option(
    "--by", metavar="DEF", help="The class whose migrations are used, if --to is an old copy of it."
)
@click.option("--enter", metavar="NAME", help="The migration to begin with, if two are possible.")
@click.option("--drop-optimizer", is_flag=True, help="Leave the optimizer out.")
@click.option("-o", "--out", type=PATH, help="Write the result to this file.")
@click.option("--force", "replace_out", is_flag=True, help="Overwrite the output file.")
@click.option("--in-place", is_flag=True, help="Replace SRC itself, atomically.")
@click.option("--register", "register_result", is_flag=True, help="Register the new file as well.")
@click.option("--name", metavar="MODEL", help="The model for --register.")
@click.option("-m", "--message", default="", help="A message for the version that is added.")
@opaque_options
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
def run(session: Session, source: str, **options: Any) -> None:
    """Make a checkpoint that fits a class, through the migrations of the class.

    As ckpt rename does: SRC itself is changed only with --in-place, and for a version the next
    version is added, which stores no tensor bytes where only names change.
    """
    done = migrate(source, registry=session.registry, **options)
    if done.renamed is not None:
        session.remark_on_added(done.renamed.added)
        remark_on_written(session, done.renamed.written, done.renamed.dropped)
    session.show(done, migrated_text, migrated_data)


@ckpt_command(
    examples="ckpt migrate export models/net.py:Net --as torch -o models/net_migrations.py\n"
    "ckpt migrate export models/net.py:Net --as vllm"
)
@click.argument("definition", metavar="DEF")
@click.option("--as", "target", type=click.Choice(TARGETS), required=True, help="What for.")
@arg_option
@click.option("-o", "--out", type=PATH, metavar="FILE", help="Write it to this file.")
@click.option("--force", "replace_out", is_flag=True, help="Replace an existing file.")
def export(
    session: Session, definition: str, target: str, out: Path | None, **options: Any
) -> None:
    """Write the migrations of a class as Python that needs no ckpt, for a library to ship.

    torch: functions, and a hook for load_state_dict. lightning: the same for on_load_checkpoint.
    transformers: a dict for from_pretrained(key_mapping=). vllm: a WeightsMapper. The last two
    only rename. The file has a test of its own, which pytest runs.
    """
    done = export_migrations(definition, target, out=out, **options)
    session.show(done, exported_text, exported_data, verbatim=done.path is None)


for subcommand in (new, ls, check, show, run, export):
    command.add_command(subcommand)
