"""What the guard found: as text, as Markdown, as annotations of GitHub, and as JSON."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from ckpt.io.git import asked
from ckpt.ops.guard import Taken
from ckpt.ops.guard.result import GuardedClass, GuardResult
from ckpt.ops.guard.verdicts import Verdict
from ckpt.ops.guard.weights import Weights
from ckpt.rules.document import rules_document, typed
from ckpt.rules.plan import plan_tensors
from ckpt.show.diff.fit import fitting_data
from ckpt.show.diff.mapping import question_lines
from ckpt.show.look.fields import fields
from ckpt.show.look.folding import fold
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import count, first_names, printable, shape
from ckpt.show.rename import changes_lines
from ckpt.writing.outcome import followers

_MOST_LINES = 20  # about one form
_MOST_NAMED = 6  # versions of a model


def guard_text(result: GuardResult, *, width: int | None = None) -> str:
    """What is broken, in paragraphs, then a row for all that fits, then what to type."""
    lines = [line for found in result.classes for line in _paragraphs(found, result)]
    if rows := [row for found in result.classes for row in _rows(found, result)]:
        lines += Table(["class", "must load", "verdict"], rows).lines(width)
    steps = [*_next_steps(result)]
    return "\n".join([*lines, *([""] * bool(rows and steps)), *steps])


def _paragraphs(found: GuardedClass, result: GuardResult) -> Iterator[str]:
    for verdict in found.broken:
        yield f"{printable(found.definition)} no longer loads {_names(verdict, result)}"
        yield ""
        yield from explained(verdict)
        yield ""


def explained(verdict: Verdict) -> list[str]:
    """What became of the keys of a form that is not loaded."""
    if verdict.reason is not None:
        return [f"  {printable(verdict.reason)}", *_listed(verdict)]
    lines = _changes(verdict) or _listed(verdict)
    for question in verdict.questions:
        lines += question_lines(question)
    if verdict.undrafted:
        lines.append(f"  no migration: {printable(verdict.undrafted)}")
    return lines


def _changes(verdict: Verdict) -> list[str]:
    """What the migration does, as `ckpt rename` shows it."""
    if verdict.fitting is None or not verdict.fitting.rules:
        return []
    state = verdict.weights[0].state
    plan = plan_tensors(
        state.entries, verdict.fitting.rules, aliases=(*state.tied, *followers(state))
    )
    lines = changes_lines(plan)
    kept = f"{len(plan.renamed):,} renamed" if plan.renamed else ""
    made = f"{len(plan.made):,} made" if plan.made else ""
    dropped = f"{len(plan.dropped):,} dropped" if plan.dropped else ""
    return [*_few(lines), "  " + ", ".join(filter(None, (kept, made, dropped)))]


def _listed(verdict: Verdict) -> list[str]:
    """The keys that are missing, unexpected or of another shape, and what torch says else."""
    lines = []
    sides = (("missing", verdict.fit.missing), ("unexpected", verdict.fit.unexpected))
    for word, entries in sides:
        lines += [f"  {word:<10}  {it.text}{it.note}" for it in fold([(e.key,) for e in entries])]
    lines += [
        f"  reshaped    {printable(a.key)}  {shape(a.shape)}, expected {shape(b.shape)}"
        for a, b in verdict.fit.reshaped
    ]
    lines += [f"  {printable(text)}" for text in verdict.fit.complaints]
    return _few(lines)


def _few(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"  and {more:,} more"] if more > 1 else lines


def _rows(found: GuardedClass, result: GuardResult) -> Iterator[tuple[str, str, str]]:
    for verdict in found.verdicts:
        if not verdict.broken:
            yield found.definition, _names(verdict, result), _fits(verdict)
    if found.remark:
        yield found.definition, "", found.remark


def _fits(verdict: Verdict) -> str:
    how = f"fits by {verdict.by}" if verdict.by else "fits"
    return f"{how}, by keys and shapes alone" if verdict.fit.unasked else how


def _names(verdict: Verdict, result: GuardResult) -> str:
    """``mnist-cnn@prod (v2), mnist-cnn:v1``; a long list is shortened."""
    if result.against is not None:
        return f"checkpoints of {printable(verdict.weights[0].name)}"
    aliased = [_aliased(it) for it in verdict.weights if it.aliases]
    versions = [it.name for it in verdict.weights if not (it.aliases or it.snapshot)]
    snapshots = [f"snapshot {it.name}" for it in verdict.weights if it.snapshot]
    return ", ".join([*map(printable, aliased), *_short(versions), *map(printable, snapshots)])


def _aliased(weights: Weights) -> str:
    model, _, label = weights.name.rpartition(":")
    return f"{model}@{','.join(weights.aliases)} ({label})"


def _short(names: Sequence[str]) -> list[str]:
    more = len(names) - _MOST_NAMED
    shown = [*map(printable, names)]
    return [*shown[:3], f"… {more + 1:,} more …", *shown[-2:]] if more > 0 else shown


def _next_steps(result: GuardResult) -> Iterator[str]:
    """What to type for what is broken, was written, or is out of date."""
    broken = [(found, verdict) for found in result.classes for verdict in found.broken]
    paths = [_near(_path(found, verdict)) for found, verdict in broken if verdict.draft]
    options = f" --against git:{result.against}" if result.against else ""
    if paths:
        yield f"To keep old checkpoints loading:  ckpt guard --fix{options}"
        yield from (f"  it writes {path}" for path in paths)
    for found, verdict in broken:
        if verdict.questions and not verdict.draft:
            yield f"To keep old checkpoints loading:  {_by_hand(found, verdict)}"
    for found in result.classes:
        for path in found.written:
            yield f"wrote {_near(path)}; commit it with the change of the class"
        if found.stale:
            yield f"its snapshot is older; renew it:  ckpt guard --snapshot {found.definition}"


def _path(found: GuardedClass, verdict: Verdict) -> Path:
    assert found.migrations is not None  # where a draft goes
    assert verdict.draft is not None
    return found.migrations / f"{verdict.draft.name}.toml"


def _by_hand(found: GuardedClass, verdict: Verdict) -> str:
    """The command for a migration that takes a decision."""
    source = verdict.weights[0].source or "git:HEAD"
    rules = [typed(question.rule) for question in verdict.questions if question.rule]
    answers = " ".join(rule for rule in rules if rule) or "--accept-ambiguous"
    return f"ckpt migrate new {quote(found.definition)} --from {quote(source)} {answers}"


def _near(path: Path) -> str:
    """A path as one types it from here."""
    here = Path.cwd()
    return printable(str(path.relative_to(here) if path.is_relative_to(here) else path))


def guard_report(result: GuardResult) -> Report:
    """The same for a comment on a pull request."""
    bad = [*result.broken, *result.failed]
    names = [found.definition for found in bad]
    answer = (
        f"Old checkpoints no longer load: {first_names(names)}" if bad else "Old checkpoints load"
    )
    rows = [row for found in result.classes for row in _rows(found, result)]
    tables = [Table(["class", "must load", "verdict"], rows)] if rows else []
    notes = [f"{found.definition}: {found.problem}" for found in result.failed if found.problem]
    for found in result.broken:
        for verdict in found.broken:
            head = ["change", f"{found.definition}, from {_names(verdict, result)}"]
            tables.append(Table(head[1:], [[line.strip()] for line in explained(verdict)]))
    steps = (step.strip() for step in _next_steps(result))
    return Report(answer, tables, [*notes, *steps], mood="bad" if bad else "good")


def annotations(result: GuardResult) -> Iterator[str]:
    """Workflow commands that GitHub shows beside the line of a class.

    Source: actions/toolkit, packages/core/src/command.ts: what is escaped in values and properties.
    """
    for found in result.classes:
        for verdict in found.broken:
            title = f"no longer loads {_names(verdict, result)}"
            lines = [*explained(verdict), *_next_steps(result)]
            yield _annotation("error", found, title, "\n".join(line.strip("\n") for line in lines))
        if found.problem:
            text = "\n".join(filter(None, (found.problem, found.hint)))
            yield _annotation("error", found, "cannot be built", text)
        if found.stale:
            text = f"to renew it:  ckpt guard --snapshot {found.definition}"
            yield _annotation("notice", found, "its snapshot is older", text)


def _annotation(level: str, found: GuardedClass, title: str, text: str) -> str:
    properties = {"title": f"{found.definition} {title}"}
    if found.file is not None:
        properties = {"file": _in_repository(found.file), "line": str(found.line or 1)} | properties
    written = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{level} {written}::{_escaped(text)}"


def _escaped(text: str, more: str = "") -> str:
    text = "\n".join(map(printable, text.split("\n")))
    return re.sub(f"[%\r\n{more}]", lambda it: f"%{ord(it[0]):02X}", text)


def _in_repository(file: Path) -> str:
    """The path from the top of the repository, as GitHub expects it."""
    top = asked(file.parent, "rev-parse", "--show-toplevel") if file.parent.is_dir() else None
    file = file.resolve()
    within = top is not None and file.is_relative_to(top)
    return str(file.relative_to(top) if within and top is not None else file)


def guard_data(result: GuardResult) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **fields(result, "holds", "against"),
        "classes": [_class_data(found) for found in result.classes],
    }


def _class_data(found: GuardedClass) -> dict[str, Any]:
    return {
        **fields(found, "definition", "line", "remark", "problem", "hint", "stale", "former"),
        "file": None if found.file is None else _near(found.file),
        "written": [_near(path) for path in found.written],
        "verdicts": [_verdict_data(verdict) for verdict in found.verdicts],
    }


def _verdict_data(verdict: Verdict) -> dict[str, Any]:
    fitting = verdict.fitting
    return {
        "weights": [fields(it, "name", "aliases", "snapshot") for it in verdict.weights],
        "fits": not verdict.broken,
        **fields(verdict, "by", "reason", "by_keys_only=fit.unasked"),
        "missing": [entry.key for entry in verdict.fit.missing],
        "unexpected": [entry.key for entry in verdict.fit.unexpected],
        "reshaped": [a.key for a, _ in verdict.fit.reshaped],
        "complaints": list(verdict.fit.complaints),
        "pairs": fitting_data(fitting)["pairs"] if fitting else [],
        "rules": rules_document(fitting.rules) if fitting else [],
        "migration": verdict.draft.name if verdict.draft else None,
        "questions": [question.first.source for question in verdict.questions],
    }


def taken_text(taken: Sequence[Taken]) -> str:
    """A line for each snapshot."""
    return "\n".join(
        f"wrote {_near(it.path)}  {printable(it.definition)}, {count(it.keys, 'key')}"
        + ("; it replaces another one" if it.changed else "")
        for it in taken
    )


def left_text(taken: Taken) -> str:
    """That the keys of the earlier snapshot are no longer guarded."""
    return (
        f"{printable(taken.definition)}: no migration leads from the keys of the earlier snapshot, "
        "so checkpoints with them no longer load"
    )


def taken_data(taken: Sequence[Taken]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {**fields(it, "definition", "keys", "changed", "left"), "path": _near(it.path)}
        for it in taken
    ]
