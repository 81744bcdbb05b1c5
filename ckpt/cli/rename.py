"""`ckpt rename`."""

from pathlib import Path

import click

from ckpt.cli.options import Session, arg_option, remark_on_new_registry
from ckpt.cli.options import command as ckpt_command
from ckpt.cli.options.opaque import opaque_options, remark_on_written
from ckpt.cli.options.rules import rule_options
from ckpt.errors import UsageError
from ckpt.formats.opaque import OpaqueWord
from ckpt.ops.rename import RuleOptions, rename
from ckpt.show.rename import renamed_data, renamed_text


def _shape(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split("x")
    if not all(part.isdecimal() and 0 < int(part) < 1 << 20 for part in parts):
        raise click.BadParameter(f"{text!r} is not a shape like 1x3x224x224")
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
@rule_options
@click.option(
    "--to",
    metavar="DEF|FILE|REF",
    help="Find the rules that make SRC fit a definition, or that give it the keys of a file or "
    "version.",
)
@click.option(
    "--accept-likely", is_flag=True, help="With --to: accept the best guess for ambiguous keys."
)
@click.option("--from", "old", metavar="DEF", help="The definition that SRC fits, for --prove.")
@click.option(
    "--prove",
    is_flag=True,
    help="Run the definitions of --from and --to on one random input, with the weights and with "
    "random ones, and write nothing unless their outputs agree.",
)
@click.option(
    "--input",
    "shape",
    metavar="1x28x28",
    callback=_shape,
    help="The shape of the input of --prove.",
)
@click.option("--check", metavar="DEF", help="Fail unless the result fits this definition.")
@arg_option
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the result to this file.")
@click.option("--force", is_flag=True, help="Overwrite the output file if it exists.")
@click.option("--in-place", is_flag=True, help="Replace SRC itself, atomically.")
@click.option(
    "--save-rules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the rules to a rule file that can be applied again, and undone.",
)
@click.option(
    "--undo",
    is_flag=True,
    help="Give the old keys back: of a version that a rename made, or of a file by --rules FILE.",
)
@click.option("--register", "registered", is_flag=True, help="Register the new file as well.")
@click.option(
    "--name", metavar="MODEL", help="The model for --register; by default the file's name."
)
@opaque_options
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
def command(
    session: Session,
    source: str,
    rules: RuleOptions,
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
    opaque: OpaqueWord | None,
    dry_run: bool,
) -> None:
    """Rename the keys of a checkpoint's state_dict by rules; the tensors stay as they are.

    For a file, writes old.renamed.pt next to it; SRC itself is changed only with --in-place.
    For a version, adds the next version, which stores no tensor bytes.

    Rules apply in this order: --unwrap, --strip, --drop, --keep, --map, --rules, --rule, --add,
    then those that --to finds.
    """
    if accept_likely and to is None:
        raise UsageError("--accept-likely needs --to")
    if prove != (old is not None) or (shape and not prove):
        raise UsageError("a proof needs both definitions", hint="--from OLD --to NEW --prove")
    if name and not registered:
        raise UsageError("--name needs --register")
    renamed = rename(
        source,
        rules,
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
        opaque=opaque,
        dry_run=dry_run,
    )
    if renamed.added:
        remark_on_new_registry(session, renamed.added.created_registry)
    remark_on_written(session, renamed.written, renamed.dropped)
    session.show(lambda: renamed_text(renamed, dry_run=dry_run), lambda: renamed_data(renamed))
