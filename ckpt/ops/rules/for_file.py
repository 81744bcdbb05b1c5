"""The rules of a mapping that is code, for the keys of one file, from what it made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt.errors import PlanError, RuleError
from ckpt.ops.rules.process import ImportedRulesError
from ckpt.ops.rules.traced import expression, rules_of
from ckpt.rules.expressions import Expression, Source
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry

_SHOWN = 2  # keys in a message


@dataclass(frozen=True, slots=True)
class Left:
    """A part of a mapping that the rule language cannot express.

    Attributes:
        what: Its pattern, or a key.
        why: Why not.
    """

    what: str
    why: str


def rules_for(
    source: str, name: str, entries: Sequence[TensorEntry], answer: Mapping[str, Any]
) -> tuple[list[Rule], list[Left]]:
    """The rules for one file, and what they lack to give all keys of the model.

    Args:
        source: The mapping.
        name: The file.
        entries: Its tensors.
        answer: Of `ckpt.ops.rules.of_timm.traced`.

    Raises:
        ImportedRulesError: The file is of another model, or needs no rules.
    """
    of = {it.key: Source(it.key, it.dtype, it.shape) for it in entries}
    wanted = {key: tuple(shape) for key, shape in answer["wanted"].items()}
    made, left = dict[str, Expression](), list[Left]()
    for key, note in answer["made"].items():
        try:
            made[key] = expression(note, of)
        except PlanError as error:
            left.append(Left(key, str(error)))
    _expect_of_model(source, name, answer["made"], wanted)
    left += _differing(name, made, wanted, {it.what for it in left})
    try:
        rules = [*rules_of(entries, made)]
    except (PlanError, RuleError) as error:
        raise ImportedRulesError(f"{source}: no rule can express it: {error}") from error
    if not rules and not left:
        raise ImportedRulesError(f"{name}: needs no rules: {source} reads its keys as they are")
    return rules, left


def _expect_of_model(
    source: str, name: str, made: Mapping[str, object], wanted: Mapping[str, object]
) -> None:
    """Refuse a file that has no tensor of the model."""
    if made.keys() & wanted.keys():
        return
    found, expected = _some([*made]) or "nothing", _some([*wanted])
    raise ImportedRulesError(
        f"{name}: not a file for {source}, which makes {found} of it, expected {expected}",
        hint=f"FILE::NAME is a state_dict in it; to list its keys:  ckpt show {name}",
    )


def _differing(
    name: str,
    made: Mapping[str, Expression],
    wanted: Mapping[str, tuple[int, ...]],
    known: set[str],
) -> Iterator[Left]:
    """What the model would not load of the result."""
    if missing := [key for key in wanted if key not in made and key not in known]:
        yield Left(_some(missing), f"the model has it, {name} does not")
    if unexpected := [key for key in made if key not in wanted]:
        yield Left(_some(unexpected), "the model has no such key")
    if other := [key for key in wanted if key in made and made[key].shape != wanted[key]]:
        found, expected = list(made[other[0]].shape), list(wanted[other[0]])
        yield Left(_some(other), f"the shape is {found}, the model has {expected}")


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN:,} more" if len(keys) > _SHOWN else ""
    return f"{', '.join(keys[:_SHOWN])}{more}"
