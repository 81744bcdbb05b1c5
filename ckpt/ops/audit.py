"""Audit: whether unpickling a file may run code."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import fspath

from ckpt.errors import AmbiguousStateError, FormatError
from ckpt.formats.opaque import ForeignGlobal, foreign_globals
from ckpt.opened import open_state
from ckpt.opened.named import Named
from ckpt.refs import several
from ckpt.registry.registry import InRegistry, Registry


@dataclass(frozen=True, slots=True)
class Audited:
    """The verdict on one file or version.

    Attributes:
        name: As it was named.
        foreign: The globals in its pickle that torch's weights_only refuses.
        reason: Why it cannot be judged; None if it can.
    """

    name: str
    foreign: tuple[ForeignGlobal, ...] = ()
    reason: str | None = None

    @property
    def code(self) -> tuple[ForeignGlobal, ...]:
        """The globals that may run code when the file is unpickled."""
        return tuple(found for found in self.foreign if found.runs_code)

    @property
    def harmless(self) -> bool:
        """Whether nothing runs, whatever unpickles it."""
        return self.reason is None and not self.code


def audit(
    refs: Named | Iterable[Named], *, registry: InRegistry | None = None
) -> tuple[Audited, ...]:
    """Judge files and versions, reading their headers and pickles only.

    Args:
        refs: One or several.
        registry: The registry; None finds it as the command line does.

    Raises:
        RefError: One of them does not exist.
    """
    registry = Registry.of(registry)
    names: tuple[Named, ...] = several(refs)
    return tuple(_audited(fspath(name), registry) for name in names)


def _audited(ref: str, registry: Registry) -> Audited:
    try:
        try:
            return Audited(ref, _foreign(ref, registry))
        except AmbiguousStateError as error:  # one state_dict opens the whole file
            return Audited(ref, _foreign(f"{ref}::{error.names[0]}", registry))
    except FormatError as error:
        return Audited(ref, reason=str(error).removeprefix(f"{ref}: "))


def _foreign(ref: str, registry: Registry) -> tuple[ForeignGlobal, ...]:
    with open_state(ref, registry) as opened:
        return foreign_globals(opened.checkpoint)
