"""`ckpt show`: one checkpoint, version or definition."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.formats.pickle.describe import A_TENSOR
from ckpt.io import digest
from ckpt.ops.show import Shown, show
from ckpt.show.audit import foreign_data, foreign_text
from ckpt.show.look.fields import fields
from ckpt.show.look.terminal import table
from ckpt.show.look.words import count, metrics, printable, shape, size
from ckpt.side_files import Readable
from ckpt.tensors import TensorEntry

if TYPE_CHECKING:
    from ckpt.ops.load import LazyStateDict
    from ckpt.ops.show.deep import Deep
    from ckpt.registry.version import Version

_MOST_FILES = 50
LONG_VALUE = 100  # characters; --json shows all


def shown_text(shown: Shown, *, width: int | None = None) -> str:
    """Name, origin and tensors, then the rest."""
    parts = [head_text(shown), _tensor_table(shown, width=width)]
    if shown.side_files:
        parts.append("\n".join(["side files:", *_file_lines(shown.side_files)]))
    if shown.rest:
        parts.append("\n".join(["non-tensor part:", *_record_lines(shown.rest)]))
    if shown.foreign:
        parts.append("\n".join(foreign_text(shown.foreign)))
    if shown.way:
        parts.append(f"other commands need plain tensors:\n  {shown.way}")
    return "\n\n".join(parts)


def opened_text(opened: "LazyStateDict") -> str:
    """The same of the result of `ckpt.open`."""
    if opened.closed:
        return f"{opened.name}: closed"
    return shown_text(show(opened, registry=opened.registry))


def head_text(shown: Shown) -> str:
    """Name, container and totals; for a version also its origin."""
    container, told = list(_container(shown)), " · ".join(totals(shown))
    lines = [f"{printable(shown.name)}  {' · '.join(container) or told}"]
    if container:
        lines.append(f"  {told}")
    if shown.kind:
        lines.append(f"  {shown.kind}, without the weights of a model")
    lines += _subclass_lines(shown.subclasses)
    if shown.deep is not None:
        lines.append(f"  read in full: {' · '.join(_findings(shown.deep))}")
    return "\n".join([*lines, *_origin(shown)])


def _subclass_lines(subclasses: Mapping[str, str]) -> Iterator[str]:
    for kind, number in Counter(subclasses.values()).items():
        inner = "its inner tensors are" if number == 1 else "their inner tensors are"
        yield f"  {count(number, 'tensor')} of {printable(kind)}: {inner} shown"


def _container(shown: Shown) -> Iterator[str]:
    if shown.format:
        yield shown.format
    if shown.size is not None:
        yield size(shown.size)
    if shown.written_by:
        yield f"written by {printable(shown.written_by)}"


def totals(shown: Shown) -> Iterator[str]:
    """``8 keys``, ``609,354 elements of float32``, ``2.4 MB of tensors``, and more if unusual."""
    dtypes, nbytes = shown.totals()
    yield count(len(shown.entries), "key") + (
        f" under '{printable(shown.chosen)}'" if shown.chosen else ""
    )
    elements = count(sum(dtypes.values()), "element")
    if len(dtypes) > 1:
        yield f"{elements}: {', '.join(f'{number:,} of {name}' for name, number in dtypes.items())}"
    else:
        yield f"{elements} of {', '.join(dtypes) or 'no dtype'}"
    yield f"{size(nbytes)} of tensors"
    if shown.ties:
        one = len(shown.ties) == 1
        share = "shares bytes with another" if one else "share bytes with others"
        yield f"{count(len(shown.ties), 'key')} {share}"
    expanded = sum(entry.stride is not None and _is_expanded(entry) for entry in shown.entries)
    if expanded:
        yield f"{count(expanded, 'expanded view')}"


def _findings(deep: "Deep") -> Iterator[str]:
    if deep.objects is not None:
        yield f"{count(deep.objects, 'object')} intact"
    elif not deep.sums:
        yield "no checksums in the file"
    else:
        yield f"{count(deep.sums, 'CRC-32 checksum')} correct"
        if deep.sums_absent:
            yield f"{count(deep.sums_absent, 'record')} without a checksum"
    for name in ("NaN", "Inf"):
        found = [getattr(tensor, name.lower()) or 0 for tensor in deep.tensors.values()]
        keys = count(sum(map(bool, found)), "key")
        yield f"{sum(found):,} {name} in {keys}" if any(found) else f"no {name}"


def _tensor_table(shown: Shown, *, width: int | None) -> str:
    """A table, without empty columns."""
    deep, ties = shown.deep, shown.ties
    headers = ["key", "shape", "dtype", "size"]
    rows = [
        [entry.key, shape(entry.shape), entry.dtype, size(entry.nbytes)] for entry in shown.entries
    ]
    if ties or any(entry.stride is not None for entry in shown.entries):
        headers.append("note")
        for row, entry in zip(rows, shown.entries, strict=True):
            row.append(_note(entry, ties))
    if deep is not None:
        examined = [deep.tensors[entry.key] for entry in shown.entries]
        for name in ("nan", "inf"):
            found = [getattr(tensor, name) for tensor in examined]
            if any(found):
                headers.append(name)
                for row, number in zip(rows, found, strict=True):
                    row.append("" if number is None else f"{number:,}")
        headers.append("digest")
        for row, tensor in zip(rows, examined, strict=True):
            row.append(digest.short(tensor.digest))
    return table(rows, headers, right=["size", "nan", "inf"], width=width)


def _note(entry: TensorEntry, ties: Mapping[str, str]) -> str:
    """Whether the tensor is a view, and with which key it is tied."""
    words = []
    if entry.stride is not None:
        words.append("expanded" if _is_expanded(entry) else "strided")
    if entry.key in ties:
        words.append(f"tied to {printable(ties[entry.key])}")
    return ", ".join(words)


def _is_expanded(entry: TensorEntry) -> bool:
    """Whether several of its elements share one place in memory."""
    steps = zip(entry.shape, entry.stride or (), strict=True)
    return entry.numel > 1 + sum((number - 1) * step for number, step in steps)


def _origin(shown: Shown) -> Iterator[str]:
    if shown.origin:
        yield from _record_lines({k: v for k, v in shown.origin.items() if v != shown.name})
    if shown.version is not None:
        yield from _version_lines(shown, shown.version)


def _version_lines(shown: Shown, version: "Version") -> Iterator[str]:
    from ckpt.registry.manifest import HASHED_WHOLE
    from ckpt.show.look.by import by_text, words_lines

    if shown.aliases:
        yield f"  aliases   {', '.join(shown.aliases)}"
    if shown.tags:
        yield f"  tags      {', '.join(shown.tags)}"
    yield f"  made by   {printable(version.made_by)}, {version.created}"
    if author := by_text((shown.record or {}).get("by"), with_host=True):
        yield f"  by        {author}"
    if version.renumbered:
        yield f"  was       {printable(version.renumbered)}, until a merge renumbered it"
    if measured := shown.measured:
        of = "" if version.metrics else f"of {measured.ref}: "
        yield f"  metrics   {of}{metrics(measured.metrics)}"
    if version.message:
        yield f"  message   {printable(version.message)}"
    yield from (f"  {line}" for line in words_lines(shown.history))
    yield f"  manifest  {version.manifest}"
    unknown = f"digest not known (renamed, or over {size(HASHED_WHOLE)})"
    yield f"  file      {version.file or unknown}"
    record = shown.record or {}
    shown_already = ("model", "metrics", "message", "made_by", "created", "by")
    yield from _record_lines({key: record[key] for key in record if key not in shown_already})


def _record_lines(values: Mapping[str, Any]) -> Iterator[str]:
    wide = max(map(len, map(printable, values)), default=0)
    for key, value in values.items():
        text = printable(_brief(value))
        yield f"  {printable(key):<{max(wide, 8)}}  {text}"


def _file_lines(files: Sequence[Readable]) -> Iterator[str]:
    names = [printable(file.name) for file in files]
    wide = max(map(len, names))
    for name, file in zip(names[:_MOST_FILES], files, strict=False):
        known = f"  {digest.short(file.digest)}" if file.digest else ""
        yield f"  {name:<{wide}}  {size(file.nbytes)}{known}"
    if (more := len(files) - _MOST_FILES) > 0:
        yield f"  … {count(more, 'more file')}; --json has all"


def _brief(value: object) -> str:
    tensors = _tensors_alone(value)
    if isinstance(value, Mapping) and tensors:
        text = count(tensors, "tensor")
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key or repr(key)} {_brief(inner)}" for key, inner in value.items())
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(_brief, value))}]"
    else:
        text = f"{value}"
    return text if len(text) <= LONG_VALUE else text[: LONG_VALUE - 1] + "…"


def _tensors_alone(value: object) -> int | None:
    """Number of tensors in a mapping that holds nothing else, mostly another state_dict."""
    if not isinstance(value, Mapping):
        return 1 if value == A_TENSOR else None
    found = [_tensors_alone(inner) for inner in value.values()]
    return None if None in found else sum(number or 0 for number in found)


def shown_data(shown: Shown) -> dict[str, Any]:
    """The same for JSON."""
    return {
        **head_data(shown),
        "tensors": [_tensor_data(entry, shown) for entry in shown.entries],
        **tail_data(shown),
    }


def head_data(shown: Shown) -> dict[str, Any]:
    """Name, container and totals, for JSON."""
    elements, nbytes = shown.totals()
    return {
        **fields(shown, "name", "format", "written_by", "size"),
        "keys": len(shown.entries),
        "elements": dict(elements),
        "tensor_bytes": nbytes,
        "tied_keys": len(shown.ties),
        "deep": shown.deep and fields(shown.deep, "sums", "sums_absent", "objects"),
    }


def tail_data(shown: Shown) -> dict[str, Any]:
    """Everything but the tensors, for JSON."""
    files = [fields(file, "name", "size=nbytes", "digest") for file in shown.side_files]
    own = {**fields(shown, "kind", "chosen", "rest"), "side_files": files, "version": None}
    origin = {"source": shown.origin} if shown.origin else {}
    subclasses = fields(shown, "subclasses", "way") if shown.subclasses else {}
    version = {} if shown.version is None else _version_data(shown, shown.version)
    own |= {**version, **origin, **subclasses, "record": shown.record}
    return {**own, **foreign_data(shown.foreign)}


def _version_data(shown: Shown, version: "Version") -> dict[str, Any]:
    from ckpt.show.look.by import history_data
    from ckpt.show.ls import version_data

    data = version_data(version, shown.aliases, shown.tags)
    before = None if data["metrics"] else shown.measured
    inherited = {"measured": fields(before, "version=ref", "metrics")} if before else {}
    return {"version": data, **inherited, "history": history_data(shown.history)}


def _tensor_data(entry: TensorEntry, shown: Shown) -> dict[str, Any]:
    data = {
        "key": entry.key,
        "shape": list(entry.shape),
        "dtype": entry.dtype,
        "size": entry.nbytes,
        "digest": entry.digest,
        "stride": entry.stride and list(entry.stride),
        "tied_to": shown.ties.get(entry.key),
    }
    if shown.deep is not None:
        examined = shown.deep.tensors[entry.key]
        data |= {"digest": examined.digest, "nan": examined.nan, "inf": examined.inf}
    return data
