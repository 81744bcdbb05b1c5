"""Stores of clouds, opened by obstore.

Credentials, region and endpoint come from the environment, as obstore reads it
(`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ckpt.errors import UsageError, excerpt

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
_LEAST_SECONDS = 30


def store_of(url: str, *, seconds: float, repeats: int) -> "ObjectStore":
    """The store whose paths are below a URL.

    Args:
        url: ``s3://bucket/folder``, without credentials.
        seconds: How long a failed request is repeated, and how long it may take, at least 30.
        repeats: How often obstore repeats a failed request.

    Raises:
        UsageError: obstore does not know such a place.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    make: Any = from_url  # its types are those of one store each
    options: dict[str, Any] = {"timeout": timedelta(seconds=max(seconds, _LEAST_SECONDS))}
    if any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
        options["allow_http"] = True
    retry = {"max_retries": repeats, "retry_timeout": timedelta(seconds=seconds)}
    try:
        store: ObjectStore = make(url, client_options=options, retry_config=retry)
    except (BaseError, ValueError, OSError) as error:
        raise UsageError(f"{url}: {reason(error)}") from error
    return store


def reason(error: Exception) -> str:
    """The first line of obstore's text, which names no credentials; some go on for pages."""
    return excerpt(str(error).strip().partition("\n")[0], 300)
