"""Several copies of the target in one file: a teacher, a moving average, a compiled module.

Names and shapes do not tell which one is wanted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from ckpt.infer.vocabulary import BUFFERS
from ckpt.tensors import TensorEntry

_MOST_DEPTH = 3  # parts of a prefix
_LEAST_KEYS = 4  # of a copy
_MOST = 0.9  # of the target's keys that each copy has
_LEAST_OF_ALL = 0.3  # of the source's keys, for a copy under other names than the target's
_LEAST_TIMES = 1.5  # the keys of the target, in a source with two copies
_ONE = 1.5  # times the keys of a copy: the target has fewer, else it has several copies itself

Entries = Sequence[TensorEntry]


def copies_of(source: Entries, target: Entries) -> tuple[str, ...]:
    """The modules of the source that are copies of the target, in order; none if it is one.

    Nothing is a copy if bytes tell which one is meant, or if the target's own keys are there.
    """
    if len(source) < len(target) * _LEAST_TIMES:
        return ()
    bytes_of = {entry.digest for entry in target if entry.digest}
    if len(target) < _LEAST_KEYS or any(entry.digest in bytes_of for entry in source):
        return ()
    found = [*_by_names(source, target)] or [*_alike(source, target)]
    return () if "" in found or len(found) < 2 else tuple(found)


def _by_names(source: Entries, target: Entries) -> Iterator[str]:
    """The prefixes under which the source has most of the target's keys."""
    shapes = {entry.key: entry.shape for entry in target}
    counts = Counter[str]()
    for entry in source:
        counts.update(
            prefix for prefix, rest in _divided(entry.key) if shapes.get(rest) == entry.shape
        )
    yield from (prefix for prefix, count in counts.items() if count >= len(target) * _MOST)


def _alike(source: Entries, target: Entries) -> Iterator[str]:
    """The prefixes of modules of equal contents that make up much of the source."""
    contents: dict[str, set[tuple[str, tuple[int, ...]]]] = {}
    for entry in source:
        if entry.key.rpartition(".")[2] not in BUFFERS:
            for prefix, rest in _divided(entry.key):
                contents.setdefault(prefix, set()).add((rest, entry.shape))
    alike: dict[frozenset[tuple[str, tuple[int, ...]]], list[str]] = {}
    for prefix, tensors in contents.items():
        if prefix and len(tensors) >= max(_LEAST_KEYS, len(source) * _LEAST_OF_ALL):
            alike.setdefault(frozenset(tensors), []).append(prefix)
    for content, prefixes in alike.items():
        outer = [one for one in prefixes if not _is_numbered(one)]
        if len(outer) == len(prefixes) > 1 and len(target) < len(content) * _ONE:
            yield from _apart(prefixes)
            return


def _is_numbered(prefix: str) -> bool:
    """Whether a module is one of a list, such as the layers of a model."""
    return prefix.rpartition(".")[2].isdecimal()


def _apart(prefixes: Sequence[str]) -> Iterator[str]:
    """The longest prefixes: ``teacher`` and ``teacher.model`` may have the same contents."""
    for one in prefixes:
        if not any(other.startswith(f"{one}.") for other in prefixes):
            yield one


def _divided(key: str) -> Iterator[tuple[str, str]]:
    """The first parts of a key, and the rest, for up to `_MOST_DEPTH` parts."""
    yield "", key
    parts = key.split(".")
    for depth in range(1, min(_MOST_DEPTH, len(parts) - 1) + 1):
        yield ".".join(parts[:depth]), ".".join(parts[depth:])


def without(source: Entries, copies: Sequence[str]) -> list[TensorEntry]:
    """The tensors that are in none of some copies."""
    starts = tuple(f"{copy}." for copy in copies)
    return [entry for entry in source if not entry.key.startswith(starts)] if starts else [*source]
