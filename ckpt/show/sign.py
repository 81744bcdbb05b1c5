"""A signature that was added to a version, as text and as JSON."""

from typing import Any

from ckpt.io import digest
from ckpt.ops.sign import Signed
from ckpt.show.look.fields import fields


def signed_text(signed: Signed) -> str:
    """One line."""
    version, key = signed.version, signed.key[:8]
    if not signed.new:
        return f"{version.ref} is signed with the key {key} already"
    return f"signed {version.ref}  {digest.short(version.manifest)}  with the key {key}"


def signed_data(signed: Signed) -> dict[str, Any]:
    """The same for JSON, with the bundle."""
    named = fields(
        signed, "model=version.model", "version=version.label", "manifest=version.manifest"
    )
    return {**named, **fields(signed, "key", "new", "bundle")}
