"""Read the input of a proof from a file: a tensor, a tuple or list of them, or a dict by name."""

from pathlib import Path
from typing import TYPE_CHECKING

from ckpt.errors import FormatError, UsageError
from ckpt.formats import torch_zip
from ckpt.formats.paths import open_path
from ckpt.formats.pickle.describe import is_tensor
from ckpt.formats.pickle.tensors import Storages, entry_of
from ckpt.ops.load import open as open_lazily
from ckpt.writing.whole import tensor_of

if TYPE_CHECKING:
    from torch import Tensor


def read_inputs(path: Path) -> "list[Tensor] | dict[str, Tensor]":
    """The tensors of a file, by place or by name; nothing in it is executed.

    Raises:
        FormatError: It holds something else.
    """
    single = _single(path)
    if single is not None:
        return [single]
    with open_lazily(path) as lazy:
        others = [key for key in lazy.rest if not key.startswith("_")]
        if others:
            raise FormatError(
                f"{path}: {others[0]} is not a tensor",
                hint="torch.save a tensor, a tuple of tensors, or a dict of tensors by argument",
            )
        tensors = {key: tensor.clone() for key, tensor in lazy.items()}
    if [*tensors] == [str(at) for at in range(len(tensors))]:
        return list(tensors.values())
    for key in tensors:
        if not key.isidentifier():
            raise UsageError(f"{path}: {key!r} is not the name of an argument")
    return tensors


def _single(path: Path) -> "Tensor | None":
    """The tensor, if the file of torch.save holds nothing else."""
    with open_path(path) as source:
        if not torch_zip.recognises(source.read(0, min(source.size, 256))):
            return None
        archive = torch_zip.open_archive(source)
        if not is_tensor(archive.root):
            return None
        entry = entry_of("the tensor", archive.root, Storages(archive.storage), name=str(path))
        return tensor_of(archive.source, entry)
