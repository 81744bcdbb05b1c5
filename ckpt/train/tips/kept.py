"""Memory that graphs hold, and tensors that outlive a step.

torch tells every tensor that a graph saves for its backward pass; how long it lives is how long
the graph, or the backward pass, needs it. Counted are storages, so views count once.
"""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_DEEPEST = 3  # levels of containers in a module's attributes


class Graphs:
    """Bytes that graphs hold, but for a model's parameters and buffers.

    Attributes:
        most: The most at one time.
    """

    def __init__(self, model: nn.Module) -> None:
        own = (*model.parameters(), *model.buffers())
        self._own = {each.untyped_storage().data_ptr() for each in own}
        self._holders: Counter[int] = Counter()
        self._bytes: dict[int, int] = {}
        self.most = 0

    @property
    def now(self) -> int:
        """Bytes that are held now."""
        return sum(self._bytes.values())

    @property
    def storages(self) -> Mapping[int, int]:
        """Bytes of each storage that is held now, by its address."""
        return self._bytes

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the graphs that are made in the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._packed, lambda saved: saved.tensor):
            yield

    def _packed(self, tensor: Tensor) -> "_Saved":
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in self._own:
            self._holders[place] += 1
            self._bytes[place] = storage.nbytes()
            self.most = max(self.most, self.now)
        # Detached: a result that its own graph holds would keep both alive for ever.
        return _Saved(tensor.detach(), place, self)

    def dropped(self, place: int) -> None:
        """Forget one holder of a storage."""
        if place in self._own:
            return
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place], self._bytes[place]


class _Saved:
    """A tensor that a graph holds; told when it goes."""

    __slots__ = ("graphs", "place", "tensor")

    def __init__(self, tensor: Tensor, place: int, graphs: Graphs) -> None:
        self.tensor, self.place, self.graphs = tensor, place, graphs

    def __del__(self) -> None:
        self.graphs.dropped(self.place)


def alive(graphs: Graphs) -> int:
    """Bytes of all tensors of this process: those that Python sees and those in `graphs`."""
    gc.collect()
    found = dict(graphs.storages)
    for each in gc.get_objects():
        # The type first: isinstance asks lazy modules for attributes, which imports them.
        kind = type(each)
        if not issubclass(kind, Tensor) or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
            continue  # what answers for other tensors, or for none, has no bytes of its own
        if each.layout == torch.strided:
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def collections_of(model: nn.Module) -> dict[str, int]:
    """The number of tensors in each list, dict or other container that a module has."""
    found = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, list | dict | tuple | set) or hasattr(value, "maxlen"):
                is_torchs = name.startswith("_") and name in vars(nn.Module())
                if not is_torchs:
                    found[f"{path}.{name}".removeprefix(".")] = _count(value)
    return found


def _count(value: Any, depth: int = 0) -> int:
    if isinstance(value, Tensor):
        return 1
    if depth == _DEEPEST:
        return 0
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set) and not hasattr(value, "maxlen"):
        return 0
    return sum(_count(each, depth + 1) for each in value)
