"""Artifacts made by hand, as ModelPack's specification and `modctl` lay them out."""

import hashlib
import io
import json
import tarfile
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from tests.remote.elsewhere.web_server import WebServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MODEL = "application/vnd.cncf.model"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def archive(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return out.getvalue()


@dataclass
class Made:
    """An artifact: its blobs by digest, and the documents that name them.

    Attributes:
        config: The configuration without the digests of the layers.
        changes: Fields of the manifest that differ from those of a model.
    """

    config: dict[str, Any] = field(
        default_factory=lambda: {"descriptor": {"name": "net"}, "config": {"format": "safetensors"}}
    )
    changes: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, kind: str, path: str | None, data: bytes, **changes: Any) -> "Made":
        """Add a layer of a kind such as ``weight.v1.raw``."""
        self.blobs[sha256(data)] = data
        layer = {"mediaType": f"{MODEL}.{kind}", "digest": sha256(data), "size": len(data)}
        if path is not None:
            meta = json.dumps({"name": path, "mode": 420, "size": len(data), "typeflag": 48})
            layer["annotations"] = {
                "org.cncf.model.filepath": path,
                "org.cncf.model.file.metadata+json": meta,
            }
        self.layers.append({**layer, **changes})
        return self

    @property
    def manifest(self) -> bytes:
        model = {"type": "layers", "diffIds": [layer["digest"] for layer in self.layers]}
        data = json.dumps({**self.config, "modelfs": model}).encode()
        self.blobs[sha256(data)] = data
        config = {"mediaType": f"{MODEL}.config.v1+json", "digest": sha256(data), "size": len(data)}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": f"{MODEL}.manifest.v1+json",
            "config": config,
            "layers": self.layers,
            **self.changes,
        }
        return json.dumps({k: v for k, v in document.items() if v is not None}).encode()

    def serve(self, web: WebServer, tag: str = "v1", manifest: bytes | None = None) -> str:
        """Put it on a web server that a test rules; the address."""
        manifest = self.manifest if manifest is None else manifest
        base = "v2/team/net"
        web.files |= {f"{base}/manifests/{each}": manifest for each in (tag, sha256(manifest))}
        web.files |= {f"{base}/blobs/{name}": data for name, data in self.blobs.items()}
        return f"{web.url.replace('http', 'oci')}/team/net:{tag}"

    def send(self, repository: str, tag: str) -> str:
        """Put it into a real registry; the address."""
        url = repository.replace("oci://", "http://")
        host, _, name = url.removeprefix("http://").partition("/")
        manifest, base = self.manifest, f"http://{host}/v2/{name}"
        for digest, data in self.blobs.items():
            begun = urllib.request.Request(f"{base}/blobs/uploads/", b"", method="POST")
            with urllib.request.urlopen(begun) as answer:
                place = answer.headers["Location"]
            put = urllib.request.Request(f"{place}&digest={digest}", data, method="PUT")
            put.add_header("Content-Type", "application/octet-stream")
            urllib.request.urlopen(put).close()
        put = urllib.request.Request(f"{base}/manifests/{tag}", manifest, method="PUT")
        put.add_header("Content-Type", MANIFEST)
        urllib.request.urlopen(put).close()
        return f"{repository}:{tag}"
