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
    merged,
    split,
    squeezed,
    unsqueezed,
)
from ckpt.rules.patterns import Match
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
        verb, wanted = next(iter(self.spec.items()))
        return f"{verb} '{wanted if isinstance(wanted, str) else wanted[0]}'"

    @contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """Put the operation and a key before the message of a `PlanError`."""
        try:
            yield
        except PlanError as error:
            raise PlanError(f"{self.text}: {key}: {error}", hint=error.hint) from error


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
        after: list[Planned] = []
        for tensor in tensors:
            if self.finds.search(tensor.key) is None:
                after.append(tensor)
            else:
                with self.naming(tensor.key):
                    after += self.make(tensor)
        return after

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        return None if changed else self.finds.old


def change_each(
    spec: Mapping[str, Any], finds: RenameRule, change: Callable[[Expression], Expression]
) -> ForEach:
    """A tensor becomes another under the same key: transpose, reshape, cast and the like."""
    return ForEach(spec, finds, lambda t: [Planned(t.key, change(t.made_of), t.rules)])


def split_each(spec: Mapping[str, Any], into: Sequence[RenameRule], parts: Parts) -> ForEach:
    """A tensor becomes several: its parts along a dimension, or copies of it.

    `into` has a rule for each of the `parts`, all with the same OLD.
    """

    def make(tensor: Planned) -> list[Planned]:
        return [
            Planned(rule.apply(tensor.key), part, tensor.rules)
            for rule, part in zip(into, parts(tensor.made_of), strict=True)
        ]

    return ForEach(spec, into[0], make)


@dataclass(frozen=True, slots=True)
class Tie(ForEach):
    """A tensor gets further names; it takes the place of a stored tensor that has one of them."""

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        stored = {t.key: t for t in tensors if self.finds.search(t.key) is None}
        made = ForEach.run(self, tensors)
        ties = {t.key: t for t in made if t.key in stored and t is not stored[t.key]}
        after: list[Planned] = []
        for tensor in made:
            tie = ties.get(tensor.key)
            if tie is None:
                after.append(tensor)
            elif tie is not tensor:
                with self.naming(tensor.key):
                    both = merged(tie.made_of, tensor.made_of)
                after.append(Planned(tensor.key, both, tensor.rules))
        return after


def unstack_each(spec: Mapping[str, Any], rule: RenameRule, dim: int) -> ForEach:
    """A tensor becomes as many as a dimension has elements, without that dimension.

    The rule makes their names, with `INDEX` for the index.
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

    Its name is made by the rule; its shape and dtype, if None, are those of the tensor found.
    """

    def make(tensor: Planned) -> list[Planned]:
        other = tensor.made_of
        made = filled(dtype or other.dtype, other.shape if shape is None else shape, value)
        return [tensor, Planned(rule.apply(tensor.key), made)]

    return ForEach(spec, rule, make)


@dataclass(frozen=True, slots=True)
class Join(Operation):
    """Tensors become one: joined along a dimension, or stacked along a new one.

    The joined tensor takes the place of the first of its parts.

    Attributes:
        finds: The rules whose OLD finds the parts; a tensor is a part of the first that does.
            Parts with the same new name belong together.
        number: The number of a part, from its rule's number, counted from 1, and its match.
        dim: The dimension.
        stacked: Whether the dimension is new; parts are then numbered from 0.
    """

    finds: Sequence[RenameRule]
    number: Callable[[int, Match], int]
    dim: int
    stacked: bool

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        groups: dict[str, dict[int, Planned]] = {}
        names: dict[int, str] = {}  # of the joined tensor, by part
        for tensor in tensors:
            found = self._found(tensor.key)
            if found is None:
                continue
            name, number = found
            other = groups.setdefault(name, {}).setdefault(number, tensor)
            if other is not tensor:
                raise PlanError(
                    f"{self.text}: {other.key} and {tensor.key} are both part {number} of {name}"
                )
            names[id(tensor)] = name
        after: list[Planned] = []
        for tensor in tensors:
            if id(tensor) not in names:
                after.append(tensor)
            elif parts := groups.pop(names[id(tensor)], None):
                after.append(self._joined(names[id(tensor)], parts))
        return after

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        return None if changed else self.finds[0].old

    def _found(self, key: str) -> tuple[str, int] | None:
        """The name of the joined tensor, and the number of the part in it."""
        for number, rule in enumerate(self.finds, start=1):
            match = rule.search(key)
            if match is not None:
                return rule.apply(key), self.number(number, match)
        return None

    def _joined(self, name: str, group: Mapping[int, Planned]) -> Planned:
        numbers = range(len(group)) if self.stacked else range(1, len(self.finds) + 1)
        absent = next((number for number in numbers if number not in group), None)
        if absent is not None:
            old = "" if self.stacked else f", '{self.finds[absent - 1].old}'"
            raise PlanError(f"{self.text}: {name} lacks part {absent}{old}")
        with self.naming(name):
            parts = [group[number].made_of for number in numbers]
            if self.stacked:
                parts = [unsqueezed(part, self.dim) for part in parts]
            made = joined(parts, self.dim)
        rules = {number for part in group.values() for number in part.rules}
        return Planned(name, made, tuple(sorted(rules)))


def stack(spec: Mapping[str, Any], rule: RenameRule, dim: int) -> Join:
    """Tensors become one along a new dimension, in the order of the rule's first group."""

    def number(_rule: int, match: Match) -> int:
        digits = (match[1] if match.re.groups else "") or ""
        if not digits.isdecimal():
            raise PlanError(f"stack '{rule.old}': the first group of '{rule.old}' is not a number")
        return int(digits)

    return Join(spec, (rule,), number, dim, stacked=True)


def concat(spec: Mapping[str, Any], parts: Sequence[RenameRule], dim: int) -> Join:
    """Tensors become one, joined along a dimension in the order of the rules."""
    return Join(spec, parts, lambda rule, _match: rule, dim, stacked=False)


def copies(count: int, *, tied: bool) -> Parts:
    """A tensor `count` times: tied, or every copy with bytes of its own."""

    def parts(of: Expression) -> Sequence[Expression]:
        return [of, *(of if tied else Copied(of) for _ in range(count - 1))]

    return parts
