"""What is registered, open: a file, a folder, a file elsewhere, or what is in memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from ckpt.errors import FormatError, RefError, UsageError
from ckpt.formats.checked import ChecksumError
from ckpt.formats.paths import open_path, within
from ckpt.formats.pickle.describe import WEIGHTS_HINT
from ckpt.in_memory import is_module, name_of, unsaved
from ckpt.io.files import exists
from ckpt.io.sources import ByteSource
from ckpt.opened.named import Named
from ckpt.opened.states import OpenedFile, OpenedVersion
from ckpt.refs import UrlRef, is_url, parse_file_ref, parse_url
from ckpt.side_files import Found, of_folder

if TYPE_CHECKING:
    from torch import nn

InMemory = Union[Mapping[str, Any], "nn.Module"]


@dataclass(frozen=True, slots=True)
class Given:
    """What is registered, open.

    Attributes:
        source: Its bytes.
        path: Of the file or folder; at which nothing is here if it is elsewhere, or in memory.
        inside: The state_dict, as after ``FILE::``.
        label: Its name in `ckpt ls`.
        beside: Finds what its folder holds besides it.
        origin: Where it comes from, if it is elsewhere.
        digests: The SHA-256 of files that their server states, by name.
    """

    source: ByteSource
    path: Path
    inside: str | None
    label: str
    beside: Callable[[], Found] = Found
    origin: Mapping[str, Any] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def opened(ref: Named | InMemory, name: str | None) -> Iterator[Given]:
    """Open what is registered as the model `name`; None takes its own name."""
    if not isinstance(ref, str | PathLike):
        with _in_memory(ref, name) as given:
            yield given
        return
    url = parse_url(ref) if isinstance(ref, str) and is_url(ref) else None
    if isinstance(url, UrlRef):
        if url.version is not None:
            raise UsageError(
                "a version of a registry elsewhere is not a file",
                hint="ckpt export URL#VERSION -o FILE  writes it here; register that",
            )
        from ckpt.remote.elsewhere.opening import files_at

        with files_at(url, whole=True) as found:
            label, origin = found.path.name, found.origin
            yield Given(
                found.source, found.path, url.inside, label, found.side_files, origin, found.digests
            )
        return
    if url is not None:
        ref = f"{url.path}::{url.inside}" if url.inside else url.path
    file = within(parse_file_ref(fspath(ref)))
    if isinstance(ref, str) and ".py:" in ref and not exists(file.path):
        raise RefError(f"{ref} is a definition and holds no weights", hint=WEIGHTS_HINT)
    with open_path(file.path) as source:
        own = [part.name for part in source.parts]

        def beside() -> Found:
            return of_folder(file.path, own) if file.path.is_dir() else Found()

        yield Given(source, file.path, file.inside, file.path.name, beside)


@contextmanager
def _in_memory(value: InMemory, name: str | None) -> Iterator[Given]:
    label, held = name_of(value), getattr(value, "opened", None)
    if isinstance(held, OpenedFile):  # by `ckpt.open`
        yield Given(held.checkpoint.source, held.path, held.inside, held.path.name)
        return
    if isinstance(held, OpenedVersion) or not (isinstance(value, Mapping) or is_module(value)):
        raise UsageError(
            f"{type(value).__name__}: expected a path, a state_dict or a module",
            hint="a version is registered already; ckpt alias or tag  marks it",
        )
    if name is None and isinstance(value, Mapping):
        raise UsageError("a state_dict has no name", hint='name="net"  names the model')
    path = Path(f"{name or label}.pt")
    try:
        source = unsaved(value, name=label, file_name=path.name, summed=True)
        yield Given(source, path, None, label)
    except ChecksumError as error:
        hint = "register it between two training steps, or a copy of it"
        raise FormatError(f"{label}: changed while it was registered", hint=hint) from error
