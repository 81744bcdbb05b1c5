"""Redo: bring back the change that the last undo reverted."""

from ckpt.errors import RefError
from ckpt.ops.undo import Undone, revert
from ckpt.registry.history.undoing import Written
from ckpt.registry.registry import InRegistry, Registry


def redo(*, message: str = "", registry: InRegistry | None = None) -> Undone:
    """Undo the last undo that is not undone itself.

    Args:
        message: Why, for the history.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: There is none.
        ConflictError: Something that it changed has changed again since.
    """
    registry = Registry.of(registry)
    registry.expect_there()
    return revert(registry, _last_undo, named=True, message=message)


def _last_undo(writes: list[Written]) -> list[Written]:
    last = next((each for each in writes if each.undoes and not each.is_undone), None)
    if last is None:
        raise RefError("nothing to redo: no undo made on this machine is left")
    return [last]
