"""`ckpt audit`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.cli.options.completed import FILE
from ckpt.errors import FormatError
from ckpt.ops.audit import audit
from ckpt.show.audit import audited_data, audited_text


@ckpt_command(examples="ckpt audit download.pt\nckpt audit *.pt && ./load-them-all", reads=True)
@click.argument("files", type=FILE, nargs=-1, required=True)
def command(session: Session, files: tuple[str, ...]) -> None:
    """Tell whether unpickling a file may run code; exit with 3 if any file does.

    Reads FILES without running anything. Exits with 3 as well if a file cannot be judged.
    """
    audited = audit(files, registry=session.registry)
    session.show(audited, audited_text, audited_data)
    if not all(one.harmless for one in audited):
        click.get_current_context().exit(FormatError.exit_code)
