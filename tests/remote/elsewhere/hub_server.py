"""A hub over loopback: the part of Hugging Face's API that reads models.

Large files are redirected to another origin, as the hub's are. `test_hub.py` holds it to what
`huggingface_hub` itself expects.
"""

import hashlib
import json
from collections.abc import Mapping

from tests.remote.elsewhere.web_server import Asked, WebServer

LARGE = 10_000  # bytes; larger files are in LFS


class Hub:
    """Repositories of `web`, whose large files are at `cdn`.

    Args:
        web: The endpoint.
        cdn: The other server.
    """

    def __init__(self, web: WebServer, cdn: WebServer) -> None:
        self.web, self.cdn = web, cdn
        web.missing = {"X-Error-Code": "EntryNotFound"}

    def commit(self, repo: str, files: Mapping[str, bytes], *revisions: str) -> str:
        """Add a commit, at which some revisions point; returns its name."""
        listed = [_described(name, data) for name, data in sorted(files.items())]
        sha = hashlib.sha1(json.dumps(listed).encode()).hexdigest()
        document = {"id": repo, "sha": sha, "siblings": listed, "private": False}

        def info(asked: Asked) -> bytes:
            blobs = "blobs=true" in asked.path.lower()
            siblings = [each if blobs else {"rfilename": each["rfilename"]} for each in listed]
            return json.dumps({**document, "siblings": siblings}).encode()

        for revision in (sha, *revisions):
            self.web.answers[f"api/models/{repo}/revision/{revision}"] = info
            for name, data in files.items():
                self._serve(f"{repo}/resolve/{revision}/{name}", sha, data)
            if revision == "main":
                self.web.answers[f"api/models/{repo}"] = info
        return sha

    def _serve(self, path: str, sha: str, data: bytes) -> None:
        own = {"X-Repo-Commit": sha}
        if len(data) > LARGE:
            digest = hashlib.sha256(data).hexdigest()
            self.cdn.files[digest] = data
            self.web.redirects[path] = f"{self.cdn.url}/{digest}"
            own |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        else:
            self.web.files[path] = data
        self.web.headers[path] = own


def _described(name: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    large = {"lfs": lfs} if len(data) > LARGE else {}
    return {"rfilename": name, "size": len(data), "blobId": blob, **large}
