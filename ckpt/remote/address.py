"""The URL of a remote: what it may be, and the bucket that it names.

Law: credentials in a URL are refused and never repeated; they belong into the environment.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ckpt.errors import UsageError
from ckpt.remote.bucket import Bucket

CLOUDS = ("s3", "gs", "az")
_KINDS = "s3://BUCKET/FOLDER, gs://…, az://…, ssh://HOST/FOLDER, file:///FOLDER or a folder"
_SECRET = re.compile(r"//[^/@]*@")


def redacted(url: str) -> str:
    """The URL without what stands before its host, and without a query."""
    return _SECRET.sub("//…@", url).partition("?")[0].partition("#")[0]


def checked_url(url: str) -> str:
    """The URL as it is kept: without credentials, a folder by its absolute path without ``..``.

    Raises:
        UsageError: It has credentials, or no remote can be there.
    """
    if not url or any(not char.isprintable() for char in url):
        raise UsageError("not the URL of a remote", hint=_KINDS)
    if "://" not in url:
        path = Path(url).absolute()
        return (path.resolve() if ".." in path.parts else path).as_uri()
    try:
        parts = urlsplit(url)
        scheme, is_named = parts.scheme, parts.port is not None or bool(parts.hostname)
    except ValueError as error:
        raise UsageError(f"{redacted(url)}: not a URL", hint=_KINDS) from error
    if parts.password is not None or (parts.username is not None and scheme != "ssh"):
        raise UsageError(
            f"{redacted(url)}: a URL must not have credentials",
            hint="remotes are kept in a file that others read; put them into the environment, e.g. "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if parts.query or parts.fragment:
        raise UsageError(f"{redacted(url)}: a URL of a remote has neither ? nor #")
    if scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return url.rstrip("/")
    if scheme in (*CLOUDS, "ssh") and is_named and ".." not in parts.path.split("/"):
        return url.rstrip("/")
    raise UsageError(f"{redacted(url)}: not the URL of a remote", hint=_KINDS)


def open_bucket(url: str) -> Bucket:
    """The bucket of a URL that `checked_url` gave; no request is sent yet.

    Raises:
        UsageError: There can be no such place.
    """
    url = checked_url(url)
    parts = urlsplit(url)
    if parts.scheme == "file":
        from ckpt.remote.folder import Folder

        return Folder(Path(unquote(url.removeprefix("file://"))), url)
    if parts.scheme == "ssh":
        from ckpt.remote.sftp import Sftp

        return Sftp(url)
    from ckpt.remote.object_store import ObjectStoreBucket

    return ObjectStoreBucket(url)
