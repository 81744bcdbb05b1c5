"""Check the signatures of versions.

Law: a version counts as signed only if one of the given keys signed its name, its number and the
manifest that the store has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ckpt.errors import IntegrityError, RefError, UsageError
from ckpt.ops.sign import bundles, claim_of, manifest_bytes
from ckpt.printed import Printed
from ckpt.refs import several
from ckpt.registry.index import Index
from ckpt.registry.registry import InRegistry, Registry
from ckpt.registry.version import Version
from ckpt.signing.bundles import OTHER_KEY, SIGNED, WRONG, Checked, checked
from ckpt.signing.keys import PublicKey, read_public_key

UNSIGNED = "unsigned"
_ORDER = (SIGNED, WRONG, OTHER_KEY)  # which verdict counts for a version with several signatures


@dataclass(frozen=True, slots=True)
class Signature:
    """The verdict on the signatures of one version.

    Attributes:
        version: The version.
        verdict: ``signed``, ``unsigned``, ``other key`` or ``wrong``.
        key: The fingerprint of the key that signed it, or that a signature names; else empty.
        file: The file of that key, as given; else empty.
        why: Why it is not signed; empty if it has no signature.
    """

    version: Version
    verdict: str
    key: str = ""
    file: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Signatures(Printed):
    """The verdicts on the versions that were asked for, newest first of each model."""

    VIEW: ClassVar = "ckpt.show.verify:signatures_text"

    signatures: tuple[Signature, ...]

    @property
    def all_signed(self) -> bool:
        """Whether every one of these versions is signed."""
        return all(each.verdict == SIGNED for each in self.signatures)


def verify_signatures(
    keys: Path | str | Iterable[Path | str],
    refs: str | Iterable[str] = (),
    *,
    registry: InRegistry | None = None,
) -> Signatures:
    """Check that versions are signed with one of these keys.

    Manifests are hashed, objects are not: `verify` does that.

    Args:
        keys: PEM files of public keys, one or several.
        refs: The versions; none means all.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is no such version or file, or no version at all.
        UsageError: A file does not hold a public key of the curve P-256, P-384 or P-521.

    Example:
        >>> signed = ckpt.sign("net:v1", "private.pem")
        >>> ckpt.verify_signatures("public.pem", "net:v1").all_signed
        True
    """
    registry = Registry.of(registry)
    registry.expect_there()
    trusted = [read_public_key(Path(key)) for key in several(keys)]
    if not trusted:
        raise UsageError("no key given")
    index = registry.index()
    versions = _versions(registry, index, several(refs))
    return Signatures(tuple(_verdict(registry, index, each, trusted) for each in versions))


def _versions(registry: Registry, index: Index, refs: Sequence[str]) -> list[Version]:
    found = [index.find(ref) for ref in refs] or registry.versions()
    if not found:
        raise RefError(f"{registry.folder}: the registry has no versions")
    return [*{version.ref: version for version in found}.values()]


def _verdict(
    registry: Registry, index: Index, version: Version, keys: Sequence[PublicKey]
) -> Signature:
    found = bundles(index, version)
    if not found:
        return Signature(version, UNSIGNED)
    try:
        manifest = manifest_bytes(registry, version)
    except IntegrityError as error:
        return Signature(version, WRONG, why=str(error))
    each_one = [checked(bundle, claim_of(version), manifest, keys) for bundle in found]
    best: Checked = min(each_one, key=lambda each: _ORDER.index(each.verdict))
    file = next((key.name for key in keys if key.fingerprint == best.key), "")
    return Signature(version, best.verdict, best.key, file, best.why)
