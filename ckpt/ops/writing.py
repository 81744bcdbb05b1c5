"""Writing a checkpoint file: in the container it has, or in the one that the suffix names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ckpt.errors import DiskError
from ckpt.files import ByteSource, new_file, write_folder, write_whole
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint, Format
from ckpt.formats.paths import open_path
from ckpt.formats.writing import write_layout
from ckpt.tensors import FileStart, Layout, Piece, TensorEntry, tensor_spans


@dataclass(frozen=True, slots=True)
class Written:
    """A file, or a folder of files, that was written.

    Attributes:
        path: Where it stands.
        size: Its bytes.
        left_out: What the new container cannot hold, a few words each.
        inside: Which state_dict of a training checkpoint it is about, as after ``FILE::``.
        files: How many files; more than one stand in the folder `path`.
    """

    path: Path
    size: int
    left_out: tuple[str, ...] = ()
    inside: str | None = None
    files: int = 1

    @property
    def ref(self) -> str:
        """The ref of what was written."""
        return f"{self.path}::{self.inside}" if self.inside else str(self.path)


def write_checkpoint(
    checkpoint: Checkpoint,
    path: Path,
    *,
    form: Format | None,
    new_keys: Mapping[str, str],
    inside: str | None,
    replace_out: bool,
) -> Written:
    """Write `checkpoint` with new keys to `path`, and read it back before it appears.

    Args:
        checkpoint: What to write.
        path: Where; a folder, for a checkpoint of several files that keeps its container.
        form: The format of another container for it; None keeps the one it has.
        new_keys: Old key to new key, for all keys.
        inside: Which state_dict of a training checkpoint has the keys.
        replace_out: Whether a file that stands there is replaced.
    """
    renamed = [replace(entry, key=new_keys[entry.key]) for entry in checkpoint.entries]
    left_out: tuple[str, ...] = ()
    layout: Layout
    if form is None:
        layout = checkpoint.renamed(new_keys)
    else:
        layout, inside = form.lay_out(renamed, name=path.stem), None
        left_out = _left_out(checkpoint)

    def read_back(written: Path) -> None:
        with open_path(written) as source:
            _expect_same(path, open_checkpoint(source, inside=inside).entries, renamed)

    if form is None and len(checkpoint.source.parts) > 1:
        with write_folder(path, check=read_back) as folder:
            _write_files(layout, checkpoint.source, folder)
        sizes = [each.stat().st_size for each in path.iterdir()]
        return Written(path, sum(sizes), left_out, inside, len(sizes))
    with write_whole(path, replace=replace_out, check=read_back) as out:
        write_layout(layout, checkpoint.source, out)
    return Written(path, path.stat().st_size, left_out, inside)


def _write_files(layout: Layout, source: ByteSource, folder: Path) -> None:
    name = ""

    def file_of(piece: Piece | FileStart) -> str:
        nonlocal name
        name = piece.name if isinstance(piece, FileStart) else name
        return name

    for file_name, pieces in groupby(layout, key=file_of):
        own = (piece for piece in pieces if not isinstance(piece, FileStart))
        with new_file(folder / file_name) as out:
            write_layout(own, source, out)


def _left_out(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What another container would not take over: all but the keys and their tensors."""
    others = set(checkpoint.spans) - set(tensor_spans(checkpoint.entries))
    tensors = (f"{len(others):,} tensors outside the state_dict",) if others else ()
    return (*tensors, *checkpoint.rest)


def _expect_same(path: Path, found: Sequence[TensorEntry], expected: Sequence[TensorEntry]) -> None:
    described = [(entry.key, entry.dtype, entry.shape) for entry in found]
    if described != [(entry.key, entry.dtype, entry.shape) for entry in expected]:
        raise DiskError(f"{path}: what was written does not read back as planned; not kept")
