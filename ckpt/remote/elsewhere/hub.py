"""Models of a hub that speaks Hugging Face's API: ``hf://org/repo[@revision][/file]``.

Source: `huggingface_hub` (`HfApi.model_info` with `files_metadata`, `hf_hub_url`, `HfFileSystem`).
Law: the revision is resolved to a commit first, and every file is of that commit. The token is
sent to the endpoint only.
"""

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, unquote

from ckpt.errors import RefError, RemoteError, UsageError, excerpt
from ckpt.io.documents import strict_json
from ckpt.io.sources import OpenSource
from ckpt.remote.elsewhere.http import open_http, small
from ckpt.remote.elsewhere.place import Opening, Place
from ckpt.remote.elsewhere.web import Web, origin, parted

_ENDPOINT = "https://huggingface.co"
_MOST_BYTES = 100_000_000  # of the list of a repository's files
_OTHERS = ("datasets", "spaces", "buckets")
_URL = re.compile(
    r"hf://([\w.-]+)/([\w.-]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.*))?", re.I
)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubPlace(Place):
    """A repository at one commit, or a folder in it.

    Args:
        web: The client, with the token.
        url: Of the endpoint.
        repo: ``org/repo``.
        name: What messages call the repository.
        document: What the API says about it.
    """

    def __init__(self, web: Web, url: str, repo: str, name: str, document: Any) -> None:
        self.name, self._repo, self._folder = name, repo, ""
        self._web, self._url = web, url
        self.commit = _commit(document, name)
        self._listed = _files(document, name)

    @property
    def base(self) -> str:
        return (self._folder or self._repo).rstrip("/").rpartition("/")[2]

    def within(self, folder: str) -> None:
        """Make it a folder of the repository."""
        if folder:
            self.name, self._folder = f"{self.name}/{folder}", f"{folder}/"

    def files(self) -> Mapping[str, int]:
        begin = len(self._folder)
        return {
            name[begin:]: size
            for name, (size, _) in self._listed.items()
            if name.startswith(self._folder)
        }

    def origin(self) -> dict[str, Any]:
        here = {} if self._url == _ENDPOINT else {"endpoint": parted(self._url)[2]}
        return {"commit": self.commit, **here}

    def opened(self, name: str, opening: Opening) -> OpenSource:
        path = self._folder + name
        if path not in self._listed:
            raise RefError(f"{self.name}/{name}: no such file at commit {self.commit[:8]}")
        size, sha256 = self._listed[path]
        url = f"{self._url}/{self._repo}/resolve/{self.commit}/{quote(path)}"
        full = f"{self.name}/{name}"
        opening.note(name, sha256=sha256)
        source = open_http(self._web, url, base=name, name=full, opening=opening)
        if source.size != size:
            source.close()
            raise RemoteError(f"{full}: {source.size:,} bytes, the hub's list says {size:,}")
        return source

    def close(self) -> None:
        self._web.close()


def place(url: str) -> tuple[HubPlace, str]:
    """The place of a URL, and the name of its file; empty for a repository or folder.

    Raises:
        UsageError: It names no model of a hub.
        RefError: The repository has no such file.
    """
    found = _URL.fullmatch(url)
    if found is None or found[1] in _OTHERS:
        raise UsageError(
            "hf://…: not a model of a hub", hint="hf://ORG/REPO, hf://ORG/REPO@REVISION/FILE"
        )
    org, repo, revision, path = found.groups()
    revision = unquote(revision) if revision else None  # a branch may have a slash, as %2F
    name = f"hf://{org}/{repo}" + (f"@{revision}" if revision else "")
    endpoint, credentials, _ = parted(os.environ.get("HF_ENDPOINT") or _ENDPOINT)
    endpoint = endpoint.rstrip("/")
    if token := os.environ.get("HF_TOKEN", "").strip():
        credentials = {origin(endpoint): f"Bearer {token}"}
    asked = f"{endpoint}/api/models/{org}/{repo}/revision/{quote(revision or 'main', safe='')}"
    with ExitStack() as stack:
        web = Web(credentials)
        stack.callback(web.close)
        document = _document(web, f"{asked}?blobs=true", name)
        there = HubPlace(web, endpoint, f"{org}/{repo}", name, document)
        file = _within(there, (path or "").strip("/"))
        stack.pop_all()
        return there, file


def folder(url: str) -> HubPlace:
    """The repository, or the folder in it, that a URL names.

    Raises:
        UsageError: It names a file.
    """
    there, file = place(url)
    if file:
        there.close()
        raise UsageError(f"{there.name}/{file}: a file, not a folder")
    return there


def _document(web: Web, url: str, name: str) -> Any:
    data = small(web, url, most=_MOST_BYTES, name=name)
    try:
        return strict_json.parse(data.decode("utf-8"))
    except ValueError as error:
        raise RemoteError(f"{name}: the hub's answer is not valid JSON: {error}") from error


def _within(there: HubPlace, path: str) -> str:
    """The file's name, after the place was made its folder; empty for a folder."""
    files = there.files()
    if path in files:
        folder, _, file = path.rpartition("/")
        there.within(folder)
        return file
    if path and not any(name.startswith(f"{path}/") for name in files):
        from difflib import get_close_matches

        near = get_close_matches(path, files, n=3)
        hint = f"{' or '.join(near)}?" if near else f"it has {len(files):,} files"
        raise RefError(f"{there.name}/{path}: no such file at commit {there.commit[:8]}", hint=hint)
    there.within(path)
    return ""


def _commit(document: Any, name: str) -> str:
    sha = document.get("sha") if isinstance(document, dict) else None
    if not isinstance(sha, str) or not _COMMIT.fullmatch(sha):
        raise RemoteError(f"{name}: the hub names no commit: {excerpt(repr(sha))}")
    return sha


def _files(document: Any, name: str) -> dict[str, tuple[int, str | None]]:
    """Name to size and, of large files, SHA-256."""
    listed = document.get("siblings")
    found = {}
    for each in listed if isinstance(listed, list) else ():
        path = each.get("rfilename") if isinstance(each, dict) else None
        size = each.get("size") if isinstance(each, dict) else None
        if not isinstance(path, str) or type(size) is not int or size < 0:
            raise RemoteError(f"{name}: the hub's list of files has {excerpt(repr(each))}")
        lfs = each.get("lfs")
        sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
        known = isinstance(sha256, str) and _SHA256.fullmatch(sha256)
        found[path] = size, sha256 if known else None
    return found
