import errno
import os
from pathlib import Path
from threading import Event
from typing import BinaryIO

import pytest

from ckpt.errors import DiskError
from ckpt.io.durable import sync_file
from ckpt.io.threads import Threads
from ckpt.registry.store import objects
from ckpt.registry.store.finishing import Finishing
from ckpt.registry.store.objects import ObjectStore

WAIT = 60  # seconds, after which the test fails


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / ".ckpt")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Event:
    """A disk that syncs no object before it is set."""
    free = Event()

    def waiting(out: BinaryIO) -> None:
        assert free.wait(WAIT)
        sync_file(out)

    monkeypatch.setattr(objects, "sync_file", waiting)
    return free


def named(store: ObjectStore) -> set[str]:
    return {stored.digest for stored in store.objects()}


def test_objects_are_put_while_others_wait_for_the_disk(store: ObjectStore, disk: Event) -> None:
    with store.finishing_aside():
        puts = [store.put([bytes([at])]) for at in range(20)]
        assert named(store) == set()
        disk.set()
    assert named(store) == {put.digest for put in puts}
    assert store.temporaries() == []


def test_object_that_waits_for_the_disk_is_stored_once(
    store: ObjectStore, disk: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for = Finishing.wait_for

    def asked(self: Finishing, name: str) -> None:
        if self._waiting:
            disk.set()
        wait_for(self, name)

    monkeypatch.setattr(Finishing, "wait_for", asked)
    with store.finishing_aside():
        first = store.put([b"abcd"])
        assert not store.has(first.digest)
        assert not store.put([b"abcd"]).new
        assert store.has(first.digest)


def failing(out: BinaryIO) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_failed_sync_is_raised_at_the_end(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "sync_file", failing)
    with pytest.raises(DiskError, match="Input/output error"), store.finishing_aside():
        store.put([b"abcd"])
    assert (named(store), store.temporaries()) == (set(), [])
    monkeypatch.undo()
    assert store.put([b"abcd"]).new


def test_failed_sync_is_raised_by_the_next_put(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes are not hashed for a disk that is full."""
    monkeypatch.setattr(objects, "sync_file", failing)
    with Threads(1) as threads:
        store._finishing = waiting = Finishing(threads)
        store.put([b"abcd"])
    assert all(each.done() for each in waiting._waiting.values())
    with pytest.raises(DiskError, match="Input/output error"):
        store.put([b"other"])
    assert store.temporaries() == []
