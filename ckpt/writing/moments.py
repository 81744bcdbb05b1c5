"""The state of an optimizer after operations on its parameters.

Optimizers that work element by element keep tensors of the parameter's shape: an operation that
only moves elements does the same to these. Law: the state is that of an optimizer that always had
the new parameters, or it is an error; nothing is guessed.
Source: torch 2.13, `torch/optim`: the state and the options of each class.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from ckpt.errors import PlanError
from ckpt.formats.optimizers import MOMENTS, Fields, HeldOptimizer, Parameter
from ckpt.formats.pickle.describe import is_tensor
from ckpt.formats.pickle.nodes import Call
from ckpt.formats.pickle.values import digest_of
from ckpt.formats.pickle.writer import location_of
from ckpt.formats.stream import tensor_bytes
from ckpt.formats.torch_state import TorchState
from ckpt.io.sources import ByteSource
from ckpt.rules.derived.other_tensors import changed_by, used_twice, with_sources
from ckpt.rules.expressions import Copied, Expression, Source, sources_of
from ckpt.tensors import TensorEntry

# Of torch's optimizers that work element by element: SGD, Adam, AdamW, NAdam, RAdam, Adamax,
# Adadelta, Adagrad, RMSprop, Rprop, ASGD; and what its schedulers add.
_OPTIONS = frozenset({
    *("lr", "weight_decay", "maximize", "foreach", "capturable", "differentiable", "fused", "name"),
    *("momentum", "dampening", "nesterov", "betas", "eps", "amsgrad", "decoupled_weight_decay"),
    *("momentum_decay", "rho", "lr_decay", "initial_accumulator_value", "alpha", "centered"),
    *("etas", "step_sizes", "lambd", "t0", "correct_bias", "bias_correction"),
    *("initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"),
})  # fmt: skip
_SETTINGS = 10_000  # nodes of an option that are compared


@dataclass(frozen=True, slots=True)
class RegroupedOptimizer:
    """An optimizer whose parameters an operation splits, joins or moves.

    Attributes:
        path: Where it is in the file.
        owners: By key, the number or name that it gives to a parameter.
        groups: The keys of the new parameters in every group, in their order.
        called: The number or name that it gives to each of these. Numbers have the order of the
            file's keys within a group, as in all files of ckpt.
        new: Those that start without state, as torch gives it to them in their first step.
    """

    path: str
    owners: Mapping[str, Parameter]
    groups: tuple[tuple[str, ...], ...]
    called: Mapping[str, Parameter]
    new: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Their number before."""
        return len(set(self.owners.values()))

    @property
    def made(self) -> int:
        """Their number after."""
        return sum(map(len, self.groups))


@dataclass(frozen=True, slots=True)
class MadeTensor:
    """A tensor beside the state_dict that an operation makes.

    Attributes:
        made_of: An expression over `Places`.
        location: The device that torch gives it.
    """

    made_of: Expression
    location: str


class Values(Protocol):
    """The values in the state of an optimizer: those of a file, or in memory."""

    def shape(self, value: Any) -> tuple[int, ...] | None:
        """The shape of a tensor; None for any other value."""

    def place(self, value: Any) -> int | None:
        """Where the elements of a tensor are; None if there are none."""

    def value(self, value: Any) -> object:
        """What is equal for equal tensors and equal plain values."""

    def made(self, made_of: Expression, tensors: Mapping[str, Any]) -> object:
        """The same expression over other tensors, by the keys of those in it.

        Raises:
            PlanError: They have other shapes, or several dtypes.
        """

    def copied(self, tensor: Any) -> object:
        """The same tensor, with bytes of its own."""


@dataclass(frozen=True, slots=True)
class Places:
    """The tensors of a file, those of its state_dict by their keys, the others by made-up ones.

    They are the `Values` of an optimizer in the file, as nodes of its pickle.

    Attributes:
        file: The file's bytes.
        own: The entries of its state_dict.
        known: By identity, what the nodes of tensors stand for.
        entries: All that were asked for.
    """

    file: ByteSource
    own: Sequence[TensorEntry]
    known: Mapping[int, TensorEntry]
    entries: dict[str, TensorEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.entries.update({entry.key: entry for entry in self.own})

    @classmethod
    def of_file(cls, file: ByteSource, state: TorchState) -> Self:
        """Those of a file of torch."""
        tensors = zip(state.chosen.tensors, state.entries, strict=True)
        known = {id(node): entry for (_, node), entry in tensors}
        return cls(file, state.entries, known | dict(state.outside))

    def entry(self, node: Call) -> TensorEntry:
        """The entry of a tensor of the pickle."""
        return self.known[id(node)]

    def source(self, node: Call) -> Source:
        """A tensor of the pickle in an expression."""
        entry = self.entry(node)
        key = f"\x00{id(node)}"  # which no key of a state_dict begins with
        self.entries[key] = entry
        return Source(key, entry.dtype, entry.shape)

    def shape(self, node: object) -> tuple[int, ...] | None:
        """As in `Values`."""
        return self.entry(node).shape if is_tensor(node) else None

    def place(self, node: object) -> int | None:
        """As in `Values`."""
        return self.entry(node).position if is_tensor(node) and self.entry(node).nbytes else None

    def value(self, node: object) -> object:
        """As in `Values`; the node itself for what is neither."""
        if is_tensor(node):
            entry = self.entry(node)
            return entry.dtype, entry.shape, b"".join(tensor_bytes(self.file, entry))
        return digest_of(node, [_SETTINGS]) or id(node)

    def made(self, made_of: Expression, nodes: Mapping[str, Call]) -> MadeTensor:
        """As in `Values`."""
        expect_shapes(made_of, {key: self.entry(node).shape for key, node in nodes.items()})
        moved = with_sources(made_of, lambda source: self.source(nodes[source.key]))
        return MadeTensor(moved, location_of(next(iter(nodes.values()))))

    def copied(self, node: Call) -> MadeTensor:
        """As in `Values`."""
        return MadeTensor(Copied(self.source(node)), location_of(node))


def expect_shapes(made_of: Expression, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Make sure that other tensors have the shapes of those in an expression.

    Raises:
        PlanError: One has not.
    """
    for source in leaves(made_of):
        if shapes[source.key] != source.shape:
            raise PlanError(f"has shape {list(shapes[source.key])}, expected {list(source.shape)}")


def leaves(expression: Expression) -> Iterator[Source]:
    """The sources that an expression uses."""
    found: list[Source] = []

    def note(source: Source) -> Source:
        found.append(source)
        return source

    with_sources(expression, note)
    return iter(found)


def state_after(
    held: HeldOptimizer,
    after: RegroupedOptimizer,
    tensors: Mapping[str, Expression],
    values: Values,
) -> dict[str, dict[str, object]]:
    """The state of the new parameters; the values that an operation makes are made by `values`.

    Args:
        held: The optimizer.
        after: Its parameters.
        tensors: How the tensors of the result are made, by their keys.
        values: The values of the optimizer.

    Raises:
        ValueError: It is not that of an optimizer that works element by element, or parts that are
            joined have different states.
    """
    found: dict[str, dict[str, object]] = {}
    uses = Counter(place for _, place in _places(held.state.values(), values))
    options = {it: of for at, of in enumerate(held.options) for it in held.groups[at]}
    for key in (key for group in after.groups for key in group if key not in after.new):
        try:
            made_of = tensors[key]
            parts = {old: held.state.get(after.owners[old]) for old in sources_of(made_of)}
            if isinstance(made_of, Source):
                fields = parts[made_of.key]
            else:
                own = options[after.owners[next(iter(parts))]]
                for name, place in _places(filter(None, parts.values()), values):
                    if uses[place] > 1:
                        raise ValueError(f"{name} is a tensor of several parameters")
                fields = _fields_after(made_of, parts, own, values)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        if fields is not None:
            found[key] = dict(fields)
    return found


def _places(states: Iterable[Fields], values: Values) -> Iterator[tuple[str, int]]:
    """The names and places of the tensors with elements in the state of parameters."""
    for fields in states:
        for name, it in fields.items():
            if (place := values.place(it)) is not None:
                yield name, place


def expect_followed(made: Mapping[str, Expression], owners: Mapping[str, Parameter]) -> None:
    """Make sure that the state of parameters can follow to the new ones.

    Args:
        made: The new parameters.
        owners: By key, the old parameter; tied keys have the same one.

    Raises:
        ValueError: One has other values than its sources, or an element is in two of them.
    """
    for key, made_of in made.items():
        if how := changed_by(made_of):
            raise ValueError(f"{key} {how}")
    for key in used_twice(made.values(), owners):
        raise ValueError(f"an element of {key} would be in two parameters")


def same_options(held: HeldOptimizer, groups: Sequence[int], values: Values) -> bool:
    """Whether groups have equal options, but for their names."""
    if len(groups) < 2:
        return True
    found = [
        {name: values.value(it) for name, it in held.options[at].items() if name != "name"}
        for at in groups
    ]
    return all(options == found[0] for options in found)


def _fields_after(
    made_of: Expression, parts: Mapping[str, Fields | None], options: Fields, values: Values
) -> dict[str, object] | None:
    if unknown := next((name for name in options if name not in _OPTIONS), None):
        raise ValueError(f"with the option {unknown} it may not work element by element")
    given = {key: fields for key, fields in parts.items() if fields is not None}
    if not given:
        return None
    first = next(iter(parts))
    for key in parts:
        if key not in given or set(given[key]) != set(given[next(iter(given))]):
            raise ValueError(f"the state of {key} is not that of {first}")
    return {name: _value(name, made_of, given, values) for name in given[first]}


def _value(name: str, made_of: Expression, parts: Mapping[str, Fields], values: Values) -> object:
    """One value of the state of a new parameter, such as its ``exp_avg``."""
    found = {key: fields[name] for key, fields in parts.items()}
    shapes = {key: size for key, it in found.items() if (size := values.shape(it)) is not None}
    if name in MOMENTS and len(shapes) == len(found):
        try:
            return values.made(made_of, found)
        except PlanError as error:
            raise ValueError(f"{name} {error}") from error
    key, value = next(iter(found.items()))
    if any(shapes.values()):
        shape = list(next(iter(shapes.values())))
        raise ValueError(f"{name} of {key}, of shape {shape}, is not known to follow its elements")
    if key not in shapes and not isinstance(value, bool | int | float | str | None):
        raise ValueError(f"{name} of {key}, not one value, is not known to follow its elements")
    for other, theirs in found.items():
        if values.value(theirs) != values.value(value):
            raise ValueError(f"{name} of {other} is not that of {key}")
    # torch counts steps in place, so that every parameter needs a counter of its own.
    return values.copied(value) if key in shapes else value
