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
    """Sign a version with a private key; `ckpt verify --signed` checks the signature.

    Signed are the model's name, the number and the digest of the manifest, which names the digest
    of every tensor. Metrics, notes, aliases and tags are not signed. model-signing makes the
    signature, and registry.json keeps it. If the key has a passphrase, set CKPT_KEY_PASSPHRASE to
    it. Signing by an identity of sigstore, without a key, needs a network and is not supported.
    """
    session.show(sign(ref, key, registry=session.registry), signed_text, signed_data)
