"""Weights of a finished run: written to disk, and read back as any program would.

Law: they load strictly into a new module of the same definition.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ckpt.definitions import load_strictly
from ckpt.errors import UsageError
from ckpt.io.files import already_exists, write_whole
from ckpt.refs import SUFFIXES
from ckpt.train.sharding import whole


def check_destination(path: Path, *, replace: bool) -> None:
    """Refuse before the training a file that could not be written after it.

    Raises:
        UsageError: The suffix is unknown, the folder is missing, or the file already exists.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: unknown suffix, expected one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if not replace and path.exists():
        raise already_exists(path)


def portable(model: nn.Module) -> dict[str, Any]:
    """The state_dict, whole, copied to the CPU, each tensor row-major and in its own storage.

    Its own, because a view would take its whole storage into the file. Copied into a new one,
    because `contiguous` keeps the strides of a channels-last tensor with one channel.
    """
    state = model.state_dict()
    for key, value in state.items():
        if isinstance(value, Tensor):
            value = whole(value.detach())
            state[key] = torch.empty(value.shape, dtype=value.dtype).copy_(value)
    return state


def write_weights(state: Mapping[str, Any], path: Path, *, replace: bool) -> None:
    """Save the result of `portable` in the format of the suffix; whole or not at all.

    A file that has the same bytes already stays.

    Raises:
        UsageError: There is another one, and `replace` is false.
    """
    content = _content(state, path.suffix)
    if not replace and _holds(path, content):
        return
    with write_whole(path, replace=replace) as out:
        out.write(content)


def _holds(path: Path, content: bytes | memoryview) -> bool:
    same_size = path.is_file() and path.stat().st_size == len(content)
    return same_size and path.read_bytes() == content


def _content(state: Mapping[str, Any], suffix: str) -> bytes | memoryview:
    if suffix == ".safetensors":
        import safetensors.torch

        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        return safetensors.torch.save(tensors, metadata={"format": "pt"})
    # Given a path, torch.save would name the archive's folder after the file.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def read_weights(model: nn.Module, path: Path) -> None:
    """Load a file into `model`, strictly.

    Raises:
        FitError: Its keys or shapes are not the model's.
    """
    if path.suffix == ".safetensors":
        import safetensors.torch

        state = safetensors.torch.load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    load_strictly(model, state, f"{path}: does not fit the model that it was saved from")
