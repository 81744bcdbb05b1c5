"""Signatures: model-signing and cryptography accept ours, and nothing else than ours is accepted.

The oracles are model-signing by itself, which has neither our reader nor our checks, and the ECDSA
of cryptography over the bytes that the specification of DSSE names.
"""

import copy
import json
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ckpt.io import digest
from ckpt.signing.bundles import (
    OTHER_KEY,
    SIGNED,
    WRONG,
    Claim,
    _parts,
    checked,
    key_of,
    make_bundle,
)
from ckpt.signing.keys import PublicKey, read_private_key, read_public_key
from tests.effort import by_effort
from tests.signing.keys import write_pair

MANIFEST = b'{"entries":[]}'
BASE64 = f"{ascii_letters}{digits}+/"
CLAIM = Claim("net", 3, digest.of_bytes(MANIFEST))
HASHES = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `private.pem` and `public.pem`."""
    folder = tmp_path_factory.mktemp("keys")
    write_pair(folder)
    return folder


@pytest.fixture
def keys(folder: Path) -> list[PublicKey]:
    return [read_public_key(folder / "public.pem")]


@pytest.fixture(scope="module")
def bundle(folder: Path) -> dict[str, Any]:
    return make_bundle(CLAIM, MANIFEST, read_private_key(folder / "private.pem"))


def laid_out(folder: Path, path: str) -> Path:
    """A folder with the manifest in a file, as somebody without ckpt lays it out."""
    place = folder / "signed" / path
    place.parent.mkdir(parents=True)
    place.write_bytes(MANIFEST)
    return folder / "signed"


@pytest.mark.parametrize("path", ["net/v3", "net/v4"])
def test_command_of_model_signing_accepts_the_bundle_for_this_version_alone(
    bundle: dict[str, Any], folder: Path, tmp_path: Path, path: str
) -> None:
    (tmp_path / "net.sig").write_text(json.dumps(bundle))
    command = [sys.executable, "-m", "model_signing", "verify", "key", laid_out(tmp_path, path)]
    options = ["--signature", tmp_path / "net.sig", "--public_key", folder / "public.pem"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True)
    says = "Verification succeeded" if path == "net/v3" else "Verification failed"
    assert says in ran.stdout + ran.stderr
    assert (ran.returncode == 0) == (path == "net/v3")


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_cryptography_accepts_the_signature_over_the_bytes_of_dsse(
    tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = write_pair(tmp_path, curve=curve)
    found = make_bundle(CLAIM, MANIFEST, read_private_key(tmp_path / "private.pem"))
    envelope = found["dsseEnvelope"]
    payload = b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signature = b64decode(envelope["signatures"][0]["sig"])
    key.public_key().verify(signature, signed, ec.ECDSA(HASHES[curve.name]))
    statement = json.loads(payload)
    assert statement["subject"][0]["name"] == "net:v3"
    assert statement["predicate"]["resources"] == [
        {"name": "net/v3", "algorithm": "sha256", "digest": CLAIM.manifest[7:]}
    ]


@pytest.mark.parametrize("passphrase", ["", "Tür 7"])
def test_what_is_signed_is_accepted_and_says_the_key(tmp_path: Path, passphrase: str) -> None:
    write_pair(tmp_path, passphrase=passphrase)
    key = read_private_key(tmp_path / "private.pem", passphrase or None)
    found = make_bundle(CLAIM, MANIFEST, key)
    verdict = checked(found, CLAIM, MANIFEST, [read_public_key(tmp_path / "public.pem")])
    assert (verdict.verdict, verdict.key) == (SIGNED, key.public.fingerprint)
    assert key_of(found) == key.public.fingerprint[:8]


OTHERS = [
    (Claim("other", 3, CLAIM.manifest), MANIFEST, "the signature is for net:v3"),
    (Claim("net", 4, CLAIM.manifest), MANIFEST, "the signature is for net:v3"),
    (Claim("net", 33, CLAIM.manifest), MANIFEST, "the signature is for net:v3"),
    (
        Claim("net", 3, digest.of_bytes(b"{}")),
        b"{}",
        f"the signature is for another manifest, {CLAIM.manifest[7:15]}",
    ),
]


@pytest.mark.parametrize(("claim", "manifest", "says"), OTHERS)
def test_fault_42_signature_of_another_version_is_refused(
    bundle: dict[str, Any], keys: list[PublicKey], claim: Claim, manifest: bytes, says: str
) -> None:
    verdict = checked(bundle, claim, manifest, keys)
    assert (verdict.verdict, verdict.why) == (WRONG, says)


def test_signature_with_another_key_is_told_apart(
    bundle: dict[str, Any], keys: list[PublicKey], tmp_path: Path
) -> None:
    write_pair(tmp_path)
    other = read_public_key(tmp_path / "public.pem")
    verdict = checked(bundle, CLAIM, MANIFEST, [other])
    named = keys[0].fingerprint[:8]
    assert (verdict.verdict, verdict.why) == (OTHER_KEY, f"signed with another key, {named}")
    assert checked(bundle, CLAIM, MANIFEST, [other, *keys]).verdict == SIGNED
    assert checked(bundle, CLAIM, MANIFEST, []).verdict == OTHER_KEY
    claimed = copy.deepcopy(bundle)
    claimed["verificationMaterial"]["publicKey"]["hint"] = other.fingerprint
    assert checked(claimed, CLAIM, MANIFEST, [other]).verdict == WRONG


def test_fault_42_any_other_letter_is_refused(
    bundle: dict[str, Any], keys: list[PublicKey]
) -> None:
    """Each letter of each text, replaced by its neighbour: in Base64 some neighbours mean the
    same bytes.
    """
    tried = 0
    for place in _places(bundle):
        text = _at(bundle, place)
        if not isinstance(text, str):
            continue
        for at in range(0, len(text), by_effort(31, 1, 1)):
            _expect_refused(
                bundle, keys, place, text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
            )
            tried += 1
        for last in BASE64 if text.endswith("=") else "":
            if last != (ended := text.rstrip("="))[-1]:
                other = ended[:-1] + last + text[len(ended) :]
                _expect_refused(bundle, keys, place, other)
        _expect_refused(bundle, keys, place, text + "=")
        _expect_refused(bundle, keys, place, text + "\n")
        _expect_refused(bundle, keys, place, text[:-1] or "x")
    assert tried > by_effort(30, 1000, 1000)


def test_fault_42_any_other_structure_is_refused(
    bundle: dict[str, Any], keys: list[PublicKey]
) -> None:
    for place in _places(bundle):
        for value in (None, 0, "", [], {}, [_at(bundle, place)], True):
            if value != _at(bundle, place):
                _expect_refused(bundle, keys, place, value)
        if isinstance(value := _at(bundle, place), dict):
            _expect_refused(bundle, keys, place, {**value, "more": ""})
            for name in value:
                _expect_refused(bundle, keys, place, {k: v for k, v in value.items() if k != name})
        if isinstance(value, list):
            _expect_refused(bundle, keys, place, [*value, *value, {}])
    for whole in ({}, {"a": 1}, [], "x", None, 5):
        assert checked(whole, CLAIM, MANIFEST, keys).verdict == WRONG  # type: ignore[arg-type]
        assert key_of(whole) == "unknown"  # type: ignore[arg-type]


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if before:
        yield before
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*before, key))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _expect_refused(
    bundle: dict[str, Any], keys: list[PublicKey], place: tuple[Any, ...], value: object
) -> None:
    changed = copy.deepcopy(bundle)
    _at(changed, place[:-1])[place[-1]] = value
    assert changed != bundle
    verdict = checked(changed, CLAIM, MANIFEST, keys).verdict
    assert verdict in (WRONG, OTHER_KEY), (place, value)
    hint = ("verificationMaterial", "publicKey", "hint")
    assert (verdict == WRONG) or place == hint, (place, value)


def test_fault_42_other_statements_of_the_same_key_are_refused(
    bundle: dict[str, Any], folder: Path, keys: list[PublicKey], tmp_path: Path
) -> None:
    """Valid signatures that model-signing made of other folders; its check alone accepts some."""
    from model_signing import signing, verifying  # all workers would take a second to import it

    accepted = 0
    for at, (name, files, config) in enumerate(_folders()):
        place = tmp_path / str(at) / name
        place.mkdir(parents=True)
        for path, data in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(data)
        written = tmp_path / f"{at}.sig"
        signer = signing.Config().use_elliptic_key_signer(private_key=folder / "private.pem")
        signer.set_hashing_config(config).sign(place, written)
        found = json.loads(written.read_text())
        _parts(found)  # in our spelling, so it is the statement that is refused
        verdict = checked(found, CLAIM, MANIFEST, keys)
        is_ours = (name, [*files]) == ("net:v3", ["net/v3"]) and not at
        assert verdict.verdict == (SIGNED if is_ours else WRONG), (name, files)
        assert is_ours or verdict.why.startswith("the signature is for "), verdict.why
        place = tmp_path / f"by the library {at}"
        place.mkdir()
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=folder / "public.pem")
        with suppress(ValueError, TypeError):  # of shards it raises the latter
            verifier.verify(laid_out(place, "net/v3"), written)
            accepted += 1
    assert accepted > 1, "model-signing does not bind the name, and leaves out ignored paths"


def _folders() -> Iterator[tuple[str, dict[str, bytes], Any]]:
    """Names of folders, their files, and how model-signing reads them; the first is ours."""
    from model_signing import hashing

    ours = {"net/v3": MANIFEST}

    def files(algorithm: Any = "sha256", **named: Any) -> Any:
        return hashing.Config().use_file_serialization(hashing_algorithm=algorithm, **named)

    yield "net:v3", ours, files()
    yield "net:v4", ours, files()
    yield "finbert", ours, files()
    yield "net:v3", {**ours, "more": b""}, files()
    yield "net:v3", {"v3": MANIFEST}, files()
    yield "net:v3", ours, files("blake3")
    yield "net:v3", ours, hashing.Config().use_shard_serialization()
    yield "net:v3", ours, files().set_ignored_paths(paths=["net"])


def test_payload_in_another_form_of_the_same_statement_needs_a_signature_of_its_own(
    bundle: dict[str, Any], keys: list[PublicKey]
) -> None:
    changed = copy.deepcopy(bundle)
    payload = b64decode(bundle["dsseEnvelope"]["payload"])
    shorter = json.dumps(json.loads(payload)).encode()
    assert shorter != payload
    changed["dsseEnvelope"]["payload"] = b64encode(shorter).decode()
    verdict = checked(changed, CLAIM, MANIFEST, keys)
    assert (verdict.verdict, verdict.why) == (
        WRONG,
        "what is signed, or the signature, has changed",
    )
