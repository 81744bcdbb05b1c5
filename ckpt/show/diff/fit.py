"""Whether a state_dict fits a definition: what does not match, and what to type."""

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Any

from ckpt.compare.keys import Fit, Pair
from ckpt.infer.fitting import Fitting, Pairing
from ckpt.infer.result import DROPPED, Confidence, InferredOperation, Match
from ckpt.ops.diff import RefDiff
from ckpt.show.diff.changes import entry_data, shapes_data
from ckpt.show.look.fields import fields
from ckpt.show.look.folding import fold
from ckpt.show.look.tables import Report, Table
from ckpt.show.look.words import count, first_names, printable, shape, tied_data, tied_text
from ckpt.tensors import NOT_A_TENSOR, TensorEntry

_MOST_ROWS = 8  # more unmatched keys than these are folded
_OTHER_SHAPE = "another shape"
_NAMED = 3  # keys, or words of torch, in one line


def fit_report(diff: RefDiff, fitting: Fitting) -> Report:
    """The verdict; if it does not fit, the keys that are missing, unexpected or reshaped."""
    fit, definition = fitting.fit, printable(fitting.definition)
    backwards = diff.before == fitting.definition and diff.after != fitting.definition
    mine = printable(diff.after if backwards else diff.before)
    if fit.fits:
        under = under_text(fitting)
        answer = f"{mine} fits {definition}{under}: {' · '.join(_agreements(fit))}"
        by = fitting.loaded_by
        load = [f"To load it:  model.load_state_dict({printable(by)})"] if by else []
        noted = tied_text(fitting.noted)
        tied = [f"  {noted}; safetensors.torch.load_model loads it"] if noted else []
        return Report(answer, notes=[*tied, *load], mood="good")
    short = definition.rpartition(":")[2]
    tables = []
    if fit.missing or fit.unexpected:
        third, rows = _unmatched(fitting)
        sure = "match" if any(word for *_, word in rows) else ""
        tables.append(Table([f"only in {mine}", f"only in {short}", third, sure], rows))
    if fit.reshaped:
        rows = [[a.key, shape(a.shape), shape(b.shape)] for a, b in fit.reshaped]
        tables.append(Table(["key", mine, short], rows))
    notes = ["  " + " · ".join(_disagreements(fit))]
    if fitting.options:
        options = " ".join(fitting.options)
        check = "" if options.startswith("--to ") else f" --check {definition}"
        source = printable(quote(fitting.source))
        notes.append(f"To make it fit:  ckpt rename {source} {options}{check}")
    if fitting.call:
        notes.append(f"To make it fit:  {printable(fitting.call)}")
    if fitting.by:
        source = printable(quote(fitting.source))
        run = f"ckpt migrate run {source} --to {definition}"
        notes.append(f"To make it fit, by {printable(fitting.by)}:  {run}")
    if fitting.in_part_by:
        source = printable(quote(fitting.source))
        by = printable(" ".join(fitting.in_part_by))
        notes.append(f"To load the rest:  ckpt rename {source} {by}")
    return Report(f"{mine} does not fit {definition}", tables, notes, mood="bad")


def fit_text(report: Report, *, width: int | None) -> str:
    """The report, with blank lines between its parts."""
    tables = ["\n".join(table.lines(width)) for table in report.tables]
    return "\n\n".join([report.answer, *tables, *report.notes])


def fitting_data(fitting: Fitting) -> dict[str, Any]:
    """Whether a state_dict fits a definition, for JSON."""
    return {
        **fields(fitting, "definition", "fits=fit.fits", "fits_in_part=in_part"),
        "stay_new": [entry.key for entry in fitting.fit.missing] if fitting.in_part else [],
        "pairs": [*map(_pair_data, fitting.pairs), *map(_reshaped_data, fitting.reshaped)],
        "missing": [entry_data(entry) for entry in fitting.fit.missing],
        "unexpected": [entry_data(entry) for entry in fitting.fit.unexpected],
        "reshaped": shapes_data(fitting.fit.reshaped, "found", "expected"),
        **fields(fitting, "agreeing=fit.agreeing", "handled=fit.handled"),
        **fields(fitting, "complaints=fit.complaints", "by_keys_only=fit.unasked", "options"),
        **fields(fitting, "in_part_by", "by"),
        **fields(fitting, "under", "loaded_by"),
        "tied": tied_data(fitting.noted),
    }


def _pair_data(pair: Pairing) -> dict[str, Any]:
    if isinstance(pair, InferredOperation):
        return fields(pair, "sources", "targets", "confidence", "verb")
    sure = pair.confidence is not Confidence.AMBIGUOUS
    targets = [pair.target] if sure else [key for key in pair.candidates if key != DROPPED]
    return {
        "sources": [pair.source],
        "targets": targets,
        **fields(pair, "confidence"),
        "verb": None,
    }


def _reshaped_data(pair: Pair) -> dict[str, Any]:
    mine, theirs = pair
    likely = {"confidence": Confidence.LIKELY, "verb": _OTHER_SHAPE}
    return {"sources": [mine.key], "targets": [theirs.key], **likely}


def fits_text(fitting: Fitting) -> str:
    """``fits DEF``, or ``fits DEF but for 2 keys: fc.weight, fc.bias stay new``."""
    fits = f"fits {printable(fitting.definition)}{under_text(fitting)}"
    fits += " by keys and shapes alone" if fitting.fit.unasked else ""
    if not fitting.in_part:
        return fits
    new = [entry.key for entry in fitting.fit.missing]
    more = [entry.key for entry in fitting.fit.unexpected]
    says = [f"{first_names(new)} {'stays' if len(new) == 1 else 'stay'} new"] if new else []
    says += [f"{first_names(more)} {'is' if len(more) == 1 else 'are'} unexpected"] if more else []
    return f"{fits} but for {count(len(new) + len(more), 'key')}: {'; '.join(says)}"


def under_text(fitting: Fitting) -> str:
    """Where in the file the state_dict is, if it is not the whole file."""
    return f" under '{printable('.'.join(fitting.under))}'" if fitting.under else ""


def _agreements(fit: Fit) -> Iterator[str]:
    yield _agreeing(fit)
    if fit.handled:
        more = f" and {len(fit.handled) - _NAMED:,} more" if len(fit.handled) > _NAMED else ""
        named = ", ".join(map(printable, fit.handled[:_NAMED]))
        yield f"its loading code handles {named}{more}"
    yield from _unasked(fit)


def _unasked(fit: Fit) -> Iterator[str]:
    if fit.unasked:
        yield f"by keys and shapes alone: {printable(fit.unasked)}"


def _disagreements(fit: Fit) -> Iterator[str]:
    yield _agreeing(fit)
    yield f"{len(fit.missing):,} missing"
    yield f"{len(fit.unexpected):,} unexpected"
    if fit.reshaped:
        yield f"{len(fit.reshaped):,} with another shape"
    yield from map(printable, fit.complaints[:_NAMED])
    yield from _unasked(fit)


def _shape(entry: TensorEntry) -> str:
    return "not a tensor" if entry.dtype == NOT_A_TENSOR else shape(entry.shape)


def _agreeing(fit: Fit) -> str:
    return f"{count(fit.agreeing, 'key')} agree{'s' if fit.agreeing == 1 else ''}"


def _unmatched(fitting: Fitting) -> tuple[str, list[list[str]]]:
    """The unmatched keys of both sides, beside what they probably are on the other side.

    Many are folded, and counted instead of described.

    Returns:
        The head of the third column, and the rows.
    """
    described = {
        entry.key: _shape(entry) for entry in (*fitting.fit.missing, *fitting.fit.unexpected)
    }
    rows = [*_paired(fitting)]
    named = {key for mine, theirs, _ in rows for key in (*mine, *theirs)}
    rows += [((e.key,), (), "") for e in fitting.fit.unexpected if e.key not in named]
    rows += [((), (e.key,), "") for e in fitting.fit.missing if e.key not in named]
    texts = [(_cell(mine), _cell(theirs), word) for mine, theirs, word in rows]
    if len(rows) > _MOST_ROWS:
        return "", [
            [*line.cells, count(line.count, "key"), word]
            for word in dict.fromkeys(word for *_, word in texts)
            for line in fold([(mine, theirs) for mine, theirs, of in texts if of == word])
        ]
    shapes = [described.get((*mine, *theirs)[0], "") for mine, theirs, _ in rows]
    return "shape", [
        [mine, theirs, size, word] for (mine, theirs, word), size in zip(texts, shapes, strict=True)
    ]


def _paired(fitting: Fitting) -> Iterator[tuple[Sequence[str], Sequence[str], str]]:
    """The keys of both sides that probably belong together, and how sure that is."""
    for pair in fitting.pairs:
        match pair:
            case Match(candidates=candidates) if pair.confidence is Confidence.AMBIGUOUS:
                yield (
                    (pair.source,),
                    [key for key in candidates if key != DROPPED],
                    str(pair.confidence),
                )
            case Match():
                yield (pair.source,), (pair.target,), str(pair.confidence)
            case InferredOperation():
                yield pair.sources, pair.targets, f"{pair.confidence}, {pair.verb}"
    for mine, theirs in fitting.reshaped:
        yield (mine.key,), (theirs.key,), f"{_OTHER_SHAPE}: {shape(theirs.shape)}"


def _cell(keys: Sequence[str]) -> str:
    return ", ".join(keys)
