"""Disks of their own: one whose power is cut, one that is full."""

import contextlib
import fcntl
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH: what is not on the disk by now will never be
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Disk:
    """An ext4 file system in a file, mounted.

    Attributes:
        image: The file.
        root: Where it is mounted.
        options: How, as `mount -o` takes it.
    """

    image: Path
    root: Path
    options: str

    def settle(self) -> None:
        """Have all that was written so far on the disk."""
        _system("sync", "-f", str(self.root))

    def cut_power(self) -> None:
        """Lose what the disk does not have yet, and start again."""
        fd = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        finally:
            os.close(fd)
        unmount(self.root)
        self.mount()

    def mount(self) -> None:
        """Mount it, which replays its journal."""
        _mount("-o", f"loop,{self.options}", str(self.image), str(self.root))


@contextlib.contextmanager
def ext4(folder: Path, options: str) -> Iterator[Disk]:
    """A disk of 32 MB; the test is skipped where none can be had."""
    disk = Disk(folder / "image", folder / "disk", options)
    disk.root.mkdir()
    with disk.image.open("wb") as file:
        file.truncate(32 << 20)
    with _or_skip("ext4 in a file"):
        _system("mkfs.ext4", "-q", "-F", str(disk.image))
        disk.mount()
    try:
        yield disk
    finally:
        unmount(disk.root)
        disk.image.unlink()


@contextlib.contextmanager
def mounted(root: Path, *words: str) -> Iterator[Path]:
    """Something mounted at `root`, which is made; `words` are those of `mount` before it."""
    root.mkdir(exist_ok=True)
    with _or_skip(f"mount {' '.join(words)}"):
        _mount(*words, str(root))
    try:
        yield root
    finally:
        unmount(root)


@contextlib.contextmanager
def nearly_full(root: Path, pages: int) -> Iterator[None]:
    """Nothing but so many pages are free while the block runs."""
    filler = root / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    free = os.statvfs(root)
    assert free.f_bavail == 0
    os.truncate(filler, filler.stat().st_size - pages * PAGE)
    try:
        yield
    finally:
        filler.unlink()


def unmount(root: Path) -> None:
    """Unmount, waiting for whoever still looks at it."""
    for _ in range(50):
        ran = subprocess.run(["umount", str(root)], capture_output=True, check=False)
        if not ran.returncode:
            return
        time.sleep(0.1)
    _system("umount", "-l", str(root))


@contextlib.contextmanager
def _or_skip(what: str) -> Iterator[None]:
    if os.geteuid():
        pytest.skip(f"{what}: not root")
    try:
        yield
    except FileNotFoundError as error:
        pytest.skip(f"{what}: {error.filename} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{what}: {error.stderr.strip()}")


def _mount(*words: str) -> None:
    """Mount one after the other: two that ask for a free loop device at once may get the same."""
    with FileLock(Path(tempfile.gettempdir()) / "ckpt-tests.mount.lock"):
        _system("mount", *words)


def _system(*words: str) -> None:
    subprocess.run(words, capture_output=True, text=True, check=True)
