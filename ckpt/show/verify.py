"""The damage that `ckpt verify` found or repaired."""

from collections.abc import Iterator
from typing import Any

from ckpt.ops.verify import Damage, Verified
from ckpt.ops.verify.repair import Repaired
from ckpt.ops.verify.signed import Signature, Signatures
from ckpt.show.look.fields import fields
from ckpt.show.look.lost import lost_data, lost_lines
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, printable, size
from ckpt.signing.bundles import SIGNED


def verified_text(verified: Verified) -> str:
    """The verdict, or each damaged object with its users, and the command that helps."""
    hashed = f"{count(verified.objects, 'object')}, {count(verified.manifests, 'manifest')}"
    if not verified.damages:
        read = f"{size(verified.nbytes)} in {verified.seconds:.2f} s"
        verdict = f"{hashed}, registry.json: all good        {read}"
        return "\n".join([verdict, *_elsewhere(verified), *lost_lines(verified.lost)])
    lines = [line for damage in verified.damages for line in _damage(damage)]
    lines.append(f"{hashed} read, {len(verified.damages):,} damaged")
    hints = {damage.hint: None for damage in verified.damages if damage.hurts}
    lines += [*_elsewhere(verified), *lost_lines(verified.lost)]
    return "\n".join([*lines, "", *(hints or ["to remove them:  ckpt gc"])])


def repaired_text(repaired: Repaired) -> str:
    """The repaired objects and their sources, and the verdict after the repair."""
    lines = []
    for damage, place in repaired.taken:
        what = ", ".join(damage.hurts) or damage.digest
        lines.append(f"repaired {printable(what)} from {printable(place)}")
    return "\n".join([*lines, verified_text(repaired.left)])


def signatures_text(signatures: Signatures, *, width: int | None = None) -> str:
    """The verdict on each version, and how many are signed."""
    found = signatures.signatures
    rows = [[each.version.ref, each.verdict, _key_or_why(each)] for each in found]
    signed = sum(each.verdict == SIGNED for each in found)
    last = f"{signed:,} of {count(len(found), 'version')} signed"
    return f"{table(rows, ['version', 'signature', ''], width=width)}\n\n{last}"


def signatures_data(signatures: Signatures) -> list[dict[str, Any]]:
    """The same for JSON."""
    names = ("model=version.model", "version=version.label", "manifest=version.manifest", "verdict")
    return [
        {
            **fields(each, *names),
            **{name: getattr(each, name) or None for name in ("key", "file", "why")},
        }
        for each in signatures.signatures
    ]


def verified_data(verified: Verified) -> dict[str, Any]:
    """The verdict for JSON."""
    return {
        **fields(verified, "objects", "manifests", "bytes=nbytes"),
        "elsewhere": dict(verified.elsewhere),
        "lost": lost_data(verified.lost),
        "damages": [fields(damage, "message", "hurts", "digest") for damage in verified.damages],
    }


def repaired_data(repaired: Repaired) -> dict[str, Any]:
    """The same, and the repaired objects."""
    taken = [{"digest": damage.digest, "from": place} for damage, place in repaired.taken]
    return {**verified_data(repaired.left), "repaired": taken}


def _elsewhere(verified: Verified) -> Iterator[str]:
    for remote, number in verified.elsewhere.items():
        are = "is" if number == 1 else "are"
        yield f"{count(number, 'object')} {are} not here (on remote {remote})"


def _key_or_why(signature: Signature) -> str:
    if signature.verdict == SIGNED:
        return f"with {signature.file}, key {signature.key[:8]}"
    return signature.why


def _damage(damage: Damage) -> Iterator[str]:
    yield printable(damage.message)
    for user in damage.hurts or ("no version",):
        yield f"  used by {printable(user)}"
