"""A checkpoint, opened, that is written in another form: without something, or in another order."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt.errors import FormatError
from ckpt.formats import COPIES, open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import OpaqueWord, without_opaque, without_optimizer
from ckpt.opened.states import OpenedState, OpenedVersion

if TYPE_CHECKING:
    from ckpt.formats.optimizers import Groups


def settled(opened: OpenedState, opaque: OpaqueWord | None) -> tuple[OpenedState, Sequence[str]]:
    """The same without opaque objects if `opaque` says so, and what is gone."""
    if opaque != "drop":
        return opened, ()
    checkpoint, changed = without_opaque(opened.checkpoint, opened.inside)
    return _with(opened, checkpoint), changed


def without_optimizers(opened: OpenedState) -> tuple[OpenedState, Sequence[str]]:
    """The same without its optimizers, and their paths.

    Raises:
        UsageError: Something else would be lost with them.
    """
    checkpoint, gone = without_optimizer(opened.checkpoint, opened.inside)
    return _with(opened, checkpoint), gone


def reordered(opened: OpenedState, orders: "Mapping[str, Groups]") -> OpenedState:
    """The same, whose optimizers get another order of parameters when it is renamed."""
    if not orders:
        return opened
    from ckpt.formats.torch_state import TorchFile

    checkpoint = opened.checkpoint
    assert isinstance(checkpoint, TorchFile)  # no other file has orders
    return _with(opened, checkpoint.reordered(orders))


def numbered(opened: OpenedState, numbers: Mapping[str, int | None]) -> OpenedState:
    """The same, whose root module has other numbers in `_metadata`; None removes one.

    Raises:
        FormatError: The file has versions of modules, and these cannot be changed.
    """
    if not numbers:
        return opened
    from ckpt.formats.torch_state import TorchFile

    checkpoint = opened.checkpoint
    if not isinstance(checkpoint, TorchFile):
        raise FormatError(
            f"{opened.name}: the versions of modules in this file cannot be changed",
            hint="-o FILE.safetensors  writes the tensors without them",
        )
    return _with(opened, checkpoint.numbered(numbers))


def with_copies(opened: OpenedState) -> OpenedState:
    """The same, in which a rename of a version's state_dict renames all copies of it."""
    if not isinstance(opened, OpenedVersion) or not opened.inside:
        return opened
    return _with(opened, open_checkpoint(opened.source, inside=opened.inside + COPIES))


def _with(opened: OpenedState, checkpoint: Checkpoint) -> OpenedState:
    if checkpoint is opened.checkpoint:
        return opened
    opened = copy(opened)
    if isinstance(opened, OpenedVersion):
        vars(opened)["checkpoint"] = checkpoint
        return opened
    return replace(opened, checkpoint=checkpoint)
