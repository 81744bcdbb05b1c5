"""Write a checkpoint to disk: in its own container, or in the one that the suffix names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ckpt.errors import DiskError, UsageError
from ckpt.formats import COPIES, open_checkpoint
from ckpt.formats.checked import CheckedSource
from ckpt.formats.checkpoint import Checkpoint, Format
from ckpt.formats.naming.metadata import with_new_names
from ckpt.formats.naming.modules import moved_modules
from ckpt.formats.opaque import OpaqueWord, expect_harmless, unopened
from ckpt.formats.paths import open_path
from ckpt.formats.safetensors import NAME as SAFETENSORS
from ckpt.formats.safetensors import SafetensorsFile
from ckpt.formats.stream import write_layout
from ckpt.io.files import expect_room, new_file, write_folder, write_whole
from ckpt.io.journal import can_overwrite, overwrite_start
from ckpt.io.sources import ByteSource, FileSource
from ckpt.rules.expressions import Source, sources_of, whole_source
from ckpt.rules.planned import Planned
from ckpt.tensors import FileStart, Layout, Piece, TensorEntry, tensor_spans
from ckpt.writing.derived import Derived
from ckpt.writing.ties import restored, tied_names
from ckpt.writing.written import Written

_USUAL = ("format", "pt")  # in every safetensors file of torch; no other container needs it


class Remaking(ABC):
    """A file or folder in which rules make or drop tensors, before it is written."""

    @abstractmethod
    def write(
        self,
        path: Path,
        *,
        inside: str | None,
        replace_out: bool,
        in_place: bool,
        opaque: OpaqueWord | None,
    ) -> Written:
        """Write it, and read it back before it appears; see `write_checkpoint`."""


def write_checkpoint(
    checkpoint: Checkpoint,
    path: Path,
    *,
    form: Format | None,
    new_keys: Mapping[str, str],
    inside: str | None,
    replace_out: bool,
    in_place: bool = False,
    opaque: OpaqueWord | None = None,
    apart: Collection[str] = (),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Written:
    """Write `checkpoint` with new keys to `path`, and read it back before it appears.

    Args:
        checkpoint: The checkpoint.
        path: The file; a folder, for a checkpoint of several files that keeps its container.
        form: The format of another container; None keeps its own.
        new_keys: Old key to new key, for all keys.
        inside: The state_dict of a training checkpoint that has these keys.
        replace_out: Whether to replace `path` if it exists.
        in_place: Whether `path` is the checkpoint's own file and the block is `overwriting` it, so
            that the header alone may be overwritten.
        opaque: ``keep`` if objects that run code when unpickled are to be written too.
        apart: As in `write_tensors`.
        metadata: Texts that a file of another container holds besides the checkpoint's own.

    Raises:
        RefusedGlobalError: There are such objects, and nobody asked for them.
    """
    if form is not None:
        tensors = [
            Planned(new_keys[e.key], Source(e.key, e.dtype, e.shape)) for e in checkpoint.entries
        ]
        return write_tensors(
            checkpoint,
            tensors,
            path,
            form=form,
            aliases=new_keys,
            replace_out=replace_out,
            apart=apart,
            metadata=metadata,
        )
    expect_harmless(checkpoint, opaque)
    return _write_renamed(
        checkpoint, path, new_keys, inside, replace_out=replace_out, in_place=in_place
    )


def _write_renamed(
    checkpoint: Checkpoint,
    path: Path,
    new_keys: Mapping[str, str],
    inside: str | None,
    *,
    replace_out: bool,
    in_place: bool,
) -> Written:
    renamed = [replace(entry, key=new_keys[entry.key]) for entry in checkpoint.entries]
    changed = {old for old, new in new_keys.items() if old != new}
    also = tuple(checkpoint.also_named(changed))
    check = reader_back(path, renamed, inside)
    if in_place and _overwritten(checkpoint, path, new_keys, renamed):
        return Written(path, path.stat().st_size, inside=inside, also_named=also)
    layout = checkpoint.renamed(new_keys)
    if len(checkpoint.source.parts) > 1:
        with write_folder(path, check=check) as folder:
            write_files(layout, checkpoint.source, folder)
        return written_folder(path, inside, also)
    with write_whole(
        path,
        replace=replace_out,
        check=check,
        rights=checkpoint.source.rights,
        in_place=in_place,
    ) as out:
        write_layout(layout, checkpoint.source, out)
    size, pickled = path.stat().st_size, checkpoint.pickled
    inside = inside and inside.removesuffix(COPIES)
    chosen = inside or (pickled.chosen if pickled else None)
    return Written(
        path, size, inside=inside, also_named=also, unopened=unopened(checkpoint), chosen=chosen
    )


def _overwritten(
    checkpoint: Checkpoint, path: Path, new_keys: Mapping[str, str], renamed: list[TensorEntry]
) -> bool:
    """Whether the header alone could be, and was, overwritten."""
    if not isinstance(checkpoint, SafetensorsFile) or not can_overwrite(path):
        return False
    start = checkpoint.start_renamed(new_keys)
    if start is None:
        return False
    old = checkpoint.source.read(0, len(start))
    overwrite_start(path, old, start, check=_header_back(renamed))
    return True


def write_tensors(
    checkpoint: Checkpoint,
    tensors: Sequence[Planned],
    path: Path,
    *,
    form: Format,
    replace_out: bool,
    aliases: Mapping[str, str] | None = None,
    whole: bool = False,
    apart: Collection[str] = (),
    dropped: Collection[str] = (),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Written:
    """Write a new file of one state_dict to `path`, and read it back before it appears.

    Args:
        checkpoint: The source of the tensors and of everything else that the new file holds;
            versions of modules follow the tensors that are made from one tensor.
        tensors: The tensors of the new file.
        path: The file.
        form: The format of the new file.
        replace_out: Whether to replace `path` if it exists.
        aliases: Old name to new, for names of tied tensors.
        whole: Whether `path` is the checkpoint's own file, of which nothing may be left out.
        apart: Keys that are stored even if their tensor is stored under another key.
        dropped: Names of tied tensors that are dropped on purpose.
        metadata: Texts that the new file holds besides the checkpoint's own.

    Raises:
        UsageError: `whole`, and something would be left out.
        FormatError: The checksums of `checkpoint` show that it is damaged.
        DiskError: The disk has too little space.
    """
    checked = CheckedSource(checkpoint.source, checkpoint.checksums, checkpoint.entries)
    new = _new_file(checkpoint, checked, tensors, form, aliases or {}, apart, dropped)
    if whole and new.left_out:
        raise UsageError(
            f"{path}: {', '.join(new.left_out)} would be lost in place",
            hint="-o  writes a new file instead",
        )
    expect_room(path.parent, sum(entry.nbytes for entry in new.entries))
    layout = form.lay_out(new.entries, name=path.stem, rest={**new.rest, **metadata})
    with write_whole(
        path,
        replace=replace_out,
        check=reader_back(path, new.entries, None),
        rights=checkpoint.source.rights,
        in_place=whole,
    ) as out:
        write_layout(layout, new.source, out)
        checked.finish(entry for entry in checkpoint.entries if entry.key in new.used)
    return Written(path, path.stat().st_size, new.left_out, tied=new.tied)


@dataclass(frozen=True, slots=True)
class _NewFile:
    """The content of a new file.

    Attributes:
        source: What `entries` are read from.
        entries: The tensors that it stores.
        rest: Everything else.
        used: The keys of the tensors that these are made of.
        tied: Names of tied tensors that it only notes, each with the key that it stores.
        left_out: What it does not hold, a few words for each item.
    """

    source: ByteSource
    entries: Sequence[TensorEntry]
    rest: Mapping[str, Any]
    used: Collection[str]
    tied: Mapping[str, str]
    left_out: tuple[str, ...]


def _new_file(
    checkpoint: Checkpoint,
    checked: CheckedSource,
    tensors: Sequence[Planned],
    form: Format,
    aliases: Mapping[str, str],
    apart: Collection[str],
    dropped: Collection[str],
) -> _NewFile:
    """What `write_tensors` writes; its arguments are those of that function.

    A safetensors file stores a tied tensor once and notes its other names; other containers hold
    it by all names.
    """
    used = {key for tensor in tensors for key in sources_of(tensor.made_of)}
    noted = {n: key for n, key in checkpoint.aliases.items() if n not in used and n not in dropped}
    names = {name: aliases.get(name, name) for name in noted}
    once = form.NAME == SAFETENSORS
    again = [] if once else restored(tensors, noted, names)
    tensors = [*tensors, *again]
    known = {entry.key: entry for entry in checkpoint.entries}
    derived = Derived(checked, {n: known[key] for n, key in checkpoint.aliases.items()} | known)
    entries = [derived.entry(tensor.key, tensor.made_of) for tensor in tensors]
    tied = tied_names(entries, {*apart, *checkpoint.rest, _USUAL[0]}) if once else {}
    entries = [entry for entry in entries if entry.key not in tied]
    kept = {key: e.key for e in tensors if (key := whole_source(e.made_of)) is not None}
    rest = _carried(checkpoint, form, kept)
    if once:
        stored = {names[name]: kept[key] for name, key in noted.items() if key in kept}
        rest |= tied | {name: tied.get(key, key) for name, key in stored.items()}
    settled = {*rest, *(tensor.key for tensor in again)}
    gone = [name for name, new in names.items() if new not in settled]
    left_out = (*_left_out(checkpoint, form), *gone)
    return _NewFile(derived.source, entries, rest, used, tied, left_out)


def _carried(checkpoint: Checkpoint, form: Format, kept: Mapping[str, str]) -> dict[str, Any]:
    """The non-tensor part of a new file, without the names of tied tensors.

    Args:
        checkpoint: The source.
        form: The format of the new file.
        kept: Old key to new key of the tensors that are kept whole.
    """
    rest = {
        key: value
        for key, value in checkpoint.rest.items()
        if key not in checkpoint.aliases and form.carries(key, value)
    }
    if isinstance(checkpoint, SafetensorsFile):
        return with_new_names(rest, kept)
    if isinstance(rest.get("_metadata"), Mapping):
        moved = moved_modules(list(rest["_metadata"]), kept)
        rest["_metadata"] = {moved[module]: value for module, value in rest["_metadata"].items()}
    return rest


def reader_back(
    path: Path, expected: Sequence[TensorEntry], inside: str | None
) -> Callable[[Path], None]:
    """What makes sure that a written file, before it appears, is read with the entries expected."""

    def read_back(written: Path) -> None:
        with open_path(written) as source:
            _expect_same(path, open_checkpoint(source, inside=inside).entries, expected)

    return read_back


def _header_back(expected: Sequence[TensorEntry]) -> Callable[[Path], None]:
    """Like `reader_back`, for a file whose journal still exists."""

    def read_back(written: Path) -> None:
        with FileSource(written) as source:
            _expect_same(written, open_checkpoint(source).entries, expected)

    return read_back


def written_folder(path: Path, inside: str | None, also: tuple[str, ...]) -> Written:
    """What was written, if that is a folder of several files."""
    sizes = [file.stat().st_size for file in path.iterdir()]
    chosen = inside and inside.removesuffix(COPIES)
    return Written(path, sum(sizes), (), chosen, len(sizes), also)


def write_files(layout: Layout, source: ByteSource, folder: Path) -> None:
    """Write the files of a layout into a folder."""
    name = ""

    def file_of(piece: Piece | FileStart) -> str:
        nonlocal name
        name = piece.name if isinstance(piece, FileStart) else name
        return name

    for file_name, pieces in groupby(layout, key=file_of):
        own = (piece for piece in pieces if not isinstance(piece, FileStart))
        with new_file(folder / file_name, rights=source.rights) as out:
            write_layout(own, source, out)


def _left_out(checkpoint: Checkpoint, form: Format) -> tuple[str, ...]:
    """What a file of another format cannot hold."""
    others = set(checkpoint.spans) - set(tensor_spans(checkpoint.entries))
    tensors = (f"{len(others):,} tensors outside the state_dict",) if others else ()
    rest = (item for item in checkpoint.rest.items() if item != _USUAL)
    known = checkpoint.aliases
    left = (key for key, value in rest if key not in known and not form.carries(key, value))
    return (*tensors, *left)


def _expect_same(path: Path, found: Sequence[TensorEntry], expected: Sequence[TensorEntry]) -> None:
    described = [(entry.key, entry.dtype, entry.shape) for entry in found]
    if described != [(entry.key, entry.dtype, entry.shape) for entry in expected]:
        raise DiskError(f"{path}: the written file does not read back as planned; it was discarded")


def write_pieces(
    layout: Layout,
    entries: Sequence[TensorEntry],
    source: ByteSource,
    path: Path,
    *,
    replace_out: bool,
) -> Written:
    """Write the pieces of `source` to `path`, which must read back as a file of `entries`."""
    with write_whole(
        path, replace=replace_out, check=reader_back(path, entries, None), rights=source.rights
    ) as out:
        write_layout(layout, source, out)
    return Written(path, path.stat().st_size)
