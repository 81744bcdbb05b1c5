"""FAULTS 51: a copy is never more readable than its source. The oracle is the kernel."""

import os
import stat
import struct
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors.torch import save_file

import ckpt
from ckpt.errors import UsageError
from ckpt.io.files import write_whole
from ckpt.registry.registry import Registry

STATE = {"conv.weight": torch.arange(4096.0), "fc.bias": torch.ones(3)}
MODES = (0o600, 0o640, 0o644, 0o604, 0o440, 0o444)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root")


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can reach."""
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def source(folder: Path, name: str, bits: int) -> Path:
    path = folder / name
    torch.save(STATE, path) if path.suffix == ".pt" else save_file(STATE, path)
    path.chmod(bits)
    return path


def copies(path: Path, folder: Path) -> Iterator[Path]:
    """What every kind of command makes of a file."""
    folder.mkdir()
    yield ckpt.rename(path, "conv->emb", out=folder / f"renamed{path.suffix}").written.path
    yield ckpt.export(path, folder / "other.pt").path
    yield ckpt.rename(path, "conv->emb", out=folder / "converted.safetensors").written.path
    registry = Registry(folder)
    ckpt.register(path, registry=registry, name="net")
    yield ckpt.export("net:v1", folder / f"exported{path.suffix}", registry=registry).path
    ckpt.rename("net:v1", "conv->emb", registry=registry)
    yield ckpt.export("net:v2", folder / "second.pt", registry=registry).path
    (folder / "taken.pt").touch(0o666)
    yield ckpt.export(path, folder / "taken.pt", replace_out=True).path
    yield from (each for each in (folder / ".ckpt").glob("*/??/*") if each.is_file())


def as_user(user: int, group: int, do: Callable[[], int]) -> int:
    """The exit code of a function that somebody else runs."""
    child = os.fork()
    if not child:
        code = 255
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            code = do()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def readers(paths: list[Path], user: int, group: int) -> set[Path]:
    """The files that somebody can open."""
    reading, writing = os.pipe()

    def write() -> int:
        for number, path in enumerate(paths):
            with suppress(PermissionError):
                os.close(os.open(path, os.O_RDONLY))
                os.write(writing, struct.pack("<H", number))
        return 0

    assert len(paths) < 30_000
    assert as_user(user, group, write) == 0
    os.close(writing)
    with open(reading, "rb") as file:
        return {paths[number] for (number,) in struct.iter_unpack("<H", file.read())}


@as_root
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_fault_51_whoever_reads_a_copy_can_read_its_source(public: Path, suffix: str) -> None:
    pairs: list[tuple[Path, Path]] = []
    for bits, group in product(MODES, (0, 4321)):
        path = source(public, f"{bits:o}-{group}{suffix}", bits)
        os.chown(path, 0, group)
        pairs += [(path, copy) for copy in copies(path, public / path.stem)]
    everything = sorted({path for pair in pairs for path in pair})
    for user, group in ((1234, 4321), (1234, 1234), (1234, 0)):
        can = readers(everything, user, group)
        wrong = [(source, copy) for source, copy in pairs if copy in can and source not in can]
        assert not wrong
    open_to_all = [copy for source, copy in pairs if mode(source) == 0o644 and copy not in can]
    assert not open_to_all, "and not less readable where the source is for everybody"


def test_fault_51_file_without_its_opaque_objects_is_no_more_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": STATE, "settings": Namespace(lr=0.1)}, path)
    path.chmod(0o600)
    registry = Registry(tmp_path)
    ckpt.export(path, tmp_path / "exported.pt", opaque="drop")
    ckpt.rename(f"{path}::model", "conv->emb", out=tmp_path / "renamed.pt", opaque="drop")
    ckpt.register(path, registry=registry, name="net", opaque="drop")
    made = [*tmp_path.glob("*d.pt"), *(tmp_path / ".ckpt").glob("manifests/??/*")]
    assert len(made) == 3
    assert [mode(each) & 0o077 for each in made] == [0, 0, 0]


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o644])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("new", ["emb", "embedding_of_all_the_tokens_that_there_are"])
def test_fault_51_in_place_keeps_the_mode(tmp_path: Path, bits: int, name: str, new: str) -> None:
    path = source(tmp_path, name, bits)
    ckpt.rename(path, f"conv->{new}", in_place=True)
    assert mode(path) == bits


def test_fault_51_temporary_of_a_rename_in_place_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"secret")
    path.chmod(0o604)
    with write_whole(path, replace=True, in_place=True) as out:
        (temporary,) = {*tmp_path.iterdir()} - {path}
        assert mode(temporary) == 0o600
        out.write(b"secret")
    assert mode(path) == 0o604


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """An access list as the kernel stores it (linux/posix_acl_xattr.h)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
FOR_1234 = access_list(
    (0x01, 6, NOBODY), (0x02, 4, 1234), (0x04, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)
)


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@as_root
@pytest.mark.skipif(sys.platform != "linux", reason="attributes of Linux")
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("new", ["emb", "embedding_of_all_the_tokens_that_there_are"])
def test_fault_51_in_place_as_root_keeps_everything(tmp_path: Path, name: str, new: str) -> None:
    path = source(tmp_path, name, 0o640)
    os.chown(path, 1234, 4321)
    os.setxattr(path, "user.origin", b"somewhere")
    os.setxattr(path, "system.posix_acl_access", FOR_1234)
    before, status = attributes(path), path.stat()
    assert len(before) == 2
    ckpt.rename(path, f"conv->{new}", in_place=True)
    after = path.stat()
    assert attributes(path) == before
    assert (after.st_uid, after.st_gid, after.st_mode) == (1234, 4321, status.st_mode)


@as_root
@pytest.mark.skipif(sys.platform != "linux", reason="attributes of Linux")
def test_fault_51_access_list_is_not_taken_for_a_mode(tmp_path: Path) -> None:
    """Its bits for the group are the mask of all entries."""
    path = source(tmp_path, "a.pt", 0o600)
    os.setxattr(path, "system.posix_acl_access", FOR_1234)
    assert mode(path) == 0o640
    assert mode(ckpt.export(path, tmp_path / "b.pt").path) == 0o600


@as_root
def test_fault_51_owner_that_cannot_be_kept_is_refused(public: Path) -> None:
    path = source(public, "a.pt", 0o666)
    before = path.read_bytes()

    def refused() -> int:
        with (
            pytest.raises(UsageError, match="cannot be kept in place"),
            write_whole(path, replace=True, in_place=True) as out,
        ):
            out.write(b"x")
        return 0

    assert as_user(1234, 1234, refused) == 0
    assert (path.read_bytes(), path.stat().st_uid) == (before, 0)
    assert [each.name for each in public.iterdir()] == ["a.pt"]


def test_fault_51_same_bytes_from_an_open_file_open_the_object(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    ckpt.register(source(tmp_path, "a.pt", 0o600), registry=registry, name="a")
    (stored,) = (each.path for each in registry.store.objects() if not each.is_manifest)
    assert mode(stored) == 0o400
    ckpt.register(source(tmp_path, "b.pt", 0o644), registry=registry, name="b")
    assert mode(stored) == 0o444
