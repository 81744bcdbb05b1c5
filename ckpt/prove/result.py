"""What a proof found: values without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt.errors import PlanError
from ckpt.rules.expressions import Expression

COUNTER = "a counter, which eval mode does not use"
NO_INFLUENCE = "no influence on these outputs"
NOT_LOADED = "the model changes it when it loads"
NOT_MEASURED = "not measured"
EMPTY = "it has no elements"


class UnprovableError(PlanError):
    """Outputs cannot prove anything: they are random, not finite, or there are none."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One tensor of the input.

    Attributes:
        name: Of the argument of `forward`; None for one passed by its place.
        dtype: As it was made; floating-point ones are cast to the dtype of the run.
        shape: Its shape.
    """

    name: str | None
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unproved:
    """A key of the result that the outputs do not prove, and why."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another mapping, under which the outputs agree.

    Attributes:
        text: What it does to the result of the plan, for people.
        moves: By key of the result, the key whose tensor it gets instead.
        verb: What becomes of the tensors of `keys`: ``transpose``, ``halves``, ``thirds``,
            ``interleave``, ``deinterleave``; empty if they only move.
        keys: The keys of the result whose tensors change.
        size: The rows of a head, for the rotary layouts; else, for ``thirds``, the part that
            stays.
        made: How every tensor of the result is made then.
    """

    text: str
    moves: Mapping[str, str]
    verb: str
    keys: tuple[str, ...]
    size: int
    made: Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Proof:
    """What both models gave on one input, and which tensors that proves.

    Attributes:
        agrees: Whether their outputs agree, with the weights as they are and with random ones.
        inputs: The input.
        dtype: The dtype in which they ran.
        largest: The largest difference of two outputs, as a part of the largest output, with the
            weights as they are and with random ones; None where this was not compared.
        outputs: How many tensors were compared.
        seeded: Whether `forward` draws random numbers, so that both ran from the same seed.
        influential: The keys of the result whose tensors influence these outputs.
        unproved: The others.
        by_gradient: Whether most influences were found by one gradient, as in large models,
            instead of one run for each tensor.
        differs_at: The first module of the old model, in the order of its run, whose output
            differs from that of its counterpart; and this one.
        alternative: A mapping near the plan, under which the outputs agree.
    """

    agrees: bool
    inputs: tuple[InputTensor, ...]
    dtype: str
    largest: tuple[float, float | None]
    outputs: int
    seeded: bool = False
    influential: tuple[str, ...] = ()
    unproved: tuple[Unproved, ...] = ()
    by_gradient: bool = False
    differs_at: tuple[str, str] | None = None
    alternative: Alternative | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first input."""
        return self.inputs[0].shape

    @property
    def complete(self) -> bool:
        """Whether every tensor is proved but counters, which have no influence in eval mode."""
        return self.agrees and all(it.why == COUNTER for it in self.unproved)
