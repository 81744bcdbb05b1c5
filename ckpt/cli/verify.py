"""`ckpt verify`."""

from functools import partial
from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.errors import IntegrityError, UsageError
from ckpt.ops.verify import verify
from ckpt.ops.verify.repair import repair_store
from ckpt.ops.verify.signed import verify_signatures
from ckpt.show.look.progress import progress_bar
from ckpt.show.verify import (
    repaired_data,
    repaired_text,
    signatures_data,
    signatures_text,
    verified_data,
    verified_text,
)


@ckpt_command(
    examples="ckpt verify\nckpt verify --json\n"
    "ckpt verify --repair old.pt --repair ../backup --repair origin\n"
    "ckpt verify --signed --key public.pem\n"
    "ckpt verify --signed --key public.pem mnist-cnn@prod"
)
@click.argument("refs", type=VERSION, nargs=-1, metavar="[REF]...")
@click.option(
    "--repair",
    "places",
    multiple=True,
    metavar="FROM",
    help="Restore damaged objects from a file, the folder of another registry, or a remote "
    "(repeatable).",
)
@click.option(
    "--signed",
    is_flag=True,
    help="Check the signatures of these versions, or of all, instead of the data.",
)
@click.option(
    "--key",
    "keys",
    type=PATH,
    multiple=True,
    metavar="PUBLIC",
    help="With --signed: PEM file of a public key to accept (repeatable).",
)
def command(
    session: Session,
    refs: tuple[str, ...],
    places: tuple[str, ...],
    signed: bool,
    keys: tuple[Path, ...],
) -> None:
    """Check all stored data for damage by hashing it; exit with 4 if any is damaged.

    With --signed, exit with 4 unless every version is signed with one of the keys. Signed are its
    model's name, its number and the digest of its manifest. That names the digests of the tensors,
    which are hashed whenever they are read, and by `ckpt verify`, but not with --signed.
    """
    _expect_fitting(refs, places, signed, keys)
    if signed:
        signatures = verify_signatures(keys, refs, registry=session.registry)
        text = partial(signatures_text, width=session.terminal.width)
        session.show(signatures, text, signatures_data)
        is_good = signatures.all_signed
    elif places:
        repaired = repair_store(places, registry=session.registry)
        session.show(repaired, repaired_text, repaired_data)
        is_good = not repaired.left.damages
    else:
        with progress_bar(session.terminal, "verifying") as told:
            verified = verify(registry=session.registry, told=told)
        session.show(verified, verified_text, verified_data)
        is_good = not verified.damages
    if not is_good:
        click.get_current_context().exit(IntegrityError.exit_code)


def _expect_fitting(
    refs: tuple[str, ...], places: tuple[str, ...], signed: bool, keys: tuple[Path, ...]
) -> None:
    if signed and places:
        raise UsageError("--signed and --repair exclude each other")
    if signed and not keys:
        raise UsageError(
            "--signed needs a public key", hint="ckpt verify --signed --key PUBLIC.pem"
        )
    if not signed and keys:
        raise UsageError("--key goes with --signed", hint="ckpt verify --signed --key PUBLIC.pem")
    if not signed and refs:
        raise UsageError(
            "versions can be named only with --signed; without it, all data is checked",
            hint=f"ckpt verify\nckpt verify --signed --key PUBLIC.pem {' '.join(refs)}",
        )
