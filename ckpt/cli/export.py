"""`ckpt export`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.cli.options.completed import REF
from ckpt.cli.options.opaque import opaque_options, remark_on_written
from ckpt.formats.opaque import OpaqueWord
from ckpt.ops.export import export
from ckpt.show.export import left_out_text, written_data, written_text


@ckpt_command(
    examples="ckpt export v1 -o mnist.pt\nckpt export lora:v2 -o DIR\n"
    "ckpt export old.pt -o old.safetensors\nckpt export s3://bucket/team#net@prod -o net.pt"
)
@click.argument("ref", type=REF)
@click.option("-o", "--out", required=True, type=PATH, help="The file or folder to write.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@opaque_options
def command(session: Session, ref: str, out: Path, force: bool, opaque: OpaqueWord | None) -> None:
    """Write a version to a file, byte for byte the one that was registered.

    Another suffix converts it: .pt .pth .bin .ckpt or .safetensors. REF can also be a file to
    convert, a URL, or the folder of a sharded checkpoint, which is joined into one file if OUT has
    such a suffix. A version with side files is written with them into a new folder, unless OUT has
    such a suffix.
    """
    written = export(ref, out, registry=session.registry, replace_out=force, opaque=opaque)
    left_out = left_out_text(written.left_out)
    if left_out:
        session.terminal.remark(left_out)
    remark_on_written(session, written, written.dropped)
    session.show(written, written_text, written_data)
