"""`ckpt repair`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.ops.repair import repair
from ckpt.show.repair import repaired_data, repaired_text


@ckpt_command(
    examples="ckpt repair model.safetensors\nckpt repair bad.safetensors -o good.safetensors"
)
@click.argument("path", metavar="FILE", type=PATH)
@click.option(
    "-o", "--out", type=PATH, help="Write a corrected copy of a malformed safetensors file here."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def command(session: Session, path: Path, out: Path | None, force: bool) -> None:
    """Restore a file whose in-place rename was interrupted, or mend a malformed one.

    The journal beside the file holds the header from before the rename. It is used only if it
    belongs to the file and to its owner. Other commands never change such a file; they refuse it.

    With -o, writes a corrected copy of a safetensors file that has what the format does not allow:
    bytes after the last tensor or between tensors, numbers in its metadata, padding around its
    header. Tensors keep their bytes, and each difference is printed. FILE is not touched.
    """
    session.show(repair(path, out, replace_out=force), repaired_text, repaired_data)
