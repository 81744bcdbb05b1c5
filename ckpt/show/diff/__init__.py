"""A difference: `ckpt diff`. First the answer, then the details, then the next command."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ckpt.ops.diff import Comparison
from ckpt.show.diff.changes import Row, change_rows, moves_of, stat_table
from ckpt.show.diff.fit import entry_data, fit_report, fit_text, fitting_data
from ckpt.show.diff.records import facts_table
from ckpt.show.diff.values import values_data, values_notes, values_table
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.terminal import painted
from ckpt.show.look.words import count, printable, size

_COLOURS = {
    **{"removed": "red", "added": "green", "changed": "yellow", "swapped": "yellow"},
    **{"reshaped": "yellow", "re-typed": "yellow"},
}


def comparison_text(
    comparison: Comparison,
    *,
    width: int | None,
    colour: bool = False,
    stat: bool = False,
    records: bool = False,
    all_values: bool = False,
) -> str:
    """The difference as text.

    Args:
        comparison: What was found.
        width: Columns; None for any.
        colour: Whether what happened is coloured.
        stat: Show numbers by module in place of keys.
        records: Show how both sides were made as well.
        all_values: Show all tensors whose values changed, and not those alone that changed most.
    """
    if comparison.fitting is not None:
        return fit_text(fit_report(comparison, comparison.fitting), width=width)
    lines = [_answer(comparison)]
    if not stat:
        lines += [_line(row, colour=colour) for row in _rows(comparison)]
    elif comparison.diff.differs:
        lines += stat_table(comparison.diff).lines(width)
    lines += _remarks(comparison)
    for table in _tables(comparison, records=records, all_values=all_values):
        lines += ["", *table.lines(width)]
    lines += values_notes(comparison, all_rows=all_values)
    if comparison.facts and not records:
        lines.append(f"  record    {count(len(comparison.facts), 'field')} not alike; --records")
    return "\n".join(lines)


def comparison_report(
    comparison: Comparison, *, stat: bool = False, records: bool = False, all_values: bool = False
) -> Report:
    """The same, to be shown otherwise than on a terminal."""
    if comparison.fitting is not None:
        return fit_report(comparison, comparison.fitting)
    rows = [*map(list, _rows(comparison))]
    changes = stat_table(comparison.diff) if stat else Table(["", "keys", ""], rows)
    tables = _tables(comparison, records=records, all_values=all_values)
    notes = [*_remarks(comparison), *values_notes(comparison, all_rows=all_values)]
    return Report(_answer(comparison), [changes, *tables] if changes.rows else [*tables], notes)


def _answer(comparison: Comparison) -> str:
    return f"{printable(comparison.before)} -> {printable(comparison.after)}"


def _rows(comparison: Comparison) -> Iterator[Row]:
    return change_rows(comparison.diff, comparison.inferred)


def _line(row: Row, *, colour: bool) -> str:
    word = f"{row.word:<9}"
    if colour and row.word in _COLOURS:
        word = painted(word, _COLOURS[row.word])
    return f"  {word} {row.what}   {row.detail}".rstrip()


def _remarks(comparison: Comparison) -> Iterator[str]:
    if comparison.unread_bytes:
        yield f"  not compared: {size(comparison.unread_bytes)} of values; --values reads them"
    elif not comparison.diff.differs:
        yield "  no difference"


def _tables(comparison: Comparison, *, records: bool, all_values: bool) -> Iterator[Table]:
    if comparison.values:
        yield values_table(comparison, all_rows=all_values)
    if comparison.facts and records:
        yield facts_table(comparison.facts, comparison.before, comparison.after)


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """The same for JSON."""
    diff, fitting = comparison.diff, comparison.fitting
    return {
        "before": comparison.before,
        "after": comparison.after,
        "differs": comparison.differs,
        "removed": [entry_data(entry) for entry in diff.removed],
        "added": [entry_data(entry) for entry in diff.added],
        "renamed": [{"old": a.key, "new": b.key} for a, b in diff.renamed],
        "inferred": [{"old": old, "new": new} for old, new in comparison.inferred],
        "moved": [asdict(move) for move in moves_of(diff)[0]],
        "reshaped": [
            {"key": a.key, "before": list(a.shape), "after": list(b.shape)}
            for a, b in diff.reshaped
        ],
        "retyped": [{"key": a.key, "before": a.dtype, "after": b.dtype} for a, b in diff.retyped],
        "changed": [a.key for a, _ in diff.changed],
        "swapped": [list(pair) for pair in diff.swapped],
        "same": [a.key for a, _ in diff.same],
        "reordered": list(diff.reordered),
        "tied": [{"key": key, "other": other} for key, other in diff.tied],
        "untied": [{"key": key, "other": other} for key, other in diff.untied],
        "not_compared": [a.key for a, _ in diff.unread],
        "unread_bytes": comparison.unread_bytes,
        "records": [asdict(fact) for fact in comparison.facts],
        **values_data(comparison),
        "fit": fitting_data(fitting) if fitting else None,
    }
