"""One model of a proof: load a state_dict into it, and run it so that a run can be repeated."""

import random
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ckpt.definitions import Definition, load_strictly, ties_of
from ckpt.prove.arguments import Inputs, places_of
from ckpt.prove.inputs import inputs_for
from ckpt.prove.outputs import Outputs, tensors_of
from ckpt.tensors import with_versions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ckpt.prove.inputs import Given

State = Mapping[str, "Tensor"]


class Model(Protocol):
    """What a proof asks of the old model, which may be in another process."""

    @property
    def ref(self) -> str:
        """The definition, in messages."""

    def places(self) -> list[str]:
        """The arguments of `forward` that can be passed by place."""

    def ties(self) -> Mapping[str, str]:
        """Keys of the same tensor as an earlier one."""

    def weights(self) -> "OrderedDict[str, Tensor]":
        """The tensors of its state_dict, and the versions of its modules."""

    def inputs(self, given: "Given") -> Iterable[Inputs]:
        """What to run on, best first: `inputs_for`."""

    def again(self) -> "Model":
        """With a new model: one that ran in another dtype may keep tensors of that."""

    def load(self, state: State, dtype: "torch.dtype") -> None:
        """Load a state_dict strictly, with the floating-point parameters in a dtype."""

    def run(self, inputs: Inputs, *, seed: int = 0) -> Outputs:
        """The outputs of one run."""

    def first_outputs(self, inputs: Inputs) -> "dict[str, Tensor]":
        """The first output of every module with parameters, in the order of the run."""


@dataclass(frozen=True, slots=True)
class Side:
    """A definition and a model that it built, in eval mode.

    Attributes:
        renamed: Other names of arguments, by that of the input.
    """

    definition: Definition
    model: "nn.Module"
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """The definition, in messages."""
        return self.definition.ref

    def places(self) -> list[str]:
        """The arguments of `forward` that can be passed by place."""
        return places_of(self.model)

    def ties(self) -> Mapping[str, str]:
        """Keys of the same tensor as an earlier one."""
        return ties_of(self.model)

    def weights(self) -> "OrderedDict[str, Tensor]":
        """The tensors of its state_dict, and the versions of its modules."""
        import torch

        state = self.model.state_dict()
        found = OrderedDict((k, it) for k, it in state.items() if isinstance(it, torch.Tensor))
        return with_versions(found, getattr(state, "_metadata", None))

    def inputs(self, given: "Given") -> Iterable[Inputs]:
        """What to run on, best first: `inputs_for`."""
        return inputs_for(self.model, given)

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
        given = OrderedDict[str, Any]({**state, **extra})
        with_versions(given, getattr(state, "_metadata", None))
        load_strictly(self.model, given, f"{self.definition.ref} does not fit this state_dict")

    def run(self, inputs: Inputs, *, seed: int = 0, graph: bool = False) -> Outputs:
        """The outputs of one run, with a graph for gradients if `graph`; buffers do not change.

        Raises:
            RuntimeError: torch refuses the input.
            DefinitionError: The model raises anything else.
        """
        import torch

        with torch.set_grad_enabled(graph), _seeded(seed), _buffers_kept(self.model):
            return tensors_of(self._result(inputs), graph=graph)

    def first_outputs(self, inputs: Inputs) -> "dict[str, Tensor]":
        """The first output of every module with parameters of its own, in the order of the run."""
        outputs: dict[str, Tensor] = {}

        def note(name: str, result: object) -> None:
            first = next(iter(tensors_of(result).values()), None)
            if first is not None:
                outputs.setdefault(name, first)

        handles = [
            module.register_forward_hook(
                lambda _module, _given, result, name=name: note(name, result)
            )
            for name, module in self.model.named_modules()
            if any(True for _ in module.parameters(recurse=False))
        ]
        try:
            self.run(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    def _result(self, inputs: Inputs) -> object:
        names = {self.renamed.get(name, name): it for name, it in inputs.names.items()}
        return self.definition.run(self.model, *inputs.places, **names)


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
