"""Key files for tests, written by cryptography."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def write_private(
    path: Path,
    key: object,
    *,
    passphrase: str = "",
    form: PrivateFormat = PrivateFormat.PKCS8,
) -> None:
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    path.write_bytes(key.private_bytes(Encoding.PEM, form, encryption))  # type: ignore[attr-defined]


def write_public(path: Path, key: object) -> None:
    form = PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, form))  # type: ignore[attr-defined]


def write_pair(
    folder: Path, name: str = "", *, curve: ec.EllipticCurve | None = None, passphrase: str = ""
) -> ec.EllipticCurvePrivateKey:
    """`private.pem` and `public.pem` in a folder, with a name before that if one is given."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    write_private(folder / f"{name}private.pem", key, passphrase=passphrase)
    write_public(folder / f"{name}public.pem", key)
    return key
