"""Operations on tensors whose names do not map one to one: split, stack, transpose and others.

Each finds its tensors by regular expressions like a rename rule, and names what it makes by
substitution: what was matched is replaced, the rest of the key stays. Nothing is worked out
here; the plan says what the new tensors are made of.
"""

from collections.abc import Callable, Mapping, Sequence
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
INDEX = "\x00"  # where the number of a part stands in a name, which has no such letter itself


@dataclass(frozen=True, slots=True)
class Operation:
    """What they share."""

    spec: Mapping[str, Any]

    @property
    def text(self) -> str:
        """What to call it in messages: its verb, and what it looks for."""
        verb, wanted = next(iter(self.spec.items()))
        wanted = wanted if isinstance(wanted, str) else wanted[0]
        return f"{verb} '{wanted}'"


@dataclass(frozen=True, slots=True)
class Changed(Operation):
    """One tensor becomes another under the same key: transpose, reshape, cast and the like.

    Attributes:
        spec: It, as a rule file has it.
        finds: The rule whose OLD finds the tensors; its NEW is not used.
        change: What becomes of one.
    """

    finds: RenameRule
    change: Callable[[Expression], Expression]

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
        return [self._changed(each) if self.finds.search(each.key) else each for each in tensors]

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if changed else self.finds.old

    def _changed(self, tensor: Planned) -> Planned:
        try:
            return Planned(tensor.key, self.change(tensor.made_of), tensor.rules)
        except PlanError as error:
            raise PlanError(f"{self.text}: {tensor.key}: {error}") from error


@dataclass(frozen=True, slots=True)
class Split(Operation):
    """One tensor becomes several, its parts along a dimension, or copies of it.

    Attributes:
        spec: It, as a rule file has it.
        into: A rule for each part, all with the same OLD.
        parts: The parts of one tensor.
    """

    into: tuple[RenameRule, ...]
    parts: Callable[[Expression], Sequence[Expression]]

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
        after: list[Planned] = []
        for tensor in tensors:
            if self.into[0].search(tensor.key) is None:
                after.append(tensor)
                continue
            try:
                parts = self.parts(tensor.made_of)
            except PlanError as error:
                raise PlanError(f"{self.text}: {tensor.key}: {error}") from error
            after += (
                Planned(rule.apply(tensor.key), part, tensor.rules)
                for rule, part in zip(self.into, parts, strict=True)
            )
        return after

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if changed else self.into[0].old


@dataclass(frozen=True, slots=True)
class Unstack(Operation):
    """One tensor becomes as many as a dimension has elements.

    Attributes:
        spec: It, as a rule file has it.
        rule: OLD finds the tensors, NEW makes their names, with `INDEX` for the index.
        dim: The dimension, which they lack.
    """

    rule: RenameRule
    dim: int

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
        after: list[Planned] = []
        for tensor in tensors:
            if self.rule.search(tensor.key) is None:
                after.append(tensor)
            else:
                after += self._unstacked(tensor)
        return after

    def _unstacked(self, tensor: Planned) -> list[Planned]:
        made = tensor.made_of
        try:
            dim = dimension(made.shape, self.dim)
            if made.shape[dim] > MOST_PARTS:
                raise PlanError(f"{made.shape[dim]:,} parts, the limit is {MOST_PARTS:,}")
            parts = split(made, dim, made.shape[dim])
        except PlanError as error:
            raise PlanError(f"{self.text}: {tensor.key}: {error}") from error
        name = self.rule.apply(tensor.key)
        return [
            Planned(name.replace(INDEX, str(number)), squeezed(part, dim), tensor.rules)
            for number, part in enumerate(parts)
        ]

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if changed else self.rule.old


@dataclass(frozen=True, slots=True)
class Concat(Operation):
    """Several tensors become one, joined along a dimension in the order of the rules.

    Attributes:
        spec: It, as a rule file has it.
        parts: A rule for each part; those whose results have one name belong together.
        dim: Along which.
    """

    parts: tuple[RenameRule, ...]
    dim: int

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
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
        return _with_joined(self.text, tensors, groups, self.dim)

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if changed else self.parts[0].old


@dataclass(frozen=True, slots=True)
class Stack(Operation):
    """Tensors with a number in their names become one, with a new dimension of that order.

    Attributes:
        spec: It, as a rule file has it.
        rule: Its first group holds the number; those whose results have one name belong together.
        dim: The new dimension.
    """

    rule: RenameRule
    dim: int

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
        groups: dict[str, dict[int, Planned]] = {}
        for tensor in tensors:
            match = self.rule.search(tensor.key)
            if match is None:
                continue
            digits = match[1] if match.re.groups else ""
            if not (digits or "").isdecimal():
                raise PlanError(f"{self.text}: the first group of '{self.rule.old}' is no number")
            group = groups.setdefault(self.rule.apply(tensor.key), {})
            if group.setdefault(int(digits), tensor) is not tensor:
                raise PlanError(f"{self.text}: two tensors of number {digits}: {tensor.key}")
        for name, group in groups.items():
            absent = next((number for number in range(len(group)) if number not in group), None)
            if absent is not None:
                raise PlanError(f"{self.text}: {name} lacks number {absent}")
        return _with_joined(self.text, tensors, groups, self.dim, stacked=True)

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if changed else self.rule.old


def _with_joined(
    text: str,
    tensors: Sequence[Planned],
    groups: dict[str, dict[int, Planned]],
    dim: int,
    *,
    stacked: bool = False,
) -> list[Planned]:
    """The tensors with each group joined, in the place of its first."""
    whole: dict[int, Planned] = {}
    place = {id(tensor): number for number, tensor in enumerate(tensors)}
    gone = {id(part) for group in groups.values() for part in group.values()}
    for name, group in groups.items():
        parts = [group[number].made_of for number in sorted(group)]
        try:
            parts = [unsqueezed(part, dim) for part in parts] if stacked else parts
            made = joined(parts, dim)
        except PlanError as error:
            raise PlanError(f"{text}: {name}: {error}") from error
        first = min(group.values(), key=lambda part: place[id(part)])
        rules = {number for part in group.values() for number in part.rules}
        whole[id(first)] = Planned(name, made, tuple(sorted(rules)))
    return [
        whole.get(id(tensor), tensor)
        for tensor in tensors
        if id(tensor) not in gone or id(tensor) in whole
    ]


@dataclass(frozen=True, slots=True)
class Fill(Operation):
    """A new tensor of one value beside each of some others.

    Attributes:
        spec: It, as a rule file has it.
        rule: OLD finds those others, NEW makes the new name out of theirs.
        value: Every element.
        shape: None for that of the other.
        dtype: None for that of the other.
    """

    rule: RenameRule
    value: float
    shape: tuple[int, ...] | None
    dtype: str | None

    def run(self, tensors: Sequence[Planned]) -> list[Planned]:
        """See `ckpt.rules.planned.Rule`."""
        after: list[Planned] = []
        for tensor in tensors:
            after.append(tensor)
            if self.rule.search(tensor.key) is not None:
                other = tensor.made_of
                shape = other.shape if self.shape is None else self.shape
                try:
                    made = filled(self.dtype or other.dtype, shape, self.value)
                except PlanError as error:
                    raise PlanError(f"{self.text}: {tensor.key}: {error}") from error
                after.append(Planned(self.rule.apply(tensor.key), made))
        return after

    def unmatched(self, keys: Sequence[str], changed: bool) -> str | None:
        """See `ckpt.rules.planned.Rule`."""
        return None if changed else self.rule.old


def copies(count: int, *, tied: bool) -> Callable[[Expression], Sequence[Expression]]:
    """The tensor `count` times: with bytes of its own each time, or tied."""

    def parts(of: Expression) -> Sequence[Expression]:
        return [of, *(of if tied else Copied(of) for _ in range(count - 1))]

    return parts
