"""`ckpt verify`."""

import click

from ckpt.cli.options import Session, ckpt_command
from ckpt.errors import IntegrityError
from ckpt.ops.verify import verify
from ckpt.ops.verify.repair import repair_store
from ckpt.show.look.progress import progress_bar
from ckpt.show.verify import repaired_data, repaired_text, verified_data, verified_text


@ckpt_command(
    examples="ckpt verify\nckpt verify --json\n"
    "ckpt verify --repair old.pt --repair ../backup --repair origin"
)
@click.option(
    "--repair",
    "places",
    multiple=True,
    metavar="FROM",
    help="Restore damaged objects from a file, the folder of another registry, or a remote "
    "(repeatable).",
)
def command(session: Session, places: tuple[str, ...]) -> None:
    """Check all stored data for damage by hashing it; exit with 4 if any is damaged."""
    if places:
        repaired = repair_store(places, registry=session.registry)
        verified = repaired.left
        session.show(repaired, repaired_text, repaired_data)
    else:
        with progress_bar(session.terminal, "verifying") as told:
            verified = verify(registry=session.registry, told=told)
        session.show(verified, verified_text, verified_data)
    if verified.damages:
        click.get_current_context().exit(IntegrityError.exit_code)
