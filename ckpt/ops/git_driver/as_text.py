"""Checkpoints and `registry.json` as lines of text, for git to compare.

Law: two files with the same content give the same lines, whatever their order and container; and no
key gives the line of another key.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from ckpt.compare.leaves import leaves
from ckpt.errors import AmbiguousStateError, CkptError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.paths import open_path
from ckpt.formats.pickle.describe import A_TENSOR
from ckpt.formats.stream import tensor_bytes
from ckpt.io import digest
from ckpt.io.small_file import read_small
from ckpt.io.sources import FileSource
from ckpt.registry.events import KEPT, Event
from ckpt.registry.history.newest import newest_versions
from ckpt.registry.index import Index, Model
from ckpt.registry.index_file import MOST_BYTES, parse_index
from ckpt.registry.version import Version
from ckpt.signing.bundles import key_of

_DIGITS = 16  # hexadecimal digits of a tensor's digest


def as_text(path: Path) -> Iterator[str]:
    """The lines of a file; a file of another kind gives one line with a note."""
    try:
        index = _index(path)
        yield from _index_lines(index) if index is not None else _checkpoint_lines(path)
    except CkptError as error:
        yield f"not a checkpoint: {error}".replace(str(path), "it", 1)


def _index(path: Path) -> Index | None:
    """The index, if the file looks like one."""
    with FileSource(path) as source:
        if not source.read(0, min(64, source.size)).lstrip().startswith(b"{"):
            return None
    document = read_small(path, most=MOST_BYTES)
    return parse_index(document.decode("utf-8", "replace"), name=str(path))


def _index_lines(index: Index) -> Iterator[str]:
    for name in sorted(index.models):
        model = index.models[name]
        for version in newest_versions(model):
            yield _version_line(model, version)
        yield from (f"{version.ref}  removed" for version in model.removed.values())
        for alias, number in sorted(model.aliases.items()):
            protected = ", protected" if alias in model.protected else ""
            yield f"{name}@{alias}  v{number}{protected}"
        yield from (_words_line(name, event) for event in model.log if event.did in KEPT)


def _version_line(model: Model, version: Version) -> str:
    metrics = [f"{name}={value:.6g}" for name, value in sorted(version.metrics.items())]
    tags = [f"#{tag}" for tag in model.tags_of(version)]
    manifest = digest.short(version.manifest)
    return "  ".join([version.ref, manifest, version.made_by, *metrics, *tags, version.message])


def _words_line(model: str, event: Event) -> str:
    """``net:v3  note  Ann <ann@example.org>  fails on rotated images``."""
    author = event.by["author"] if event.by else ""
    metrics = [f"{name}={value:.6g}" for name, value in sorted(event.metrics.items())]
    key = f"key {key_of(event.bundle)}" if event.bundle else ""
    words = [f"{model}:{event.version}", event.did, author, key, *metrics, event.text]
    return "  ".join(filter(None, words))


def _checkpoint_lines(path: Path) -> Iterator[str]:
    with open_path(path) as source:
        try:
            checkpoints = {"": open_checkpoint(source)}
        except AmbiguousStateError as several:
            checkpoints = {
                f"{name}::": open_checkpoint(source, inside=name) for name in several.names
            }
        for prefix, checkpoint in checkpoints.items():
            yield from _tensor_lines(checkpoint, prefix)
        first = next(iter(checkpoints.values()))
        yield from sorted(
            f"{_quoted(name)} = {json.dumps(value, sort_keys=True, default=str)}"
            for name, value in leaves(first.rest)
            if value != A_TENSOR
        )


def _tensor_lines(checkpoint: Checkpoint, prefix: str) -> Iterator[str]:
    for entry in sorted(checkpoint.entries, key=lambda entry: entry.key):
        name = digest.of_chunks(tensor_bytes(checkpoint.source, entry))
        shape = " ".join(map(str, entry.shape)) or "()"
        hexadecimal = name.removeprefix("sha256:")[:_DIGITS]
        yield f"{_quoted(prefix + entry.key)}  {entry.dtype}  {shape}  {hexadecimal}"


def _quoted(key: str) -> str:
    """The key, as a JSON string if it has spaces, quotes or characters that cannot be printed."""
    is_word = key.isprintable() and not {" ", '"'} & {*key}
    return key if is_word and key else json.dumps(key)
