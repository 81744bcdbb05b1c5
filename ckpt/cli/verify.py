"""`ckpt verify`."""

from time import perf_counter

import click

from ckpt.cli.options import Session
from ckpt.cli.options import command as ckpt_command
from ckpt.errors import IntegrityError
from ckpt.ops.verify import verify
from ckpt.show.verified import verified_data, verified_text


@ckpt_command(examples="ckpt verify\nckpt verify --json")
def command(session: Session) -> None:
    """Hash every manifest and every object again; exit with 4 if anything is damaged."""
    began = perf_counter()
    verified = verify(registry=session.registry)
    seconds = perf_counter() - began
    session.show(lambda: verified_text(verified, seconds=seconds), lambda: verified_data(verified))
    if verified.damages:
        click.get_current_context().exit(IntegrityError.exit_code)
