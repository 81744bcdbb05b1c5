"""One repository of an OCI registry: its blobs and manifests.

Source: the OCI distribution specification 1.1. Laws: what is fetched is counted and hashed,
whatever the registry says about it; an answer that was lost is looked for before a request is
repeated; what is there is not sent again.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Self
from urllib.parse import urlencode

from ckpt.errors import ConflictError, IntegrityError, RefError, RemoteError, excerpt
from ckpt.io import digest
from ckpt.io.documents import strict_json
from ckpt.remote.elsewhere.ranges import Patience, TransientError, patiently
from ckpt.remote.elsewhere.web import Answer, Body, Web, expect_ready, origin, redirected
from ckpt.remote.oci.login import authorization, password_of
from ckpt.remote.oci.reference import Reference

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# What a tag may name besides, so that it is named and not called absent.
OTHERS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MOST_MANIFEST = 4 << 20  # bytes; "Pushing manifests": registries should take as many
_MOST_MESSAGE = 1 << 16
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as a manifest names it.

    Attributes:
        media_type: What it is.
        digest: ``sha256:…``.
        size: Its bytes.
        annotations: What is said about it.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)


class Client:
    """A repository.

    Args:
        reference: Its address; the tag is for messages.
        seen: Called with the bytes of each chunk of a blob that was sent or fetched.
    """

    def __init__(
        self, reference: Reference, seen: Callable[[int], object] = lambda nbytes: None
    ) -> None:
        self.reference = reference
        self._seen = seen
        self._web = Web()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._web.close()

    def manifest(self, named: str) -> tuple[str, bytes] | None:
        """The digest and the bytes of the manifest with a tag or digest; None if there is none.

        Raises:
            IntegrityError: It has another digest than it is named by.
            RemoteError: The registry refuses, or it is too large.
        """
        name = str(self.reference)
        accept = {"Accept": ", ".join((MANIFEST, *OTHERS))}

        def asked() -> bytes | None:
            with self._read("GET", f"manifests/{named}", accept) as answer:
                if answer.status == 404:
                    return None
                data = b"".join(answer.chunks(MOST_MANIFEST + 1))
                if answer.length is not None and len(data) < min(answer.length, MOST_MANIFEST):
                    raise TransientError("the connection broke")
                return data

        data = patiently(name, asked)
        if data is None:
            return None
        if len(data) > MOST_MANIFEST:
            raise RemoteError(f"{name}: a manifest of more than {MOST_MANIFEST:,} bytes")
        found = digest.of_bytes(data)
        if digest.is_digest(named) and named != found:
            raise IntegrityError(f"{name}: the server sends {digest.short(found)} for it")
        return found, data

    def has(self, blob: Blob) -> bool:
        """Whether the repository has a blob."""
        return patiently(self._named(blob), lambda: self._has(blob))

    def _has(self, blob: Blob) -> bool:
        with self._read("HEAD", f"blobs/{blob.digest}") as answer:
            return answer.status == 200 and answer.length in (None, blob.size)

    def send(self, blob: Blob, read: Body) -> bool:
        """Put a blob into the repository; False if it is there already.

        Raises:
            RemoteError: The registry refuses it.
        """

        def sent() -> bool:
            if self._has(blob):  # perhaps since an attempt whose answer was lost
                return False
            with self._write("POST", f"{self.reference.url}/blobs/uploads/", (202,)) as begun:
                here = redirected(begun.url, begun.header("Location"), self._named(blob))
            query = urlencode({"digest": blob.digest})
            url = f"{here}{'&' if '?' in here else '?'}{query}"
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(blob.size),
            }
            with self._write("PUT", url, (201, 204), headers, lambda: self._passing(read())):
                return True

        return patiently(self._named(blob), sent)

    def tag(self, tag: str, data: bytes) -> None:
        """Give a manifest a tag; what the tag named before stays under its digest.

        Raises:
            ConflictError: The tag names something else afterwards: somebody else moved it.
            RemoteError: The registry refuses it.
        """
        wanted, patience = digest.of_bytes(data), Patience(str(self.reference))
        url = f"{self.reference.url}/manifests/{tag}"
        headers = {"Content-Type": MANIFEST, "Content-Length": str(len(data))}
        while True:
            try:
                with self._write("PUT", url, (201,), headers, lambda: [data]):
                    pass
            except TransientError as error:
                with suppress(RemoteError):
                    if self._named_by(tag) == wanted:  # only the answer was lost
                        return
                patience.wait(error)
                continue
            if (found := self._named_by(tag)) != wanted:
                raise ConflictError(
                    f"{self.reference}: names {found or 'nothing'} now: another process moved it"
                )
            return

    def _named_by(self, tag: str) -> str | None:
        found = self.manifest(tag)
        return None if found is None else found[0]

    def fetch(self, blob: Blob, out: BinaryIO) -> None:
        """Write a blob to a file, from the byte on where a connection broke.

        Raises:
            IntegrityError: It has another size or digest.
            RefError: The repository has no such blob.
        """
        name, done, hasher = self._named(blob), 0, hashlib.sha256()
        patience = Patience(name)
        while done < blob.size:
            begin = done
            try:
                for chunk in self._stream(blob, begin):
                    out.write(chunk)
                    hasher.update(chunk)
                    done += len(chunk)
                    self._seen(len(chunk))
                if done < blob.size:
                    raise TransientError(f"the connection broke at byte {done:,}")
            except TransientError as error:
                patience.wait(error, done - begin)
        if (found := f"sha256:{hasher.hexdigest()}") != blob.digest:
            raise IntegrityError(f"{name}: its bytes have the digest {digest.short(found)}")

    def get(self, blob: Blob, *, most: int) -> bytes:
        """The bytes of a small blob.

        Raises:
            RemoteError: It has more than `most` bytes.
        """
        from io import BytesIO

        if blob.size > most:
            raise RemoteError(f"{self._named(blob)}: {blob.size:,} bytes, the limit is {most:,}")
        out = BytesIO()
        self.fetch(blob, out)
        return out.getvalue()

    def _stream(self, blob: Blob, begin: int) -> Iterator[bytes]:
        """The bytes of a blob from `begin` on, in one request; never more than it has."""
        name = self._named(blob)
        headers = {"Range": f"bytes={begin}-{blob.size - 1}"} if begin else {}
        with self._read("GET", f"blobs/{blob.digest}", headers) as answer:
            if answer.status == 404:
                raise RefError(f"{name}: the server has no such blob")
            found = _RANGE.fullmatch(answer.header("Content-Range") or "")
            at = int(found[1]) if found and answer.status == 206 else 0
            if at > begin:
                raise RemoteError(f"{name}: the server sends another range than asked for")
            if answer.length not in (None, blob.size - at):
                stated = f"{at + (answer.length or 0):,} bytes, {blob.size:,} expected"
                raise IntegrityError(f"{name}: {stated}")
            skipped = begin - at  # of a registry without ranges, which begins again
            for chunk in answer.chunks(blob.size - at):
                yield chunk[skipped:]
                skipped = max(0, skipped - len(chunk))

    def _passing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            self._seen(len(chunk))

    def _named(self, blob: Blob) -> str:
        return f"{self.reference}: {digest.short(blob.digest)}"

    def _read(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        url, name = f"{self.reference.url}/{path}", str(self.reference)
        answer = self._permitted(lambda: self._web.follow(method, url, headers, name=name))
        return self._expect(answer, (200, 206, 404))

    def _write(
        self,
        method: str,
        url: str,
        wanted: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        name = str(self.reference)
        answer = self._permitted(lambda: self._web.ask(method, url, headers, body, name=name))
        return self._expect(answer, wanted)

    def _permitted(self, ask: Callable[[], Answer]) -> Answer:
        """The answer; after a challenge of this registry, that of a request with a password."""
        answer = ask()
        if answer.status != 401 or origin(answer.url) != origin(self.reference.root):
            return answer
        with answer:
            challenge = answer.header("WWW-Authenticate") or ""
        password = password_of(self.reference)
        value = authorization(self.reference, challenge, password)
        if value is None:
            raise self._refused(401, "")
        self._web.authorize(self.reference.root, value)
        return ask()

    def _expect(self, answer: Answer, wanted: tuple[int, ...]) -> Answer:
        expect_ready(answer)
        packed = answer.header("Content-Encoding") not in (None, "", "identity")
        if answer.status in wanted and not packed:
            return answer
        with answer:
            raise self._refused(answer.status, _message(answer), packed=packed)

    def _refused(self, status: int, message: str, *, packed: bool = False) -> Exception:
        place, said = self.reference.place, f": {message}" if message else ""
        if packed:
            return RemoteError(f"{place}: the server packs its answer, though told not to")
        if status in (401, 403):
            hint = f"docker login {self.reference.host}  keeps a password; ckpt uses it too"
            return RemoteError(f"{place}: the server refuses it ({status}){said}", hint=hint)
        if status == 404:
            return RefError(f"{place}: no such repository (404){said}")
        return RemoteError(f"{place}: the server answers {status}{said}")


def _message(answer: Answer) -> str:
    """What a registry says is wrong, as far as it says it ("Error Codes")."""
    try:
        data = b"".join(answer.chunks(_MOST_MESSAGE))
        first = strict_json.parse(data.decode("utf-8"))["errors"][0]
        return excerpt(str(first.get("message") or first.get("code") or ""))
    except (TransientError, ValueError, LookupError, TypeError, AttributeError):
        return ""
