"""Keys of an elliptic curve in PEM files.

A key's fingerprint is the SHA-256 of its public half in PEM form, what `sha256sum` prints for the
file that openssl writes; model-signing names keys by it too.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from ckpt.errors import UsageError
from ckpt.io.small_file import read_small

PASSPHRASE = "CKPT_KEY_PASSPHRASE"  # the environment variable
_MOST_BYTES = 100_000  # of a file
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those that model-signing takes
_NEW = "openssl ecparam -name prime256v1 -genkey -noout -out private.pem  makes one"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a key.

    Attributes:
        name: Its file, as given.
        pem: In PEM form, as openssl and cryptography write it.
    """

    name: str
    pem: bytes

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(self.pem).hexdigest()


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key, which stays in its file.

    Attributes:
        path: Its file.
        passphrase: That of the file; None if it has none.
        public: Its public half.
    """

    path: Path
    passphrase: str | None = field(repr=False)
    public: PublicKey


def read_private_key(path: Path, passphrase: str | None = None) -> PrivateKey:
    """Read a private key; the passphrase is not used if the file has none.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It does not hold a private key of a known curve, or the passphrase is wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_small(path, most=_MOST_BYTES)
    if b"BEGIN PUBLIC KEY" in data:
        raise UsageError(f"{path}: a public key, expected a private one", hint=_NEW)
    is_encrypted = b"ENCRYPTED" in data  # in the first line, or in the second of the older form
    if is_encrypted and passphrase is None:
        raise UsageError(f"{path}: the key has a passphrase", hint=f"set {PASSPHRASE} to it")
    passphrase = passphrase if is_encrypted else None
    try:
        key = load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if is_encrypted:
            hint = f"it is taken from {PASSPHRASE}"
            raise UsageError(f"{path}: the passphrase is wrong", hint=hint) from error
        raise UsageError(f"{path}: not a private key in PEM form", hint=_NEW) from error
    return PrivateKey(path, passphrase, _checked(key.public_key(), path))


def read_public_key(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It does not hold a public key of a known curve.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = read_small(path, most=_MOST_BYTES)
    hint = f"openssl pkey -in {quote(str(path))} -pubout -out public.pem"
    if b"PRIVATE KEY" in data:
        raise UsageError(f"{path}: a private key, expected a public one", hint=hint)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "openssl pkey -in private.pem -pubout -out public.pem  makes one"
        raise UsageError(f"{path}: not a public key in PEM form", hint=hint) from error
    return _checked(key, path)


def _checked(key: Any, path: Path) -> PublicKey:
    """The public key, if model-signing takes such a key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    kind = type(key).__name__.removesuffix("PublicKey")
    curve = key.curve.name if kind == "EC" else kind
    if curve not in _CURVES:
        raise UsageError(f"{path}: a key of {curve}, expected P-256, P-384 or P-521", hint=_NEW)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(str(path), pem)
