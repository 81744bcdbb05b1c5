"""`ckpt rename`."""

from pathlib import Path

import click

from ckpt.cli.options import Session, arg_option, remark_on_new_registry
from ckpt.cli.options import command as ckpt_command
from ckpt.cli.options.shell_trap import expect_whole_rules
from ckpt.errors import UsageError
from ckpt.ops.rename import parse, rename
from ckpt.ops.rename.rule_files import RuleFile, read_map, read_rule_file
from ckpt.rules.choice import drop, keep
from ckpt.rules.planned import Rule
from ckpt.rules.prefixes import Add, Strip, Unwrap
from ckpt.show.rename import renamed_data, renamed_text


def _shape(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split("x")
    if not all(part.isdecimal() and 0 < int(part) < 1 << 20 for part in parts):
        raise click.BadParameter(f"{text!r} is no shape; e.g. 1x3x224x224")
    return tuple(map(int, parts))


@ckpt_command(
    examples="ckpt rename old.pt --to models/mnist_embed.py:Net\n"
    'ckpt rename old.pt --rule "conv->embed" --check models/mnist_embed.py:Net\n'
    r'ckpt rename old.pt --rule "layers\.(\d+)->blocks.{1+1}" --dry-run' + "\n"
    "ckpt rename run.pt::model --unwrap --in-place\n"
    "ckpt rename v1 --rule conv=embed\n"
    "ckpt rename old.safetensors --rules vit.toml -o new.safetensors\n"
    "ckpt rename v2 --undo",
    writes=True,
)
@click.argument("source", metavar="SRC")
@click.option(
    "--rule",
    "texts",
    multiple=True,
    metavar="'OLD->NEW'",
    help=r"Replace the regular expression OLD by NEW wherever it matches in a key; \1 or {1} is "
    "a group, {1+1} its number plus one. OLD=NEW is the same and needs no quotes; A<->B swaps "
    "two names. Several apply in order, each to the result of the one before.",
)
@click.option("-F", "literal", is_flag=True, help="Take OLD and NEW literally.")
@click.option("--word", is_flag=True, help="OLD matches whole dotted parts and their number only.")
@click.option(
    "--rules",
    "rule_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A rule file (TOML): rules in order, and operations on tensors.",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON, TOML or CSV, old key or module to new; applied at once.",
)
@click.option("--unwrap", is_flag=True, help="Cut off what DDP, compile and trainers put before.")
@click.option("--strip", multiple=True, metavar="PREFIX", help="Cut a prefix off.")
@click.option("--add", multiple=True, metavar="PREFIX", help="Put a prefix before every key.")
@click.option("--drop", "drops", multiple=True, metavar="REGEX", help="Leave these tensors out.")
@click.option("--keep", "keeps", multiple=True, metavar="REGEX", help="Leave all others out.")
@click.option(
    "--to",
    metavar="DEF|FILE|REF",
    help="Find the rules that make it fit a definition, or give it the keys of a file or version.",
)
@click.option(
    "--accept-likely", is_flag=True, help="With --to: take the best guess where nothing decides."
)
@click.option("--from", "old", metavar="DEF", help="The definition that SRC fits; for --prove.")
@click.option(
    "--prove",
    is_flag=True,
    help="Run the definitions of --from and of --to on one random input, with the weights and with "
    "random ones, and write nothing unless they give the same.",
)
@click.option(
    "--input", "shape", metavar="1x28x28", callback=_shape, help="What --prove runs them on."
)
@click.option("--check", metavar="DEF", help="Refuse unless the result fits this definition.")
@arg_option
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the file that stands there.")
@click.option("--in-place", is_flag=True, help="Replace SRC itself, all at once.")
@click.option(
    "--save-rules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the rules to a rule file, from which they can be undone.",
)
@click.option(
    "--undo", is_flag=True, help="Give the old keys back: of a version, or by the file of --rules."
)
@click.option("--register", "registered", is_flag=True, help="Register the new file as well.")
@click.option("--name", metavar="MODEL", help="The model for --register; else the file's name.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(
    session: Session,
    source: str,
    texts: tuple[str, ...],
    literal: bool,
    word: bool,
    rule_file: Path | None,
    maps: tuple[Path, ...],
    unwrap: bool,
    strip: tuple[str, ...],
    add: tuple[str, ...],
    drops: tuple[str, ...],
    keeps: tuple[str, ...],
    to: str | None,
    accept_likely: bool,
    old: str | None,
    prove: bool,
    shape: tuple[int, ...] | None,
    check: str | None,
    arguments: dict[str, object],
    out: Path | None,
    force: bool,
    in_place: bool,
    save_rules: Path | None,
    undo: bool,
    registered: bool,
    name: str | None,
    dry_run: bool,
) -> None:
    """Give the keys of SRC other names, by rules; the tensors stay as they are.

    Of a file a new one is written beside it, old.renamed.pt; SRC itself is never touched
    without --in-place. Of a version the next version is made, which stores no tensor bytes.

    Rules apply in this order: --unwrap, --strip, --drop, --keep, --map, --rules, --rule, --add, and
    then those that --to finds.
    """
    expect_whole_rules(source, texts)
    if accept_likely and to is None:
        raise UsageError("--accept-likely goes with --to")
    if prove != (old is not None) or (shape and not prove):
        raise UsageError("a proof needs both definitions", hint="--from OLD --to NEW --prove")
    if name and not registered:
        raise UsageError("--name goes with --register")
    saved = None if rule_file is None else read_rule_file(rule_file)
    before: list[Rule] = [*([Unwrap()] if unwrap else []), *map(Strip, strip)]
    before += [*map(drop, drops), *map(keep, keeps), *map(read_map, maps)]
    after: list[Rule] = [*(parse(text, literal=literal, word=word) for text in texts)]
    after += map(Add, add)
    if undo and (before or after):
        raise UsageError("--undo takes no rules but those of --rules")
    renamed = rename(
        source,
        _in_order(before, saved, after, undo=undo),
        registry=session.registry,
        to=to,
        accept_likely=accept_likely,
        prove_from=old,
        prove_input=shape,
        check=check,
        arguments=arguments,
        out=out,
        replace_out=force,
        in_place=in_place,
        undo=undo,
        save_rules=save_rules,
        register_result=registered,
        name=name,
        dry_run=dry_run,
    )
    if renamed.added:
        remark_on_new_registry(session, renamed.added.created_registry)
    session.show(lambda: renamed_text(renamed, dry_run=dry_run), lambda: renamed_data(renamed))


def _in_order(
    before: list[Rule], saved: RuleFile | None, after: list[Rule], *, undo: bool
) -> list[Rule] | RuleFile:
    if saved is None:
        return [*before, *after]
    return saved if undo else [*before, *saved.rules, *after]
