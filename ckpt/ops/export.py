"""Export: a version, or a file, becomes a file; byte for byte, or in another container."""

from pathlib import Path

from ckpt import digest
from ckpt.errors import IntegrityError, UsageError
from ckpt.files import FileSource, write_whole
from ckpt.formats import format_for
from ckpt.ops.opened import OpenedFile, OpenedVersion, open_state
from ckpt.ops.registry import Registry
from ckpt.ops.writing import Written, write_checkpoint


def export(
    ref: str, out: Path, *, registry: Registry | None = None, replace_out: bool = False
) -> Written:
    """Write what `ref` names to `out`.

    Args:
        ref: A version or a file.
        out: Its suffix chooses the container; the version's own gives back, byte for
            byte, the file that was registered.
        registry: Where versions are looked up.
        replace_out: Whether a file that stands there is replaced.

    Raises:
        IntegrityError: A stored object is absent or damaged; nothing is written then.
        UsageError: `out` stands already, or its suffix names no container.
    """
    form = format_for(out)
    with open_state(ref, registry or Registry()) as opened:
        if isinstance(opened, OpenedVersion) and opened.manifest.format == form.NAME:
            return _whole(opened, out, replace_out=replace_out)
        if isinstance(opened, OpenedFile) and out.exists() and out.samefile(opened.path):
            raise UsageError(f"{out}: the input is never overwritten")
        checkpoint = opened.checkpoint
        return write_checkpoint(
            checkpoint,
            out,
            new_keys={entry.key: entry.key for entry in checkpoint.entries},
            inside=opened.inside if isinstance(opened, OpenedFile) else opened.manifest.inside,
            replace_out=replace_out,
        )


def _whole(opened: OpenedVersion, out: Path, *, replace_out: bool) -> Written:
    expected = opened.manifest.file_digest

    def check(written: Path) -> None:
        with FileSource(written) as again:
            found = digest.of_chunks(again.stream(0, again.size))
        if expected not in (None, found):
            raise IntegrityError(f"{opened.name}: the file came out as {found}, not {expected}")

    with write_whole(out, replace=replace_out, check=check) as file:
        for chunk in opened.source.stream(0, opened.source.size):
            file.write(chunk)
    return Written(out, opened.source.size)
