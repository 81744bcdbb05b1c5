"""The index rebuilt from the reflog: a property over random writes, here and elsewhere."""

import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import IndexDamageError
from ckpt.registry.history.reflog import Reflog
from ckpt.registry.history.replay import happened, replayed
from ckpt.registry.index import Index
from ckpt.registry.index_file import IndexFile, find_registry
from tests.registry.history.test_changes import written
from tests.registry.test_index import version


def put(file: IndexFile, index: Index) -> None:
    """As `git pull` does: another index, of which the reflog knows nothing."""
    there = replace(index, serial=index.serial + 1, write_id=os.urandom(8).hex())
    file.path.write_text(there.to_text())


@given(st.integers(0, 2**32))
def test_index_is_what_the_reflog_says(seed: int) -> None:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        file = IndexFile(Path(folder))
        earlier = [Index()]
        for _ in range(12):
            match draw.choice(["here", "here", "here", "elsewhere", "back"]):
                case "elsewhere" if file.path.exists():
                    put(file, written(file.read(), draw))
                case "back" if file.path.exists():  # git checkout
                    file.path.write_text(draw.choice(earlier[1:]).to_text())
            earlier.append(file.commit(lambda index: replace(written(index, draw)), "x"))
            again = replayed(file.reflog.entries())
            assert again.models == file.read().models
            assert again.write_id == file.read().write_id
            assert again.serial >= file.read().serial


def test_write_that_never_came_about_is_not_replayed(tmp_path: Path) -> None:
    """The process was killed after the reflog and before the index; others wrote since."""
    file = IndexFile(tmp_path)
    file.commit(lambda index: index.with_version(version(1)), "add")
    before = file.path.read_bytes()
    file.commit(lambda index: index.with_version(version(2, content="lost")), "add")
    file.path.write_bytes(before)
    file.commit(lambda index: index.with_version(version(2)), "add")
    assert replayed(file.reflog.entries()).models == file.read().models
    assert len(happened(file.reflog.entries())) == 2


def test_what_was_done_elsewhere_ends_the_chain_of_what_can_be_undone(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    file.commit(lambda index: index.with_version(version(1)), "add")
    put(file, file.read().with_version(version(2)))
    last = file.commit(lambda index: index.with_version(version(3)), "add")
    assert [entry.what for entry in file.reflog.entries()] == ["add", "elsewhere", "add"]
    assert [entry.serial for entry in file.reflog.chain(last.write_id)] == [last.serial]


def test_reflog_of_an_older_ckpt_is_read(tmp_path: Path) -> None:
    """Its entries have no lines of versions: their manifests alone will tell."""
    path = tmp_path / "reflog"
    path.write_text(
        '{"write_id":"a","parent":"","time":"t","what":"add","undoes":null,"changes":[{"model":'
        '"net","kind":"version","name":"v1","before":null,"after":"there"},{"model":"net","kind":'
        '"alias","name":"prod","before":null,"after":"v1"}]}\n'
    )
    index = replayed(Reflog(path).entries())
    assert index.write_id == "a"
    assert not index.models["net"].versions
    assert not index.models["net"].aliases


def test_last_entry_is_read_from_the_end(tmp_path: Path) -> None:
    reflog = Reflog(tmp_path / "reflog")
    assert not reflog.ends_with("")
    file = IndexFile(tmp_path)
    file.commit(lambda index: index.with_version(version(1)), "add " + "x" * (1 << 17))
    last = file.commit(lambda index: index.with_version(version(2)), "add")
    assert file.reflog.ends_with(last.write_id)
    long = file.commit(lambda index: index.with_version(version(3)), "add " + "x" * (1 << 17))
    assert not file.reflog.ends_with(long.write_id), "told by reading all of it"
    file.commit(lambda index: index.with_version(version(4)), "add")
    assert len(file.reflog.entries()) == 4


def test_lost_index_is_not_an_empty_one(tmp_path: Path) -> None:
    manifests = tmp_path / ".ckpt" / "manifests" / "ab"
    manifests.mkdir(parents=True)
    file = IndexFile(tmp_path)
    assert file.read() == Index()
    (manifests / "cd").write_bytes(b"")
    assert find_registry(manifests) == tmp_path
    for use in (file.read, lambda: file.commit(lambda index: replace(index), "x")):
        with pytest.raises(IndexDamageError, match="missing, but") as caught:
            use()
        assert "ckpt fsck --rebuild-index" in str(caught.value.hint)
    assert not file.path.exists()
    file.create()
    file.create()
    assert file.read() == Index()
