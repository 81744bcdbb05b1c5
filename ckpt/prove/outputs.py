"""The tensors in whatever a model returns, and how far two such results are apart."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Outputs = Mapping[str, "Tensor"]  # by path
_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two results are apart.

    Attributes:
        largest: The largest difference of two floating-point elements, as a part of the largest
            one in that tensor; infinite where shapes, kinds or NaNs differ, or an integer.
        compared: How many tensors were compared.
    """

    largest: float
    compared: int


def tensors_of(result: object, *, graph: bool = False) -> dict[str, "Tensor"]:
    """Copies of the tensors and numbers of a result, by their path.

    Walks mappings, sequences, dataclasses and the attributes of other objects; a number counts
    where it is an item, not an attribute.

    Args:
        result: Whatever a model returns.
        graph: Whether the copies keep their graph, for a gradient.
    """
    found: dict[str, Tensor] = {}
    for path, tensor in _walked(result, "", _DEPTH, set()):
        found.setdefault(path, tensor if graph else tensor.detach().clone())
    return found


def _walked(
    value: object, path: str, depth: int, above: set[int]
) -> "Iterator[tuple[str, Tensor]]":
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.to_dense() if value.layout != torch.strided else value
        if plain.is_quantized:
            plain = plain.dequantize()
        yield path, plain
    elif isinstance(value, bool | int | float | complex):
        yield path, torch.tensor(value)
    elif depth and id(value) not in above:
        for name, item in _items(value):
            under = f"{path}.{name}" if path else name
            yield from _walked(item, under, depth - 1, above | {id(value)})


def _items(value: object) -> Iterator[tuple[str, object]]:
    """The parts of a container, each with its name."""
    from torch import nn

    if value is None or isinstance(value, str | bytes | type | nn.Module):
        return
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, Sequence):
        yield from ((str(at), item) for at, item in enumerate(value))
    elif is_dataclass(value):
        yield from ((field.name, getattr(value, field.name, None)) for field in fields(value))
    else:
        slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
        named = {name: getattr(value, name, None) for name in slots} | getattr(
            value, "__dict__", {}
        )
        plain = bool | int | float | complex  # an object's own book-keeping
        yield from ((name, it) for name, it in named.items() if not isinstance(it, plain))


def paired(one: Outputs, other: Outputs) -> list[tuple[str, str]]:
    """The paths in both results that belong together: of one name, else by place, if any."""
    if one.keys() != other.keys() and len(one) == len(other):
        return list(zip(one, other, strict=True))
    return [(path, path) for path in one if path in other]


def difference(one: Outputs, other: Outputs) -> Difference:
    """How far two results are apart; infinitely if nothing in them belongs together."""
    pairs = paired(one, other)
    apart_by = (apart(one[a], other[b]) for a, b in pairs)
    return Difference(max(apart_by, default=math.inf), len(pairs))


def apart(a: "Tensor", b: "Tensor") -> float:
    """The largest difference of two tensors, as a part of the largest finite element.

    Elements that are not finite must be the same; integers, too.
    """
    import torch

    inexact = [tensor.is_floating_point() or tensor.is_complex() for tensor in (a, b)]
    if a.shape != b.shape or inexact[0] != inexact[1]:
        return math.inf
    if not a.numel():
        return 0.0
    if not inexact[0]:
        return 0.0 if torch.equal(a.to(torch.int64), b.to(torch.int64)) else math.inf
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    a, b = a.to(wide), b.to(wide)
    finite = a.isfinite() & b.isfinite()
    same = (a == b) | (a.isnan() & b.isnan())
    if not bool((finite | same).all()):
        return math.inf
    if not bool(finite.any()):
        return 0.0
    a, b = a[finite], b[finite]
    largest = max(float(a.abs().max()), float(b.abs().max()), 1e-300)
    return float((a - b).abs().max()) / largest


def is_finite(outputs: Outputs) -> bool:
    """Whether a result has a finite element."""
    return any(bool(tensor.isfinite().any()) for tensor in outputs.values())
