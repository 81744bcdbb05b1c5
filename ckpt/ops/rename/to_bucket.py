"""The objects in a bucket that a plan makes, put together there as far as the store can do that."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ckpt.errors import IntegrityError, UsageError
from ckpt.formats import is_usual
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.opaque import expect_harmless, unopened
from ckpt.io.composed import PartSource
from ckpt.io.sources import Part
from ckpt.opened import open_state
from ckpt.opened.states import OpenedState
from ckpt.ops.rename.plan import RenamePlan
from ckpt.ops.rename.to_file import Output, Rest
from ckpt.registry.registry import Registry
from ckpt.tensors import FileStart, Piece, Span
from ckpt.writing.checkpoint import Remaking
from ckpt.writing.with_files import is_file_name
from ckpt.writing.written import Written


def write_to_bucket(
    opened: OpenedState, plan: RenamePlan, url: str, output: Output, rest: Rest, registry: Registry
) -> Written:
    """Write what a plan makes to a new object, or to the objects of a new folder.

    Raises:
        UsageError: The plan does more than rename keys, or there is something of this name.
        IntegrityError: The result does not read back as planned.
    """
    from ckpt.remote.elsewhere.buckets import folder
    from ckpt.remote.elsewhere.writing import Put, why_streamed, write_chunks, write_object

    as_folder = opened.is_folder and not is_file_name(Path(url), opened.names)
    url = url.rstrip("/") + (f"/{opened.names[0]}" if url.endswith("/") and not as_folder else "")
    checkpoint = _expect_possible(opened, plan, url, output, rest)
    new_keys = {**plan.new_keys, **plan.aliases}
    place = folder(url if as_folder else url.rpartition("/")[0])
    if as_folder and place.files():
        raise UsageError(f"{url} already exists", hint="name another with -o")
    put: list[Put] = []
    # The index of shards comes first, and is written last: it never names what is not there.
    for part, pieces in reversed(list(_files(checkpoint, new_keys))):
        name = part.name if as_folder else url.rpartition("/")[2]
        source = PartSource(checkpoint.source, part) if len(opened.names) > 1 else checkpoint.source
        put.append(write_object(place, name, pieces, source, _origin(opened, part.name)))
    if as_folder:
        put += (write_chunks(place, it.name, it.chunks()) for it in opened.side_files().files)
    _expect_back(opened, plan, url, registry)
    pickled = checkpoint.pickled
    return Written(
        Path(url.rpartition("/")[2]),
        sum(each.size for each in put),
        inside=opened.inside,
        files=len(put),
        unopened=unopened(checkpoint),
        chosen=opened.inside or (pickled.chosen if pickled else None),
        url=url,
        sent=sum(each.sent for each in put),
        sent_why=why_streamed(url, opened.name),
    )


def _expect_possible(
    opened: OpenedState, plan: RenamePlan, url: str, output: Output, rest: Rest
) -> Checkpoint:
    """The checkpoint, if its new form can be written into a bucket."""
    if output.get("replace_out") or output.get("in_place"):
        raise UsageError(f"{url}: an object is never replaced", hint="-o with a new name alone")
    if not plan.is_rename or isinstance(rest, Remaking):
        raise UsageError(
            f"{url}: only a checkpoint whose keys alone change can be written into a bucket",
            hint="-o FILE  writes it here; upload that",
        )
    checkpoint = rest or opened.checkpoint
    if not is_usual(Path(url), checkpoint.format):
        raise UsageError(f"{url}: the result is {checkpoint.format}, of another suffix")
    if opened.is_folder and len(opened.names) > 1 and is_file_name(Path(url), opened.names):
        raise UsageError(f"{url}: several files need a folder", hint=f"-o {url}/")
    expect_harmless(checkpoint, output.get("opaque"))
    return checkpoint


def _files(
    checkpoint: Checkpoint, new_keys: dict[str, str]
) -> Iterator[tuple[Part, Sequence[Piece]]]:
    """Each file of the result: the one that it is made of, and its pieces, spans of that one."""
    parts = {part.name: part for part in checkpoint.source.parts}
    own, pieces = checkpoint.source.parts[0], list[Piece]()
    for piece in checkpoint.renamed(new_keys):
        if isinstance(piece, FileStart):
            if pieces:
                yield own, pieces
            own, pieces = parts[piece.name], []
        else:
            pieces.append(piece.moved(-own.offset) if isinstance(piece, Span) else piece)
    yield own, pieces


def _origin(opened: OpenedState, name: str) -> tuple[str, str] | None:
    """The URL and the tag of the object that a file is, if it is one."""
    from ckpt.remote.elsewhere.opening import OpenedElsewhere

    if not isinstance(opened, OpenedElsewhere):
        return None
    etag = opened.origin.get("etags", {}).get(name)
    return None if etag is None else (opened.url_of(name), etag)


def _expect_back(opened: OpenedState, plan: RenamePlan, url: str, registry: Registry) -> None:
    ref = f"{url}::{opened.inside}" if opened.inside else url
    expected = [(plan.new_keys[e.key], e.dtype, e.shape) for e in opened.entries]
    with open_state(ref, registry) as back:
        if [(e.key, e.dtype, e.shape) for e in back.entries] != expected:
            raise IntegrityError(f"{url}: does not read back as planned", hint="remove it")
