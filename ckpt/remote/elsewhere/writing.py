"""Write a new object into a bucket; on S3, from ranges of another one that never come here.

Laws: an object appears whole or not at all, and only if there was none of this name. S3 copies
ranges by UploadPartCopy, which botocore sends; without botocore, or in another store, the bytes
come here and go back.
"""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from ckpt.errors import CkptError, ConflictError, RemoteError, UsageError, excerpt
from ckpt.formats.stream import layout_bytes
from ckpt.io.sources import ByteSource
from ckpt.io.threads import Threads
from ckpt.remote.elsewhere.buckets import BucketPlace, errors, head
from ckpt.remote.elsewhere.parts import Copied, Sent, parts_of
from ckpt.remote.elsewhere.ranges import TransientError, patiently
from ckpt.tensors import Piece, Span

_SIDE_BY_SIDE = 8  # parts
_ATTEMPTS = 5
_AT_ONCE = 64 << 20  # bytes; larger objects are sent in parts
_MARK = "ckpt-write"  # metadata that tells whose object it is


@dataclass(frozen=True, slots=True)
class Put:
    """The result of writing an object.

    Attributes:
        size: Its bytes.
        sent: Those that went over the wire.
    """

    size: int
    sent: int


def write_object(
    place: BucketPlace,
    name: str,
    pieces: Sequence[Piece],
    source: ByteSource,
    origin: tuple[str, str] | None,
) -> Put:
    """Write an object.

    Args:
        place: The folder.
        name: The object's name in it.
        pieces: Its bytes, in order: new ones, and spans of `source`.
        source: What spans are of.
        origin: The URL and the entity tag of the object that `source` is, if it is one.

    Raises:
        UsageError: There is one of this name.
        RemoteError: The store refuses.
    """
    url = f"{place.name}/{name}"
    expect_absent(place, name)
    if origin is not None and _can_copy(url, origin[0]):
        plain = [piece for piece in pieces if isinstance(piece, bytes | Span)]
        spans = (piece for piece in plain if isinstance(piece, Span))
        # What is computed, such as an inflated record, is in no object.
        are_all = len(plain) == len(pieces) and all(span.end <= source.size for span in spans)
        parts = parts_of(plain) if are_all else []
        if any(isinstance(part, Copied) for part in parts):
            return _copied(url, parts, source, origin)
    return write_chunks(place, name, layout_bytes(pieces, source))


def _can_copy(url: str, origin: str) -> bool:
    """Whether the store can copy ranges of one object into another by itself."""
    return _both_on_s3(url, origin) and not why_streamed(url, origin)


def _both_on_s3(url: str, origin: str) -> bool:
    return url.startswith("s3://") and origin.startswith("s3://")


def why_streamed(url: str, origin: str) -> str:
    """What is missing here to let the store copy; nothing if it can, or never does."""
    if not _both_on_s3(url, origin) or find_spec("botocore") is not None:
        return ""
    return "to let S3 copy what it has:  pip install 'ckpt-registry[s3]'"


def expect_absent(place: BucketPlace, name: str) -> None:
    """Make sure that there is no object of a name.

    Raises:
        UsageError: There is one.
    """
    url = f"{place.name}/{name}"
    if patiently(url, lambda: head(place.store, name, url)) is not None:
        raise _exists(url)


def write_chunks(place: BucketPlace, name: str, chunks: Iterable[bytes]) -> Put:
    """Send all bytes of a new object.

    A small one is sent in one request, which fails if there is one of this name; a larger one in
    parts, which no store gives such a condition.

    Raises:
        UsageError: There is one.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    url, iterator, held = f"{place.name}/{name}", iter(chunks), bytearray()
    for chunk in iterator:
        held += chunk
        if len(held) > _AT_ONCE:
            break
    total = len(held)

    def rest() -> Iterator[bytes]:
        nonlocal total
        yield bytes(held)
        # obstore asks for chunks from a thread in which it can read nothing itself.
        with Threads(max_workers=1) as side:
            while (chunk := side.submit(next, iterator, None).result()) is not None:
                total += len(chunk)
                yield chunk

    try:
        with errors(url):
            if len(held) <= _AT_ONCE:
                obstore.put(place.store, name, bytes(held), mode="create", use_multipart=False)
            else:
                obstore.put(place.store, name, rest(), use_multipart=True, chunk_size=16 << 20)
    except (AlreadyExistsError, PreconditionError) as error:
        raise _exists(url) from error
    except TransientError as error:  # whether it was written is not known, so once is enough
        raise RemoteError(f"{url}: {error}", hint="look whether it is there; try again") from error
    return Put(total, total)


def _copied(
    url: str, parts: Sequence[Sent | Copied], source: ByteSource, origin: tuple[str, str]
) -> Put:
    """Put an object together inside S3: parts that are sent, and ranges that it copies."""
    from botocore.exceptions import BotoCoreError, ClientError

    old, etag = _address(origin[0]), origin[1]
    client, mark = _client(), uuid.uuid4().hex
    target = _address(url)
    copied = {"CopySource": old, "CopySourceIfMatch": etag}
    changed = RemoteError(f"{origin[0]}: changed while it was read", hint="run the command again")
    with _s3_errors(url, changed):
        upload = client.create_multipart_upload(**target, Metadata={_MARK: mark})["UploadId"]
        words = {**target, "UploadId": upload}
        done = False
        try:
            put = partial(_part, client, words, copied, source)
            with Threads(_SIDE_BY_SIDE) as side:
                tags = list(side.map(put, range(1, len(parts) + 1), parts))
            # Some stores ignore the condition on the source of a copy.
            if client.head_object(**old)["ETag"] != etag:
                raise changed
            _complete(client, words, tags, mark)
            done = True
        finally:
            if not done:
                with suppress(BotoCoreError, ClientError):  # what went wrong before is raised
                    client.abort_multipart_upload(**words)
    sent = sum(part.nbytes for part in parts if isinstance(part, Sent))
    return Put(sent + sum(p.span.nbytes for p in parts if isinstance(p, Copied)), sent)


def _part(
    client: Any,
    words: Mapping[str, str],
    copied: Mapping[str, Any],
    source: ByteSource,
    number: int,
    part: Sent | Copied,
) -> dict[str, Any]:
    """Send or copy one part; its tag and number."""
    if isinstance(part, Copied):
        within = f"bytes={part.span.offset}-{part.span.end - 1}"
        answer = client.upload_part_copy(
            **words, **copied, PartNumber=number, CopySourceRange=within
        )
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}
    data = b"".join(layout_bytes(part.pieces, source))
    answer = client.upload_part(**words, PartNumber=number, Body=data)
    return {"PartNumber": number, "ETag": answer["ETag"]}


def _complete(client: Any, words: Mapping[str, str], tags: list[dict[str, Any]], mark: str) -> None:
    """Give the object its name, unless there is one."""
    from botocore.exceptions import BotoCoreError, ClientError

    target = {name: words[name] for name in ("Bucket", "Key")}
    try:
        client.complete_multipart_upload(**words, MultipartUpload={"Parts": tags}, IfNoneMatch="*")
    except (ClientError, BotoCoreError) as error:
        # The first of several attempts may have succeeded, and its reply have been lost.
        try:
            found = client.head_object(**target)["Metadata"].get(_MARK)
        except (ClientError, BotoCoreError):
            found = None
        if found != mark:
            url = f"s3://{words['Bucket']}/{words['Key']}"
            raise _refusal(error, url, _exists(url)) from error


def _address(url: str) -> dict[str, str]:
    """The bucket and the key of an ``s3://`` URL."""
    parts = urlsplit(url)
    return {"Bucket": parts.netloc, "Key": parts.path.removeprefix("/")}


def _exists(url: str) -> UsageError:
    return UsageError(f"{url} already exists", hint="name another with -o")


@contextmanager
def _s3_errors(url: str, unmet: CkptError) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise _refusal(error, url, unmet) from error


def _refusal(error: Exception, url: str, unmet: CkptError) -> CkptError:
    """The error of a request; `unmet` if a condition of it was not met."""
    response = getattr(error, "response", None) or {}
    code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == 412:
        return unmet
    if code == 409:
        return ConflictError(f"{url}: another process writes it")
    return RemoteError(f"{url}: {excerpt(str(error), 300)}", hint="try again later")


def _client() -> Any:
    """A client of S3 with the environment's settings, as obstore reads them."""
    from botocore.config import Config
    from botocore.session import get_session

    own_endpoint = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    config = Config(
        connect_timeout=20,
        read_timeout=300,  # of 5 GB that the store copies
        retries={"max_attempts": _ATTEMPTS, "mode": "standard"},
        max_pool_connections=_SIDE_BY_SIDE,
        s3={"addressing_style": "path" if own_endpoint else "auto"},
        # Servers that are not Amazon's may not know its newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return get_session().create_client("s3", region_name=region, config=config)
