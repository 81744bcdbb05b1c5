"""Containers: files that hold named tensors, read without running anything in them.

Every format is a module of this package with the same few names (`checkpoint.Format`), found
by a table and imported on demand. Formats are recognised by content, never by suffix.
"""

from importlib import import_module
from pathlib import Path
from typing import cast

from ckpt.errors import FormatError, UsageError, excerpt
from ckpt.formats.checkpoint import Checkpoint, Format
from ckpt.formats.foreign import foreign
from ckpt.formats.pickle.find import ALL, COPIES
from ckpt.io.sources import ByteSource
from ckpt.refs import SUFFIXES
from ckpt.tensors import MOST_PARTS, is_key

__all__ = ["ALL", "COPIES", "format_for", "format_of", "is_usual", "open_checkpoint"]

_MODULES = ("safetensors", "torch_zip", "torch_legacy")
_CONTAINERS = {"safetensors": ("safetensors",), "torch_zip": ("torch-zip", "torch-legacy")}
_HEAD_BYTES = 512
# Suffixes of files that no checkpoint is.
_OTHERS = (
    *(".onnx", ".gguf", ".h5", ".hdf5", ".keras", ".msgpack", ".tflite", ".mlmodel", ".pb"),
    *(".npz", ".npy", ".json", ".txt", ".yaml", ".toml", ".csv", ".py", ".zip", ".gz"),
)


def open_checkpoint(source: ByteSource, *, inside: str | None = None) -> Checkpoint:
    """Open the checkpoint in `source`, without reading its tensors.

    Args:
        source: A file, several files joined, or a version put together.
        inside: The state_dict of a training checkpoint, as after ``FILE::``, e.g. ``model``.

    Raises:
        FormatError: It is not a checkpoint, or not a well-formed one.
    """
    if len(source.parts) == 1:
        checkpoint = open_single(source, inside=inside)
    else:
        # The first of several files tells the format: JSON, or the pickle of a `.metadata`.
        form = _load("distributed.folder" if source.read(0, 1) == b"\x80" else "sharded")
        checkpoint = form.read(source, inside=inside)
    for entry in checkpoint.entries:
        if not is_key(entry.key):
            raise FormatError(
                f"{source.name}: the key {excerpt(entry.key)} has more than {MOST_PARTS} parts"
            )
    return checkpoint


def open_single(source: ByteSource, *, inside: str | None = None) -> Checkpoint:
    """Open one file, which may be a part of a larger checkpoint."""
    head = source.read(0, min(_HEAD_BYTES, source.size))
    for name in _MODULES:
        form = _load(name)
        if form.recognises(head):
            return form.read(source, inside=inside)
    raise foreign(source.name, head)


def format_for(path: Path) -> Format:
    """The format that the suffix of `path` asks for.

    Raises:
        UsageError: No format has this suffix.
    """
    name = SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise UsageError(f"{path}: unknown suffix, expected one of {', '.join(SUFFIXES)}")
    return _load(name)


def expect_suffix(path: Path) -> None:
    """Make sure that a container may be copied to `path`: its suffix promises no other format.

    Raises:
        UsageError: It is the suffix of another format, or nearly one of ours.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return
    from difflib import get_close_matches

    near = get_close_matches(suffix, SUFFIXES, n=1, cutoff=0.7)
    if near or not suffix or suffix in _OTHERS:
        meant = ", ".join(near or SUFFIXES)
        raise UsageError(f"{path}: unknown suffix, expected {'' if near else 'one of '}{meant}")


def format_of(container: str) -> Format:
    """The format that writes the content of a container as one file: its own, or the nearest."""
    return _load("safetensors" if "safetensors" in container else "torch_zip")


def is_usual(path: Path, container: str) -> bool:
    """Whether a file of this container usually has the suffix of `path`, or `path` has none.

    The two containers of torch share their suffixes.
    """
    name = SUFFIXES.get(path.suffix.lower())
    return name is None or container in _CONTAINERS[name]


def _load(name: str) -> Format:
    return cast("Format", import_module(f"ckpt.formats.{name}"))
