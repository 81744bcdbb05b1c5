"""The `renamed?` of `ckpt diff`: keys that names and shapes pair, although the bytes differ.

The inference decides; keys that it calls ambiguous stay removed and added.
"""

from ckpt.compare.keys import KeyDiff
from ckpt.infer.fitting import MOST_INFERRED
from ckpt.tensors import NOT_A_TENSOR


def likely_renames(diff: KeyDiff) -> tuple[tuple[str, str], ...]:
    """(Removed key, added key) of every pair that is not ambiguous."""
    sides = (diff.removed, diff.added)
    removed, added = ([e for e in side if e.dtype != NOT_A_TENSOR] for side in sides)
    if not (removed and added) or max(len(removed), len(added)) > MOST_INFERRED:
        return ()
    from ckpt.infer.engine import infer
    from ckpt.infer.result import Confidence

    return tuple(
        (match.source, match.target)
        for match in infer(removed, added).matches
        if match.confidence is not Confidence.AMBIGUOUS
    )
