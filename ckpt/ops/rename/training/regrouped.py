"""Which parameters the optimizers of a file have after operations, in which groups and order.

Law: every new parameter takes the place of those whose elements it holds, or it is an error.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt.errors import PlanError
from ckpt.formats.distributed.folder import DistributedCheckpoint
from ckpt.formats.distributed.optimizers import folder_optimizers
from ckpt.formats.optimizers import HeldOptimizer, Parameter, held_optimizers
from ckpt.formats.pickle.keys import copied_keys
from ckpt.formats.torch_state import TorchFile
from ckpt.io.sources import ByteSource
from ckpt.opened.states import OpenedState
from ckpt.ops.rename.training.owners import Candidates, belonging, old_parameters
from ckpt.rules.derived.other_tensors import with_sources
from ckpt.rules.expressions import Expression, Source, sources_of
from ckpt.rules.plan import Plan
from ckpt.writing.moments import (
    Places,
    RegroupedOptimizer,
    Values,
    expect_followed,
    same_options,
    state_after,
)

if TYPE_CHECKING:
    from ckpt.definitions import Definition
    from ckpt.definitions import Parameter as NewParameter
    from ckpt.formats.optimizers import OptimizerState


def regrouped(
    opened: OpenedState,
    file: TorchFile,
    source: ByteSource,
    plan: Plan,
    new: "Definition | None",
    old: "Definition | None",
    *,
    alone: bool,
) -> tuple[RegroupedOptimizer, ...]:
    """Work out the new parameters of every optimizer of a file that trains a state_dict.

    Args:
        opened: The checkpoint.
        file: The file with the optimizers, which may be another one.
        source: Its bytes.
        plan: Its operations.
        new: The class that the result fits; None takes the order of the old parameters.
        old: The class that the file was saved from; None takes the order of its keys.
        alone: Whether all optimizers of the file train this state_dict.

    Raises:
        ValueError: It is not known which parameter their state belongs to.
        PlanError: Their state cannot follow.
    """
    held = held_optimizers(file.state.holders, file.state.beside)
    after = None if new is None else new.parameters()
    owned = list(_numbered(opened, file, plan, after, old, held, alone=alone))
    if file.state.follows:
        owned += named(_keys(opened), held)
    return _after(opened, plan, after, owned, Places.of_file(source, file.state))


def regrouped_in_folder(
    opened: OpenedState, folder: DistributedCheckpoint, plan: Plan, new: "Definition | None"
) -> tuple[RegroupedOptimizer, ...]:
    """Likewise of a folder of torch.distributed.checkpoint, whose optimizers name parameters.

    Raises:
        ValueError: An optimizer has an unknown form, or names something else too.
        PlanError: Their state cannot follow.
    """
    optimizers = folder_optimizers(folder)
    places = Places(opened.checkpoint.source, folder.entries, optimizers.entries)
    after = None if new is None else new.parameters()
    return _after(opened, plan, after, named(_keys(opened), [*optimizers.held.values()]), places)


def _keys(opened: OpenedState) -> set[str]:
    return {entry.key for entry in opened.checkpoint.entries}


def _after(
    opened: OpenedState,
    plan: Plan,
    after: "Sequence[NewParameter] | None",
    owned: "Iterable[Owned]",
    places: Places,
) -> tuple[RegroupedOptimizer, ...]:
    tensors, found = {tensor.key: tensor.made_of for tensor in plan.tensors}, []
    for optimizer, owners, prefix in owned:
        try:
            done = Regrouping(optimizer, owners, plan, after, places).done(prefix)
            state_after(optimizer, done, tensors, places)
        except ValueError as error:
            raise PlanError(
                f"{opened.name}: {optimizer.path or 'the optimizer'} cannot follow: {error}",
                hint="--drop-optimizer  writes the file without it",
            ) from error
        found.append(done)
    return tuple(found)


Owned = tuple[HeldOptimizer, Mapping[str, Parameter], str]  # by key, and what is before it


def _numbered(
    opened: OpenedState,
    file: TorchFile,
    plan: Plan,
    new: "Sequence[NewParameter] | None",
    old: "Definition | None",
    held: Sequence[HeldOptimizer],
    *,
    alone: bool,
) -> Iterator[Owned]:
    if file.state.optimizers:
        known = old_parameters(opened, plan, new, old)
        yield from numbered(file.state.optimizers, known, held, alone=alone)


def numbered(
    optimizers: "Sequence[OptimizerState]",
    known: Candidates,
    held: Sequence[HeldOptimizer],
    *,
    alone: bool,
) -> Iterator[Owned]:
    """The optimizers that number their parameters, with the numbers of these by key.

    Args:
        optimizers: All of them.
        known: The parameters of the state_dict.
        held: The same optimizers, and others.
        alone: Whether all train this state_dict.

    Raises:
        ValueError: It is not known which number belongs to which parameter.
    """
    by_path = {optimizer.path: optimizer for optimizer in held}
    keys: dict[int, list[str]] = {}
    for key, parameter in known.named.items():
        keys.setdefault(parameter.place, []).append(key)
    for optimizer, owners in belonging(optimizers, known, alone=alone):
        of = {key: number for number, place in owners.items() for key in keys[place]}
        found = by_path.get(optimizer.name)
        if found is None:
            raise ValueError(f"{optimizer.name} has an unknown form")
        yield found, of, ""


def named(own: Container[str], held: Sequence[HeldOptimizer]) -> Iterator[Owned]:
    """The optimizers that name their parameters by the keys of a state_dict, perhaps wrapped.

    Raises:
        ValueError: One names some keys, and something else.
    """
    for optimizer in held:
        if not optimizer.is_numbered:
            names = [str(name) for group in optimizer.groups for name in group]
            copied = copied_keys(names, own)
            if copied and len(copied) < len(names):
                lost = next(name for name in names if name not in copied)
                raise ValueError(f"{optimizer.path} names {lost}, which is not a key")
            if copied:
                prefix = next(iter(copied.values()))[0]
                yield optimizer, {key: name for name, (_, key) in copied.items()}, prefix


@dataclass(frozen=True, slots=True)
class _New:
    """A new parameter: its key, how it is made (None if the file lacks it), and its old ones."""

    key: str
    made_of: Expression | None
    parts: tuple[Parameter, ...]


class Regrouping:
    """The new parameters of one optimizer.

    Args:
        held: The optimizer.
        owners: By key, the number or name that it gives to a parameter.
        plan: How the tensors of the result are made.
        new: The parameters of the new class; None takes the order of the old ones.
        values: The values of the optimizer.
    """

    def __init__(
        self,
        held: HeldOptimizer,
        owners: Mapping[str, Parameter],
        plan: Plan,
        new: "Sequence[NewParameter] | None",
        values: Values,
    ) -> None:
        self._held, self._owners, self._plan, self._new = held, owners, plan, new
        self._values = values
        everyone = (it for group in held.groups for it in group)
        self._place = {it: at for at, it in enumerate(everyone)}
        self._group_of = {it: at for at, group in enumerate(held.groups) for it in group}

    def done(self, prefix: str) -> RegroupedOptimizer:
        """The optimizer after the operations.

        Raises:
            ValueError: A parameter cannot get a group, or its state cannot follow.
        """
        if self._held.is_joint:
            raise ValueError("its state is of all parameters in one")
        parameters = list(self._parameters())
        made = {it.key: it.made_of for it in parameters if it.made_of and it.parts}
        expect_followed(made, self._owners)
        groups: list[list[_New]] = [[] for _ in self._held.groups]
        for parameter in parameters:
            groups[self._group(parameter)].append(parameter)
        if self._new is None or not self._held.is_numbered:
            for group in groups:
                group.sort(key=self._first_place)
        if not self._held.flat:
            for at, group in enumerate(groups):
                if self._held.groups[at] and not group:
                    raise ValueError(
                        f"all parameters of {self._held.path}.param_groups.{at} are dropped"
                    )
        self._expect_names()
        keys = tuple(tuple(it.key for it in group) for group in groups)
        new = tuple(it.key for it in parameters if not it.parts)
        return RegroupedOptimizer(
            self._held.path, self._owners, keys, self._called(keys, prefix), new
        )

    def _called(self, groups: Sequence[Sequence[str]], prefix: str) -> dict[str, Parameter]:
        """The names of the parameters, or numbers in the order of the file's keys."""
        if not self._held.is_numbered:
            return {key: prefix + key for group in groups for key in group}
        place = {tensor.key: at for at, tensor in enumerate(self._plan.tensors)}
        last = len(place)
        ordered = [sorted(group, key=lambda key: place.get(key, last)) for group in groups]
        return {key: at for at, key in enumerate(key for group in ordered for key in group)}

    def _first_place(self, parameter: _New) -> int:
        """Where the first of its parts was."""
        return min((self._place[part] for part in parameter.parts), default=-1)

    def _parameters(self) -> Iterator[_New]:
        """Those that the optimizer has after the operations, in the order of their class."""
        made = {tensor.key: tensor.made_of for tensor in self._plan.tensors}
        if self._new is None:
            seen = set[Expression]()
            for key, made_of in made.items():
                parts = self._parts(key, made_of)
                if parts and (of := self._of_parameters(made_of)) not in seen:
                    seen.add(of)
                    yield _New(key, made_of, parts)
                elif not parts and next(sources_of(made_of), None) is None:
                    raise ValueError(f"{key} is new, and without --check NEW_DEF may be a buffer")
            return
        places = set[int]()
        for parameter in self._new:
            if parameter.place in places:
                continue
            places.add(parameter.place)
            wanted = made.get(parameter.key)
            parts = () if wanted is None else self._parts(parameter.key, wanted)
            sources = () if wanted is None else tuple(sources_of(wanted))
            if parts or (not sources and parameter.trained):
                yield _New(parameter.key, wanted, parts)

    def _parts(self, key: str, made_of: Expression) -> tuple[Parameter, ...]:
        sources = list(dict.fromkeys(sources_of(made_of)))
        parts = [self._owners[old] for old in sources if old in self._owners]
        if parts and len(parts) < len(sources) and not isinstance(made_of, Source):
            lacks = next(old for old in sources if old not in self._owners)
            raise ValueError(f"{key} is made of {lacks}, which {self._held.path} does not train")
        return tuple(parts)

    def _of_parameters(self, made_of: Expression) -> Expression:
        """The same for expressions over names of the same, tied parameters."""

        def owner(source: Source) -> Source:
            return replace(source, key=str(self._owners.get(source.key, source.key)))

        return with_sources(made_of, owner)

    def _group(self, parameter: _New) -> int:
        """Where a parameter goes: where its parts were, or where all have the same options."""
        groups = [self._group_of[part] for part in parameter.parts]
        wanted = groups or list(range(len(self._held.groups)))
        if not same_options(self._held, sorted(set(wanted)), self._values):
            if not groups:
                raise ValueError(
                    f"{parameter.key} is new, and {self._held.path} has several groups"
                )
            raise ValueError(f"{parameter.key} is made of parameters of groups with other options")
        return wanted[0]

    def _expect_names(self) -> None:
        for names in self._held.names:
            for name in names:
                if name not in self._owners:
                    raise ValueError(f"{self._held.path} names {name}, which is not a key")
