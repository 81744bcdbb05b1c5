"""`ckpt diff`: first the answer, then the details, then the next command."""

from dataclasses import asdict, replace
from typing import Any

from ckpt.ops.diff import RefDiff
from ckpt.show.diff.changes import (
    ChangeRow,
    change_rows,
    entry_data,
    moves_of,
    shapes_data,
    stat_table,
)
from ckpt.show.diff.report import answer, remarks, tables
from ckpt.show.diff.side_files import files_data, files_lines
from ckpt.show.diff.values import values_data, values_notes
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import painted
from ckpt.show.look.words import count

_COLOURS = {
    **{"removed": "red", "added": "green", "changed": "yellow", "swapped": "yellow"},
    **{"reshaped": "yellow", "re-typed": "yellow"},
}


def diff_text(
    diff: RefDiff,
    *,
    width: int | None = None,
    colour: bool = False,
    stat: bool = False,
    records: bool = False,
    all_values: bool = False,
) -> str:
    """The difference as text for `width` columns; the others are options of `ckpt diff`."""
    if diff.fitting is not None:
        from ckpt.show.diff.fit import fit_report, fit_text

        report = fit_report(diff, diff.fitting)
        if colour:
            verdict = painted(report.answer, "green" if diff.fitting.fit.fits else "red")
            report = replace(report, answer=verdict)
        return fit_text(report, width=width)
    lines = [answer(diff)]
    if not stat:
        lines += [_line(row, colour=colour) for row in change_rows(diff.diff, diff.inferred)]
    elif diff.diff.differs:
        lines += stat_table(diff.diff, diff.inferred).lines(width)
    lines += remarks(diff)
    for table in tables(diff, records=records, all_values=all_values):
        lines += ["", *table.lines(width)]
    lines += values_notes(diff, all_rows=all_values)
    lines += [] if stat else files_lines(diff.files)
    if diff.facts and not records:
        differ = f"{count(len(diff.facts), 'field')} differ{'s' * (len(diff.facts) == 1)}"
        lines.append(f"  record    {differ}; --records")
    return "\n".join(lines)


def _line(row: ChangeRow, *, colour: bool) -> str:
    word = f"{row.word:<9}"
    if colour and row.word in _COLOURS:
        word = painted(word, _COLOURS[row.word])
    return f"  {word} {row.what}   {row.detail}".rstrip()


def diff_data(diff: RefDiff) -> dict[str, Any]:
    """The same for JSON."""
    keys, fit = diff.diff, None
    if diff.fitting is not None:
        from ckpt.show.diff.fit import fitting_data

        fit = fitting_data(diff.fitting)
    return {
        **fields(diff, "before", "after", "differs"),
        "removed": [entry_data(entry) for entry in keys.removed],
        "added": [entry_data(entry) for entry in keys.added],
        "renamed": [{"old": a.key, "new": b.key} for a, b in keys.renamed],
        "inferred": [{"old": old, "new": new} for old, new in diff.inferred],
        "moved": [asdict(move) for move in moves_of(keys)[0]],
        "reshaped": shapes_data(keys.reshaped, "before", "after"),
        "retyped": [{"key": a.key, "before": a.dtype, "after": b.dtype} for a, b in keys.retyped],
        "changed": [a.key for a, _ in keys.changed],
        "swapped": [list(pair) for pair in keys.swapped],
        "same": [a.key for a, _ in keys.same],
        "reordered": keys.reordered,
        "tied": [{"key": key, "other": other} for key, other in keys.tied],
        "untied": [{"key": key, "other": other} for key, other in keys.untied],
        "not_compared": [a.key for a, _ in keys.unread],
        "unread_bytes": diff.unread_bytes,
        "records": [asdict(fact) for fact in diff.facts],
        **values_data(diff),
        "runs_code": {name: [asdict(one) for one in code] for name, code in diff.code.items()},
        "side_files": files_data(diff.files),
        "fit": fit,
    }
