"""Objects in buckets, ``s3://``, ``gs://`` and ``az://``, by obstore.

A URL of an object is a file; any other is a folder, whose objects are listed.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ckpt.errors import CkptError, FormatError, RefError, RemoteError, UsageError, excerpt
from ckpt.io.sources import OpenSource
from ckpt.refs import without_secrets
from ckpt.remote.address import CLOUDS
from ckpt.remote.clouds import reason, store_of
from ckpt.remote.elsewhere.place import Opening, Place
from ckpt.remote.elsewhere.ranges import BLOCK, RangedSource, TransientError, patiently

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK = 1 << 20  # bytes
_MOST_LISTED = 100_000  # objects below a folder
_SECONDS = 60  # of a request
_FOR_GOOD = re.compile(r"status code: 4(?!08|29)\d\d")  # as obstore words it
_HINT = "check the bucket, and the credentials in the environment, e.g. AWS_ACCESS_KEY_ID"


class BucketPlace(Place):
    """A folder of a bucket, or the bucket itself.

    Args:
        url: Without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        # Requests are repeated by `patiently` and `RangedSource`, as for every scheme.
        self.name, self.store = url, store_of(url, seconds=_SECONDS, repeats=0)

    def opened(self, name: str, opening: Opening) -> OpenSource:
        full = f"{self.name}/{name}"
        meta = patiently(full, lambda: head(self.store, name, full))
        if meta is None:
            raise RefError(f"{full}: no such object")
        if not meta["size"]:
            raise FormatError(f"{full}: an empty file")
        opening.note(name, etag=meta["e_tag"])
        source = RangedSource(BucketFile(self.store, name, full, meta), name)
        source.read(0, min(BLOCK, source.size))
        return source

    @cached_property
    def _listed(self) -> dict[str, int]:
        return patiently(self.name, lambda: _listed(self.store, self.name))

    def files(self) -> Mapping[str, int]:
        return self._listed

    def close(self) -> None:
        """Obstore has the connections."""


class BucketFile:
    """An object; a `RemoteFile`.

    Args:
        store: Its folder.
        path: Its path in it.
        name: What messages call it.
        meta: What `head` gave.
    """

    def __init__(self, store: "ObjectStore", path: str, name: str, meta: Any) -> None:
        self.name, self.size, self.etag = name, meta["size"], meta["e_tag"]
        self._store, self._path, self._date = store, path, meta["last_modified"]

    def close(self) -> None:
        """Obstore has the connections."""

    def stream(self, offset: int, nbytes: int) -> Iterator[bytes]:
        import obstore
        from obstore.exceptions import PreconditionError

        options: Any = {"range": (offset, offset + nbytes)}
        options |= {"if_match": self.etag} if self.etag else {"if_unmodified_since": self._date}
        with errors(self.name):
            try:
                found = obstore.get(self._store, self._path, options=options)
            except (PreconditionError, FileNotFoundError) as error:
                raise RemoteError(
                    f"{self.name}: changed while it was read", hint="run the command again"
                ) from error
            if (found.meta["e_tag"], found.meta["size"]) != (self.etag, self.size):
                raise RemoteError(
                    f"{self.name}: changed while it was read", hint="run the command again"
                )
            for chunk in found.stream(min_chunk_size=_CHUNK):
                data = bytes(chunk)[:nbytes]
                nbytes -= len(data)
                yield data
                if not nbytes:
                    return


def place(url: str) -> tuple[BucketPlace, str]:
    """The place of a URL, and the name of its object; empty for a folder or bucket.

    Raises:
        UsageError: It names no bucket.
    """
    plain = _checked(url)
    folder, _, name = plain.rpartition("/")
    if url.endswith("/") or folder.endswith("/"):  # the bucket itself
        return BucketPlace(plain), ""
    found = BucketPlace(folder)
    if patiently(plain, lambda: head(found.store, name, plain)) is not None:
        return found, name
    whole = BucketPlace(plain)
    if not whole.files():
        raise RefError(f"{plain}: no such object, and no folder of objects")
    return whole, ""


def folder(url: str) -> BucketPlace:
    """The place that a URL names."""
    return BucketPlace(_checked(url))


def _checked(url: str) -> str:
    """The URL without a slash at its end."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in CLOUDS:
        known = ", ".join(f"{cloud}://" for cloud in CLOUDS)
        raise UsageError(
            f"{excerpt(without_secrets(url))}: not in a bucket ({known})",
            hint="-o FILE  writes a file here",
        )
    bucket, _, path = rest.partition("/")
    if "@" in bucket or "?" in url:
        raise UsageError(
            f"{scheme}://…: a URL of a bucket has no credentials and no query",
            hint="put them into the environment, e.g. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        )
    if not re.fullmatch(r"[\w.-]+", bucket) or not url.isprintable() or ".." in path.split("/"):
        raise UsageError(f"{excerpt(url)}: not the URL of an object in a bucket")
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def head(store: "ObjectStore", path: str, name: str) -> Any:
    """What the store says about an object; None if there is none."""
    import obstore

    with errors(name):
        try:
            return obstore.head(store, path)
        except FileNotFoundError:
            return None


def _listed(store: "ObjectStore", name: str) -> dict[str, int]:
    import obstore

    found: dict[str, int] = {}
    with errors(name):
        for some in obstore.list(store):
            found |= {each["path"]: each["size"] for each in some}
            if len(found) > _MOST_LISTED:
                raise RemoteError(
                    f"{name}: more than {_MOST_LISTED:,} objects", hint="name a folder or an object"
                )
    return found


@contextmanager
def errors(name: str) -> Iterator[None]:
    """Turn obstore's errors into ours; what may pass becomes a `TransientError`."""
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        GenericError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    try:
        yield
    except (CkptError, TransientError, AlreadyExistsError, PreconditionError):
        raise
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise RemoteError(f"{name}: {reason(error)}", hint=_HINT) from error
    except (GenericError, TimeoutError) as error:
        if _FOR_GOOD.search(str(error)):
            raise RemoteError(f"{name}: {reason(error)}", hint=_HINT) from error
        raise TransientError(reason(error)) from error
    except (BaseError, OSError, ValueError) as error:
        raise RemoteError(f"{name}: {reason(error)}") from error
