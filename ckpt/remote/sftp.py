"""A folder on a machine that SSH reaches, by SFTP, as a bucket.

SFTP can create a file only if it is absent (OpenSSH's `rename` fails if the name exists), and knows
no condition for a replacement. So what is replaced becomes a chain: the content that follows one
with the digest D is created, only if absent, as ``ckpt/next/PATH/D``. Whoever creates it wins; the
end of the chain is what the path holds. The file at the path itself saves the way from the first
link: it holds one of the contents, and need not be the last.

Law for callers: no content comes twice at a path that is replaced, or its chain would be a circle.
SFTP cannot sync a folder: after a power cut on the server, files created just before may be gone.

Hosts, users, keys and jumps come from ``~/.ssh/config``, as `ssh` reads it; only known hosts are
trusted.
"""

import errno
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ckpt.errors import CkptError, RemoteError, excerpt
from ckpt.io import digest
from ckpt.io.sources import CHUNK
from ckpt.remote.bucket import Stat

if TYPE_CHECKING:
    from paramiko import SFTPClient, SFTPFile, SSHClient

_SECONDS = 20.0  # for the connection
_NEXT, _TEMPORARY = "ckpt/next", "ckpt/tmp"
_IMMUTABLE = ("objects/", "packs/", "manifests/")  # named by their content, so never replaced
_MOST_LINKS = 50  # that nobody needs, before old ones are removed
_OLD_SECONDS = 86_400.0  # no client is paused for longer between two requests
_HINT = "ssh HOST  must work without a password, and the host be known"


class Sftp:
    """A folder.

    Args:
        url: ``ssh://[USER@]HOST[:PORT]/FOLDER``.
    """

    doubt = None

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url, self._top = url, unquote(parts.path) or "/"
        self._host, self._user, self._port = parts.hostname or "", parts.username, parts.port
        self._connection: SSHClient | None = None
        self._was_connected = False
        self._idle: list[SFTPClient] = []
        self._lock = Lock()

    def get(self, path: str, *, most: int) -> tuple[bytes, str] | None:
        with self._errors(path) as sftp:
            found = self._end(sftp, path, most)
            return None if found is None else found[:2]

    def stream(self, path: str, offset: int, nbytes: int) -> Iterator[bytes] | None:
        return self._stream(path, offset, nbytes) if self.head(path) else None

    def _stream(self, path: str, offset: int, nbytes: int) -> Iterator[bytes]:
        with self._errors(path) as sftp, sftp.open(self._place(path), "rb") as file:
            end = min(offset + nbytes, file.stat().st_size or 0)
            wanted = [(at, min(CHUNK, end - at)) for at in range(offset, end, CHUNK)]
            yield from file.readv(wanted)

    def head(self, path: str) -> Stat | None:
        with self._errors(path) as sftp:
            place = self._place(path)
            if not path.startswith(_IMMUTABLE) and (found := self._end(sftp, path, 1 << 40)):
                place = found[2]
            status = _status(sftp, place)
            if status is None:
                return None
            return Stat(path, status.st_size or 0, float(status.st_mtime or 0))

    def put_new(self, path: str, chunks: Iterable[bytes], nbytes: int) -> bool:
        with self._errors(path) as sftp:
            if _status(sftp, self._place(path)) is not None:
                return False
            return self._create(sftp, self._place(path), chunks)

    def replace(self, path: str, data: bytes, tag: str) -> bool:
        with self._errors(path) as sftp:
            found = self._end(sftp, path, 1 << 40)
            if found is None or found[1] != tag:
                return False
            if not self._create(sftp, self._link(path, tag), [data]):
                return False
            self._tidy(sftp, path, data)
            return True

    def overwrite(self, path: str, chunks: Iterable[bytes], nbytes: int) -> None:
        with self._errors(path) as sftp:
            self._put(sftp, self._place(path), chunks)

    def list(self, prefix: str) -> Iterator[Stat]:
        folders = [prefix]
        while folders:
            folder = folders.pop()
            with self._errors(folder) as sftp:
                try:
                    found = sftp.listdir_attr(self._place(folder))
                except FileNotFoundError:
                    continue
            for each in found:
                path = f"{folder}/{each.filename}"
                if stat.S_ISDIR(each.st_mode or 0):
                    folders.append(path)
                else:
                    yield Stat(path, each.st_size or 0, float(each.st_mtime or 0))

    def delete(self, path: str) -> None:
        with self._errors(path) as sftp, suppress(FileNotFoundError):
            sftp.remove(self._place(path))

    def _place(self, path: str) -> str:
        return posixpath.join(self._top, path)

    def _link(self, path: str, tag: str) -> str:
        """Where the content is that follows the one with a digest."""
        return self._place(f"{_NEXT}/{path.replace('/', '+')}/{tag.removeprefix('sha256:')}")

    def _end(self, sftp: "SFTPClient", path: str, most: int) -> tuple[bytes, str, str] | None:
        """The last content of a path, its digest, and the file that holds it."""
        place = self._place(path)
        data = self._read(sftp, place, most)
        if data is None:
            return None
        while True:
            tag = digest.of_bytes(data)
            if path.startswith(_IMMUTABLE):
                return data, tag, place
            link = self._link(path, tag)
            if (following := self._read(sftp, link, most)) is None:
                return data, tag, place
            data, place = following, link

    def _read(self, sftp: "SFTPClient", place: str, most: int) -> bytes | None:
        try:
            with sftp.open(place, "rb") as file:
                nbytes = file.stat().st_size or 0
                if nbytes > most:
                    name = posixpath.relpath(place, self._top)
                    raise RemoteError(f"{self.url}/{name}: {nbytes:,} bytes, the limit is {most:,}")
                file.prefetch(nbytes)
                data: bytes = file.read(nbytes)
                return data
        except FileNotFoundError:
            return None

    def _create(self, sftp: "SFTPClient", place: str, chunks: Iterable[bytes]) -> bool:
        """Create a file whole; False if there is one already."""
        try:
            with self._written(sftp, chunks) as temporary:
                _make_folder(sftp, posixpath.dirname(place))
                sftp.rename(temporary, place)  # by OpenSSH a hard link, which replaces nothing
        except OSError:
            if _status(sftp, place) is None:
                raise
            return False
        return True

    def _put(self, sftp: "SFTPClient", place: str, chunks: Iterable[bytes]) -> None:
        with self._written(sftp, chunks) as temporary:
            _make_folder(sftp, posixpath.dirname(place))
            sftp.posix_rename(temporary, place)

    @contextmanager
    def _written(self, sftp: "SFTPClient", chunks: Iterable[bytes]) -> Iterator[str]:
        """A temporary file with these bytes, on the disk of the server; removed on failure."""
        folder = self._place(_TEMPORARY)
        _make_folder(sftp, folder)
        temporary = posixpath.join(folder, os.urandom(8).hex())
        try:
            with sftp.open(temporary, "wx") as file:
                file.set_pipelined(True)  # without waiting for each answer
                for chunk in chunks:
                    file.write(chunk)
                _expect_written(sftp, file)
                _sync(sftp, file)
            yield temporary
        except BaseException:
            with suppress(OSError):
                sftp.remove(temporary)
            raise

    def _tidy(self, sftp: "SFTPClient", path: str, data: bytes) -> None:
        """Let the path hold its last content, and remove old links."""
        self._put(sftp, self._place(path), [data])
        folder = posixpath.dirname(self._link(path, "x"))
        links = sftp.listdir_attr(folder)
        newest = max((float(each.st_mtime or 0) for each in links), default=0.0)
        old = [each for each in links if newest - float(each.st_mtime or 0) > _OLD_SECONDS]
        for each in old if len(links) > _MOST_LINKS else ():
            with suppress(FileNotFoundError):
                sftp.remove(posixpath.join(folder, each.filename))

    @contextmanager
    def _errors(self, path: str) -> Iterator["SFTPClient"]:
        """A client that no other thread uses; one that failed is not used again."""
        from paramiko import SSHException

        sftp: SFTPClient | None = None
        try:
            sftp = self._client()
            yield sftp
        except CkptError:
            raise
        except (SSHException, OSError, EOFError) as error:
            if not isinstance(error, OSError) or error.errno not in (errno.ENOENT, errno.EACCES):
                self._disconnect()
                sftp = None
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            hint = None if self._was_connected else _HINT
            raise RemoteError(f"{self.url}/{path}: {excerpt(text)}", hint=hint) from error
        finally:
            if sftp is not None:
                self._idle.append(sftp)

    def _client(self) -> "SFTPClient":
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._connection is None:
                self._connection = _connected(self._host, self._user, self._port)
                self._was_connected = True
            return _client_class().from_transport(self._connection.get_transport())

    def _disconnect(self) -> None:
        with self._lock:
            self._idle.clear()
            if self._connection is not None:
                self._connection.close()
            self._connection = None


def _connected(host: str, user: str | None, port: int | None) -> "SSHClient":
    import paramiko

    config = paramiko.SSHConfig()
    path = Path("~/.ssh/config").expanduser()
    if path.is_file():
        config = paramiko.SSHConfig.from_path(str(path))
    known: dict[str, Any] = dict(config.lookup(host))
    name, number = known["hostname"], port or int(known.get("port", 22))
    through = known.get("proxycommand")
    if (jump := known.get("proxyjump")) and jump != "none":
        through = f"ssh -W [{name}]:{number} {jump}"
    client = paramiko.SSHClient()
    client.load_system_host_keys()
    for file in known.get("userknownhostsfile", "").split():
        client.load_host_keys(str(Path(file).expanduser()))
    client.connect(
        name,
        port=number,
        username=user or known.get("user"),
        key_filename=known.get("identityfile"),
        sock=paramiko.ProxyCommand(through) if through else None,
        timeout=_SECONDS,
        banner_timeout=_SECONDS,
        auth_timeout=_SECONDS,
    )
    return client


def _status(sftp: "SFTPClient", place: str) -> Any:
    try:
        return sftp.stat(place)
    except FileNotFoundError:
        return None


def _make_folder(sftp: "SFTPClient", folder: str) -> None:
    missing = []
    while _status(sftp, folder) is None:
        missing.append(folder)
        folder = posixpath.dirname(folder)
    for new in reversed(missing):
        try:
            sftp.mkdir(new)
        except OSError:
            if _status(sftp, new) is None:  # else another process was faster
                raise


def _expect_written(sftp: "SFTPClient", file: "SFTPFile") -> None:
    """Read the answers to pipelined writes, whose errors paramiko would lose: a full disk, say."""
    file.flush()
    while file._reqs:
        sftp._read_response(file._reqs.popleft())


def _sync(sftp: "SFTPClient", file: "SFTPFile") -> None:
    """Have the server write a file to its disk, if it can (``fsync@openssh.com``)."""
    from paramiko.sftp import CMD_EXTENDED

    try:
        sftp._request(CMD_EXTENDED, "fsync@openssh.com", file.handle)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


@cache
def _client_class() -> "type[SFTPClient]":
    """The client, which tells "unsupported" from "failed" by `errno`."""
    from paramiko import SFTPClient
    from paramiko.sftp import SFTP_OP_UNSUPPORTED

    class Client(SFTPClient):  # type: ignore[misc] # paramiko has no types
        def _convert_status(self, msg: Any) -> None:
            at = msg.packet.tell()
            if msg.get_int() == SFTP_OP_UNSUPPORTED:
                raise OSError(errno.EOPNOTSUPP, msg.get_text())
            msg.packet.seek(at)
            super()._convert_status(msg)

    return Client
