"""Who may use an OCI registry: the passwords that Docker keeps, and tokens in exchange for them.

Sources: docker/cli, "Credential helpers"; distribution, "Token Authentication Specification". Laws:
a password goes to its registry and to the token server that this names, never over http to another
host than that registry; nothing of it is printed or stored.
"""

import os
import re
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict
from urllib.parse import urlencode, urlsplit

from ckpt.errors import DiskError, RemoteError, excerpt
from ckpt.io.documents import strict_json
from ckpt.io.documents.typed_json import Form, expect
from ckpt.remote.elsewhere.http import small
from ckpt.remote.elsewhere.web import Web, origin
from ckpt.remote.oci.reference import Reference

_MOST_BYTES = 1 << 20  # of Docker's settings, and of the answer with a token
_SECONDS = 30  # for a program that keeps passwords
_PARAMETER = re.compile(r'([A-Za-z]+)="([^"]*)"')
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_Program = Annotated[str, Form("the name of a program", _PROGRAM.fullmatch)]


class _Login(TypedDict):
    auth: NotRequired[str]


class _Settings(TypedDict):
    auths: NotRequired[dict[str, _Login]]
    credsStore: NotRequired[_Program | Annotated[str, Form("empty", "".__eq__)]]
    credHelpers: NotRequired[dict[str, _Program]]


class _Kept(TypedDict):
    Username: str
    Secret: str


class _Token(TypedDict):
    token: NotRequired[str]
    access_token: NotRequired[str]


def password_of(reference: Reference) -> str | None:
    """The value of `Basic` for a registry, as Docker's settings have it; None if they do not.

    Raises:
        DiskError: The settings cannot be read, or the program that they name fails.
    """
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111
    path = Path(folder) / "config.json"
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        settings = strict_json.parse(data.decode("utf-8"))
        expect(settings, _Settings, name="")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DiskError(f"{path}: not Docker's settings: {error}") from error
    helpers, name = settings.get("credHelpers", {}), reference.login
    if helper := helpers.get(name) or settings.get("credsStore"):
        return _kept_by(f"docker-credential-{helper}", name)
    auth: str = settings.get("auths", {}).get(name, {}).get("auth", "")
    return auth.strip() or None


def _kept_by(program: str, name: str) -> str | None:
    """The password that a program keeps for Docker."""
    try:
        done = subprocess.run(
            [program, "get"], input=name.encode(), capture_output=True, timeout=_SECONDS
        )
        if done.returncode:
            return None  # it says in words of its own that it knows none
        kept = strict_json.parse(done.stdout.decode("utf-8"))
        expect(kept, _Kept, name="")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise DiskError(f"{program}: {type(error).__name__}", hint="docker login HOST") from error
    return b64encode(f"{kept['Username']}:{kept['Secret']}".encode()).decode("ascii")


def authorization(reference: Reference, challenge: str, password: str | None) -> str | None:
    """The value of `Authorization` that answers a challenge; None if nothing can.

    Args:
        reference: What is asked for.
        challenge: The header `WWW-Authenticate` of an answer 401.
        password: As of `password_of`.

    Raises:
        RemoteError: The token server refuses, or has an address where no password may go.
    """
    kind, _, rest = challenge.partition(" ")
    if kind.lower() == "basic":
        return None if password is None else f"Basic {password}"
    named = dict(_PARAMETER.findall(rest))
    realm = named.get("realm", "")
    if kind.lower() != "bearer" or not realm:
        return None
    if not _may_have(realm, reference):
        raise RemoteError(f"{reference.place}: tokens at {excerpt(realm)!r}, which is not https")
    query = urlencode({key: named[key] for key in ("service", "scope") if key in named})
    web = Web({origin(realm): f"Basic {password}"} if password else {})
    try:
        url = f"{realm}{'&' if '?' in realm else '?'}{query}"
        data = small(web, url, most=_MOST_BYTES, name=f"the token server of {reference.place}")
        token = strict_json.parse(data.decode("utf-8"))
        expect(token, _Token, name="")
    except ValueError as error:
        raise RemoteError(f"{reference.place}: not a token: {error}") from error
    finally:
        web.close()
    found = token.get("token") or token.get("access_token") or ""
    if not found or any(not 32 < ord(char) < 127 for char in found):
        raise RemoteError(f"{reference.place}: its token server sends no token")
    return f"Bearer {found}"


def _may_have(realm: str, reference: Reference) -> bool:
    try:
        parts = urlsplit(realm)
        is_own = origin(realm) == origin(reference.root)
    except ValueError:
        return False
    plain = all(32 < ord(char) < 127 for char in realm)
    is_url = bool(parts.hostname) and parts.username is None and not parts.fragment
    return plain and is_url and (parts.scheme == "https" or is_own)
