"""The layout of a model as an OCI artifact, and the place of ckpt's own words in it.

Source: CNCF ModelPack, model-spec: spec.md (media types), config.md, annotations.md. Laws: nothing
of a foreign artifact is believed before its form, its sizes and its names are checked; what ckpt
adds are layers of known media types, so other tools read the artifact as any other.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, NotRequired, TypedDict

from ckpt.errors import FormatError, excerpt
from ckpt.io.documents import strict_json
from ckpt.io.documents.typed_json import Count, Digest, Form, Time, expect
from ckpt.remote.oci.client import MANIFEST, Blob
from ckpt.side_files import MOST_FILES, expect_names

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
_LAYER = re.compile(
    r"application/vnd\.cncf\.model\.(weight|weight\.config|doc|code)\.v1\.(raw|tar)"
)
_PACKED = re.compile(r"application/vnd\.cncf\.model\.weight\.v1\.tar\+\w+")
_FILE_PATH = "org.cncf.model.filepath"
_TITLE = "org.opencontainers.image.title"  # which `oras` names files by
_OURS = "ckpt.layer"
_KINDS = ("manifest", "version", "definition")
_MOST_LAYERS = MOST_FILES + 1000  # side files, and shards
_MOST_TEXT = 1 << 16
_DOCS = re.compile(r"(^|/)(README|LICENSE|NOTICE)[^/]*$|\.(md|rst|pdf)$", re.IGNORECASE)
_CODE = re.compile(r"\.(py|sh|ipynb)$", re.IGNORECASE)
_FORMATS = {"torch-zip": "pt", "torch-legacy": "pt"}


@dataclass(frozen=True, slots=True)
class Artifact:
    """The manifest of an artifact, checked.

    Attributes:
        config: Describes the model.
        files: What a model is made of; `path_of` names each.
        ours: The layers that ckpt added, by kind.
        left: What is no file of a model, or packed, a few words each.
    """

    config: Blob
    files: tuple[Blob, ...]
    ours: Mapping[str, Blob]
    left: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of its files."""
        return sum(blob.size for blob in self.files)


@dataclass(frozen=True, slots=True)
class Described:
    """What the configuration of an artifact says, as far as a record has a place for it.

    Attributes:
        created: When the model was made, UTC, ISO 8601 to the second; empty if unknown.
        description: A text for people.
        authors: Joined.
        revision: Of its source code.
    """

    created: str
    description: str
    authors: str
    revision: str


_MediaType = Annotated[str, Form("a media type", re.compile(r"[\w.+/-]{1,255}").fullmatch)]


class _Blob(TypedDict):
    mediaType: _MediaType
    digest: Digest
    size: Count
    annotations: NotRequired[dict[str, str] | None]


class _Manifest(TypedDict):
    schemaVersion: int
    mediaType: NotRequired[_MediaType]
    artifactType: NotRequired[str]
    config: _Blob
    layers: list[_Blob]


class _Descriptor(TypedDict):
    createdAt: NotRequired[Time]
    authors: NotRequired[list[str] | None]
    description: NotRequired[str]
    title: NotRequired[str]
    revision: NotRequired[str]


class _Config(TypedDict):
    descriptor: _Descriptor


def artifact_of(data: bytes, name: str) -> Artifact:
    """Read the manifest of an artifact.

    Raises:
        FormatError: It is not one of a model, or malformed.
    """
    document = _parsed(data, name)
    kind = document.get("mediaType") if isinstance(document, dict) else None
    if isinstance(document, dict) and "manifests" in document:
        listed = "an index of several manifests, not one model"
        raise FormatError(f"{name}: {listed}", hint="name one of them by its digest, @sha256:…")
    if kind not in (None, MANIFEST) and isinstance(kind, str):
        raise FormatError(f"{name}: not a model: {excerpt(kind)}")
    _expect(document, _Manifest, name)
    config = _blob(document["config"])
    if config.media_type != CONFIG and document.get("artifactType") != ARTIFACT:
        what = document.get("artifactType") or config.media_type
        raise FormatError(
            f"{name}: not a model: an artifact of type {excerpt(what)}",
            hint=f"ModelPack's are of type {ARTIFACT}",
        )
    layers = [_blob(each) for each in document["layers"]]
    if len(layers) > _MOST_LAYERS:
        raise FormatError(f"{name}: {len(layers):,} layers, the limit is {_MOST_LAYERS:,}")
    return _sorted(config, layers, name)


def _sorted(config: Blob, layers: Iterable[Blob], name: str) -> Artifact:
    files, left, ours = list[Blob](), list[str](), dict[str, Blob]()
    for blob in layers:
        own = blob.annotations.get(_OURS)
        if own in _KINDS:
            ours[own] = blob
        elif _LAYER.fullmatch(blob.media_type):
            files.append(blob)
        elif _PACKED.fullmatch(blob.media_type):
            raise FormatError(
                f"{name}: packed weights ({blob.media_type})",
                hint="fetch and unpack them with another tool, then  ckpt register FOLDER",
            )
        else:
            left.append(path_of(blob) or blob.media_type)
    try:
        expect_names([path_of(blob) for blob in files if not is_tar(blob)])
    except ValueError as error:
        raise FormatError(f"{name}: {error}") from error
    return Artifact(config, tuple(files), ours, tuple(left))


def path_of(blob: Blob) -> str:
    """The path of the file that a layer is, as it states it; empty if it states none."""
    return blob.annotations.get(_FILE_PATH) or blob.annotations.get(_TITLE) or ""


def is_tar(blob: Blob) -> bool:
    """Whether a layer is an archive of files."""
    return blob.media_type.endswith(".tar")


def described(data: bytes, name: str) -> Described:
    """Read the configuration of an artifact.

    Raises:
        FormatError: It is malformed.
    """
    document = _parsed(data, name)
    _expect(document, _Config, name)
    found = document["descriptor"]
    created = found.get("createdAt", "")
    if created:
        created = datetime.fromisoformat(created).astimezone(UTC).isoformat(timespec="seconds")
    text = found.get("description") or found.get("title") or ""
    authors = ", ".join(found.get("authors") or ())
    return Described(created, excerpt(text, _MOST_TEXT), authors, found.get("revision", ""))


def weights(name: str, digest: str, size: int) -> Blob:
    """The layer that is a file of weights."""
    return _layer("weight", name, digest, size)


def beside(name: str, digest: str, size: int) -> Blob:
    """The layer that is a side file."""
    kind = "doc" if _DOCS.search(name) else "code" if _CODE.search(name) else "weight.config"
    return _layer(kind, name, digest, size)


def ours(kind: str, name: str, digest: str, size: int) -> Blob:
    """A layer with words of ckpt, which other tools take for a small file."""
    layer = _layer("weight.config", f"ckpt/{name}", digest, size)
    return replace(layer, annotations={**layer.annotations, _OURS: kind})


def _layer(kind: str, name: str, digest: str, size: int) -> Blob:
    media_type = f"application/vnd.cncf.model.{kind}.v1.raw"
    return Blob(media_type, digest, size, {_FILE_PATH: name, _TITLE: name})


def config_of(
    model: str, version: str, form: str, record: Mapping[str, Any], layers: Sequence[Blob]
) -> bytes:
    """The configuration of an artifact."""
    by = record.get("by") or {}
    words = {
        "createdAt": record.get("created"),
        "authors": [by["author"]] if by.get("author") else None,
        "name": model,
        "version": version,
        "description": record.get("message"),
        "revision": by.get("commit"),
    }
    return _written(
        {
            "descriptor": {key: value for key, value in words.items() if value},
            "config": {"format": _FORMATS.get(form, form)},
            "modelfs": {"type": "layers", "diffIds": [blob.digest for blob in layers]},
        }
    )


def manifest_of(config: Blob, layers: Sequence[Blob]) -> bytes:
    """The manifest of an artifact; equal for equal layers."""
    return _written(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "config": _line(config),
            "layers": [_line(blob) for blob in layers],
        }
    )


def _line(blob: Blob) -> dict[str, Any]:
    line = {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
    return {**line, "annotations": dict(blob.annotations)} if blob.annotations else line


def _written(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _blob(line: Mapping[str, Any]) -> Blob:
    annotations = line.get("annotations") or {}
    return Blob(line["mediaType"], line["digest"], line["size"], annotations)


def _parsed(data: bytes, name: str) -> Any:
    try:
        return strict_json.parse(data.decode("utf-8"))
    except ValueError as error:
        raise FormatError(f"{name}: not valid JSON: {error}") from error


def _expect(document: object, kind: object, name: str) -> None:
    try:
        expect(document, kind, name="")
    except ValueError as error:
        raise FormatError(f"{name}: {error}") from error
