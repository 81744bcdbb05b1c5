"""Whether a state_dict fits a definition: what is left over on both sides, and what to type."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from ckpt.compare.keys import Fit, Pair
from ckpt.infer.fitting import Fitting
from ckpt.ops.diff import Comparison
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import count, printable, shape
from ckpt.tensors import TensorEntry


def fit_report(comparison: Comparison, fitting: Fitting) -> Report:
    """The verdict; if it does not fit, what is missing, unexpected or of another shape."""
    fit, definition = fitting.fit, printable(fitting.definition)
    backwards = comparison.before == fitting.definition and comparison.after != fitting.definition
    mine = printable(comparison.after if backwards else comparison.before)
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
    tables = ["\n".join(each.lines(width)) for each in report.tables]
    return "\n\n".join([report.answer, *tables, *report.notes])


def fitting_data(fitting: Fitting) -> dict[str, Any]:
    """Whether a state_dict fits a definition, for JSON."""
    return {
        "definition": fitting.definition,
        "fits": fitting.fit.fits,
        "missing": [entry_data(entry) for entry in fitting.fit.missing],
        "unexpected": [entry_data(entry) for entry in fitting.fit.unexpected],
        "reshaped": [
            {"key": a.key, "found": list(a.shape), "expected": list(b.shape)}
            for a, b in fitting.fit.reshaped
        ],
        "agreeing": fitting.fit.agreeing,
        "options": list(fitting.options),
    }


def entry_data(entry: TensorEntry) -> dict[str, Any]:
    """An entry for JSON."""
    return {"key": entry.key, "shape": list(entry.shape), "dtype": entry.dtype}


def _counts(fit: Fit) -> Iterator[str]:
    yield _agreeing(fit)
    yield f"{len(fit.missing):,} missing"
    yield f"{len(fit.unexpected):,} unexpected"
    if fit.reshaped:
        yield f"{len(fit.reshaped):,} of another shape"


def _agreeing(fit: Fit) -> str:
    return f"{count(fit.agreeing, 'key')} agree{'s' if fit.agreeing == 1 else ''}"


def _side_by_side(fit: Fit) -> Iterator[list[str]]:
    """What is left over on both sides, each beside the first that may be its twin."""
    for mine, wanted in _twins(fit.unexpected, fit.missing):
        shapes = dict.fromkeys(shape(e.shape) for e in (mine, wanted) if e is not None)
        note = "same shape" if mine and wanted and len(shapes) == 1 else ""
        keys = [printable(entry.key) if entry else "" for entry in (mine, wanted)]
        yield [*keys, " | ".join(shapes), note]


def _twins(
    unexpected: Sequence[TensorEntry], missing: Sequence[TensorEntry]
) -> Iterator[tuple[TensorEntry | None, TensorEntry | None]]:
    """Pairs in order: of one shape and one last part if there are such, else of one shape."""
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
    yield from ((None, each) for each in left.values())


def _likeness(entry: TensorEntry, strict: bool) -> object:
    return entry.shape, entry.key.rpartition(".")[2] if strict else None


def _reshaped(pairs: Sequence[Pair]) -> list[list[str]]:
    return [[printable(a.key), shape(a.shape), shape(b.shape)] for a, b in pairs]
