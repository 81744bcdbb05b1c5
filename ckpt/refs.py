"""Refs: the names that a person types for a version, a file or a definition.

Grammar (a text with a separator or a known suffix is a path):

    v3  mnist-cnn  mnist-cnn:v3  mnist-cnn:v3::ema  mnist-cnn@prod  mnist-cnn:prod  sha256:3fa9c1d2
    old.pt  runs/old.pt  runs/old.pt::model
    models/mnist_cnn.py:Net  torchvision.models:resnet18  net.py:Net(depth=2)
    https://host/old.pt::model  hf://org/repo@rev/file  s3://bucket/registry#mnist-cnn@prod

`a:b` can name a version as well as a definition in a module; the registry decides. So it does
whether a name without separator or suffix is a version; otherwise it is a path, if that exists.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import TypeVar, overload

from ckpt.errors import RefError, UsageError
from ckpt.io.files import exists

# The suffixes of checkpoint files, each with the module of `ckpt.formats` that writes it.
SUFFIXES = {
    ".pt": "torch_zip",
    ".pth": "torch_zip",
    ".bin": "torch_zip",
    ".ckpt": "torch_zip",
    ".safetensors": "safetensors",
}
# The index of a sharded checkpoint, or of its variant: `model.safetensors.index.fp16.json`.
_INDEX = re.compile(r"\.index(\.[A-Za-z0-9_-]{1,64})?\.json$", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"v[1-9][0-9]{0,8}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# What may be a credential in a URL, or in one that became a path: user and password, and a query.
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]+:/{1,2})"
_USER = re.compile(_SCHEME + r"""(?:[^\s/?#@'"]*|[^\s@'"]*:[^\s@'"]*)@""")
_QUERY = re.compile(_SCHEME + r"""([^\s?#'"]*\?)[^\s#'"]+""")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class FileRef:
    """A checkpoint file; `inside` names one of the state_dicts of a training checkpoint."""

    path: Path
    inside: str | None = None


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version: `model` is None for the only one, `label` a version, an alias or latest.

    `inside` names another state_dict of its file than the registered one.
    """

    model: str | None
    label: str = "latest"
    inside: str | None = None


@dataclass(frozen=True, slots=True)
class DigestRef:
    """A version by the first digits of the digest of one of its manifests, or of its file."""

    prefix: str


@dataclass(frozen=True, slots=True)
class DefinitionRef:
    """A class in a file or a module; `version` is the version that the text can mean instead."""

    text: str
    version: VersionRef | None = None


@dataclass(frozen=True, slots=True)
class UrlRef:
    """A checkpoint elsewhere, or a version in a registry elsewhere.

    Attributes:
        url: Of the file or folder; of the registry, if `version` is given.
        inside: As in `FileRef`.
        version: The ref of a version there.
    """

    url: str
    inside: str | None = None
    version: str | None = None


Ref = FileRef | VersionRef | DigestRef | DefinitionRef | UrlRef
Item = TypeVar("Item")


@overload
def several(given: Iterable[Item]) -> tuple[Item, ...]: ...
@overload
def several(given: Item | Iterable[Item]) -> tuple[Item, ...]: ...
def several(given: object) -> tuple[object, ...]:
    """One or several as a tuple. A text or a path is one, never its letters."""
    if isinstance(given, str | PathLike) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)


def parse_ref(text: str) -> Ref:
    """Parse a ref. The only look-up is whether the file exists if the text has ``::``.

    Raises:
        UsageError: The text fits none of the forms.
    """
    if is_url(text):
        return parse_url(text)
    if re.fullmatch(r"sha256:[0-9a-f]{4,64}", text):
        return DigestRef(text)
    called = text.partition("(")[0]
    if text.endswith(")") and ":" in called and isinstance(parse_ref(called), DefinitionRef):
        return DefinitionRef(text)
    file = parse_file_ref(text)
    if file.inside is not None and not text.startswith("::") and exists(file.path):
        return file
    path = str(file.path)
    head, _, attribute = path.rpartition(":")
    if head.endswith(".py") and attribute.isidentifier():
        return DefinitionRef(path)
    if _is_path(text.partition("::")[0]):
        return file
    whole, double, inside = text.partition("::")
    if double and whole and inside:
        return _inside(parse_ref(whole), inside, text)
    mark = next((char for char in text if char in ":@"), "")
    model, _, label = text.partition(mark) if mark else (text, "", "")
    if not mark:
        return VersionRef(None, text) if is_version(text) else VersionRef(expect_name(model))
    version = None
    if _NAME.fullmatch(model) and _NAME.fullmatch(label):
        version = VersionRef(model, label)
    if mark == ":" and _IDENTIFIER.fullmatch(model) and label.isidentifier():
        return DefinitionRef(text, version)
    if version is None:
        raise _not_a_ref(text)
    return version


def _inside(ref: Ref, inside: str, text: str) -> VersionRef:
    """One state_dict of a version."""
    version = ref.version if isinstance(ref, DefinitionRef) else ref
    if not isinstance(version, VersionRef):
        raise _not_a_ref(text)
    return replace(version, inside=inside)


def _not_a_ref(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is not a version, a file or a definition",
        hint="e.g. v3, mnist-cnn:v3, mnist-cnn@prod, old.pt, models/mnist_cnn.py:Net",
    )


def parse_file_ref(text: str) -> FileRef:
    """Parse a ref that can only be a file, whatever its name."""
    path, mark, inside = text.partition("::")
    if mark and exists(Path(text)):  # a file of this very name
        return FileRef(Path(text), None)
    return FileRef(Path(path), inside or None)


def is_url(text: str) -> bool:
    """Whether a ref names something elsewhere: it begins with a scheme."""
    return _URL.match(text) is not None


def parse_url(text: str) -> UrlRef | FileRef:
    """Parse a URL: ``URL``, ``URL::model`` or ``URL#version``; `file:` names a file here."""
    url, _, version = text.partition("#")
    if not version:
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        path, _, inside = path.partition("::")
        url = f"{scheme}://{host}{slash}{path}"
        if scheme.lower() == "file":
            return FileRef(path_of(url), inside or None)
        return UrlRef(url, inside or None)
    return UrlRef(url, version=version)


def without_secrets(text: str) -> str:
    """A text for people without what may be a credential in the URLs in it."""
    return _QUERY.sub(r"\1\2…", _USER.sub(r"\1…@", text)) if ":/" in text else text


def path_of(url: str) -> Path:
    """The path that a `file:` URL names.

    Raises:
        UsageError: It names another host.
    """
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{url}: a file on another host", hint=f"file:///{parts.netloc}…")
    return Path(unquote(parts.path))


def version_ref(ref: str | Ref) -> VersionRef | DigestRef:
    """The ref of a version, or the version that a text can mean instead of a definition.

    Raises:
        RefError: It can only be a file or a definition.
    """
    parsed = parse_ref(ref) if isinstance(ref, str) else ref
    version = parsed.version if isinstance(parsed, DefinitionRef) else parsed
    if isinstance(version, VersionRef | DigestRef):
        return version
    expect_no_path(str(ref))
    raise RefError(f"{ref} names no version", hint="e.g. v3, mnist-cnn:v3, mnist-cnn@prod")


def expect_no_path(text: str) -> None:
    """Refuse a path that exists, where a version or model is expected and there is none.

    Raises:
        RefError: It is one; the hint says how it becomes a version.
    """
    path = parse_file_ref(text).path
    if text and exists(path):
        raise RefError(
            f"{text} is a {'folder' if path.is_dir() else 'file'}, not a version in the registry",
            hint=f"to register it first:  ckpt register {quote(text)}",
        )


def without_index(name: str) -> str | None:
    """``model.safetensors`` for the name of the index of its shards; None for any other name."""
    stem = _INDEX.sub("", name)
    return None if stem == name else stem


def is_version(label: str) -> bool:
    """Whether `label` is a version (`v3`), not an alias."""
    return _VERSION.fullmatch(label) is not None


def is_name(name: str) -> bool:
    """Whether a model, alias or tag may have this name."""
    return _NAME.fullmatch(name) is not None and not name.endswith(".")


def is_alias(name: str) -> bool:
    """Whether an alias may have this name."""
    return is_name(name) and not is_version(name) and name != "latest"


def expect_name(name: str) -> str:
    """Check the name of a model, alias or tag, and return it."""
    if not is_name(name):
        raise UsageError(
            f"{name!r} is not a valid name",
            hint="a letter or digit, then up to 127 letters, digits, '.', '_' or '-'",
        )
    return name


def expect_new_name(name: str) -> str:
    """Check the name of a new model or alias, which no ref may read as a file, and return it."""
    if _is_path(expect_name(name)):
        raise UsageError(
            f"{name!r} cannot be a name: refs would read it as a file",
            hint=f"e.g. {name.rpartition('.')[0]}",
        )
    return name


def expect_alias(name: str) -> str:
    """Check the name of an alias, which no ref may read as a version, and return it."""
    if is_version(name) or name == "latest":
        raise UsageError(
            f"{name!r} cannot be an alias: it already names a version",
            hint="e.g. prod, staging, best",
        )
    return expect_new_name(name)


def _is_path(text: str) -> bool:
    return (
        "/" in text
        or "\\" in text
        or text.lower().endswith(tuple(SUFFIXES))
        or without_index(text) is not None
        or text in (".", "..")
    )
