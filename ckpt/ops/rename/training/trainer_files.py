"""The files that a trainer keeps beside the weights of a folder, above all its optimizer.

transformers' Trainer and accelerate save `optimizer.pt` or `optimizer.bin`, which numbers the
parameters by their order in the class. Law: it is written into the new folder in the order of the
new class, or it is not written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ckpt.errors import PlanError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.folders import optimizers_in, trainer_files_in
from ckpt.formats.opaque import LaidOut, torch_file
from ckpt.formats.paths import open_path
from ckpt.opened import OpenedFile, OpenedState
from ckpt.ops.rename.training.optimizers import MovedOptimizer, moved_optimizers
from ckpt.rules.plan import Plan
from ckpt.side_files import Found, Readable, named

if TYPE_CHECKING:
    from ckpt.definitions import Definition

OptimizerFiles = Mapping[str, Sequence[MovedOptimizer]]  # by name, what changes in it


def moved_files(
    opened: OpenedState, plan: Plan, new: "Definition", old: "Definition | None"
) -> OptimizerFiles:
    """Work out how the optimizers beside the weights of a folder follow a plan.

    Args:
        opened: The checkpoint; nothing follows unless it was named by its folder.
        plan: It only renames and drops.
        new: The class that the result fits.
        old: The class that the folder was saved from; None takes the order of its keys.

    Raises:
        PlanError: They cannot follow.
        FormatError: One is not a file of torch, or holds no tensors.
    """
    if not isinstance(opened, OpenedFile) or not opened.path.is_dir():
        return {}
    found = {}
    for name in optimizers_in(opened.path):
        with _opened(opened.path / name) as checkpoint:
            file = torch_file(checkpoint)
            if file is None or len(file.state.optimizers) != 1:
                raise PlanError(f"{name}: not the state of one optimizer")
            found[name] = moved_optimizers(opened, plan, new, old, of=file)
            _laid_out(checkpoint, found[name])  # may refuse
    return found


def with_trainer_files(found: Found, folder: Path, moved: OptimizerFiles) -> Found:
    """The side files of a folder and its trainer's, whose optimizers follow.

    Args:
        found: The side files.
        folder: The folder.
        moved: What `moved_files` gave for it; nothing is added if that is empty.
    """
    if not moved:
        return found
    names = trainer_files_in(folder)
    files = [
        _moved(file, folder / file.name, moved[file.name]) if moved.get(file.name) else file
        for file in named(folder / name for name in names)
    ]
    left = tuple(name for name in found.left if name not in names)
    return Found((*found.files, *files), left)


def _moved(file: Readable, path: Path, moved: Sequence[MovedOptimizer]) -> Readable:
    with _opened(path) as opened:
        nbytes = _laid_out(opened, moved).size
    return replace(file, nbytes=nbytes, chunks=partial(_stream, path, moved))


def _stream(path: Path, moved: Sequence[MovedOptimizer]) -> Iterator[bytes]:
    with _opened(path) as file:
        laid_out = _laid_out(file, moved)
        yield from laid_out.stream(0, laid_out.size)


@contextmanager
def _opened(path: Path) -> Iterator[Checkpoint]:
    with open_path(path) as source:
        yield open_checkpoint(source)


def _laid_out(checkpoint: Checkpoint, moved: Sequence[MovedOptimizer]) -> LaidOut:
    file = torch_file(checkpoint)
    assert file is not None
    orders = {optimizer.path: optimizer.after for optimizer in moved}
    layout, changed = file.plain(instead=file.state.without((), orders))
    if changed and moved:
        raise PlanError(f"{checkpoint.source.name}: cannot be written again with {changed[0]}")
    return LaidOut(checkpoint.source, layout)
