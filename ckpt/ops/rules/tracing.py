"""Tensors without values, which note what code makes of them; for a process that runs such code.

A note is plain JSON, and names operations as `ckpt.rules.expressions` does: ``["source", key]``,
``["permuted", note, dims]``, ``["reshaped", note, shape]``, ``["narrowed", note, dim, start,
length]``, ``["joined", notes, dim]``, ``["cast", note, dtype]``, ``["filled", dtype, shape,
value]``, or ``["computed", operations, keys]`` for what changes values.
Law: a tensor has the elements that its note says, whatever values the sources have; code that
reads a value, or writes into a tensor of which any element is not computed, is refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

Note = list[Any]
_SAME = ("clone", "detach", "alias", "lift_fresh", "positive")
_RESHAPE = ("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze", "flatten")
_NEW = {"new_zeros": 0, "zeros_like": 0, "new_ones": 1, "ones_like": 1}
_IN_PLACE = ("add_", "sub_", "mul_", "div_")
_READ = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero")


class Traced(torch.Tensor):
    """A tensor that has a note instead of values. It calls itself one of the CPU.

    Attributes:
        meta: Its shape, strides and dtype.
        note: What it is made of.
    """

    meta: torch.Tensor
    note: Note

    @staticmethod
    def __new__(cls, meta: torch.Tensor, note: Note) -> "Traced":
        """A tensor of the shape, strides and dtype of `meta`."""
        cpu = torch.device("cpu")
        made: Traced = torch.Tensor._make_wrapper_subclass(
            cls, meta.shape, strides=meta.stride(), dtype=meta.dtype, device=cpu
        )
        made.meta, made.note = meta, note
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override] # torch gives a keyword
        return f"Traced({self.note})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # its stub has no types
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        if name in _IN_PLACE and isinstance(args[0], Traced) and _only_computed(args[0].note):
            args[0].note = _computed(name, args, kwargs)
            return args[0]
        if func._schema.is_mutable:
            raise ValueError(f"its code writes into tensors ({name}), which cannot be traced")
        if name in _READ:
            raise ValueError("its code depends on the values of tensors, which cannot be traced")
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        made = func(*tree_map(_as_meta, args), **tree_map(_as_meta, kwargs))
        if isinstance(made, torch.Tensor):
            return cls(made, _note(name, args, kwargs, made))
        if not all(isinstance(it, torch.Tensor) for it in tree_leaves(made)):
            return made
        return type(made)(map(cls, made, _notes_of_parts(name, args, made)))


def source(key: str, dtype: str, shape: Sequence[int]) -> Traced:
    """A tensor of a checkpoint."""
    meta = torch.empty(tuple(shape), dtype=getattr(torch, dtype), device="meta")
    return Traced(meta, ["source", key])


def note_of(tensor: torch.Tensor) -> Note:
    """What a tensor is made of; the values of one that is not traced are constants."""
    if isinstance(tensor, Traced):
        return tensor.note
    values = tensor.detach().flatten()
    if tensor.device.type == "meta" or not len(values) or not bool((values == values[0]).all()):
        return ["computed", ["a constant"], []]
    return ["filled", _dtype(tensor.dtype), list(tensor.shape), values[0].item()]


def _as_meta(it: Any) -> Any:
    if isinstance(it, Traced):
        return it.meta
    return it.to("meta") if isinstance(it, torch.Tensor) else it


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _note(name: str, args: Any, kwargs: Any, made: torch.Tensor) -> Note:
    """The note of an operation with one result."""
    if name in _NEW:
        return ["filled", _dtype(made.dtype), list(made.shape), _NEW[name]]
    if name == "cat":
        return ["joined", [note_of(it) for it in args[0]], _dim(args, 1, made)]
    if name == "stack":
        dim = _dim(args, 1, made)
        notes = [["reshaped", note_of(it), [*it.shape[:dim], 1, *it.shape[dim:]]] for it in args[0]]
        return ["joined", notes, dim]
    of = args[0] if args and isinstance(args[0], torch.Tensor) else made
    note, shape = note_of(of) if of is not made else [], list(made.shape)
    if name in _SAME or (name == "expand" and made.shape == of.shape):
        return note
    if name in _RESHAPE:
        return ["reshaped", note, shape]
    if name == "_to_copy":
        return note if made.dtype == of.dtype else ["cast", note, _dtype(made.dtype)]
    if name in ("permute", "transpose", "t"):
        return ["permuted", note, _order(name, args, of.dim())]
    if name == "select":
        dim = _dim(args, 1, of)
        at = args[2] % of.shape[dim]
        return ["reshaped", ["narrowed", note, dim, at, 1], shape]
    if name == "slice" and (len(args) < 5 or args[4] == 1):
        dim = _dim(args, 1, of)
        start = args[2] if len(args) > 2 and args[2] is not None else 0
        start = min(max(start + of.shape[dim] if start < 0 else start, 0), of.shape[dim])
        return ["narrowed", note, dim, start, made.shape[dim]]
    return _computed(name, args, kwargs)


def _notes_of_parts(name: str, args: Any, made: Sequence[torch.Tensor]) -> Iterator[Note]:
    """The notes of an operation with several results."""
    parts, at = name in ("split", "split_with_sizes", "unbind"), 0
    dim = _dim(args, 1 if name == "unbind" else 2, args[0]) if parts else 0
    for part in made:
        size = 1 if name == "unbind" else part.shape[dim]
        note: Note = ["narrowed", note_of(args[0]), dim, at, size] if parts else []
        at += size
        shaped = ["reshaped", note, list(part.shape)] if name == "unbind" else note
        yield shaped or _computed(name, args, {})


def _computed(name: str, args: Any, kwargs: Any) -> Note:
    """The note of an operation that changes values: the operations so far, and the keys."""
    notes = [it.note for it in tree_leaves((args, kwargs)) if isinstance(it, Traced)]
    before = [it for note in notes for it in _operations(note)]
    keys = [key for note in notes for key in _keys(note)]
    return ["computed", list(dict.fromkeys([*before, name.strip("_")])), list(dict.fromkeys(keys))]


def _only_computed(note: Note) -> bool:
    """Whether code computed all values of a tensor: so it did those of all its views."""
    while note[0] in ("permuted", "reshaped", "narrowed", "cast"):
        note = note[1]
    return bool(note[0] == "computed")


def _operations(note: Note) -> list[str]:
    match note:
        case ["computed", names, _]:
            return list(names)
        case ["joined", notes, _]:
            return [name for each in notes for name in _operations(each)]
        case ["source" | "filled", *_]:
            return []
    return _operations(note[1])


def _keys(note: Note) -> list[str]:
    match note:
        case ["source", key]:
            return [key]
        case ["computed", _, keys]:
            return list(keys)
        case ["joined", notes, _]:
            return [key for each in notes for key in _keys(each)]
        case ["filled", *_]:
            return []
    return _keys(note[1])


def _dim(args: Any, at: int, of: torch.Tensor) -> int:
    """The dimension among the arguments of an operation, counted from the first."""
    dim: int = args[at] if len(args) > at else 0
    return dim + of.dim() if dim < 0 else dim


def _order(name: str, args: Any, count: int) -> list[int]:
    """The order of dimensions that an operation gives."""
    if name == "permute":
        return [dim % count for dim in args[1]]
    order = list(range(count))
    if name == "t" and count < 2:
        return order
    one, other = (0, 1) if name == "t" else (args[1] % count, args[2] % count)
    order[one], order[other] = other, one
    return order
