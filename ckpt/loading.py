"""Loading: what `load_state_dict` of a definition says to a state_dict.

torch is asked itself, on the meta device, with keys, shapes, dtypes and the versions of modules,
so that hooks and classes that convert old keys have their say. Values are never read.
"""

import re
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt.definitions import Definition
from ckpt.definitions.importing import own_code
from ckpt.errors import CkptError
from ckpt.tensors import StateDict, with_versions

if TYPE_CHECKING:
    from torch import nn

# The messages of torch 2.13, `nn.Module.load_state_dict` and `_load_from_state_dict`.
_REFUSED = "Error(s) in loading state_dict for"
_LISTS = ("Missing key(s) in state_dict", "Unexpected key(s) in state_dict")
_META = re.compile(r"\bmeta (tensor|device)")  # torch, of code that reads a value on that device
_SIZE = re.compile(r"size mismatch for (.+?): copying a param with shape ")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of torch; it accepts the state_dict if there is nothing in it.

    Attributes:
        missing: The keys that it misses.
        unexpected: The keys that it does not expect.
        reshaped: The keys whose shape is another one.
        complaints: What else it says, a line each.
        unasked: Why it could not be asked; None if it was.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    unasked: str | None = None


def ask_torch(definition: Definition, state: StateDict, *, strict: bool = True) -> Answer:
    """Load a state_dict without values into a module of a definition.

    Not strictly, torch accepts missing and unexpected keys, and the answer lists them.
    """
    import torch

    module = definition.unused()
    given: OrderedDict[str, object] = OrderedDict()
    for entry in state.entries:
        dtype = getattr(torch, entry.dtype, torch.uint8)
        given[entry.key] = torch.empty(entry.shape, dtype=dtype, device="meta")
    given.update(dict.fromkeys(state.others))
    with_versions(given, state.versions)
    lists: list[tuple[list[str], list[str]]] = []
    try:
        with own_code(definition.ref), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _prepare(module)
            module.register_load_state_dict_post_hook(
                lambda _, keys: lists.append((keys.missing_keys, keys.unexpected_keys))
            )
            module.load_state_dict(given, strict=strict)
    except CkptError as error:
        cause = error.__cause__
        return _refusal(cause or error, *_last(lists))
    return Answer() if strict else Answer(*_last(lists))


def _last(lists: Sequence[tuple[list[str], list[str]]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The missing and the unexpected keys that the root module reports, after all hooks."""
    missing, unexpected = lists[-1] if lists else ([], [])
    return tuple(missing), tuple(unexpected)


def _prepare(module: "nn.Module") -> None:
    """Put a module wholly on the meta device, and let it take any extra state.

    The keys decide whether extra state is accepted; its value is not known here.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(not tensor.is_meta for tensor in tensors):
        module.to_empty(device="meta")
    for inner in module.modules():
        vars(inner)["set_extra_state"] = lambda _: None  # goes before the class's own


def _refusal(error: BaseException, missing: tuple[str, ...], unexpected: tuple[str, ...]) -> Answer:
    text = str(error)
    if not text.startswith(_REFUSED):
        said = f"{type(error).__name__}: {' '.join(text.split())}"
        if isinstance(error, NotImplementedError) or _META.search(text):
            return Answer(unasked=f"its loading code needs values ({said})")
        return Answer(complaints=(f"its loading code raises {said}",))
    lines = [" ".join(line.split()) for line in text.split("\n\t")[1:]]
    if missing or unexpected:
        lines = [line for line in lines if not line.startswith(_LISTS)]
    sizes = [_SIZE.match(line) for line in lines]
    return Answer(
        missing,
        unexpected,
        tuple(found[1] for found in sizes if found),
        tuple(line for line, found in zip(lines, sizes, strict=True) if not found),
    )
