"""What `ckpt verify` found."""

from typing import Any

from ckpt.ops.verify import Verified
from ckpt.show.words import count, printable, size


def verified_text(verified: Verified, *, seconds: float) -> str:
    """The verdict; of damage, each damaged thing and whom it hurts."""
    hashed = f"{count(verified.objects, 'object')}, {count(verified.manifests, 'manifest')}"
    if not verified.damages:
        read = f"{size(verified.nbytes)} in {seconds:.2f} s"
        return f"{hashed}, registry.json: all good        {read}"
    lines = []
    for damage in verified.damages:
        lines.append(printable(damage.message))
        lines += [f"  hurts {printable(hurt)}" for hurt in damage.hurts]
    return "\n".join([*lines, f"{hashed} read, {count(len(verified.damages), 'thing')} damaged"])


def verified_data(verified: Verified) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "objects": verified.objects,
        "manifests": verified.manifests,
        "bytes": verified.nbytes,
        "damages": [
            {"message": damage.message, "hurts": list(damage.hurts)} for damage in verified.damages
        ],
    }
