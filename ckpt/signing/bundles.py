"""Bundles: the signature of a version, made and checked by model-signing.

What is signed says that version N of a model has a manifest, which names the digest of every
tensor: it is the statement that model-signing makes of a folder with the manifest in the file
`MODEL/vN`. So model-signing can check it without ckpt, in such a folder. The bundle is one of
sigstore: a DSSE envelope and the fingerprint of the key.

Laws: `checked(make_bundle(claim, manifest, key), claim, manifest, [key.public])` is `SIGNED`. A
bundle has one spelling, so one with anything changed in it is not; but of a statement and a key
there are many valid signatures.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckpt.errors import IntegrityError, excerpt
from ckpt.io import digest
from ckpt.io.documents import strict_json
from ckpt.signing.keys import PrivateKey, PublicKey

SIGNED, OTHER_KEY, WRONG = "signed", "other key", "wrong"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_NO_BUNDLE = "not a signature as ckpt writes it"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signature of a version says.

    Attributes:
        model: Name of the model.
        number: 3 for `v3`.
        manifest: Digest of the manifest.
    """

    model: str
    number: int
    manifest: str

    @property
    def ref(self) -> str:
        """``mnist-cnn:v3``, the name of what is signed."""
        return f"{self.model}:v{self.number}"

    @property
    def path(self) -> str:
        """``mnist-cnn/v3``, the file that model-signing sees."""
        return f"{self.model}/v{self.number}"


@dataclass(frozen=True, slots=True)
class Checked:
    """The verdict on one signature.

    Attributes:
        verdict: ``signed``, ``other key`` or ``wrong``.
        key: The fingerprint of the key that it names; empty if it names none.
        why: Why it is not signed.
    """

    verdict: str
    key: str = ""
    why: str = ""


def key_of(bundle: Mapping[str, Any]) -> str:
    """The first digits of the key that a bundle names, unchecked, for people."""
    try:
        return _parts(bundle)[0][:8]
    except ValueError:
        return "unknown"


def make_bundle(claim: Claim, manifest: bytes, key: PrivateKey) -> dict[str, Any]:
    """Sign a claim.

    Args:
        claim: The claim.
        manifest: The bytes of its manifest.
        key: The key.

    Raises:
        IntegrityError: model-signing does not accept what it has signed.
    """
    from model_signing import signing

    with _folder(claim, manifest) as (folder, file):
        config = _with_key(signing.Config(), key)
        config.set_hashing_config(_hashing()).sign(folder, file)
        written = json.loads(file.read_bytes())
    signature = written["dsseEnvelope"]["signatures"][0]["sig"]
    bundle = _bundle(key.public.fingerprint, written["dsseEnvelope"]["payload"], signature)
    checked_ = checked(bundle, claim, manifest, [key.public])
    if checked_.verdict != SIGNED:
        raise IntegrityError(f"{claim.ref}: the new signature is not valid: {checked_.why}")
    return bundle


def checked(
    bundle: Mapping[str, Any], claim: Claim, manifest: bytes, keys: Iterable[PublicKey]
) -> Checked:
    """Check that a bundle signs a claim with one of the keys.

    Args:
        bundle: The bundle, from somebody who is not trusted.
        claim: What it must say.
        manifest: The bytes of the manifest.
        keys: The trusted keys.
    """
    try:
        named, payload, _ = _parts(bundle)
        decoded = _decoded(payload)
    except ValueError:
        return Checked(WRONG, why=_NO_BUNDLE)
    key = next((key for key in keys if key.fingerprint == named), None)
    if key is None:
        return Checked(OTHER_KEY, named, f"signed with another key, {named[:8]}")
    if fault := _library_fault(bundle, claim, manifest, key):
        return Checked(WRONG, named, fault)
    if fault := _claim_fault(decoded, claim):
        return Checked(WRONG, named, fault)
    return Checked(SIGNED, named)


def _library_fault(
    bundle: Mapping[str, Any], claim: Claim, manifest: bytes, key: PublicKey
) -> str | None:
    """Why model-signing refuses the bundle for this manifest; None if it does not."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    with _folder(claim, manifest) as (folder, file):
        file.write_text(json.dumps(bundle), encoding="utf-8")
        public = file.with_name("public.pem")
        public.write_bytes(key.pem)
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=public)
            config.set_hashing_config(_hashing()).verify(folder, file)
        except InvalidSignature:
            return "what is signed, or the signature, has changed"
        except Exception as error:  # noqa: BLE001 - it parses what others wrote
            what = _claim_fault(_decoded(_parts(bundle)[1]), claim)
            return what or excerpt(f"refused by model-signing: {error}")
    return None


def _claim_fault(payload: bytes, claim: Claim) -> str | None:
    """What a signed statement says instead of a claim; None if it says just that.

    model-signing does not compare the subject, and leaves out paths that a statement names.
    """
    manifest = claim.manifest.removeprefix("sha256:")
    root = hashlib.sha256(bytes.fromhex(manifest)).hexdigest()
    subject = [{"name": claim.ref, "digest": {"sha256": root}}]
    resources = [{"name": claim.path, "algorithm": "sha256", "digest": manifest}]
    try:
        statement = strict_json.parse(payload.decode("utf-8"))
        name = excerpt(str(statement["subject"][0]["name"]))
        found = statement["predicate"]["resources"]
        if name == claim.ref and found != resources:
            return f"the signature is for another manifest, {str(found[0]['digest'])[:8]}"
        if statement["subject"] != subject:
            return f"the signature is for {name}"
        known = (statement["_type"], statement["predicateType"]) == (_STATEMENT, _PREDICATE)
        return None if known else "the signature is for something else"
    except (ValueError, KeyError, TypeError, IndexError):
        return "the signature is for something else"


def _bundle(key: str, payload: str, signature: str) -> dict[str, Any]:
    """The one spelling of a bundle of sigstore with these parts."""
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": key}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": payload,
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": signature, "keyid": ""}],
        },
    }


def _parts(bundle: Mapping[str, Any]) -> tuple[str, str, str]:
    """The fingerprint of the key, the payload and the signature of a bundle.

    Raises:
        ValueError: It is not in the one spelling.
    """
    try:
        envelope = bundle["dsseEnvelope"]
        key = bundle["verificationMaterial"]["publicKey"]["hint"]
        payload, signature = envelope["payload"], envelope["signatures"][0]["sig"]
        decoded = _decoded(payload), _decoded(signature)
        is_same = bundle == _bundle(key, payload, signature)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(_NO_BUNDLE) from error
    if not (all(decoded) and is_same and digest.is_digest(f"sha256:{key}")):
        raise ValueError(_NO_BUNDLE)
    return key, payload, signature


def _decoded(text: str) -> bytes:
    """The bytes of a text in Base64; several texts can have the same, one is accepted."""
    data = b64decode(text, validate=True)
    if b64encode(data).decode() != text:
        raise ValueError(_NO_BUNDLE)
    return data


def _with_key(config: Any, key: PrivateKey) -> Any:
    try:
        return config.use_elliptic_key_signer(private_key=key.path, password=key.passphrase)
    except TypeError:
        if key.passphrase is None:
            raise
        # model-signing 1.1.1 declares a text and hands it to cryptography, which takes bytes.
        password = key.passphrase.encode()
        return config.use_elliptic_key_signer(private_key=key.path, password=password)


def _hashing() -> Any:
    from model_signing import hashing

    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
    return config.set_ignored_paths(paths=(), ignore_git_paths=False)


@contextmanager
def _folder(claim: Claim, manifest: bytes) -> Iterator[tuple[Path, Path]]:
    """The folder that model-signing sees, named like the version, and a place for the bundle."""
    from tempfile import TemporaryDirectory  # late: `ckpt show` imports this module too

    with TemporaryDirectory(prefix="ckpt-sign-") as temporary:
        folder = Path(temporary) / claim.ref
        file = folder / claim.path
        file.parent.mkdir(parents=True)
        file.write_bytes(manifest)
        yield folder, Path(temporary) / "bundle.json"
