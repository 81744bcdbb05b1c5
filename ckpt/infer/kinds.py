"""Kinds of interchangeable tensors: of one shape, one family of dtypes, and the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kind of every tensor, by shape, family of dtypes and, if known, bytes.

    Attributes:
        of: The kinds of the entries of both sides.
        shapes: By kind.
        digests: By kind: whether it is one of bytes.
    """

    of: tuple[list[int], list[int]]
    shapes: list[tuple[int, ...]]
    digests: list[bool]


def kinds_of(source: Sequence[TensorEntry], target: Sequence[TensorEntry]) -> Kinds:
    """The kinds of the entries of both sides; bytes count if both sides have them."""
    common = {entry.digest for entry in source if entry.digest}
    common &= {entry.digest for entry in target if entry.digest}
    numbers: dict[tuple[object, ...], int] = {}
    shapes: list[tuple[int, ...]] = []
    digests: list[bool] = []
    of: tuple[list[int], list[int]] = ([], [])
    for side, entries in enumerate((source, target)):
        for entry in entries:
            digest = entry.digest if entry.digest in common else None
            dtype = entry.dtype if digest else _family(entry.dtype)
            key = (entry.shape, dtype, digest)
            number = numbers.setdefault(key, len(numbers))
            if number == len(shapes):
                shapes.append(entry.shape)
                digests.append(digest is not None)
            of[side].append(number)
    return Kinds(of, shapes, digests)


def _family(dtype: str) -> str:
    """The family of dtypes within which a conversion may cast."""
    if dtype == "bool":
        return dtype
    return "complex" if dtype.startswith("complex") else "int" if "int" in dtype else "float"
