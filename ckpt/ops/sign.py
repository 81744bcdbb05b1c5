"""Sign: add the signature of a version to the history of its model.

It says that this version of this model has this manifest, which names the digest of every tensor.
Metrics, notes, aliases and tags are not signed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ckpt.errors import ConflictError, IntegrityError
from ckpt.printed import Printed
from ckpt.registry.events import Event, about
from ckpt.registry.index import Index, Model
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version
from ckpt.signing.bundles import SIGNED, Claim, checked, make_bundle
from ckpt.signing.keys import PASSPHRASE, PrivateKey, read_private_key


@dataclass(frozen=True, slots=True, repr=False)
class Signed(Printed):
    """The result of signing.

    Attributes:
        version: The version.
        key: The fingerprint of the key: the SHA-256 of the file of its public half.
        new: Whether a signature was added; false if the version had one by this key already.
        bundle: The signature, a bundle of sigstore.
    """

    VIEW: ClassVar = "ckpt.show.sign:signed_text"

    version: Version
    key: str
    new: bool
    bundle: Mapping[str, Any] = field(default_factory=dict)


def sign(
    ref: str,
    key: Path | str,
    *,
    passphrase: str | None = None,
    registry: InRegistry | None = None,
) -> Signed:
    """Sign a version with a private key: its model's name, its number and its manifest.

    Signing again with the same key adds nothing.

    Args:
        ref: The version.
        key: The PEM file of a private key of the curve P-256, P-384 or P-521.
        passphrase: That of the key; None takes it from `CKPT_KEY_PASSPHRASE`, if it has one.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such version or file.
        UsageError: The file does not hold such a key, or the passphrase is missing or wrong.
        IntegrityError: The manifest is damaged.
        ConflictError: The ref got another meaning meanwhile; nothing is signed.

    Example:
        >>> ckpt.sign("net:v1", "private.pem").new
        True
    """
    registry = Registry.of(registry)
    version = registry.version(ref)
    private = read_private_key(Path(key), passphrase or os.environ.get(PASSPHRASE) or None)
    claim = claim_of(version)
    manifest = manifest_bytes(registry, version)
    for bundle in bundles(registry.index(), version):
        if checked(bundle, claim, manifest, [private.public]).verdict == SIGNED:
            registry.index_file.sync()
            return Signed(version, private.public.fingerprint, False, bundle)
    return _added(registry, ref, version, private, make_bundle(claim, manifest, private))


def claim_of(version: Version) -> Claim:
    """What a signature of a version says."""
    return Claim(version.model, version.number, version.manifest)


def bundles(index: Index, version: Version) -> list[Mapping[str, Any]]:
    """The signatures that were added to a version, the newest first."""
    history = about(index.model(version.model).log, version.manifests)
    return [event.bundle for event in reversed(history) if event.did == "sign"]


def manifest_bytes(registry: Registry, version: Version) -> bytes:
    """The verified bytes of the manifest of a version."""
    try:
        return registry.store.manifest_bytes(version.manifest)
    except IntegrityError as error:
        raise IntegrityError(f"{version.ref}: {error}", hint=error.hint) from error


def _added(
    registry: Registry, ref: str, version: Version, key: PrivateKey, bundle: Mapping[str, Any]
) -> Signed:
    def signed(index: Index) -> Model:
        found = index.find(ref)
        if claim_of(found) != claim_of(version):
            raise ConflictError(
                f"{ref} was {version.ref} and is {found.ref} now", hint="nothing was signed"
            )
        model = index.model(version.model)
        draft = Event(did="sign", version=found.label, manifest=found.manifest, bundle=bundle)
        return replace(model, log=(*model.log, draft))

    registry.change(signed, lambda: f"sign {version.ref}")
    return Signed(version, key.public.fingerprint, True, bundle)
