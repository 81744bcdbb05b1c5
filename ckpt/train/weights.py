"""Weights of a finished run: onto the disk, and back the way any reader would take them.

Law: what is read back fits a new module of the same definition, strictly.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ckpt.errors import FitError, UsageError
from ckpt.io.files import already_exists, write_whole
from ckpt.refs import SUFFIXES


def check_destination(path: Path, *, replace: bool) -> None:
    """Find out before the training what would be found out after it.

    Raises:
        UsageError: The suffix is no format's, the folder is missing, or the name is taken.
    """
    if path.suffix not in SUFFIXES:
        expected = ", ".join(SUFFIXES)
        raise UsageError(f"{path}: no known suffix, expected one of {expected}")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if not replace and path.exists():
        raise already_exists(path)


def portable(model: nn.Module) -> dict[str, Any]:
    """The state_dict, copied to the CPU, each tensor row-major and with a storage of its own.

    A storage of its own: a view would take everything that it looks at into the file. And
    copied into a new one: `contiguous` leaves a channels-last tensor with one channel the
    strides that it has.
    """
    state = model.state_dict()
    for key, value in state.items():
        if isinstance(value, Tensor):
            state[key] = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
    return state


def write_weights(state: Mapping[str, Any], path: Path, *, replace: bool) -> None:
    """Save what `portable` gave, in the format of the suffix; whole or not at all."""
    with write_whole(path, replace=replace) as out:
        if path.suffix == ".safetensors":
            import safetensors.torch

            tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
            out.write(safetensors.torch.save(tensors, metadata={"format": "pt"}))
        else:
            # Given a path, torch.save would name the archive's folder after the file.
            buffer = io.BytesIO()
            torch.save(state, buffer)
            out.write(buffer.getbuffer())


def read_weights(model: nn.Module, path: Path) -> None:
    """Load a file into `model`, strictly.

    Raises:
        FitError: The file's keys or shapes are not the model's.
    """
    if path.suffix == ".safetensors":
        import safetensors.torch

        state = safetensors.torch.load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    load_strictly(model, state, f"{path}: does not fit what it was saved from")


def load_strictly(
    model: nn.Module, state: Mapping[str, Tensor], complaint: str, hint: str | None = None
) -> None:
    """Give `model` the tensors of a state_dict, all of them and no others.

    Raises:
        FitError: The keys or shapes are not the model's; `complaint` begins the message.
    """
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FitError(f"{complaint}: {reason}", hint=hint) from error
