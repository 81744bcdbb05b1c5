"""Export: write a version or a file to a file, byte for byte or in another container."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ckpt.errors import UsageError
from ckpt.formats import expect_suffix, format_for, is_usual
from ckpt.formats.checkpoint import Format
from ckpt.formats.opaque import OpaqueWord, expect_harmless, unopened
from ckpt.io.composed import JoinedSource
from ckpt.io.files import Told, new_file, untold, write_folder, write_whole
from ckpt.io.rights import Rights
from ckpt.opened import open_state
from ckpt.opened.altered import settled
from ckpt.opened.named import Weights
from ckpt.opened.states import OpenedFile, OpenedState, OpenedVersion
from ckpt.refs import is_url, without_secrets
from ckpt.registry.registry import InRegistry, Registry
from ckpt.side_files import Readable
from ckpt.writing.checkpoint import write_checkpoint
from ckpt.writing.with_files import is_file_name, write_with_files
from ckpt.writing.written import Written


def export(
    ref: Weights,
    out: Path | str,
    *,
    registry: InRegistry | None = None,
    replace_out: bool = False,
    opaque: OpaqueWord | None = None,
    metadata: Mapping[str, str] | None = None,
    card: str | None = None,
    told: Told = untold,
) -> Written:
    """Write what `ref` names to `out`.

    Args:
        ref: A version or a file; ``FILE::model`` writes only that state_dict. Or a state_dict or
            module.
        out: Its suffix chooses the container; with one of the version's own container, or of no
            format at all, the registered file is written, byte for byte. A checkpoint of several
            files, or with side files, becomes a folder, unless the suffix is that of one file.
            A version can also go to an OCI registry: ``oci://host/team/model:v3``.
        registry: Where versions are looked up.
        replace_out: Whether an existing file is replaced, or a tag moved.
        opaque: ``keep`` writes objects of unknown classes byte for byte, ``drop`` writes the file
            without them; None refuses those that run code when unpickled, but for whole modules,
            which become their state_dicts.
        metadata: Texts for ``__metadata__`` of a safetensors file, besides those it has.
        card: The text of a model card to write too: `README.md` in a folder, ``OUT.md`` beside a
            file.
        told: Called with the bytes done and the bytes in all, if they are sent.

    Raises:
        IntegrityError: A stored object is missing or damaged; nothing is written then.
        UsageError: `out` already exists, or its suffix is not that of a container; or it cannot
            hold `metadata`.
        RemoteError: The OCI registry refuses.

    Example:
        >>> print(ckpt.export(net, "net.safetensors"))
        wrote net.safetensors ...
    """
    if isinstance(out, str) and is_url(out):
        if metadata or card is not None or opaque == "drop":
            raise UsageError("--meta, --card and --drop-opaque are for files, not for a URL")
        return _sent(ref, out, Registry.of(registry), replace_out, opaque, told)
    with open_state(ref, Registry.of(registry), summed=True) as source:
        return _export(
            source,
            Path(out),
            replace_out=replace_out,
            opaque=opaque,
            metadata=metadata or {},
            card=card,
        )


def _sent(
    ref: Weights,
    url: str,
    registry: Registry,
    replace_out: bool,
    opaque: OpaqueWord | None,
    told: Told,
) -> Written:
    """Write a version to an OCI registry."""
    from ckpt.remote.oci.packing import pack
    from ckpt.remote.oci.reference import is_oci, parse

    if not is_oci(url):
        raise UsageError(
            f"{without_secrets(url)} is a URL, expected a path or oci://HOST/TEAM/MODEL:TAG",
            hint="ckpt export REF -o FILE,  and a tool of that store to send it",
        )
    reference = parse(url)
    with open_state(ref, registry) as opened:
        if not isinstance(opened, OpenedVersion):
            raise UsageError(
                f"{opened.name}: not a version, and only versions are written to {reference}",
                hint="ckpt register FILE  makes one",
            )
        return pack(opened, reference, replace_out=replace_out, opaque=opaque, told=told)


def _export(
    source: OpenedState,
    out: Path,
    *,
    replace_out: bool,
    opaque: OpaqueWord | None,
    metadata: Mapping[str, str],
    card: str | None,
) -> Written:
    if opaque is None and isinstance(source, OpenedFile) and _has_modules(source):
        opaque = "drop"  # as a file of their state_dicts, which needs no class
    opened, dropped = settled(source, opaque)
    if isinstance(opened, OpenedFile):
        opened.expect_other(out)
    as_folder = opened.is_folder and not is_file_name(out, opened.names)
    keeps = _keeps_container(opened, out) and not metadata
    if metadata:
        _expect_metadata(metadata, out, opened)
    if keeps and not as_folder:
        expect_suffix(out)
    form = None if keeps else format_for(out)
    registered = opened if keeps and opened is source else None
    if as_folder and not isinstance(registered, OpenedVersion):
        _expect_whole(opened, out)

    def write(path: Path) -> Written:
        if isinstance(registered, OpenedVersion):
            return _whole(registered, path, replace_out=replace_out, opaque=opaque)
        written = _converted(
            opened, path, form, replace_out=replace_out, opaque=opaque, metadata=metadata
        )
        return replace(written, dropped=tuple(dropped))

    files = opened.side_files()
    if card is not None and as_folder:
        files = replace(files, files=(*files.files, _card(card, opened)))
    with _card_beside(out, "" if as_folder else card, opened, replace_out=replace_out):
        return write_with_files(write, out, files, names=opened.names, as_folder=as_folder)


def _card(text: str, opened: OpenedState) -> Readable:
    data = text.encode()
    return Readable("README.md", len(data), lambda: iter([data]), _rights(opened))


@contextmanager
def _card_beside(
    out: Path, text: str | None, opened: OpenedState, *, replace_out: bool
) -> Iterator[None]:
    """Write a card beside a file, which appears if the block ends, after the file."""
    if not text:
        yield
        return
    path = out.with_suffix(".md")
    with write_whole(path, replace=replace_out, rights=_rights(opened)) as file:
        file.write(text.encode())
        yield


def _rights(opened: OpenedState) -> Rights:
    return (opened if isinstance(opened, OpenedVersion) else opened.checkpoint).source.rights


def _expect_metadata(metadata: Mapping[str, str], out: Path, opened: OpenedState) -> None:
    """Refuse texts that the file cannot hold, or by which readers would know other tensors."""
    if out.suffix.lower() != ".safetensors":
        raise UsageError(f"{out}: only a .safetensors file holds --meta")
    keys = {entry.key for entry in opened.entries} | {*opened.checkpoint.aliases}
    for name, text in metadata.items():
        if name == "format":
            raise UsageError("the name 'format' is that of the container's own metadata")
        if name in keys or text in keys:
            raise UsageError(
                f"{name}={text}: names a key, which readers would take for a tied tensor"
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
    metadata: Mapping[str, str],
) -> Written:
    """Write the state_dict into a container, or the file again if that is None."""
    return write_checkpoint(
        opened.checkpoint,
        path,
        form=form,
        new_keys={entry.key: entry.key for entry in opened.entries},
        inside=opened.inside,
        replace_out=replace_out,
        opaque=opaque,
        metadata=metadata,
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
