import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat

from ckpt.errors import FormatError, MissingFileError, UsageError
from ckpt.signing.keys import read_private_key, read_public_key
from tests.signing.keys import write_pair, write_private, write_public

CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_halves_have_one_fingerprint_the_digest_of_the_public_file(
    tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    write_pair(tmp_path, curve=curve)
    public = read_public_key(tmp_path / "public.pem")
    assert read_private_key(tmp_path / "private.pem").public.pem == public.pem
    written = (tmp_path / "public.pem").read_bytes()
    assert public.fingerprint == hashlib.sha256(written).hexdigest()


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_passphrase_is_asked_for_checked_and_never_printed(
    tmp_path: Path, form: PrivateFormat
) -> None:
    path = tmp_path / "private.pem"
    write_private(path, ec.generate_private_key(ec.SECP256R1()), passphrase="Tür 7", form=form)
    for passphrase, says in ((None, "the key has a passphrase"), ("x", "the passphrase is wrong")):
        with pytest.raises(UsageError, match=says) as refused:
            read_private_key(path, passphrase)
        assert "CKPT_KEY_PASSPHRASE" in str(refused.value.hint)
    key = read_private_key(path, "Tür 7")
    assert key.passphrase == "Tür 7"
    assert "Tür" not in repr(key)


def test_passphrase_of_another_key_is_not_used(tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert read_private_key(tmp_path / "private.pem", "of another one").passphrase is None


def test_parameters_before_a_key_as_openssl_writes_them_are_skipped(tmp_path: Path) -> None:
    write_pair(tmp_path)
    path = tmp_path / "private.pem"
    known = read_private_key(path).public
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    path.write_text(parameters + path.read_text())
    assert read_private_key(path).public == known


def test_wrong_kinds_of_keys_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    kinds = {
        "RSA": rsa.generate_private_key(65537, 2048),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    }
    for kind, key in kinds.items():
        write_private(path, key)
        with pytest.raises(UsageError, match=f"a key of {kind}, expected P-256, P-384 or P-521"):
            read_private_key(path)
        write_public(path, key)
        with pytest.raises(UsageError, match=f"a key of {kind}, expected P-256, P-384 or P-521"):
            read_public_key(path)


def test_halves_that_are_taken_for_each_other_are_one_line(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(UsageError, match=r"public\.pem: a public key, expected a private one"):
        read_private_key(tmp_path / "public.pem")
    with pytest.raises(UsageError, match=r"private\.pem: a private key, expected a public one"):
        read_public_key(tmp_path / "private.pem")


@pytest.mark.parametrize("data", [b"", b"x" * 99, b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"\xff"])
def test_other_files_are_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"key\.pem: not a private key in PEM form"):
        read_private_key(path)
    path.write_bytes(data.replace(b"PRIVATE", b"PUBLIC"))
    with pytest.raises(UsageError, match=r"key\.pem: not a public key in PEM form"):
        read_public_key(path)


@pytest.mark.parametrize("read", [read_private_key, read_public_key])
def test_missing_and_large_files_are_refused(tmp_path: Path, read) -> None:
    with pytest.raises(MissingFileError):
        read(tmp_path / "none.pem")
    (tmp_path / "large.pem").write_bytes(bytes(100_001))
    with pytest.raises(FormatError, match="the limit is 100,000"):
        read(tmp_path / "large.pem")
