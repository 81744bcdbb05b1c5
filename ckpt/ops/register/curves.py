"""Curves that somebody registers: numbers by epoch, as a record keeps them."""

from collections.abc import Mapping
from typing import Any

from ckpt.errors import UsageError
from ckpt.io.documents.strict_json import plain


def recorded_curves(curves: object) -> dict[str, Any]:
    """The curves as the field of a record; none if there are none.

    Args:
        curves: A dict of a number for each epoch, by quantity; also tensors or arrays of one.

    Raises:
        UsageError: They have different lengths, or something that is not a number.
    """
    if not isinstance(curves, Mapping):
        hint = 'curves={"loss": [0.5, 0.2]}'
        raise UsageError(f"curves: {type(curves).__name__}, expected a dict of lists", hint=hint)
    if not curves:
        return {}
    lists = {str(name): _floats(name, values) for name, values in curves.items()}
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1 or 0 in lengths:
        found = ", ".join(f"{len(values):,} of {name}" for name, values in lists.items())
        raise UsageError(f"curves: {found}; expected a number for each epoch of each")
    return {"curves": plain(lists)}


def _floats(name: str, values: Any) -> list[float]:
    try:
        if isinstance(values, str | bytes):
            raise TypeError("its characters are not epochs")
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        hint = f'curves={{"{name}": [0.5, 0.2]}}'
        raise UsageError(f"curves: {name} is not a list of numbers", hint=hint) from error
