"""Export: a version, or a file, becomes a file; byte for byte, or in another container."""

from collections.abc import Iterator
from pathlib import Path

from ckpt.errors import IntegrityError, UsageError
from ckpt.formats import format_for, is_usual
from ckpt.formats.checkpoint import Checkpoint
from ckpt.io import digest
from ckpt.io.files import new_file, write_folder, write_whole
from ckpt.io.sources import FileSource
from ckpt.opened import Named, OpenedFile, OpenedVersion, open_state
from ckpt.refs import SUFFIXES
from ckpt.registry.manifest import Manifest
from ckpt.registry.registry import Registry
from ckpt.registry.store.version import VersionSource
from ckpt.writing.checkpoint import Written, write_checkpoint


def export(
    ref: Named, out: Path | str, *, registry: Registry | None = None, replace_out: bool = False
) -> Written:
    """Write what `ref` names to `out`.

    Args:
        ref: A version or a file; of ``FILE::model`` that state_dict alone is written.
        out: Its suffix chooses the container; the version's own gives back, byte for
            byte, the file that was registered. A checkpoint of several files becomes a
            folder, unless a suffix asks for one file.
        registry: Where versions are looked up.
        replace_out: Whether a file that stands there is replaced.

    Raises:
        IntegrityError: A stored object is absent or damaged; nothing is written then.
        UsageError: `out` stands already, or its suffix names no container.
    """
    out = Path(out)
    with open_state(ref, registry or Registry()) as opened:
        held = opened.manifest if isinstance(opened, OpenedVersion) else opened.checkpoint
        as_folder = _is_several(held) and out.suffix.lower() not in SUFFIXES
        form = None if as_folder else format_for(out)
        if isinstance(opened, OpenedVersion) and is_usual(out, opened.manifest.format):
            return _whole(opened, out, replace_out=replace_out)
        if isinstance(opened, OpenedFile):
            opened.expect_other(out)
        checkpoint = opened.checkpoint
        if opened.inside is not None and form is None:
            raise UsageError(f"{ref} becomes one file", hint="-o NAME.pt  or  -o NAME.safetensors")
        whole = opened.inside is None and is_usual(out, checkpoint.format)
        return write_checkpoint(
            checkpoint,
            out,
            form=None if form is None or whole else form,
            new_keys={entry.key: entry.key for entry in checkpoint.entries},
            inside=opened.inside,
            replace_out=replace_out,
        )


def _is_several(held: Manifest | Checkpoint) -> bool:
    files = held.files if isinstance(held, Manifest) else held.source.parts
    return len(files) > 1


def _whole(opened: OpenedVersion, out: Path, *, replace_out: bool) -> Written:
    """The file, or the folder of files, that was registered."""
    source, expected = opened.source, opened.manifest.file_digest

    def check(written: Path) -> None:
        found = digest.of_chunks(_joined(written, source))
        if expected not in (None, found):
            raise IntegrityError(f"{opened.name}: the file came out as {found}, not {expected}")

    if len(source.parts) > 1:
        with write_folder(out, check=check) as folder:
            for part in source.parts:
                with new_file(folder / part.name) as file:
                    source.copy(part.offset, part.nbytes, file)
    else:
        with write_whole(out, replace=replace_out, check=check) as file:
            source.copy(0, source.size, file)
    return Written(out, source.size, files=len(source.parts))


def _joined(written: Path, source: VersionSource) -> Iterator[bytes]:
    paths = [written / part.name for part in source.parts] if written.is_dir() else [written]
    for path in paths:
        with FileSource(path) as again:
            yield from again.stream(0, again.size)
