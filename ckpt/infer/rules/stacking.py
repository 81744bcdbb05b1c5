r"""Stacked experts as rules: two or three for all layers.

Parts of one expert are joined first, e.g. into ``experts.0.gate_up_proj``, and then these are
stacked into ``experts.gate_up_proj``; or it is unstacked, and then split. The renames that
follow give the final names.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ckpt.infer.result import InferredOperation
from ckpt.infer.rules.covering import patterns_for
from ckpt.infer.rules.cutting import escaped

_LAST = ("weight", "bias", "kernel")

Table = dict[str, Any]


def tables_of_stacks(
    operations: Sequence[InferredOperation], keys: Sequence[str], mark: str = ""
) -> list[Table]:
    """The rules of all stacks and unstacks, as the tables of a rule file.

    Args:
        operations: Those of an inference; others are left out.
        keys: The keys before these rules.
        mark: Behind the names that the rules give. With a mark every operation has rules of its
            own; else those of one kind share them, which may find too much.
    """
    stacks, unstacks = (
        [one for one in operations if one.verb == verb] for verb in ("stack", "unstack")
    )
    used = {key for one in stacks for key in one.sources}
    after = [key for key in keys if key not in used]
    after += [old for one in stacks for old, _ in renames_of(one, mark)]
    tables = [
        *_turned([one.sources[0] for one in unstacks if one.dims], keys),
        *(table for one in unstacks for table in _unstack(one, mark)),
        *(table for one in stacks for table in _stack(one, mark)),
        *_turned([renames_of(one, mark)[0][0] for one in stacks if one.dims], after),
    ]
    return [*{repr(table): table for table in tables}.values()]


def renames_of(one: InferredOperation, mark: str = "") -> list[tuple[str, str]]:
    """The keys after the rules of a stack or an unstack, and their final keys."""
    if one.verb == "stack":
        module, _ = _parts_of(one.sources, one)
        name = _divided(one.targets[0])[1]
        return [(_under(module, name) + mark, one.targets[0])]
    module, _ = _divided(one.sources[0])
    _, parts = _parts_of(one.targets, one)
    count = len(one.targets) // len(parts)
    made = (_under(module, f"{number}.{part}") for number in range(count) for part in parts)
    return [(old + mark, new) for old, new in zip(made, one.targets, strict=True)]


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


def _turned(wanted: Sequence[str], keys: Sequence[str]) -> Iterator[Table]:
    """The rules that transpose every slice of some stacked tensors."""
    there = {*wanted}
    others = [key for key in keys if key not in there]
    yield from ({"transpose": it, "dims": [1, 2]} for it in patterns_for(wanted, others))


def _stack(one: InferredOperation, mark: str) -> Iterator[Table]:
    module, parts = _parts_of(one.sources, one)
    start, place = _place(module, whole=bool(mark))
    name = _divided(one.targets[0])[1]
    if len(parts) > 1:
        yield {
            "concat": [rf"{start}({escaped(place)}\d+)\.{escaped(part)}$" for part in parts],
            "into": f"{{1}}.{name}{mark}",
        }
        parts = [name + mark]
    numbered = rf"{start}{escaped(place)}(\d+)\.{escaped(parts[0])}$"
    yield {"stack": numbered, "into": f"{place}{name}{mark}"}


def _unstack(one: InferredOperation, mark: str) -> Iterator[Table]:
    module, name = _divided(one.sources[0])
    _, parts = _parts_of(one.targets, one)
    start, place = _place(module, whole=bool(mark))
    single = f"{place}{{i}}.{name if len(parts) > 1 else parts[0]}{mark}"
    yield {"unstack": rf"{start}{escaped(place)}{escaped(name)}$", "into": single}
    if len(parts) > 1:
        table: Table = {
            "split": rf"{start}({escaped(place)}\d+)\.{escaped(name + mark)}$",
            "into": [f"{{1}}.{part}{mark}" for part in parts],
        }
        yield table | ({"sizes": [*one.sizes]} if len({*one.sizes}) > 1 else {})


def _divided(key: str) -> tuple[str, str]:
    """The module of a stacked tensor, and its name, e.g. ``gate_up_proj`` or ``up.weight``."""
    parts = key.split(".")
    size = 2 if parts[-1] in _LAST and len(parts) > 1 else 1
    return ".".join(parts[:-size]), ".".join(parts[-size:])


def _under(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _place(module: str, *, whole: bool) -> tuple[str, str]:
    """The start of a pattern, and what it finds of a module: the last part, or all of it."""
    if whole:
        return "^", f"{module}." if module else ""
    return r"\b", f"{module.rpartition('.')[2]}." if module else ""
