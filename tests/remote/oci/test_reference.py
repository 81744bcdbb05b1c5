"""Addresses of artifacts."""

import pytest

from ckpt.errors import UsageError
from ckpt.remote.oci.reference import is_oci, parse

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("oci://ghcr.io/team/net:v3", "https://ghcr.io/v2/team/net"),
        ("oci://ghcr.io:8443/net:latest", "https://ghcr.io:8443/v2/net"),
        (f"oci://ghcr.io/a/b-c/d__e.f@{DIGEST}", "https://ghcr.io/v2/a/b-c/d__e.f"),
        (f"oci://ghcr.io/net:v3@{DIGEST}", "https://ghcr.io/v2/net"),
        ("oci://docker.io/ann/net:v1", "https://registry-1.docker.io/v2/ann/net"),
        ("oci://localhost:5000/net:v1", "http://localhost:5000/v2/net"),
        ("oci://127.0.0.9/net:v1", "http://127.0.0.9/v2/net"),
        ("oci://[::1]:5000/net:v1", "http://[::1]:5000/v2/net"),
        ("oci://localhost.example/net:v1", "https://localhost.example/v2/net"),
        ("oci+http://10.0.0.5:5000/net:v1", "http://10.0.0.5:5000/v2/net"),
    ],
)
def test_address_prints_itself_and_has_a_url(text: str, url: str) -> None:
    reference = parse(text)
    assert (str(reference), reference.url) == (text, url)
    assert is_oci(text)


@pytest.mark.parametrize(
    "text",
    [
        "oci://",
        "oci://ghcr.io",
        "oci:///net:v1",
        "oci://ghcr.io/net",
        "oci://ghcr.io/net:",
        "oci://ghcr.io/net@",
        "oci://ghcr.io/Net:v1",
        "oci://ghcr.io/../net:v1",
        "oci://ghcr.io/a//net:v1",
        "oci://ghcr.io/a/./net:v1",
        "oci://ghcr.io/net:v1/x",
        "oci://ghcr.io/net:-v1",
        "oci://ghcr.io/net:v1\n",
        "oci://ghcr.io:99999/net:v1",
        "oci://ghcr.io/net@sha256:12",
        f"oci://ghcr.io/net@sha512:{'ab' * 64}",
        f"oci://ghcr.io/{'n' * 300}:v1",
        f"oci://ghcr.io/net:{'v' * 129}",
        "oci://gh cr.io/net:v1",
        "oci://ghcr.io%2f/net:v1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize(
    "text", ["oci://ann:s3cr3t@ghcr.io/net:v1", "oci://ghcr.io/net:v1?token=s3cr3t"]
)
def test_fault_41_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "s3cr3t" not in f"{caught.value}{caught.value.hint}"
