"""The `renamed?` of `ckpt diff`: keys that names and shapes pair, although the bytes differ.

The inference decides, without digests; what it calls ambiguous stays removed and added.
"""

from collections.abc import Iterator
from dataclasses import replace

from ckpt.compare.keys import KeyDiff
from ckpt.infer.fitting import MOST_INFERRED
from ckpt.tensors import TensorEntry


def likely_renames(difference: KeyDiff) -> Iterator[tuple[str, str]]:
    """Removed and added keys that names and shapes pair, where bytes do not."""
    removed, added = difference.removed, difference.added
    if not (removed and added) or max(len(removed), len(added)) > MOST_INFERRED:
        return
    from ckpt.infer.engine import infer
    from ckpt.infer.result import Confidence

    for match in infer([_unread(e) for e in removed], [_unread(e) for e in added]).matches:
        if match.confidence is not Confidence.AMBIGUOUS:
            yield match.source, match.target


def _unread(entry: TensorEntry) -> TensorEntry:
    return replace(entry, digest=None)
