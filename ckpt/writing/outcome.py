"""The state_dict that a plan makes, before it is written: keys, shapes and module versions."""

from collections.abc import Mapping

from ckpt.formats.naming.modules import moved_modules
from ckpt.formats.pickle.find import EXTRA_STATE
from ckpt.rules.expressions import whole_source
from ckpt.rules.plan import Plan
from ckpt.tensors import StateDict


def followers(state: StateDict) -> tuple[str, ...]:
    """The keys without a tensor that belong to a module, and so are renamed like its tensors.

    A plain key of the root may be a training checkpoint's: ``epoch``, ``optimizer``.
    """
    return tuple(key for key in state.others if "." in key or key == EXTRA_STATE)


def outcome(plan: Plan, state: StateDict) -> StateDict:
    """The state_dict that will be written, if its container holds what the source holds."""
    others = tuple(plan.aliases.get(k, k) for k in state.others if not plan.drops(k))
    versions = state.versions
    if versions is not None:
        moved = moved_modules(list(versions), {**_kept(plan), **plan.aliases})
        versions = {moved[module]: numbers for module, numbers in versions.items()}
    return StateDict(tuple(plan.entries_after), others, versions, _noted(plan, state.tied))


def _kept(plan: Plan) -> dict[str, str]:
    """Old key to new key of the tensors that are kept whole."""
    return {key: t.key for t in plan.tensors if (key := whole_source(t.made_of)) is not None}


def _noted(plan: Plan, tied: Mapping[str, str]) -> dict[str, str]:
    """The tied names after a plan, each with the key of its tensor; not those whose is gone."""
    kept = _kept(plan)
    return {plan.aliases.get(name, name): kept[key] for name, key in tied.items() if key in kept}
