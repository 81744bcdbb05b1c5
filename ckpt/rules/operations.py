"""Operations on tensors whose names do not map one to one: split, stack, transpose and others.

Each finds its tensors by regular expressions like a rename rule, and names what it makes by
substitution: the match is replaced, the rest of the key stays. Nothing is computed here; the plan
says what the new tensors are made of.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ckpt.errors import PlanError
from ckpt.rules.expressions import (
    Copied,
    Expression,
    dimension,
    filled,
    joined,
    split,
    squeezed,
    unsqueezed,
)
from ckpt.rules.planned import Planned
from ckpt.rules.substitution import RenameRule

MOST_PARTS = 100_000  # of one tensor
INDEX = "\x00"  # where the number of a part goes in a name, which never contains this character

Parts = Callable[[Expression], Sequence[Expression]]


@dataclass(frozen=True, slots=True)
class Operation:
    """The common part of all operations.

    Attributes:
        spec: The operation as in a rule file, the verb first.
    """

    spec: Mapping[str, Any]

    @property
    def text(self) -> str:
        """What to call it in messages: its verb, and what it looks for."""
        verb, wanted = next(iter(self.spec.items()))
        return f"{verb} '{wanted if isinstance(wanted, str) else wanted[0]}'"

    @contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """Put the operation and a key before the message of a `PlanError`."""
        try:
            yield
        except PlanError as error:
            raise PlanError(f"{self.text}: {key}: {error}") from error


@dataclass(frozen=True, slots=True)
class ForEach(Operation):
    """An operation on one tensor at a time.

    Attributes:
        finds: The rule whose OLD finds the tensors.
        make: What takes the place of a tensor that was found.
    """

    finds: RenameRule
    make: Callable[[Planned], Sequence[Planned]]

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """Put what `make` gives in the place of every tensor that is found."""
        after: list[Planned] = []
        for tensor in tensors:
            if self.finds.search(tensor.key) is None:
                after.append(tensor)
            else:
                with self.naming(tensor.key):
                    after += self.make(tensor)
        return after

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """OLD, if it found nothing."""
        return None if changed else self.finds.old


def change_each(
    spec: Mapping[str, Any], finds: RenameRule, change: Callable[[Expression], Expression]
) -> ForEach:
    """A tensor becomes another under the same key: transpose, reshape, cast and the like."""
    return ForEach(spec, finds, lambda t: [Planned(t.key, change(t.made_of), t.rules)])


def split_each(spec: Mapping[str, Any], into: Sequence[RenameRule], parts: Parts) -> ForEach:
    """A tensor becomes several: its parts along a dimension, or copies of it.

    Args:
        spec: The operation as in a rule file.
        into: A rule for each part, all with the same OLD.
        parts: The parts of one tensor.
    """

    def make(tensor: Planned) -> list[Planned]:
        return [
            Planned(rule.apply(tensor.key), part, tensor.rules)
            for rule, part in zip(into, parts(tensor.made_of), strict=True)
        ]

    return ForEach(spec, into[0], make)


def unstack_each(spec: Mapping[str, Any], rule: RenameRule, dim: int) -> ForEach:
    """A tensor becomes as many as a dimension has elements, without that dimension.

    Args:
        spec: The operation as in a rule file.
        rule: NEW makes their names, with `INDEX` for the index.
        dim: The dimension.
    """

    def make(tensor: Planned) -> list[Planned]:
        made = tensor.made_of
        along = dimension(made.shape, dim)
        count = made.shape[along]
        if count > MOST_PARTS:
            raise PlanError(f"{count:,} parts, the limit is {MOST_PARTS:,}")
        name = rule.apply(tensor.key)
        return [
            Planned(name.replace(INDEX, str(number)), squeezed(part, along), tensor.rules)
            for number, part in enumerate(split(made, along, count))
        ]

    return ForEach(spec, rule, make)


def fill_beside(
    spec: Mapping[str, Any],
    rule: RenameRule,
    value: float,
    shape: Sequence[int] | None,
    dtype: str | None,
) -> ForEach:
    """A new tensor of one value is added after each tensor that is found.

    Args:
        spec: The operation as in a rule file.
        rule: NEW makes the new name out of the name of the tensor that is found.
        value: The value of every element.
        shape: The new shape; None for that of the tensor that is found.
        dtype: The new dtype; None likewise.
    """

    def make(tensor: Planned) -> list[Planned]:
        other = tensor.made_of
        made = filled(dtype or other.dtype, other.shape if shape is None else shape, value)
        return [tensor, Planned(rule.apply(tensor.key), made)]

    return ForEach(spec, rule, make)


@dataclass(frozen=True, slots=True)
class Concat(Operation):
    """Several tensors become one, joined along a dimension in the order of the rules.

    Attributes:
        spec: The operation as in a rule file.
        parts: A rule for each part; tensors with the same new name belong together.
        dim: The dimension.
    """

    parts: tuple[RenameRule, ...]
    dim: int

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """Join the tensors whose new names are the same, by the order of `parts`.

        Raises:
            PlanError: A part is missing or ambiguous, or the parts do not fit together.
        """
        groups: dict[str, dict[int, Planned]] = {}
        for tensor in tensors:
            for number, rule in enumerate(self.parts):
                if rule.search(tensor.key) is not None:
                    group = groups.setdefault(rule.apply(tensor.key), {})
                    if number in group:
                        raise PlanError(
                            f"{self.text}: {group[number].key} and {tensor.key} would both be "
                            f"part {number + 1} of {rule.apply(tensor.key)}"
                        )
                    group[number] = tensor
                    break
        for name, group in groups.items():
            for number, rule in enumerate(self.parts):
                if number not in group:
                    raise PlanError(
                        f"{self.text}: {name} lacks its part {number + 1}, '{rule.old}'"
                    )
        return _with_joined(self, tensors, groups, self.dim)

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """OLD, if it found nothing."""
        return None if changed else self.parts[0].old


@dataclass(frozen=True, slots=True)
class Stack(Operation):
    """Tensors with a number in their names become one, along a new dimension in that order.

    Attributes:
        spec: The operation as in a rule file.
        rule: Its first group matches the number; tensors with the same new name belong together.
        dim: The new dimension.
    """

    rule: RenameRule
    dim: int

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """Stack the tensors whose new names are the same, by their number.

        Raises:
            PlanError: A number is missing or repeated, or the tensors do not fit together.
        """
        groups: dict[str, dict[int, Planned]] = {}
        for tensor in tensors:
            match = self.rule.search(tensor.key)
            if match is None:
                continue
            digits = match[1] if match.re.groups else ""
            if not (digits or "").isdecimal():
                raise PlanError(
                    f"{self.text}: the first group of '{self.rule.old}' is not a number"
                )
            group = groups.setdefault(self.rule.apply(tensor.key), {})
            if group.setdefault(int(digits), tensor) is not tensor:
                raise PlanError(f"{self.text}: two tensors have number {digits}: {tensor.key}")
        for name, group in groups.items():
            absent = next((number for number in range(len(group)) if number not in group), None)
            if absent is not None:
                raise PlanError(f"{self.text}: {name} lacks number {absent}")
        return _with_joined(self, tensors, groups, self.dim, stacked=True)

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """OLD, if it found nothing."""
        return None if changed else self.rule.old


def _with_joined(
    operation: Operation,
    tensors: Sequence[Planned],
    groups: dict[str, dict[int, Planned]],
    dim: int,
    *,
    stacked: bool = False,
) -> list[Planned]:
    """The tensors with every group joined, in the place of the first of the group."""
    whole: dict[int, Planned] = {}
    place = {id(tensor): number for number, tensor in enumerate(tensors)}
    gone = {id(part) for group in groups.values() for part in group.values()}
    for name, group in groups.items():
        parts = [group[number].made_of for number in sorted(group)]
        with operation.naming(name):
            parts = [unsqueezed(part, dim) for part in parts] if stacked else parts
            made = joined(parts, dim)
        first = min(group.values(), key=lambda part: place[id(part)])
        rules = {number for part in group.values() for number in part.rules}
        whole[id(first)] = Planned(name, made, tuple(sorted(rules)))
    return [
        whole.get(id(tensor), tensor)
        for tensor in tensors
        if id(tensor) not in gone or id(tensor) in whole
    ]


def copies(count: int, *, tied: bool) -> Parts:
    """A tensor `count` times: tied, or every copy with bytes of its own."""

    def parts(of: Expression) -> Sequence[Expression]:
        return [of, *(of if tied else Copied(of) for _ in range(count - 1))]

    return parts
