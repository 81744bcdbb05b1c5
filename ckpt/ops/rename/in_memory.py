"""A rename of a state_dict in memory: another state_dict, with the very tensors of the first.

Laws: what keeps its elements is the same object under its new key; tied tensors stay tied; the
mapping that was given is not changed.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ckpt.compare.ties import ties_of
from ckpt.errors import FormatError, UsageError
from ckpt.formats.naming.modules import moved_modules
from ckpt.in_memory import state_of
from ckpt.opened import open_state
from ckpt.opened.states import OpenedFile, OpenedState, nesting
from ckpt.ops.rename.goal import Goal
from ckpt.ops.rename.plan import RenamePlan, plan_opened
from ckpt.ops.rename.rule_order import Rules
from ckpt.ops.rename.to_file import expect_proportion
from ckpt.registry.registry import Registry
from ckpt.rules.derived.other_tensors import with_sources
from ckpt.rules.expressions import Copied, Expression, Merged, Source, sources_of, whole_source
from ckpt.writing.derived import Derived
from ckpt.writing.evaluated import evaluated

if TYPE_CHECKING:
    from torch import Tensor, nn

Values = Mapping[str, Any]


def renamed_in_memory(
    source: "Values | nn.Module", rules: Rules, goal: Goal, registry: Registry
) -> Values:
    """The state_dict that the rules make of one, or of a module's.

    Raises:
        UsageError: An option is one of files; or the state_dict is inside of what was given.
    """
    if others := goal.keys() - Goal.__optional_keys__:
        raise UsageError(
            f"{', '.join(sorted(others))}: the rename of a state_dict in memory is returned",
            hint="plan_rename  plans only; torch.save or register  saves what rename returns",
        )
    state = state_of(source)
    with open_state(source, registry) as opened:
        _expect_flat(opened, state)
        plan = plan_opened(opened, rules, goal, registry)
        expect_proportion(opened, plan, {})
        items = list(_items(plan, state, _Tensors(opened, state)))
    return _like(state, items, plan)


def _expect_flat(opened: OpenedState, state: Values) -> None:
    path, _ = nesting(opened)
    if path:
        inside = "".join(f"[{key!r}]" for key in path)
        raise UsageError(
            f"{opened.name}: the state_dict is in {inside}", hint=f"rename(run{inside}, …)"
        )
    for key in (*(entry.key for entry in opened.entries), *state):
        if not isinstance(key, str) or key not in state:
            raise FormatError(f"{opened.name}: {key!r} is not a key with a tensor, or not a text")


def _items(plan: RenamePlan, state: Values, tensors: "_Tensors") -> Iterator[tuple[str, Any]]:
    """The new items; a key without a tensor stays behind the tensor that it follows."""
    known = {entry.key for entry in plan.entries}
    waiting: dict[str | None, list[tuple[str, Any]]] = {}
    before: str | None = None
    for key, value in state.items():
        if key in known:
            before = key
        elif not plan.drops(key):
            waiting.setdefault(before, []).append((plan.aliases.get(key, key), value))
    yield from waiting.pop(None, [])
    for planned in plan.tensors:
        yield planned.key, tensors.made(planned.made_of)
        for old in sources_of(planned.made_of):
            yield from waiting.pop(old, [])
    for left in waiting.values():
        yield from left


class _Tensors:
    """The tensors of the result; those that are made of tied tensors alike are one."""

    def __init__(self, opened: OpenedState, state: Values) -> None:
        self._opened, self._state = opened, state
        self._ties = ties_of(opened)
        self._known: dict[Expression, Tensor] = {}

    def made(self, made_of: Expression) -> "Tensor":
        if isinstance(made_of, Source):
            return cast("Tensor", self._state[made_of.key])
        self._expect_equal(made_of)
        kind = with_sources(made_of, self._first)
        if kind not in self._known or isinstance(made_of, Copied) or not [*sources_of(made_of)]:
            import torch

            with torch.no_grad():
                self._known[kind] = evaluated(made_of, self._state)
        return self._known[kind]

    def _first(self, source: Source) -> Source:
        return replace(source, key=self._ties.get(source.key, source.key))

    def _expect_equal(self, made_of: Expression) -> None:
        """Refuse to tie tensors that differ, as for a file."""
        if isinstance(made_of, Merged):
            assert isinstance(self._opened, OpenedFile)
            checkpoint = self._opened.checkpoint
            entries = {entry.key: entry for entry in checkpoint.entries}
            Derived(checkpoint.source, entries).entry("", made_of)


def _like(state: Values, items: list[tuple[str, Any]], plan: RenamePlan) -> Values:
    """A mapping of the same type, with the versions of the modules under their new names."""
    if isinstance(state, dict):
        made = copy(state)
        made.clear()
        made.update(items)
    else:
        made = OrderedDict(items)
    versions = getattr(state, "_metadata", None)
    if isinstance(versions, Mapping):
        kept = {old: it.key for it in plan.tensors if (old := whole_source(it.made_of))}
        moved = moved_modules(list(versions), {**kept, **plan.aliases})
        metadata = OrderedDict((moved[module], dict(it)) for module, it in versions.items())
        for name, number in plan.numbers.items():
            metadata[""].pop(name, None)
            metadata[""] |= {} if number is None else {name: number}
        vars(made)["_metadata"] = metadata
    return made
