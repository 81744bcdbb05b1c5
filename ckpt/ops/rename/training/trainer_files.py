"""The files that a trainer keeps beside the weights of a folder, above all its optimizer.

transformers' Trainer and accelerate save `optimizer.pt` or `optimizer.bin`, which numbers the
parameters by their order in the class. Law: it is written into the new folder with the parameters
of the new class, or it is not written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ckpt.errors import PlanError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.folders import optimizers_in, trainer_files_in
from ckpt.formats.opaque import torch_file
from ckpt.formats.paths import open_path
from ckpt.formats.stream import layout_bytes
from ckpt.formats.zip.writer import length_of
from ckpt.opened.states import OpenedFile, OpenedState
from ckpt.ops.rename.training.optimizers import (
    MovedOptimizer,
    moved_optimizers,
    operates,
    regrouped_optimizers,
)
from ckpt.rules.plan import Plan
from ckpt.side_files import Found, Readable, named

if TYPE_CHECKING:
    from ckpt.definitions import Definition
    from ckpt.writing.moments import RegroupedOptimizer
    from ckpt.writing.remade import RemadeOptimizers

Changes: TypeAlias = "Sequence[MovedOptimizer] | Sequence[RegroupedOptimizer]"
OptimizerFiles = Mapping[str, Changes]  # by name, what changes in it


def moved_files(
    opened: OpenedState,
    plan: Plan,
    new: "Definition",
    old: "Definition | None",
    *,
    in_part: bool,
) -> OptimizerFiles:
    """Work out how the optimizers beside the weights of a folder follow a plan.

    Args:
        opened: The checkpoint; nothing follows unless it was named by its folder.
        plan: The plan.
        new: The class that the result fits.
        old: The class that the folder was saved from; None takes the order of its keys.
        in_part: Whether the result fits only in part.

    Raises:
        PlanError: They cannot follow.
        FormatError: One is not a file of torch, or holds no tensors.
    """
    if not isinstance(opened, OpenedFile) or not opened.path.is_dir():
        return {}
    found: dict[str, Changes] = {}
    for name in optimizers_in(opened.path):
        with _opened(opened.path / name) as checkpoint:
            file = torch_file(checkpoint)
            if file is None or len(file.state.optimizers) != 1:
                raise PlanError(f"{name}: not the state of one optimizer")
            if operates(plan, in_part=in_part):
                found[name] = regrouped_optimizers(opened, plan, new, old, of=checkpoint)
            else:
                found[name] = moved_optimizers(opened, plan, new, old, of=file)
            _written(checkpoint, plan, found[name])  # may refuse
    return found


def with_trainer_files(found: Found, folder: Path, plan: Plan, moved: OptimizerFiles) -> Found:
    """The side files of a folder and its trainer's, whose optimizers follow.

    Args:
        found: The side files.
        folder: The folder.
        plan: The plan.
        moved: What `moved_files` gave for it; nothing is added if that is empty.
    """
    if not moved:
        return found
    names = trainer_files_in(folder)
    files = [
        _moved(file, folder / file.name, plan, moved[file.name]) if moved.get(file.name) else file
        for file in named(folder / name for name in names)
    ]
    left = tuple(name for name in found.left if name not in names)
    return Found((*found.files, *files), left)


def _moved(file: Readable, path: Path, plan: Plan, moved: Changes) -> Readable:
    with _opened(path) as checkpoint:
        nbytes = sum(map(length_of, _written(checkpoint, plan, moved).layout))
    return replace(file, nbytes=nbytes, chunks=partial(_stream, path, plan, moved))


def _stream(path: Path, plan: Plan, moved: Changes) -> Iterator[bytes]:
    with _opened(path) as checkpoint:
        new = _written(checkpoint, plan, moved)
        yield from layout_bytes(new.layout, new.source)
        new.finish()


@contextmanager
def _opened(path: Path) -> Iterator[Checkpoint]:
    with open_path(path) as source:
        yield open_checkpoint(source)


def _written(checkpoint: Checkpoint, plan: Plan, moved: Changes) -> "RemadeOptimizers":
    """The new file of an optimizer.

    Raises:
        PlanError: It holds objects that cannot be written again.
    """
    from ckpt.writing.remade import remade_optimizers

    file = torch_file(checkpoint)
    assert file is not None
    orders = {it.path: it.after for it in moved if isinstance(it, MovedOptimizer)}
    made = [it for it in moved if not isinstance(it, MovedOptimizer)]
    new = remade_optimizers(checkpoint, plan, made, file.state.without((), orders))
    if new.changed and moved:
        raise PlanError(f"{checkpoint.source.name}: cannot be written again with {new.changed[0]}")
    return new
