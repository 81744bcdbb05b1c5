"""One model of a proof: load a state_dict into it, and run it so that a run can be repeated."""

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import Parameter, signature
from typing import TYPE_CHECKING

from ckpt.definitions import Definition, load_strictly
from ckpt.prove.outputs import Outputs, tensors_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

State = Mapping[str, "Tensor"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of `forward`: those by place, and those by name."""

    places: tuple["Tensor", ...] = ()
    names: Mapping[str, "Tensor"] = field(default_factory=dict)

    def cast(self, dtype: "torch.dtype") -> "Inputs":
        """With floating-point tensors in another dtype."""

        def as_run(tensor: "Tensor") -> "Tensor":
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        return Inputs(
            tuple(map(as_run, self.places)), {k: as_run(it) for k, it in self.names.items()}
        )


@dataclass(frozen=True, slots=True)
class Side:
    """A definition and a model that it built, in eval mode.

    Attributes:
        renamed: Other names of arguments, by that of the input.
    """

    definition: Definition
    model: "nn.Module"
    renamed: Mapping[str, str] = field(default_factory=dict)

    def again(self) -> "Side":
        """With a new model: one that ran in another dtype may keep tensors of that."""
        return replace(self, model=self.definition.build().eval())

    def load(self, state: State, dtype: "torch.dtype") -> None:
        """Load a state_dict strictly, with the floating-point parameters in a dtype.

        What a module saves beside its tensors (`get_extra_state`) stays as it is.

        Raises:
            FitError: It does not fit.
        """
        import torch

        self.model.to(dtype)
        own = self.model.state_dict()
        extra = {k: v for k, v in own.items() if not isinstance(v, torch.Tensor)}
        given = OrderedDict[str, object]({**state, **extra})
        if versions := getattr(state, "_metadata", None):
            given._metadata = versions  # type: ignore[attr-defined]
        load_strictly(self.model, given, f"{self.definition.ref} does not fit this state_dict")  # type: ignore[arg-type]

    def run(self, inputs: Inputs, *, seed: int = 0, graph: bool = False) -> Outputs:
        """The outputs of one run, with a graph for gradients if `graph`; buffers do not change.

        Raises:
            RuntimeError: torch refuses the input.
            DefinitionError: The model raises anything else.
        """
        import torch

        with torch.set_grad_enabled(graph), _seeded(seed), _buffers_kept(self.model):
            return tensors_of(self._result(inputs), graph=graph)

    def _result(self, inputs: Inputs) -> object:
        names = {self.renamed.get(name, name): it for name, it in inputs.names.items()}
        return self.definition.run(self.model, *inputs.places, **names)


def places_of(model: "nn.Module", *, needed: bool = False) -> list[str]:
    """The arguments of `forward` that can be passed by place; if `needed`, without a default."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    known = [it for it in signature(model.forward).parameters.values() if it.kind in kinds]
    return [it.name for it in known if not needed or it.default is Parameter.empty]


def renamed_arguments(old: "nn.Module", new: "nn.Module") -> dict[str, str]:
    """The names that the new `forward` has for arguments of the old one, in the same place."""
    known = signature(new.forward).parameters
    pairs = zip(places_of(old), places_of(new), strict=False)
    return {name: other for name, other in pairs if name not in known}


@contextmanager
def seeded_runs() -> Iterator[None]:
    """Leave the generators of torch, Python and numpy as they were."""
    import torch

    numpy = sys.modules.get("numpy")
    python, other = random.getstate(), numpy and numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(other)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed all generators."""
    import torch

    torch.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    yield


@contextmanager
def _buffers_kept(model: "nn.Module") -> Iterator[None]:
    """Give a model's buffers back, whether a run replaces them or writes into them."""
    import torch

    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, before in kept:
            module._buffers[name] = buffer
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)


def first_outputs(side: Side, inputs: Inputs) -> "dict[str, Tensor]":
    """The first output of every module with parameters of its own, in the order of the run."""
    outputs: dict[str, Tensor] = {}

    def note(name: str, result: object) -> None:
        first = next(iter(tensors_of(result).values()), None)
        if first is not None:
            outputs.setdefault(name, first)

    handles = [
        module.register_forward_hook(lambda _module, _given, result, name=name: note(name, result))
        for name, module in side.model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        side.run(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
