"""What a rename should lead to, as it was asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from ckpt.compare.allowed import Allowed, allowed
from ckpt.errors import UsageError
from ckpt.opened.named import Defined, WeightsOrClass
from ckpt.ops.rename.rule_files import RuleFile

if TYPE_CHECKING:
    from os import PathLike

    from torch import nn

    from ckpt.prove.inputs import Given


class Goal(TypedDict, total=False):
    """Where a rename leads, beyond its rules.

    Attributes:
        to: A definition, file or version that the result must fit strictly; the rules that lead
            there are found, and follow those that were given. In Python also a class, a module,
            which stands for its class, or a state_dict.
        accept_ambiguous: Accept the best guess for ambiguous keys.
        check: A definition that the result must fit strictly.
        allow_missing: Expressions for keys that `to` and `check` may have and the result lacks.
        allow_unexpected: Expressions for keys that the result may have and they lack.
        allow_shape: Expressions for keys that may have another shape in them; the result does not
            hold these tensors, as torch cannot load them.
        arguments: The arguments of the definitions.
        prove: Run `saved_from` and the new class, of `to` or `check`; their outputs must agree.
        prove_input: Their input: a shape, texts like ``ids=1x16:int64<1000``, tensors by place or
            by name, or a `Path` of a file that holds these; None derives it.
        undo: Give the old keys back: for a version those of its own rename, for a file those
            of the rules, a rule file that `save_rules` wrote.
        saved_from: The definition that the source was saved from: for `prove`, and for the order
            in which its optimizer has the parameters, if that of the keys does not tell.
        drop_optimizer: Leave the file's optimizers out.
        copies: Rename all copies of the state_dict in the file, even if the ref names one.
    """

    to: WeightsOrClass | None
    accept_ambiguous: bool
    check: "str | Defined | nn.Module | None"
    allow_missing: str | Sequence[str]
    allow_unexpected: str | Sequence[str]
    allow_shape: str | Sequence[str]
    arguments: Mapping[str, object] | None
    prove: bool
    prove_input: "Given | PathLike[str]"
    undo: bool
    saved_from: "str | Defined | nn.Module | None"
    drop_optimizer: bool
    copies: bool


def allowed_by(goal: Goal) -> Allowed:
    """Which keys may differ."""
    return allowed(
        goal.get("allow_missing", ()), goal.get("allow_unexpected", ()), goal.get("allow_shape", ())
    )


def expect_known(options: Mapping[str, object], known: frozenset[str]) -> None:
    """Refuse keyword arguments of other names."""
    for name in options.keys() - known:
        raise TypeError(f"unexpected keyword argument {name!r}")


def expect_sound(goal: Goal, given: RuleFile, may_differ: Allowed) -> None:
    """Refuse options that exclude each other, and a rename without any rule."""
    to, undo = goal.get("to"), goal.get("undo", False)
    if may_differ:
        if to is None and not goal.get("check"):
            raise UsageError(
                "--allow-missing, --allow-unexpected and --allow-shape need --to or --check"
            )
        if undo or goal.get("prove"):
            raise UsageError(
                f"--{'undo' if undo else 'prove'} and a partial fit exclude each other",
                hint="leave --allow-missing, --allow-unexpected and --allow-shape out",
            )
    if to is None and goal.get("accept_ambiguous"):
        raise UsageError("--accept-ambiguous needs --to")
    if to is not None and undo:
        raise UsageError("--undo and --to exclude each other")
    if not (given.rules or to is not None or undo or goal.get("prove")):
        raise UsageError(
            "no rules given",
            hint="--rule 'OLD->NEW', --rules FILE, --map FILE or --unwrap; --to DEF  finds them",
        )
