"""Whether a state_dict fits a definition: what does not match, and what to type."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from ckpt.compare.keys import Fit, Pair
from ckpt.infer.fitting import Fitting
from ckpt.ops.diff import RefDiff
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import count, printable, shape
from ckpt.tensors import TensorEntry


def fit_report(diff: RefDiff, fitting: Fitting) -> Report:
    """The verdict; if it does not fit, the keys that are missing, unexpected or reshaped."""
    fit, definition = fitting.fit, printable(fitting.definition)
    backwards = diff.before == fitting.definition and diff.after != fitting.definition
    mine = printable(diff.after if backwards else diff.before)
    if fit.fits:
        return Report(f"{mine} fits {definition}: {_agreeing(fit)}")
    short = definition.rpartition(":")[2]
    tables = []
    if fit.missing or fit.unexpected:
        heads = [f"only in {mine}", f"only in {short}", "shape", ""]
        tables.append(Table(heads, list(_side_by_side(fit))))
    if fit.reshaped:
        tables.append(Table(["key", mine, short], _reshaped(fit.reshaped)))
    notes = ["  " + " · ".join(_counts(fit))]
    if fitting.options:
        options = " ".join(fitting.options)
        check = "" if options.startswith("--to ") else f" --check {definition}"
        notes.append(f"To make it fit:  ckpt rename {mine} {options}{check}")
    return Report(f"{mine} does not fit {definition}", tables, notes)


def fit_text(report: Report, *, width: int | None) -> str:
    """The report, with blank lines between its parts."""
    tables = ["\n".join(table.lines(width)) for table in report.tables]
    return "\n\n".join([report.answer, *tables, *report.notes])


def fitting_data(fitting: Fitting) -> dict[str, Any]:
    """Whether a state_dict fits a definition, for JSON."""
    return {
        "definition": fitting.definition,
        "fits": fitting.fit.fits,
        "missing": [entry_data(entry) for entry in fitting.fit.missing],
        "unexpected": [entry_data(entry) for entry in fitting.fit.unexpected],
        "reshaped": shapes_data(fitting.fit.reshaped, "found", "expected"),
        "agreeing": fitting.fit.agreeing,
        "options": list(fitting.options),
    }


def shapes_data(pairs: Sequence[Pair], before: str, after: str) -> list[dict[str, Any]]:
    """Pairs of one key and two shapes for JSON, where `before` and `after` name the shapes."""
    return [{"key": a.key, before: list(a.shape), after: list(b.shape)} for a, b in pairs]


def entry_data(entry: TensorEntry) -> dict[str, Any]:
    """An entry for JSON."""
    return {"key": entry.key, "shape": list(entry.shape), "dtype": entry.dtype}


def _counts(fit: Fit) -> Iterator[str]:
    yield _agreeing(fit)
    yield f"{len(fit.missing):,} missing"
    yield f"{len(fit.unexpected):,} unexpected"
    if fit.reshaped:
        yield f"{len(fit.reshaped):,} with another shape"


def _agreeing(fit: Fit) -> str:
    return f"{count(fit.agreeing, 'key')} agree{'s' if fit.agreeing == 1 else ''}"


def _side_by_side(fit: Fit) -> Iterator[list[str]]:
    """The unmatched keys of both sides, possible twins beside each other."""
    for mine, wanted in _twins(fit.unexpected, fit.missing):
        shapes = dict.fromkeys(shape(e.shape) for e in (mine, wanted) if e is not None)
        note = "same shape" if mine and wanted and len(shapes) == 1 else ""
        keys = [printable(entry.key) if entry else "" for entry in (mine, wanted)]
        yield [*keys, " | ".join(shapes), note]


def _twins(
    unexpected: Sequence[TensorEntry], missing: Sequence[TensorEntry]
) -> Iterator[tuple[TensorEntry | None, TensorEntry | None]]:
    """Pairs of one shape in order; first those that share the last part of the key too."""
    left = dict(enumerate(missing))
    partner: dict[int, int] = {}
    for strict in (True, False):
        places: defaultdict[object, list[int]] = defaultdict(list)
        for number in reversed(left):
            places[_likeness(left[number], strict)].append(number)
        for number, mine in enumerate(unexpected):
            same = places[_likeness(mine, strict)]
            if number not in partner and same:
                partner[number] = same.pop()
                del left[partner[number]]
    for number, mine in enumerate(unexpected):
        yield mine, missing[partner[number]] if number in partner else None
    yield from ((None, entry) for entry in left.values())


def _likeness(entry: TensorEntry, strict: bool) -> object:
    return entry.shape, entry.key.rpartition(".")[2] if strict else None


def _reshaped(pairs: Sequence[Pair]) -> list[list[str]]:
    return [[printable(a.key), shape(a.shape), shape(b.shape)] for a, b in pairs]
