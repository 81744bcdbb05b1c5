"""Rules: those of other libraries as a rule file."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ckpt.errors import RuleError, UsageError
from ckpt.opened import open_ref
from ckpt.opened.named import Named
from ckpt.ops.rename.rule_files import RuleFile, write_rule_file
from ckpt.ops.rules.for_file import Left, rules_for
from ckpt.ops.rules.of_timm import PREFIX
from ckpt.ops.rules.process import ImportedRulesError, answer_of
from ckpt.ops.rules.reading import shifted
from ckpt.printed import Printed
from ckpt.registry.registry import InRegistry, Registry
from ckpt.rules.document import read_rules
from ckpt.rules.planned import Rule

USUAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class ImportedRules(Printed):
    """The rules of a mapping.

    Attributes:
        source: Where it is from.
        rules: In order.
        left: What they lack.
        path: The rule file.
    """

    VIEW: ClassVar = "ckpt.show.rules:imported_text"

    source: str
    rules: tuple[Rule, ...]
    left: tuple[Left, ...]
    path: Path


def import_rules(
    source: str,
    out: Path,
    *,
    keys_of: Named | None = None,
    partial: bool = False,
    replace_out: bool = False,
    seconds: float = USUAL_SECONDS,
    registry: InRegistry | None = None,
) -> ImportedRules:
    """Write the mapping of another library as a rule file.

    Its code runs in a process of its own, for a limited time.

    Args:
        source: ``transformers:MODEL_TYPE``, ``vllm:Class``, ``timm:MODEL`` or ``file.py:NAME``: a
            dict, pairs for `re.sub`, a mapper like vLLM's, a class that has one, or transformers'
            conversions.
        out: The new rule file.
        keys_of: The file or version that the rules are for; needed for ``timm:MODEL``, which maps
            keys by code.
        partial: Write it even if something is left out.
        replace_out: Replace an existing file.
        seconds: How long the code may run.
        registry: Where versions are looked up.

    Raises:
        ImportedRulesError: It cannot be read; or something would be left out.
        UsageError: `keys_of` is missing, or is not needed.
    """
    if source.startswith(PREFIX):
        rules, left = _of_timm(source, keys_of, seconds, Registry.of(registry))
    elif keys_of is not None:
        raise UsageError(f"--keys-of is for {PREFIX}MODEL; {source} lists its keys or patterns")
    else:
        rules, left = rules_of_steps(answer_of(source, seconds)["steps"])
    if not rules or (left and not partial):
        shown = "; ".join(f"{it.what}: {it.why}" for it in left[:5]) or "it is empty"
        more = f"; and {len(left) - 5} more" if len(left) > 5 else ""
        hint = "--partial  writes the others" if rules else None
        what = "incomplete:" if keys_of is not None else "no rule can express"
        raise ImportedRulesError(f"{source}: {what} {shown}{more}", hint=hint)
    remarks = [f"left out: {it.what}: {it.why}" for it in left]
    write_rule_file(out, RuleFile(source, rules), replace=replace_out, remarks=remarks)
    return ImportedRules(source, tuple(rules), tuple(left), out)


def _of_timm(
    source: str, keys_of: Named | None, seconds: float, registry: Registry
) -> tuple[list[Rule], list[Left]]:
    """The rules of a filter function for one file, and what they lack."""
    if keys_of is None:
        hint = f"ckpt rules import {source} --keys-of FILE  traces the keys of FILE through it"
        raise UsageError(
            f"{source}: timm maps keys by code, which needs those of a file", hint=hint
        )
    with open_ref(keys_of, registry) as opened:
        entries, name = list(opened.entries), opened.name
    given = [[it.key, it.dtype, list(it.shape)] for it in entries]
    return rules_for(source, name, entries, answer_of(source, seconds, given))


def rules_of_steps(steps: Iterable[Mapping[str, Any]]) -> tuple[list[Rule], list[Left]]:
    """The rules of the steps of a mapping, and the steps that have none."""
    rules, left = list[Rule](), list[Left]()
    for step in steps:
        try:
            rules.append(_rule(step))
        except RuleError as error:
            what = next(iter(step.values()))
            left.append(Left(str(what), step.get("why") or str(error)))
    return rules, left


def _rule(step: Mapping[str, Any]) -> Rule:
    """The rule of a step.

    Raises:
        RuleError: There is none.
    """
    match step:
        case {"table": dict() as table}:
            pass
        case {"map": dict() as pairs}:
            table = {"map": pairs}
        case {"drop": str() as pattern}:
            table = {"drop": pattern}
        case {"sub": str() as old, "to": str() as new, "first": bool() as first}:
            table = _substitution(old, new, first=first)
        case _:
            raise RuleError(str(step.get("why")))
    (rule,) = read_rules([table], name="the mapping")
    return rule


def _substitution(old: str, new: str, *, first: bool) -> dict[str, Any]:
    """A rename that replaces a pattern in a key, everywhere or where it matches first."""
    if new == "" and re.fullmatch(r"\^(?:[\w/-]|\\.)+", old):
        prefix = re.sub(r"\\(.)", r"\1", old[1:])
        if re.escape(prefix) == old[1:]:
            return {"strip": prefix}
    begins = first and not old.startswith("^")
    if begins or new == "":  # a rule must leave something: the empty group does
        before = "^(.*?)" if begins else "()"
        old, new = f"{before}{shifted(old)}", f"\\1{shifted(new)}"
    return {"rename": f"{old}->{new}"}
