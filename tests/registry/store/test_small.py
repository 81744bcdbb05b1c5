"""Small objects are read as `ObjectStore.stream` reads them: the same bytes, the same errors."""

import os
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import IntegrityError
from ckpt.registry.store.objects import ObjectStore
from ckpt.registry.store.shared import SharedStore, name_store
from ckpt.registry.store.small import SmallObjects

CONTENTS = [bytes([at]) * 5000 for at in range(20)]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / ".ckpt")


def put(store: ObjectStore, contents: list[bytes]) -> dict[str, tuple[int, str]]:
    """Objects, by digest."""
    return {store.put([data]).digest: (len(data), f"layer{at}") for at, data in enumerate(contents)}


def streamed(store: ObjectStore, objects: Mapping[str, tuple[int, str]]) -> bytes:
    """The same, one by one."""
    return b"".join(
        chain.from_iterable(store.stream(name, *each) for name, each in objects.items())
    )


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_joined_are_the_bytes_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    store = ObjectStore(tmp_path_factory.mktemp("store") / ".ckpt")
    objects = put(store, contents)
    assert SmallObjects(store).joined(objects) == b"".join(dict.fromkeys(contents))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def change(path: Path) -> None:
    path.write_bytes(b"x" + path.read_bytes()[1:])


def make_link(path: Path) -> None:
    os.link(path, path.with_name("other"))
    path.unlink()
    path.symlink_to("other")  # the right bytes, but they could be anybody's


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_folder_a_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, cut, lengthen, change, make_link, make_pipe, make_folder, make_folder_a_link],
)
def test_fault_38_one_bad_object_is_refused_with_the_error_of_stream(
    store: ObjectStore, damage: Callable[[Path], None]
) -> None:
    objects = put(store, CONTENTS)
    name = [*objects][7]
    path = store.root / "objects" / name[7:9] / name[9:]
    path.chmod(0o644)
    damage(path)
    with pytest.raises(IntegrityError) as expected:
        streamed(store, objects)
    with pytest.raises(IntegrityError) as raised:
        SmallObjects(store).joined(objects)
    assert (type(raised.value), str(raised.value)) == (type(expected.value), str(expected.value))


def test_objects_from_before_the_store_was_shared_are_found(
    store: ObjectStore, tmp_path: Path
) -> None:
    before = put(store, CONTENTS[:10])
    shared = SharedStore(tmp_path / "store", tmp_path)
    shared.join()
    name_store(shared, store.root)
    after = ObjectStore(store.root, shared)
    objects = before | put(after, CONTENTS[10:])
    assert any((tmp_path / "store" / "objects").rglob("*"))
    assert SmallObjects(after).joined(objects) == b"".join(CONTENTS)
