"""Export: write a version or a file to a file, byte for byte or in another container."""

from dataclasses import replace
from pathlib import Path

from ckpt.altered import settled
from ckpt.errors import UsageError
from ckpt.formats import expect_suffix, format_for, is_usual
from ckpt.formats.checkpoint import Format
from ckpt.formats.opaque import OpaqueWord, expect_harmless, unopened
from ckpt.io.files import new_file, write_folder, write_whole
from ckpt.io.sources import JoinedSource
from ckpt.opened import Named, OpenedFile, OpenedState, OpenedVersion, open_state
from ckpt.registry.registry import Registry
from ckpt.writing.checkpoint import Written, write_checkpoint
from ckpt.writing.with_files import is_file_name, write_with_files


def export(
    ref: Named,
    out: Path | str,
    *,
    registry: Registry | None = None,
    replace_out: bool = False,
    opaque: OpaqueWord | None = None,
) -> Written:
    """Write what `ref` names to `out`.

    Args:
        ref: A version or a file; ``FILE::model`` writes only that state_dict.
        out: Its suffix chooses the container; with one of the version's own container, or of no
            format at all, the registered file is written, byte for byte. A checkpoint of several
            files, or with side files, becomes a folder, unless the suffix is that of one file.
        registry: Where versions are looked up.
        replace_out: Whether an existing file is replaced.
        opaque: ``keep`` writes objects of unknown classes byte for byte, ``drop`` writes the file
            without them; None refuses those that run code when unpickled, but for whole modules,
            which become their state_dicts.

    Raises:
        IntegrityError: A stored object is missing or damaged; nothing is written then.
        UsageError: `out` already exists, or its suffix is not that of a container.
    """
    out = Path(out)
    with open_state(ref, registry or Registry()) as source:
        if opaque is None and isinstance(source, OpenedFile) and _has_modules(source):
            opaque = "drop"  # as a file of their state_dicts, which needs no class
        opened, dropped = settled(source, opaque)
        if isinstance(opened, OpenedFile):
            opened.expect_other(out)
        as_folder = opened.is_folder and not is_file_name(out, opened.names)
        keeps = _keeps_container(opened, out)
        if keeps and not as_folder:
            expect_suffix(out)
        form = None if keeps else format_for(out)
        registered = opened if keeps and opened is source else None
        if as_folder and not isinstance(registered, OpenedVersion):
            _expect_whole(opened, out)

        def write(path: Path) -> Written:
            if isinstance(registered, OpenedVersion):
                return _whole(registered, path, replace_out=replace_out, opaque=opaque)
            written = _converted(opened, path, form, replace_out=replace_out, opaque=opaque)
            return replace(written, dropped=tuple(dropped))

        return write_with_files(
            write, out, opened.side_files(), names=opened.names, as_folder=as_folder
        )


def _keeps_container(opened: OpenedState, out: Path) -> bool:
    """Whether `out` gets the whole file in its own container."""
    if isinstance(opened, OpenedVersion):
        return is_usual(out, opened.manifest.format)
    return opened.inside is None and is_usual(out, opened.checkpoint.format)


def _converted(
    opened: OpenedState,
    path: Path,
    form: Format | None,
    *,
    replace_out: bool,
    opaque: OpaqueWord | None,
) -> Written:
    """Write the state_dict into a container, or the file anew if that is None."""
    return write_checkpoint(
        opened.checkpoint,
        path,
        form=form,
        new_keys={entry.key: entry.key for entry in opened.entries},
        inside=opened.inside,
        replace_out=replace_out,
        opaque=opaque,
    )


def _expect_whole(opened: OpenedState, out: Path) -> None:
    if opened.inside is not None:
        raise UsageError(
            f"{out}: one state_dict is written as one file, not as a folder",
            hint="-o NAME.pt  or  -o NAME.safetensors",
        )


def _has_modules(file: OpenedFile) -> bool:
    pickled = file.checkpoint.pickled
    return file.inside is None and pickled is not None and bool(pickled.modules)


def _whole(
    opened: OpenedVersion, out: Path, *, replace_out: bool, opaque: OpaqueWord | None
) -> Written:
    """Write the registered file, or the registered folder of files."""
    why, chosen = _unopened(opened, opaque)
    source = opened.source

    def check(written: Path) -> None:
        files = {part.name: written / part.name for part in source.parts}
        is_folder = len(files) > 1
        with JoinedSource(opened.name, files if is_folder else {written.name: written}) as file:
            source.expect_same(file)

    if len(source.parts) > 1:
        with write_folder(out, check=check) as folder:
            for part in source.parts:
                with new_file(folder / part.name, rights=source.rights) as file:
                    source.copy(part.offset, part.nbytes, file)
    else:
        with write_whole(out, replace=replace_out, check=check, rights=source.rights) as file:
            source.copy(0, source.size, file)
    return Written(out, source.size, files=len(source.parts), unopened=why, chosen=chosen)


def _unopened(opened: OpenedVersion, opaque: OpaqueWord | None) -> tuple[tuple[str, ...], str]:
    """Why torch's weights_only would refuse the registered file, and which state_dict it holds."""
    if not opened.manifest.format.startswith(("torch-zip", "torch-legacy")):
        return (), ""
    checkpoint = opened.checkpoint
    expect_harmless(checkpoint, opaque)
    pickled = checkpoint.pickled
    return unopened(checkpoint), opened.inside or (pickled.chosen if pickled else "")
