"""`ckpt export`."""

from pathlib import Path

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.export import export
from ckpt.show.words import printable, size


@ckpt_command(examples="ckpt export v1 -o mnist.pt\nckpt export old.pt -o old.safetensors")
@click.argument("ref")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The file to write."
)
@click.option("--force", is_flag=True, help="Replace the file that stands there.")
def command(session: Session, ref: str, out: Path, force: bool) -> None:
    """Turn a version into a file again, byte for byte the one that was registered.

    Another suffix gives another container: .pt .pth .bin .ckpt or .safetensors. REF can be a
    file as well.
    """
    written = export(ref, out, registry=session.registry, replace_out=force)
    for what in written.left_out:
        session.terminal.remark(f"left out, it has no place there: {printable(what)}")
    session.show(
        lambda: f"wrote {printable(str(written.path))}  {size(written.size)}",
        lambda: {
            "path": str(written.path),
            "size": written.size,
            "left_out": list(written.left_out),
        },
    )
