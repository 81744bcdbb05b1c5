"""The `renamed?` of `ckpt diff`: keys that names and shapes pair, although the bytes differ.

The inference decides, by values too if they were read; keys that it calls ambiguous stay removed
and added. Nothing is guessed where numpy is missing, and values could contradict.
"""

from importlib.util import find_spec

from ckpt.compare.keys import KeyDiff
from ckpt.compare.pairs import Sides
from ckpt.tensors import NOT_A_TENSOR


def likely_renames(diff: KeyDiff, values_of: Sides | None = None) -> tuple[tuple[str, str], ...]:
    """(Removed key, added key) of every pair that is not ambiguous.

    Args:
        diff: The difference.
        values_of: Both files or versions, if their values may be read.
    """
    sides = (diff.removed, diff.added)
    removed, added = ([e for e in side if e.dtype != NOT_A_TENSOR] for side in sides)
    if not (removed and added):
        return ()
    from ckpt.compare.samples import samples_of
    from ckpt.infer.engine import infer
    from ckpt.infer.fitting import MOST_INFERRED
    from ckpt.infer.result import Confidence

    if max(len(removed), len(added)) > MOST_INFERRED:
        return ()
    if values_of is not None and find_spec("numpy") is None:
        return ()

    kept = len(diff.same) + len(diff.changed) + len(diff.unread) > max(len(removed), len(added))
    samples = None
    if values_of is not None:
        samples = samples_of(values_of.before, removed), samples_of(values_of.after, added)
    return tuple(
        (match.source, match.target)
        for match in infer(removed, added, samples, names_kept=kept).matches
        if match.confidence is not Confidence.AMBIGUOUS
    )
