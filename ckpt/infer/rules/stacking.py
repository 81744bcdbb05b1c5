r"""Stacked experts as rules: two or three for all layers.

Parts of one expert are joined first, e.g. into ``experts.0.gate_up_proj``, and then these are
stacked into ``experts.gate_up_proj``; or it is unstacked, and then split. The renames that
follow give the final names.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ckpt.infer.result import InferredOperation
from ckpt.infer.rules.cutting import escaped

_LAST = ("weight", "bias", "kernel")

Table = dict[str, Any]


def tables_of_stacks(operations: Iterable[InferredOperation]) -> list[Table]:
    """The rules of all stacks and unstacks, as the tables of a rule file."""
    tables: dict[str, Table] = {}
    for one in operations:
        if one.verb == "stack":
            made = _stack(one)
        elif one.verb == "unstack":
            made = _unstack(one)
        else:
            continue
        tables |= {repr(table): table for table in made}
    return [*tables.values()]


def renames_of(one: InferredOperation) -> list[tuple[str, str]]:
    """The keys after the rules of a stack or an unstack, and their final keys."""
    if one.verb == "stack":
        module, parts = _parts_of(one.sources, one)
        return [(_under(module, _stem(one.targets[0])), one.targets[0])]
    module, _ = _divided(one.sources[0])
    _, parts = _parts_of(one.targets, one)
    count = len(one.targets) // len(parts)
    made = (_under(module, f"{number}.{part}") for number in range(count) for part in parts)
    return [*zip(made, one.targets, strict=True)]


def _parts_of(keys: Sequence[str], one: InferredOperation) -> tuple[str, list[str]]:
    """The module of the numbered tensors of a stack, and the names of the parts of a slice."""
    slices = len(keys) // max(1, len(one.sizes))
    first, other = keys[0].split("."), keys[-1].split(".")
    place = next(
        number
        for number, (a, b) in enumerate(zip(first, other, strict=False))
        if a != b and (a, b) == ("0", str(slices - 1))
    )
    parts = [".".join(key.split(".")[place + 1 :]) for key in keys[: max(1, len(one.sizes))]]
    return ".".join(first[:place]), parts


def _stack(one: InferredOperation) -> Iterator[Table]:
    module, parts = _parts_of(one.sources, one)
    last, name = _last(module), _stem(one.targets[0])
    if len(parts) > 1:
        yield {
            "concat": [rf"\b({escaped(last)}\d+)\.{escaped(part)}$" for part in parts],
            "into": f"{{1}}.{name}",
        }
        parts = [name]
    yield {"stack": rf"\b{escaped(last)}(\d+)\.{escaped(parts[0])}$", "into": f"{last}{name}"}
    if one.dims:
        yield {"transpose": rf"\b{escaped(last)}{escaped(name)}$", "dims": [1, 2]}


def _unstack(one: InferredOperation) -> Iterator[Table]:
    module, name = _divided(one.sources[0])
    _, parts = _parts_of(one.targets, one)
    last, several = _last(module), len(parts) > 1
    if one.dims:
        yield {"transpose": rf"\b{escaped(last)}{escaped(name)}$", "dims": [1, 2]}
    single = name if several else parts[0]
    yield {"unstack": rf"\b{escaped(last)}{escaped(name)}$", "into": f"{last}{{i}}.{single}"}
    if several:
        table: Table = {
            "split": rf"\b({escaped(last)}\d+)\.{escaped(name)}$",
            "into": [f"{{1}}.{part}" for part in parts],
        }
        yield table | ({"sizes": [*one.sizes]} if len({*one.sizes}) > 1 else {})


def _divided(key: str) -> tuple[str, str]:
    """The module of a stacked tensor, and its name, e.g. ``gate_up_proj`` or ``up.weight``."""
    parts = key.split(".")
    size = 2 if parts[-1] in _LAST and len(parts) > 1 else 1
    return ".".join(parts[:-size]), ".".join(parts[-size:])


def _stem(key: str) -> str:
    return _divided(key)[1]


def _under(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _last(module: str) -> str:
    """The last part of a module with its dot; nothing for the root."""
    return f"{module.rpartition('.')[2]}." if module else ""
