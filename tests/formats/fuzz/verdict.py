"""Asks torch and ckpt what a file holds, and compares their answers.

The law: ckpt refuses the file, or torch does, or both give the same keys, shapes, dtypes and bits.
torch's side is `torch.load(weights_only=True)`; this module spells its keys as ckpt documents it
(docs/formats.md), and shares no code with it.
"""

import argparse
import collections
import ctypes
from collections.abc import Iterator
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ckpt
from ckpt.errors import AmbiguousStateError, CkptError
from tests.formats.fuzz import subclasses
from tests.formats.support import renamed

LARGE = 1 << 20  # bytes; larger tensors, which views alone can be, are compared unexpanded
SAFE = [
    *(np.ndarray, np.dtype, np._core.multiarray._reconstruct, np._core.multiarray.scalar),
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefdFDU"},
    *(argparse.Namespace, collections.defaultdict, dict, list, int, float),
    *subclasses.OWN,
]
Signature = tuple[object, ...]
Tensors = dict[str, Signature]
REGISTRY = ckpt.Registry()


def allow_safe_globals() -> None:
    torch.serialization.add_safe_globals(SAFE)


def signature(tensor: torch.Tensor) -> Signature:
    """Dtype, shape and bits; a name alone if it has no plain bits."""
    tensor = torch.Tensor.detach(tensor)  # without its attributes, which may be called `detach`
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        return ("not plain", str(tensor.layout))
    if tensor.device.type != "cpu":
        return ("not on the CPU", str(tensor.device))
    tensor = tensor.resolve_conj().resolve_neg()
    shape, stride = tuple(tensor.shape), tensor.stride()
    head = (str(tensor.dtype), shape)
    if not prod(shape):
        return (*head, b"")
    size = tensor.element_size()
    if prod(shape) * size > LARGE:
        reach = sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
        return (*head, stride, ctypes.string_at(tensor.data_ptr(), reach * size))
    whole = tensor.contiguous()
    return (*head, ctypes.string_at(whole.data_ptr(), prod(shape) * size))


def torchs(path: Path | BytesIO) -> Any:
    """The value that torch gives; an exception if it refuses the file."""
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch refuses by errors of any kind
        return error


def ckpts(path: Path) -> dict[str | None, Tensors] | Exception:
    """The tensors of each state_dict that ckpt gives, or why it refuses the file."""
    try:
        try:
            return {None: opened(path)}
        except AmbiguousStateError as error:
            return {name: opened(path, name) for name in error.names}
    except Exception as error:  # noqa: BLE001 - what is no CkptError is a fault, and reported
        return error


def opened(path: Path, inside: str | None = None) -> Tensors:
    ref = path if inside is None else f"{path}::{inside}"
    with ckpt.open(ref, registry=REGISTRY) as lazy:
        return {key: signature(lazy[key]) for key in lazy}


def judged(path: Path, *, rename: bool = True) -> tuple[str, str]:
    """An outcome, and its details if it is ``different`` or ``fault``.

    Args:
        path: Of the file.
        rename: Whether a renamed copy must be the same to torch too.
    """
    ours = ckpts(path)
    if isinstance(ours, Exception) and not isinstance(ours, CkptError):
        return "fault", f"ckpt: {type(ours).__name__}: {ours}"
    theirs = torchs(path)
    refused = isinstance(ours, Exception), isinstance(theirs, Exception)
    if any(refused):
        return {(True, True): "refused by both", (True, False): "refused by ckpt"}.get(
            refused, "refused by torch"
        ), ""
    assert not isinstance(ours, Exception)
    for inside, tensors in ours.items():
        if not agree(tensors, theirs, inside):
            return "different", f"{inside or 'root'}\nckpt:  {tensors}\ntorch: {shown(theirs)}"
    for inside in nested(theirs):
        try:
            tensors = opened(path, inside)
        except CkptError:
            continue
        if not agree(tensors, theirs, inside):
            return "different", f"::{inside}\nckpt:  {tensors}\ntorch: {shown(theirs)}"
    details = renamed_differs(path, ours[None]) if rename and None in ours else ""
    return ("different", details) if details else ("same", "")


def renamed_differs(path: Path, tensors: Tensors) -> str:
    """What torch finds in a copy with another first key, if it is not what ckpt finds here."""
    key = next(iter(tensors), None)
    if key is None:
        return ""
    try:
        data = renamed(path.read_bytes(), {key: "renamed"})
    except CkptError:
        return ""
    theirs = torchs(BytesIO(data))
    expected = {"renamed" if name == key else name: each for name, each in tensors.items()}
    if agree(expected, theirs, None):
        return ""
    return f"renamed\nckpt:  {expected}\ntorch: {shown(theirs)}"


def agree(ours: Tensors, root: Any, inside: str | None) -> bool:
    """Whether torch's value holds the tensors of ckpt; those in a set have no names."""
    if any(list(ours.items()) == list(theirs.items()) for theirs in answers(root, inside)):
        return True
    if not any(isinstance(part, Unnamed) for path, _ in leaves(root, ()) for part in path):
        return False
    signatures = sorted(map(repr, ours.values()))
    return any(signatures == sorted(map(repr, theirs.values())) for theirs in answers(root, inside))


class Unnamed(int):
    """The place of an element of a set, which has no order."""


def answers(root: Any, inside: str | None) -> Iterator[Tensors]:
    """What ckpt may say: the state_dict at a path, or all tensors below it.

    Without a path, the state_dict may be any; which one is ckpt's choice.
    """
    for path, value in mappings(root):
        if inside is None or ".".join(path) == inside:
            yield direct(value)
    for path, value in mappings(root):
        if (inside is None and not path) or ".".join(path) == inside:
            yield flat(value)
    if not isinstance(root, dict):
        yield flat(root)


def nested(root: Any) -> list[str]:
    """Paths of the state_dicts that a ref can name."""
    return [
        ".".join(path)
        for path, value in mappings(root)
        if path and any(isinstance(item, torch.Tensor) for item in dict.values(value))
    ][:3]


def mappings(root: Any) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """Every mapping that text keys alone lead to, with its path."""
    found: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while found:
        path, value = found.pop(0)
        if isinstance(value, dict) and len(path) < 10:
            yield path, value
            found += [
                ((*path, key), item) for key, item in dict.items(value) if isinstance(key, str)
            ]


def direct(mapping: dict[Any, Any]) -> Tensors:
    """A mapping's own tensors, by its keys; other keys than text are shown with their type."""
    tensors: Tensors = {}
    taken = {key for key in mapping if isinstance(key, str)}
    for key, value in dict.items(mapping):
        if isinstance(value, torch.Tensor):
            name = key if isinstance(key, str) else f"{key!r} ({type(key).__name__})"
            while not isinstance(key, str) and name in taken:
                name += f" ({type(key).__name__})"
            taken.add(name)
            tensors[name] = signature(value)
    return tensors


def flat(root: Any) -> Tensors:
    """All tensors, by their dotted paths."""
    found = list(leaves(root, ()))
    tensors = {".".join(map(_part, path)): signature(tensor) for path, tensor in found}
    if len(tensors) == len(found):
        return tensors
    return {".".join(map(_typed, path)): signature(tensor) for path, tensor in found}


def _part(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def _typed(key: Any) -> str:
    return key if isinstance(key, str) else f"{key!r} ({type(key).__name__})"


def leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif len(path) < 10:
        items: Any = ()
        if isinstance(value, dict):
            # Attributes of a value are below None.
            items = [*dict.items(value), *_attributes(value)]
        elif isinstance(value, argparse.Namespace):
            items = [(None, vars(value))]
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        elif isinstance(value, set):
            items = ((Unnamed(at), item) for at, item in enumerate(value))
        for key, item in items:
            yield from leaves(item, (*path, key))


def _attributes(value: Any) -> list[tuple[None, Any]]:
    return [(None, vars(value))] if getattr(value, "__dict__", None) else []


def shown(value: Any, depth: int = 0) -> str:
    """A value for people: containers and signatures."""
    if isinstance(value, torch.Tensor):
        return f"{type(value).__name__}{signature(value)}"
    if isinstance(value, dict) and depth < 5:
        items = (f"{key!r}: {shown(item, depth + 1)}" for key, item in dict.items(value))
        return f"{type(value).__name__}{{{', '.join(items)}}}"
    if isinstance(value, list | tuple | set) and depth < 5:
        return f"{type(value).__name__}({', '.join(shown(item, depth + 1) for item in value)})"
    return repr(value)[:100]
