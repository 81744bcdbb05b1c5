"""`ckpt rename`."""

from pathlib import Path

import click

from ckpt.cli.options import Session, remark_on_new_registry
from ckpt.cli.options import command as ckpt_command
from ckpt.cli.shell_trap import expect_whole_rules
from ckpt.errors import UsageError
from ckpt.ops.rename import rename
from ckpt.ops.rule_files import read_map
from ckpt.rules.rule import parse_rule
from ckpt.show.renamed import renamed_data, renamed_text


@ckpt_command(
    examples='ckpt rename old.pt --rule "conv->embed" --check models/mnist_embed.py:Net\n'
    r'ckpt rename old.pt --rule "layers\.(\d+)->blocks.{1+1}" --dry-run' + "\n"
    "ckpt rename v1 --rule conv=embed\n"
    "ckpt rename old.safetensors --map names.json -o new.safetensors"
)
@click.argument("source", metavar="SRC")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="'OLD->NEW'",
    help=r"Replace the regular expression OLD by NEW wherever it matches in a key; \1 or {1} is "
    "a group, {1+1} its number plus one. OLD=NEW is the same and needs no quotes. Several apply "
    "in order, each to the result of the one before.",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON or TOML, old key or module to new; applied at once, before the rules.",
)
@click.option("-F", "literal", is_flag=True, help="Take OLD and NEW literally.")
@click.option("--word", is_flag=True, help="OLD matches whole dotted parts and their number only.")
@click.option("--check", metavar="DEF", help="Refuse unless the result fits this definition.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the file that stands there.")
@click.option("--register", "registered", is_flag=True, help="Register the new file as well.")
@click.option("--name", metavar="MODEL", help="The model for --register; else the file's name.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(
    session: Session,
    source: str,
    rules: tuple[str, ...],
    maps: tuple[Path, ...],
    literal: bool,
    word: bool,
    check: str | None,
    out: Path | None,
    force: bool,
    registered: bool,
    name: str | None,
    dry_run: bool,
) -> None:
    """Give the keys of SRC other names, by rules; the tensors stay as they are.

    Of a file a new one is written beside it, old.renamed.pt; SRC itself is never touched. Of
    a version the next version is made, which stores no tensor bytes.
    """
    expect_whole_rules(source, rules)
    if name and not registered:
        raise UsageError("--name goes with --register")
    parsed = [parse_rule(rule, literal=literal, word=word) for rule in rules]
    renamed = rename(
        source,
        [*map(read_map, maps), *parsed],
        registry=session.registry,
        check=check,
        out=out,
        replace_out=force,
        register_result=registered,
        name=name,
        dry_run=dry_run,
    )
    if renamed.added:
        remark_on_new_registry(session, renamed.added.created_registry)
    session.show(lambda: renamed_text(renamed, dry_run=dry_run), lambda: renamed_data(renamed))
