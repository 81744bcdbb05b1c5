"""`ckpt rules`."""

from pathlib import Path
from typing import Any

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.ops.rules import USUAL_SECONDS, import_rules
from ckpt.show.rules import imported_data, imported_text, left_text


@click.group()
def command() -> None:
    """Make rule files for ckpt rename --rules."""


@ckpt_command(
    examples="ckpt rules import transformers:mixtral -o rules.toml\n"
    "ckpt rules import convert.py:MAPPING -o rules.toml\n"
    "ckpt rules import timm:convnext_tiny --keys-of original.pth -o rules.toml\n"
    "ckpt rules import vllm:Qwen2VLForConditionalGeneration -o rules.toml"
)
@click.argument("source", metavar="SOURCE")
@click.option("-o", "--out", type=PATH, required=True, metavar="FILE", help="The rule file.")
@click.option(
    "--keys-of",
    metavar="FILE|REF",
    help="The checkpoint that the rules are for; timm:MODEL needs it.",
)
@click.option("--partial", is_flag=True, help="Leave out what no rule can express, and name it.")
@click.option("--force", "replace_out", is_flag=True, help="Replace an existing file.")
@click.option(
    "--timeout", "seconds", type=float, default=USUAL_SECONDS, show_default=True,
    metavar="SECONDS", help="How long the code of SOURCE may run.",
)  # fmt: skip
def import_(session: Session, source: str, out: Path, **options: Any) -> None:
    """Write the key mapping of another library as a rule file.

    SOURCE is transformers:MODEL_TYPE, vllm:CLASS, or FILE.py:NAME: a dict from old to new, pairs
    for re.sub, a WeightsMapper or a class that has one. Or it is timm:MODEL, whose function for
    original weights maps the keys of one checkpoint. SOURCE is imported, which runs its code, in a
    process of its own.
    """
    done = import_rules(source, out, registry=session.registry, **options)
    if text := left_text(done):
        session.terminal.remark(text)
    session.show(done, imported_text, imported_data)


command.add_command(import_, "import")
