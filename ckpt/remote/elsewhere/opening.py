"""Open what a URL names: a file, a sharded checkpoint, or a version of a registry elsewhere.

Schemes are found by a table of modules, imported on demand. Each gives a place and, unless the
URL names a folder, the name of a file in it.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ckpt.errors import FormatError, UsageError, excerpt
from ckpt.formats import folders, open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.paths import shards_of
from ckpt.io.composed import JoinedSource
from ckpt.io.files import is_base_name
from ckpt.io.rights import EVERYBODY
from ckpt.io.sources import OpenSource
from ckpt.io.threads import Threads
from ckpt.opened import open_version
from ckpt.opened.states import OpenedFile, OpenedState
from ckpt.refs import UrlRef, path_of, version_ref
from ckpt.registry.registry import Registry
from ckpt.remote.elsewhere.place import Opening, Place
from ckpt.side_files import MOST_BYTES, MOST_FILES, Found, Readable, among

_SCHEMES = {
    **dict.fromkeys(("http", "https"), "http"),
    "hf": "hub",
    **dict.fromkeys(("s3", "gs", "az"), "buckets"),
}
_SIDE_BY_SIDE = 8  # shards that are opened at once


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The files of a checkpoint elsewhere, open.

    Attributes:
        source: Their bytes.
        place: The folder that holds them.
        is_folder: Whether the URL names that folder.
        origin: Where they come from, for a record.
        digests: The SHA-256 of files by name, as far as the server states them.
    """

    source: OpenSource
    place: Place
    is_folder: bool
    origin: Mapping[str, Any]
    digests: Mapping[str, str]

    @property
    def path(self) -> Path:
        """A path with the names of the folder and the file, at which nothing is here."""
        folder = Path("elsewhere:", self.place.base)
        return folder if self.is_folder else folder / self.source.parts[0].name

    def side_files(self) -> Found:
        """What the folder holds besides the weights; nothing if a file was named."""
        sizes = self.place.files() if self.is_folder else {}
        kept, left = among(sizes, [part.name for part in self.source.parts])
        nbytes = sum(sizes[name] for name in kept)
        if len(kept) > MOST_FILES or nbytes > MOST_BYTES:
            return Found(left=(f"{len(kept):,} files of {nbytes:,} bytes", *left))
        files = (Readable(n, sizes[n], partial(self._read, n), EVERYBODY) for n in kept)
        return Found(tuple(files), tuple(left))

    def _read(self, name: str) -> Iterator[bytes]:
        with self.place.opened(name, Opening(True, {})) as file:
            yield from file.stream(0, file.size)


@dataclass(frozen=True, slots=True)
class OpenedElsewhere(OpenedFile):
    """A checkpoint elsewhere, opened; its path names nothing here."""

    found: Elsewhere

    @property
    def ref(self) -> str:
        """The URL that opens it again."""
        return self.name

    @property
    def names_folder(self) -> bool:
        """Whether the URL names a folder."""
        return self.found.is_folder

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where it comes from, for a record."""
        return self.found.origin

    def url_of(self, name: str) -> str:
        """The URL of one of its files."""
        return f"{self.found.place.name}/{name}"

    def side_files(self) -> Found:
        """What its folder holds besides the weights."""
        return self.found.side_files()

    def expect_other(self, out: Path) -> None:
        """Nothing here is one of its files."""


@contextmanager
def open_url(text: str, ref: UrlRef, *, whole: bool) -> Iterator[OpenedState]:
    """Open what a URL names.

    Args:
        text: As it was typed.
        ref: The same, parsed.
        whole: Whether the weights are needed, so that a file may be downloaded if a server sends
            it only whole.
    """
    if ref.version is not None:
        with _registry_at(ref.url) as (registry, name):
            yield open_version(text, version_ref(ref.version), registry, f"{name}#")
        return
    with files_at(ref, whole=whole) as found:
        checkpoint: Checkpoint = open_checkpoint(found.source, inside=ref.inside)
        name = found.source.name + (f"::{ref.inside}" if ref.inside else "")
        yield OpenedElsewhere(name, found.path, ref.inside, checkpoint, found)


@contextmanager
def files_at(ref: UrlRef, *, whole: bool) -> Iterator[Elsewhere]:
    """Open the files that a URL names, without reading more than their beginnings."""
    place, name = _module(ref.url).place(ref.url)
    with ExitStack() as stack:
        stack.callback(place.close)
        is_folder = not name
        name = name or _checkpoint_in(place)
        if not is_base_name(name):  # files here get it
            raise UsageError(f"{place.name}: {excerpt(repr(name))} is not the name of a file")
        opening = Opening(whole, {})
        source = stack.enter_context(_joined(place, name, opening, is_folder=is_folder))
        known = {what: dict(sorted(files.items())) for what, files in opening.origin.items()}
        origin = {"url": source.name, **place.origin(), **known}
        yield Elsewhere(source, place, is_folder, origin, opening.digests)


@contextmanager
def _registry_at(url: str) -> Iterator[tuple[Registry, str]]:
    """The registry in a folder elsewhere, or in one here by a `file:` URL, and its name."""
    if url.lower().startswith("file:"):
        yield Registry(path_of(url)), url
        return
    from ckpt.remote.elsewhere.registry import RegistryElsewhere

    place: Place = _module(url).folder(url)
    with closing(place):
        yield RegistryElsewhere(place), place.name


def _module(url: str) -> Any:
    scheme = url.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        hint = f"one of {', '.join(_SCHEMES)}"
        if scheme in ("oci", "oci+http"):
            hint = "ckpt import oci://HOST/TEAM/MODEL:TAG  makes a version of it"
        raise UsageError(f"{scheme}: URLs of this kind cannot be opened", hint=hint)
    return import_module(f"ckpt.remote.elsewhere.{_SCHEMES[scheme]}")


def _checkpoint_in(place: Place) -> str:
    names = [name for name in place.files() if "/" not in name]
    if found := folders.checkpoint_among(place.name, names):
        return found
    inner = sorted({name.partition("/")[0] for name in place.files() if "/" in name})
    hint = f"one of its folders: {', '.join(inner[:5])}" if inner else None
    if ".metadata" in names:
        hint = "a torch.distributed.checkpoint folder is read here only: download it"
    raise FormatError(f"{place.name}: a folder without a checkpoint", hint=hint)


def _joined(place: Place, name: str, opening: Opening, *, is_folder: bool) -> OpenSource:
    """The file of this name; with an index, joined with its shards."""
    with ExitStack() as stack:
        first = stack.enter_context(place.opened(name, opening))
        shards = shards_of(first, name)
        whole = place.name if is_folder else first.name
        if shards is None:
            stack.pop_all()
            return first

        def opened(shard: str) -> OpenSource:
            return place.opened(shard, opening)

        files: dict[str, Path | OpenSource] = {name: first}
        with Threads(_SIDE_BY_SIDE) as side:
            for shard, source in zip(shards, side.map(opened, shards), strict=True):
                files[shard] = stack.enter_context(source)
        stack.pop_all()
        return JoinedSource(whole, files)
