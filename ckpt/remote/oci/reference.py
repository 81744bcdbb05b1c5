"""The address of an artifact: ``oci://host[:port]/team/model:v3``, or ``…@sha256:hex``.

Source: the OCI distribution specification, "Pulling manifests" (names, tags). Law: what was parsed
prints itself again, and holds no credentials.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ckpt.errors import UsageError, excerpt
from ckpt.io import digest
from ckpt.refs import without_secrets

SCHEMES = ("oci", "oci+http")
_HOST = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\])(:[0-9]{1,5})?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MOST = 255  # characters of a repository's name
_FORM = "oci://HOST/TEAM/MODEL:TAG"
# Docker's registry answers at another name than its own, and its passwords are under a third.
_DOCKER = ("docker.io", "registry-1.docker.io", "https://index.docker.io/v1/")


@dataclass(frozen=True, slots=True)
class Reference:
    """The address of an artifact.

    Attributes:
        scheme: ``oci``, or ``oci+http`` for a host without encryption.
        host: With its port, if it was given.
        repository: ``team/model``.
        tag: Empty if there is a digest alone.
        digest: ``sha256:…``; empty if there is a tag alone.
    """

    scheme: str
    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.place}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def place(self) -> str:
        """The repository: ``oci://host/team/model``."""
        return f"{self.scheme}://{self.host}/{self.repository}"

    @property
    def base(self) -> str:
        """The last part of the repository, ``model``."""
        return self.repository.rpartition("/")[2]

    @property
    def root(self) -> str:
        """Where its host answers: ``https://host``; ``http:`` on this machine, as Docker does."""
        plain = self.scheme == "oci+http" or _is_here(self.host)
        host = _DOCKER[1] if self.host == _DOCKER[0] else self.host
        return f"{'http' if plain else 'https'}://{host}"

    @property
    def url(self) -> str:
        """Where the API of the repository begins."""
        return f"{self.root}/v2/{self.repository}"

    @property
    def login(self) -> str:
        """The name under which Docker keeps the password of the host."""
        return _DOCKER[2] if self.host == _DOCKER[0] else self.host

    def pinned(self, found: str) -> "Reference":
        """The same artifact by its digest alone."""
        return replace(self, tag="", digest=found)


def is_oci(text: str) -> bool:
    """Whether a text is meant as the address of an artifact."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def expect_no_artifact(refs: Iterable[str], hint: str) -> None:
    """Refuse artifacts where versions and remotes are meant.

    Raises:
        UsageError: One of the refs is an artifact's address.
    """
    if found := [ref for ref in refs if is_oci(ref)]:
        raise UsageError(f"{without_secrets(found[0])}: an artifact, not a remote", hint=hint)


def parse(text: str) -> Reference:
    """Parse an address; it has a tag, a digest, or both.

    Raises:
        UsageError: It is none; credentials in it are not repeated.
    """
    scheme, _, rest = text.partition("://")
    host, _, path = rest.partition("/")
    if "@" in host or "?" in text or "#" in text:
        raise UsageError(
            "oci://…: credentials, ? and # have no place in it",
            hint=f"{_FORM}; passwords are kept by  docker login HOST",
        )
    path, at, found = path.partition("@")
    repository, colon, tag = path.partition(":")
    shown = excerpt(text)
    if not _HOST.fullmatch(host) or not _is_port(host):
        raise UsageError(f"{shown}: {host!r} is not a host", hint=_FORM)
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _MOST:
        what = "is not a repository: lower-case letters, digits, and . _ - between them"
        raise UsageError(f"{shown}: {excerpt(repository)!r} {what}", hint=_FORM)
    if (colon and not _TAG.fullmatch(tag)) or (at and not digest.is_digest(found)):
        raise UsageError(f"{shown}: not a tag, or not a digest sha256:…", hint=_FORM)
    if not tag and not found:
        raise UsageError(f"{shown}: no tag", hint=f"e.g. {shown}:v1")
    return Reference(scheme.lower(), host, repository, tag, found)


def _is_port(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").port != 0
    except ValueError:
        return False


def _is_here(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
