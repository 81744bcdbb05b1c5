"""Rules: those of other libraries as a rule file."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ckpt.errors import CkptError, RuleError
from ckpt.ops.rename.rule_files import RuleFile, write_rule_file
from ckpt.printed import Printed
from ckpt.rules.document import read_rules
from ckpt.rules.planned import Rule

USUAL_SECONDS = 60.0


class ImportedRulesError(CkptError):
    """A mapping cannot be read, or only in part."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Left:
    """A part of a mapping that the rule language cannot express.

    Attributes:
        what: Its pattern.
        why: Why not.
    """

    what: str
    why: str


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
    partial: bool = False,
    replace_out: bool = False,
    seconds: float = USUAL_SECONDS,
) -> ImportedRules:
    """Write the mapping of another library as a rule file.

    Its code runs in a process of its own, for a limited time.

    Args:
        source: ``transformers:MODEL_TYPE``, ``vllm:Class`` or ``file.py:NAME``: a dict, pairs for
            `re.sub`, a mapper like vLLM's, a class that has one, or transformers' conversions.
        out: The new rule file.
        partial: Write it even if something is left out.
        replace_out: Replace an existing file.
        seconds: How long the code may run.

    Raises:
        ImportedRulesError: It cannot be read; or something would be left out.
    """
    rules: list[Rule] = []
    left: list[Left] = []
    for step in _steps(source, seconds):
        try:
            rules.append(_rule(step))
        except RuleError as error:
            what = next(iter(step.values()))
            left.append(Left(str(what), step.get("why") or str(error)))
    if not rules or (left and not partial):
        shown = "; ".join(f"{it.what}: {it.why}" for it in left[:5]) or "it is empty"
        more = f"; and {len(left) - 5} more" if len(left) > 5 else ""
        hint = "--partial  writes the others" if rules else None
        raise ImportedRulesError(f"{source}: no rule can express {shown}{more}", hint=hint)
    write_rule_file(out, RuleFile(source, rules), replace=replace_out)
    return ImportedRules(source, tuple(rules), tuple(left), out)


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
        old, new = f"{before}{_shifted(old)}", f"\\1{_shifted(new)}"
    return {"rename": f"{old}->{new}"}


def _shifted(text: str) -> str:
    """The same with a group before all others."""
    return re.sub(r"\\(\d+)", lambda group: f"\\{int(group[1]) + 1}", text)


def _steps(source: str, seconds: float) -> Sequence[Mapping[str, Any]]:
    """The steps of a mapping, read by another process.

    Raises:
        ImportedRulesError: It fails, or takes too long.
    """
    # -P: no module beside the project's files may hide one of Python's own.
    words = [sys.executable, "-P", "-m", "ckpt.ops.rules.child", source]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise ImportedRulesError(
                f"{source}: takes more than {seconds:g} s", hint="--timeout SECONDS"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode or not printed:
        raise ImportedRulesError(f"{source}: its code ended the process that reads it")
    answer = json.loads(printed)
    if "error" in answer:
        raise ImportedRulesError(answer["error"], hint=answer["hint"])
    steps: Sequence[Mapping[str, Any]] = answer["steps"]
    return steps
