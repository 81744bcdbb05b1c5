"""Whether a state_dict fits a definition, and which rules would make it fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckpt.difference import Fit, fit
from ckpt.rules.plan import plan_renames
from ckpt.rules.suggest import suggest_rules
from ckpt.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class Fitting:
    """The fit with a definition.

    Attributes:
        definition: Its ref.
        fit: What agrees and what does not.
        rules: Rules that, applied to the state_dict, make it fit; empty where none is known.
    """

    definition: str
    fit: Fit
    rules: tuple[str, ...] = ()


def fitting(
    entries: Sequence[TensorEntry], definition: str, wanted: Sequence[TensorEntry]
) -> Fitting:
    """Compare `entries` with those of a definition, strictly."""
    found = fit(entries, wanted)
    if found.fits:
        return Fitting(definition, found)
    return Fitting(definition, found, _rules_that_fit(entries, wanted, found))


def _rules_that_fit(
    entries: Sequence[TensorEntry], wanted: Sequence[TensorEntry], found: Fit
) -> tuple[str, ...]:
    """Pair what is left over on both sides in order, and prove the guess by applying it."""
    if len(found.missing) != len(found.unexpected):
        return ()
    pairs = list(zip(found.unexpected, found.missing, strict=True))
    if any(old.shape != new.shape for old, new in pairs):
        return ()
    keys = [entry.key for entry in entries]
    rules = suggest_rules(keys, [(old.key, new.key) for old, new in pairs])
    if not rules:
        return ()
    new_keys = plan_renames(keys, rules).new_keys
    renamed = [replace(entry, key=new_keys[entry.key]) for entry in entries]
    return tuple(rule.text for rule in rules) if fit(renamed, wanted).fits else ()
