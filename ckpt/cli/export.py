"""`ckpt export`."""

import re
from pathlib import Path, PurePath
from shlex import quote

import click

from ckpt.cli.options import PATH_OR_URL, Session, ckpt_command
from ckpt.cli.options.completed import REF
from ckpt.cli.options.opaque import opaque_options, remark_on_written
from ckpt.errors import UsageError
from ckpt.formats.opaque import OpaqueWord
from ckpt.ops.card import card
from ckpt.ops.export import export
from ckpt.show.card import card_text
from ckpt.show.export import left_out_text, written_data, written_text
from ckpt.show.look.progress import progress_bar


def _texts(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """The texts of ``NAME=TEXT`` words, by name."""
    found = dict(value.partition("=")[::2] for value in values)
    if wrong := [value for value in values if "=" not in value or value.startswith("=")]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=TEXT")
    return found


@ckpt_command(
    examples="ckpt export v1 -o mnist.pt\nckpt export lora:v2 -o DIR\n"
    "ckpt export old.pt -o old.safetensors\n"
    "ckpt export v1 -o mnist.safetensors --card --meta license=mit\n"
    "ckpt export s3://bucket/team#net@prod -o net.pt\n"
    "ckpt export mnist:v3 -o oci://registry.example/team/mnist:v3"
)
@click.argument("ref", type=REF)
@click.option(
    "-o",
    "--out",
    type=PATH_OR_URL,
    help="The file or folder to write, or oci://HOST/TEAM/MODEL:TAG (required).",
)
@click.option("--force", is_flag=True, help="Replace an existing file, or move an existing tag.")
@click.option(
    "--meta",
    "metadata",
    multiple=True,
    metavar="NAME=TEXT",
    callback=_texts,
    help="Text for __metadata__ of a .safetensors file (repeatable).",
)
@click.option(
    "--card",
    "with_card",
    is_flag=True,
    help="Also write the model card: README.md into a folder, OUT.md beside a file.",
)
@opaque_options
def command(
    session: Session,
    ref: str,
    out: Path | str | None,
    force: bool,
    metadata: dict[str, str],
    with_card: bool,
    opaque: OpaqueWord | None,
) -> None:
    """Write a version to a file, byte for byte the one that was registered.

    Another suffix converts it: .pt .pth .bin .ckpt or .safetensors. REF can also be a file to
    convert, a URL, or the folder of a sharded checkpoint, which is joined into one file if OUT has
    such a suffix. A version with side files is written with them into a new folder, unless OUT has
    such a suffix.

    oci:// writes a version to an OCI registry, as CNCF ModelPack lays out a model, with its record;
    ckpt import reads it. Passwords are those of docker login.
    """
    if out is None:
        raise UsageError("no output given", hint=f"ckpt export {quote(ref)} -o {_output(ref)}")
    text = card_text(card(ref, registry=session.registry)) if with_card else None
    with progress_bar(session.terminal, "sending") as told:
        written = export(
            ref,
            out,
            registry=session.registry,
            replace_out=force,
            opaque=opaque,
            metadata=metadata,
            card=text,
            told=told,
        )
    left_out = left_out_text(written.left_out)
    if left_out:
        session.terminal.remark(left_out)
    remark_on_written(session, written, written.dropped)
    session.show(written, written_text, written_data)


def _output(ref: str) -> str:
    """A name for the output: that of the file in another format, or that of the version."""
    name = PurePath(ref.rpartition("#")[2].partition("::")[0]).name
    stem, dot, suffix = name.rpartition(".")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem if dot else name).strip("-.") or "out"
    return f"{name}.safetensors" if dot and suffix != "safetensors" else f"{name}.pt"
