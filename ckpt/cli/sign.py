"""`ckpt sign`."""

from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.cli.options.completed import VERSION
from ckpt.ops.sign import sign
from ckpt.show.sign import signed_data, signed_text


@ckpt_command(
    examples="ckpt sign v3 --key private.pem\n"
    "ckpt verify --signed --key public.pem v3\n"
    "To make the keys:\n"
    "openssl ecparam -name prime256v1 -genkey -noout -out private.pem\n"
    "openssl pkey -in private.pem -pubout -out public.pem",
    writes=True,
)
@click.argument("ref", type=VERSION)
@click.option(
    "--key",
    type=PATH,
    required=True,
    metavar="PRIVATE",
    help="PEM file of a private key of the curve P-256, P-384 or P-521.",
)
def command(session: Session, ref: str, key: Path) -> None:
    """Sign a version, with model-signing: its model's name, its number and its manifest.

    The manifest names the digest of every tensor. Metrics, notes, aliases and tags are not signed.
    The signature is stored in registry.json. If the key has a passphrase, set CKPT_KEY_PASSPHRASE
    to it. Signatures without a key (sigstore's identities) are not supported: they need a network.
    """
    session.show(sign(ref, key, registry=session.registry), signed_text, signed_data)
