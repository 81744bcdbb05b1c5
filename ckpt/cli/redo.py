"""`ckpt redo`."""

from ckpt.cli.options import Session, ckpt_command, why_option
from ckpt.ops.redo import redo
from ckpt.show.redo import redone_data, redone_text


@ckpt_command(examples="ckpt undo\nckpt redo", writes=True)
@why_option
def command(session: Session, message: str) -> None:
    """Bring back the change that the last `ckpt undo` reverted.

    Repeat it to bring back earlier ones. A value that has changed again since is an error.
    """
    session.show(redo(message=message, registry=session.registry), redone_text, redone_data)
