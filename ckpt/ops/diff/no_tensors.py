"""Keys that hold no tensor, such as a module's ``_extra_state``: keys like any other.

Their values are compared if the pickle holds them whole; those that contain tensors are not.
"""

from collections.abc import Mapping
from dataclasses import replace

from ckpt.formats.opaque import torch_file
from ckpt.formats.pickle.find import EXTRA_STATE
from ckpt.opened.states import OpenedState, OpenedVersion
from ckpt.tensors import NOT_A_TENSOR, TensorEntry
from ckpt.writing.outcome import followers


def entries_without_tensors(side: OpenedState) -> list[TensorEntry]:
    """The modules' keys without a tensor, with a digest of each value that can be compared."""
    if isinstance(side, OpenedVersion) and not _names_some(side.manifest.rest):
        return []  # the version's file need not be read
    file = torch_file(side.checkpoint)
    digests = file.state.digests if file is not None else {}
    plain = TensorEntry("", NOT_A_TENSOR, ())
    return [replace(plain, key=key, digest=digests.get(key)) for key in followers(side.state)]


def _names_some(rest: Mapping[str, object]) -> bool:
    """Whether the non-tensor part may hold such keys; its description is limited in length."""
    return any(
        "." in key
        or key == EXTRA_STATE
        or value == "…"
        or (isinstance(value, Mapping) and key != "_metadata" and _names_some(value))
        for key, value in rest.items()
    )
