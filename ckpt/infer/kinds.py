"""What can be exchanged for what: tensors of one shape, of kindred dtypes, with the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class Kinds:
    """What can be exchanged for each other: shapes, families of dtypes, and bytes if known.

    Attributes:
        of: The kind of each entry, of both sides.
        shapes: Of each kind.
        digests: Whether the bytes are a part of the kind.
    """

    of: tuple[list[int], list[int]]
    shapes: list[tuple[int, ...]]
    digests: list[bool]


def kinds_of(source: Sequence[TensorEntry], target: Sequence[TensorEntry]) -> Kinds:
    """The kinds of the entries of both sides; bytes count where both sides have them."""
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
    """Dtypes between which a conversion may cast."""
    if dtype == "bool":
        return dtype
    return "complex" if dtype.startswith("complex") else "int" if "int" in dtype else "float"
