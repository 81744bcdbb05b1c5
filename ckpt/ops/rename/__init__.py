"""Rename: make a checkpoint with other keys, and other tensors where rules make some.

In two steps: `plan_rename` works everything out and checks it, `apply` writes.
`rename` does both. For a file it writes a new file, for a version it adds the next version.
Where only names change no tensor is decoded: a file's tensors are copied as they are, a version's
are not even read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from ckpt.errors import PlanError
from ckpt.in_memory import is_in_memory
from ckpt.opened.named import Named
from ckpt.ops.rename.goal import Goal, expect_known
from ckpt.ops.rename.opening import open_source
from ckpt.ops.rename.plan import (
    RenamePlan,
    UnfitError,
    plan_opened,
    plan_rename,
)
from ckpt.ops.rename.result import Renamed, alone, apply, carry_out
from ckpt.ops.rename.rule_files import write_open_rules
from ckpt.ops.rename.rule_order import RuleOptions, Rules, in_order
from ckpt.ops.rename.to_file import Output, expect_output
from ckpt.registry.registry import InRegistry, Registry

if TYPE_CHECKING:
    from collections import OrderedDict

    from torch import Tensor, nn

    from ckpt.registry.adding import Added
    from ckpt.registry.version import Version

InMemory = TypeVar("InMemory", bound=Mapping[str, Any])

__all__ = [
    "RenameOptions",
    "RenamePlan",
    "Renamed",
    "RuleOptions",
    "UnfitError",
    "apply",
    "plan_rename",
    "rename",
]


class RenameOptions(Goal, Output, total=False):
    """Where a rename leads, and where its result goes.

    Attributes:
        dry_run: Stop after the plan and the checks.
    """

    dry_run: bool


@overload
def rename(
    source: InMemory,
    rules: Rules = (),
    *,
    registry: InRegistry | None = None,
    **options: Unpack[Goal],
) -> InMemory: ...


@overload
def rename(
    source: "nn.Module",
    rules: Rules = (),
    *,
    registry: InRegistry | None = None,
    **options: Unpack[Goal],
) -> "OrderedDict[str, Tensor]": ...


@overload
def rename(
    source: "Named | Version | Added",
    rules: Rules = (),
    *,
    registry: InRegistry | None = None,
    **options: Unpack[RenameOptions],
) -> Renamed: ...


def rename(
    source: "Named | Version | Added | Mapping[str, Any] | nn.Module",
    rules: Rules = (),
    *,
    registry: InRegistry | None = None,
    **options: Unpack[RenameOptions],
) -> Renamed | Mapping[str, Any]:
    """Rename the keys of `source` by rules: plan it, and apply the plan.

    A state_dict in memory gives another one: of the same type, in the same order, with the same
    tensors, not copies. Nothing is written.

    Args:
        source: A file or a version; or a state_dict, or a module, whose state_dict is meant.
        rules: ``conv->embed`` and the like, and operations such as ``{"split": "qkv", "into":
            ["q", "k", "v"]}``, applied first to last; or a dict of old key to new, or the `Path`
            of a rule file.
        registry: Where versions are looked up and added.
        **options: See `Goal`, `Output` and `RenameOptions`.

    Raises:
        PlanError: The rules do not make a valid plan for these keys.
        FitError: The result would not fit `check` or `to`.
        UsageError: There is nothing to do, or `out` already exists.
        ConflictError: Another process renames the same file in place.

    Example:
        >>> weights = ckpt.rename(torch.load("old.pt"), ["conv->embed"])
        >>> Net().load_state_dict(weights)
        <All keys matched successfully>
        >>> print(ckpt.rename("old.pt", ["conv->embed"], out="new.pt"))
          conv1.weight  ->  embed1.weight
          conv1.bias    ->  embed1.bias
          2 keys renamed, 2 kept
        <BLANKLINE>
        wrote new.pt ...
    """
    expect_known(options, RenameOptions.__optional_keys__)
    registry = Registry.of(registry)
    if is_in_memory(source):
        from ckpt.ops.rename.in_memory import renamed_in_memory

        value = cast("Mapping[str, Any]", source)
        return renamed_in_memory(value, rules, cast("Goal", options), registry)
    expect_output(options)
    dry_run = options.get("dry_run", False)
    with (
        alone(source, options, registry, dry_run=dry_run),
        open_source(source, registry, options) as opened,
    ):
        try:
            plan = plan_opened(opened, rules, options, registry)
        except PlanError as error:
            if (path := options.get("save_rules")) is not None and not dry_run:
                raise _saved(error, rules, Path(path)) from error
            raise
        return carry_out(plan, opened, options, registry, dry_run=dry_run)


def _saved(error: PlanError, rules: Rules, path: Path) -> PlanError:
    """Save what is known of a mapping that is in part a guess; the error with where it is."""
    from ckpt.infer.settled import UnsettledError, known_rules, open_questions

    if not isinstance(error, UnsettledError):
        return error
    found = error.found
    known = [*in_order(rules).rules, *known_rules(found)]
    write_open_rules(path, f"rename of {found.source}", known, open_questions(found))
    hint = f"saved the known rules in {path}, with what is open as comments\n{error.hint}"
    return UnsettledError(str(error), found, hint)
