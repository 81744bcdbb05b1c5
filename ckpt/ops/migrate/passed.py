"""Tensors that one process hands to another, in a file of `torch.save`; `ckpt.load` reads it."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt.migrate.child import plain
from ckpt.ops.load import load
from ckpt.prove.arguments import Inputs
from ckpt.tensors import StateDict, with_versions

if TYPE_CHECKING:
    from torch import Tensor

File = dict[str, Any]  # a JSON document that tells of the file


def put(path: Path, tensors: "Mapping[str, Tensor]") -> File:
    """Write tensors, and what tells another process of them.

    Args:
        path: A new file.
        tensors: By a name, which may be any text.
    """
    import torch

    numbered = {str(at): it.detach().cpu() for at, it in enumerate(tensors.values())}
    torch.save(numbered, path)
    versions = plain(StateDict((), versions=getattr(tensors, "_metadata", None)))["versions"]
    return {"path": str(path), "names": [*tensors], "versions": versions}


def taken(file: File) -> "OrderedDict[str, Tensor]":
    """Read what `put` wrote, and remove its file."""
    path, names = Path(file["path"]), file["names"]
    found = load(path) if names else {}
    path.unlink()
    made = OrderedDict((name, found[str(at)]) for at, name in enumerate(names))
    return with_versions(made, file["versions"])


def put_inputs(path: Path, inputs: Inputs) -> File:
    """Write the inputs of a model: those by name under ``=name``."""
    places = {str(at): it for at, it in enumerate(inputs.places)}
    named: dict[str, Tensor] = {f"={name}": it for name, it in inputs.names.items()}
    return put(path, places | named)


def taken_inputs(file: File) -> Inputs:
    """The inputs that `put_inputs` wrote."""
    found = taken(file)
    return Inputs(
        tuple(it for name, it in found.items() if name[0] != "="),
        {name[1:]: it for name, it in found.items() if name[0] == "="},
    )
