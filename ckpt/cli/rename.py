"""`ckpt rename`."""

import re
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import click

from ckpt.cli.options import PATH, PATH_OR_URL, Session, arg_option, ckpt_command
from ckpt.cli.options.asking import accept_option, answered
from ckpt.cli.options.completed import REF
from ckpt.cli.options.inputs import input_option
from ckpt.cli.options.opaque import opaque_options, remark_on_written
from ckpt.cli.options.partial import partial_options
from ckpt.cli.options.rules import rule_options
from ckpt.errors import PlanError, UsageError
from ckpt.ops.rename import RuleOptions, UnfitError, rename
from ckpt.show.look.terminal import folded
from ckpt.show.rename import (
    optimizer_files_text,
    order_text,
    plan_text,
    renamed_data,
    renamed_text,
)


@ckpt_command(
    examples="ckpt rename old.pt --to models/mnist_embed.py:Net\n"
    'ckpt rename old.pt --rule "conv->embed" --check models/mnist_embed.py:Net\n'
    r'ckpt rename old.pt --rule "layers\.(\d+)->blocks.{1+1}" --dry-run' + "\n"
    "ckpt rename run.pt::model --unwrap --in-place\n"
    "ckpt rename v1 --rule conv=embed\n"
    r"ckpt rename base.pt --to net.py:Net --arg classes=7 --allow-shape '^head\.'" + "\n"
    "ckpt rename old.safetensors --rules vit.toml -o new.safetensors\n"
    "ckpt rename v2 --undo\n"
    "ckpt rename hf://org/repo --rule conv=embed -o new\n"
    "ckpt rename s3://bucket/a.safetensors --rule conv=embed -o s3://bucket/b.safetensors",
    writes=True,
)
@click.argument("source", type=REF, metavar="SRC")
@rule_options
@click.option(
    "--to",
    metavar="DEF|FILE|REF",
    help="Find the rules that make SRC fit a definition, or that give it the keys of a file or "
    "version.",
)
@accept_option("With --to: accept the best guess for ambiguous keys.")
@click.option(
    "--ask",
    is_flag=True,
    help="With --to: ask about ambiguous keys; without a terminal, print the questions as JSON.",
)
@click.option(
    "--from",
    "saved_from",
    metavar="DEF",
    help="The definition that SRC was saved from: for --prove, and where the order of its keys "
    "does not tell which parameter the state of its optimizer belongs to.",
)
@click.option(
    "--drop-optimizer",
    is_flag=True,
    help="Leave the optimizer out, whose state cannot always follow.",
)
@click.option(
    "--prove",
    is_flag=True,
    help="Run the definitions of --from and --to on one random input, with the weights and with "
    "random ones, and write nothing unless their outputs agree. Lists the tensors that do not "
    "influence these outputs, which are not proved.",
)
@input_option
@click.option(
    "--input-file",
    type=PATH,
    metavar="FILE",
    help="The input of --prove: a tensor, a tuple of tensors, or a dict by argument, of torch.save "
    "or safetensors.",
)
@click.option("--check", metavar="DEF", help="Fail unless the result fits this definition.")
@partial_options
@arg_option
@click.option(
    "-o",
    "--out",
    type=PATH_OR_URL,
    help="Write the result to this file, or to a new object in a bucket: S3 copies what it has.",
)
@click.option(
    "--force",
    "replace_out",
    is_flag=True,
    help="Overwrite the output file if it exists, and make tensors of any size.",
)
@click.option(
    "--all",
    "copies",
    is_flag=True,
    help="Where SRC names one state_dict of a file (FILE::model): rename all copies of it as well, "
    "such as an EMA, and the optimizer's state by name.",
)
@click.option("--in-place", is_flag=True, help="Replace SRC itself, atomically.")
@click.option(
    "--save-rules",
    type=PATH,
    metavar="FILE",
    help="Write the rules to a rule file that can be applied again, and undone.",
)
@click.option(
    "--undo",
    is_flag=True,
    help="Give the old keys back: of a version that a rename made, or of a file by --rules FILE.",
)
@click.option("--register", "register_result", is_flag=True, help="Register the new file as well.")
@click.option(
    "--name", metavar="MODEL", help="The model for --register; by default the file's name."
)
@click.option("-m", "--message", default="", help="A message for the version that is added.")
@opaque_options
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
def command(session: Session, source: str, rules: RuleOptions, **options: Any) -> None:
    """Rename the keys of a checkpoint's state_dict by rules; the tensors stay as they are.

    For a file, writes old.renamed.pt next to it; SRC itself is changed only with --in-place.
    For a version, adds the next version, which stores no tensor bytes.
    For a URL (https://, hf://, s3://), writes into the current folder.

    Rules apply in this order: --unwrap; --strip, --drop and --keep as typed; --map, --rules,
    --rule, --add; then those that --to finds.
    """
    if options["ask"] and (options["to"] is None or options["accept_ambiguous"]):
        raise UsageError("--ask needs --to, and excludes --accept-ambiguous")
    inputs, file = options.pop("inputs"), options.pop("input_file")
    if inputs and file:
        raise UsageError("--input and --input-file exclude each other")
    options["prove_input"] = file or inputs or None
    if options["prove_input"] and not options["prove"]:
        raise UsageError("--input is for a proof", hint="--from OLD --to NEW --prove")
    if (to := options["to"]) and re.search(r"\.py:\w+$", source) and Path(to).is_file():
        hint = f"ckpt rename {quote(to)} --to {quote(source)}"
        raise UsageError(f"{source} is a definition and holds no weights", hint=hint)
    if options["saved_from"] is not None and not (options["to"] or options["check"]):
        raise UsageError("--from needs --to or --check")
    session.remark_on_shards(source)  # first, since a shard does not fit
    ask = options.pop("ask")
    while True:
        try:
            renamed = rename(source, rules, registry=session.registry, **options)
            break
        except UnfitError as error:
            lines, width = plan_text(error.plan).split("\n"), session.terminal.width
            session.terminal.remark("\n".join(lines if width is None else folded(lines, width)))
            raise
        except PlanError as error:
            if not ask or (rule := answered(session, error)) is None:
                raise
            rules = replace(rules, answers=(*rules.answers, rule))
    session.remark_on_added(renamed.added)
    remark_on_written(session, renamed.written, renamed.dropped)
    for remark in filter(None, (order_text(renamed), optimizer_files_text(renamed))):
        session.terminal.remark(remark)
    session.show(renamed, renamed_text, renamed_data)
