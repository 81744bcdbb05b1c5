"""From a path to the bytes of a checkpoint: one file, or the files of one joined.

Only the given path and the files beside it are opened; a link that leads elsewhere is refused.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from ckpt.errors import DiskError, FormatError
from ckpt.formats import distributed, folders, sharded
from ckpt.io.composed import JoinedSource
from ckpt.io.files import exists
from ckpt.io.journal import expect_settled
from ckpt.io.sources import ByteSource, FileSource, OpenSource
from ckpt.refs import FileRef, without_index
from ckpt.side_files import homes

_HEAD_BYTES = 512


def within(ref: FileRef) -> FileRef:
    """The same ref; of a pipeline's component, ``DIR::unet``, the component's folder."""
    name, _, inside = (ref.inside or "").partition("::")
    if name and name in folders.components(ref.path):
        return FileRef(ref.path / name, inside or None)
    return ref


def open_path(path: Path) -> OpenSource:
    """Open a checkpoint file, the index of a sharded checkpoint, or a checkpoint folder.

    Raises:
        RefError: There is no such file.
        FormatError: It is not a regular file, or a folder that does not hold one checkpoint.
        IntegrityError: A rename in place was interrupted.
    """
    if path.is_dir():
        return _open_folder(path)
    if path.name == distributed.FILE_NAME:
        return _open_folder(path.parent)
    if path.suffix == distributed.PART_SUFFIX and path.exists():
        raise FormatError(
            f"{path}: a part of a torch.distributed.checkpoint folder",
            hint=f"name the folder: {path.parent}",
        )
    expect_settled(path)
    shards = _shards(path, path.name)
    if shards is None:
        return FileSource(path)
    return _joined(path, {path.name: path}, shards, named=path)


def checkpoint_name(path: Path) -> str:
    """The name of the checkpoint at `path`: its file without the suffix, or its folder."""
    if path.is_dir():
        return path.resolve().name
    if without_index(path.name) is not None:
        return path.resolve().parent.name
    return path.stem


def _open_folder(folder: Path) -> JoinedSource:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror}") from error
    if distributed.FILE_NAME in names:
        return _open_distributed(folder)
    name = folders.checkpoint_in(folder, names)
    path = _beside(folder, name)
    shards = _shards(path, name)
    if shards is None:
        expect_settled(path)
    return _joined(folder / name, {name: path}, shards or ())


def _open_distributed(folder: Path) -> JoinedSource:
    from ckpt.formats.distributed.metadata import LIMIT, read_metadata

    name = distributed.FILE_NAME
    metadata = _beside(folder, name)
    with FileSource(metadata) as source:
        if source.size > LIMIT:
            raise FormatError(f"{metadata}: {source.size:,} bytes, the limit is {LIMIT:,}")
        read = read_metadata(source.read(0, source.size), name=str(folder / name))
    return _joined(folder / name, {name: metadata}, read.files, content=read)


def _shards(path: Path, name: str) -> tuple[str, ...] | None:
    """The shards that the index at `path` names; None if it is not an index."""
    with FileSource(path) as source:
        return shards_of(source, name)


def shards_of(source: ByteSource, name: str) -> tuple[str, ...] | None:
    """The shards that an index names, whose base name is given; None if it is not an index."""
    if not sharded.is_index(source.read(0, min(_HEAD_BYTES, source.size))):
        return None
    if source.size > sharded.INDEX_LIMIT:
        raise FormatError(
            f"{source.name}: an index of {source.size:,} bytes, the limit is "
            f"{sharded.INDEX_LIMIT:,}"
        )
    return sharded.shard_names(name, source.read(0, source.size), name=source.name)


def _joined(
    index: Path,
    first: Mapping[str, Path],
    names: tuple[str, ...],
    *,
    named: Path | None = None,
    content: object = None,
) -> JoinedSource:
    """Join the first file and those that it lists, under the name `named` or their folder's."""
    shards = {name: _beside(index.parent, name) for name in names}
    for name, path in shards.items():
        if not exists(path):
            raise FormatError(f"{index}: lists {name}, which does not exist", hint="fetch it too")
    return JoinedSource(str(named or index.parent), {**first, **shards}, first=content)


def _beside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`, with links resolved.

    A link that leads elsewhere than to one of its `homes` is refused.
    """
    target = Path(os.path.realpath(folder / name))
    if target.parent not in homes(folder):
        raise FormatError(
            f"{folder / name}: a link to {target}, outside the folder",
            hint="copy the file into the folder if it belongs there",
        )
    return target
