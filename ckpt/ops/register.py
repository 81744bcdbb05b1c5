"""Register: a file becomes the next version of a model."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from os import fspath
from pathlib import Path
from typing import Any

from ckpt.formats import open_checkpoint
from ckpt.formats.checked import CheckedSource
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.paths import checkpoint_name, open_path
from ckpt.formats.stream import tensor_bytes
from ckpt.io.files import Told, untold
from ckpt.io.sources import ByteSource
from ckpt.opened import Named
from ckpt.refs import FileRef, expect_name, parse_file_ref
from ckpt.registry.manifest import Hole, Manifest, Skeleton
from ckpt.registry.registry import Added, Registry, parent_record
from ckpt.registry.store.blobs import Blobs
from ckpt.tensors import Span, TensorEntry

Map = Callable[..., Iterator[Any]]
_WORTH_THREADS = 32 << 20  # bytes; below, threads cost more than they bring


def register(
    ref: Named,
    *,
    registry: Registry | None = None,
    name: str | None = None,
    message: str = "",
    metrics: Mapping[str, float] | None = None,
    made_by: str | None = None,
    record: Mapping[str, Any] | None = None,
    definition_source: str | None = None,
    parent: str | None = None,
    told: Told = untold,
) -> Added:
    """Make the file that `ref` names the next version of a model.

    Args:
        ref: A path, with ``::model`` for one state_dict of a training checkpoint.
        registry: Where; None finds it as the command line does.
        name: The model; None takes the file's name without its suffix.
        message: What to say of the version.
        metrics: E.g. ``{"accuracy": 0.9921}``.
        made_by: How it came about, a few words for `ckpt ls`.
        record: What else to keep: parent, plan, training config, environment.
        definition_source: Source text of the definition that it fits.
        parent: The version that it was made of, by further training, say.
        told: Told how far it is.

    Returns:
        The version; not new if the model held the same bytes already.

    Raises:
        FormatError: The file is no checkpoint that can be read, or its own checksums say that
            it is damaged.
    """
    parsed = parse_file_ref(fspath(ref))
    registry = registry or Registry()
    made_of = None if parent is None else registry.version(parent)
    model = expect_name(model_name(parsed.path) if name is None else name)
    with open_path(parsed.path) as source:
        checkpoint = open_checkpoint(source, inside=parsed.inside)
        with registry.store.writing():
            blobs = Blobs(registry.store)
            manifest = _stored(source, checkpoint, parsed, blobs, told)
            origin = made_of and {"parent": parent_record(made_of, manifest.tensors_digest)}
            manifest = replace(
                manifest,
                record=_record(
                    model,
                    message,
                    metrics,
                    {**(record or {}), **(origin or {})},
                    definition_source,
                    blobs,
                ),
                inline=blobs.inline,
            )
            source.expect_unchanged()
            return registry.add(
                model,
                manifest,
                new_bytes=blobs.new_bytes,
                made_by=made_by or f"register {parsed.path.name}",
                metrics=metrics,
                message=message,
            )


def model_name(path: Path) -> str:
    """A model's name out of a file's: ``My Net.best.pt`` gives ``My-Net.best``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", checkpoint_name(path)).strip("-._")[:128]


def gaps(spans: Iterable[Span], size: int) -> Iterator[Span]:
    """What lies around the spans, empty gaps included."""
    position = 0
    for span in spans:
        yield Span(position, span.offset - position)
        position = span.end
    yield Span(position, size - position)


def _stored(
    source: ByteSource, checkpoint: Checkpoint, ref: FileRef, blobs: Blobs, told: Told
) -> Manifest:
    checked = CheckedSource(checkpoint.source, checkpoint.checksums, checkpoint.entries)

    def stored(span: Span) -> Hole:
        tensor = blobs.put(checked.stream(span.offset, span.nbytes), span.nbytes)
        return Hole(span.offset, span.nbytes, tensor)

    with _side_by_side(source.size) as side:
        whole = side(
            _digest_of, [source], [told]
        )  # reads what the others read, from the page cache
        holes = list(side(stored, checkpoint.spans))
        (file_digest,) = whole
    checked.finish()
    around = list(gaps(checkpoint.spans, source.size))
    skeleton = blobs.put_skeleton(
        chain.from_iterable(source.stream(gap.offset, gap.nbytes) for gap in around),
        sum(gap.nbytes for gap in around),
    )
    return Manifest(
        format=checkpoint.format,
        file_name=ref.path.name if len(source.parts) == 1 else checkpoint_name(ref.path),
        file_digest=file_digest,
        skeleton=Skeleton(source.size, tuple(holes), skeleton),
        entries=tuple(_digested(checkpoint, holes, blobs)),
        inside=ref.inside,
        rest=checkpoint.rest,
        files=_files(source),
    )


def _files(source: ByteSource) -> tuple[tuple[str, int], ...]:
    if len(source.parts) == 1:
        return ()
    return tuple((part.name, part.nbytes) for part in source.parts)


def _digested(checkpoint: Checkpoint, holes: list[Hole], blobs: Blobs) -> Iterator[TensorEntry]:
    """The entries with their digests; a tensor that fills no hole gets an object of its own."""
    filled = {Span(hole.offset, hole.nbytes): hole.digest for hole in holes}
    for entry in checkpoint.entries:
        tensor = filled.get(entry.span) if entry.span else None
        if tensor is None:
            chunks = tensor_bytes(checkpoint.source, entry)
            tensor = blobs.put(chunks, entry.nbytes)
        yield TensorEntry(entry.key, entry.dtype, entry.shape, digest=tensor)


def _record(
    model: str,
    message: str,
    metrics: Mapping[str, float] | None,
    record: Mapping[str, Any] | None,
    definition_source: str | None,
    blobs: Blobs,
) -> dict[str, Any]:
    full: dict[str, Any] = {"model": model, "message": message, "metrics": dict(metrics or {})}
    full |= record or {}
    if definition_source is not None:
        data = definition_source.encode("utf-8")
        full["definition"] = {
            "digest": blobs.put([data], len(data)),
            "nbytes": len(data),
        }
    return full


@contextmanager
def _side_by_side(nbytes: int) -> Iterator[Map]:
    """A `map` that works on several things at once, where there are enough bytes for it.

    What fails first is raised, and what has not begun by then is left.
    """
    if nbytes < _WORTH_THREADS:
        yield map
        return
    # hashlib and the disk work without Python's lock; some threads always wait for the disk.
    threads = ThreadPoolExecutor((os.cpu_count() or 1) + 3)
    try:
        yield threads.map
    finally:
        threads.shutdown(cancel_futures=True)


def _digest_of(source: ByteSource, told: Told) -> str:
    whole, done = hashlib.sha256(), 0
    for chunk in source.stream(0, source.size):
        whole.update(chunk)
        done += len(chunk)
        told(done, source.size)
    return "sha256:" + whole.hexdigest()
