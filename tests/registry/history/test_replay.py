"""The index rebuilt from the reflog: a property over random writes, here and elsewhere."""

import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.errors import IndexDamageError
from ckpt.registry.history.changes import Change, Value
from ckpt.registry.history.reflog import Entry, Reflog
from ckpt.registry.history.replay import happened, replayed, write_entry
from ckpt.registry.index import Index
from ckpt.registry.index_file import IndexFile
from ckpt.registry.places import find_registry
from ckpt.registry.version import version_line
from tests.effort import by_effort, examples
from tests.registry.history.test_changes import written
from tests.registry.test_index import version


def put(file: IndexFile, index: Index) -> None:
    """As `git pull` does: another index, of which the reflog knows nothing."""
    there = replace(index, serial=index.serial + 1, write_id=os.urandom(8).hex())
    file.path.write_text(there.to_text())


@settings(max_examples=examples(40))
@given(st.integers(0, 2**32))
def test_index_is_what_the_reflog_says(seed: int) -> None:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        file = IndexFile(Path(folder))
        earlier = [Index()]
        for _ in range(by_effort(6, 12, 12)):
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
    assert not file.read().models
    (manifests / "cd").write_bytes(b"")
    assert find_registry(manifests) == tmp_path
    for use in (file.read, lambda: file.commit(lambda index: replace(index), "x")):
        with pytest.raises(IndexDamageError, match="missing, but") as caught:
            use()
        assert "ckpt fsck --rebuild-index" in str(caught.value.hint)
    assert not file.path.exists()
    file.create()
    file.create()
    assert not file.read().models


def entry(write_id: str, parent: str = "", *changes: Change, **fields: Any) -> Entry:
    return Entry(write_id=write_id, parent=parent, time="t", what="x", changes=changes, **fields)


def test_entries_that_led_to_the_last_one_happened() -> None:
    entries = [entry("a"), entry("lost", "a"), entry("b", "a"), entry("lost too", "b"),
               entry("c", "b")]  # fmt: skip
    assert [each.write_id for each in happened(entries)] == ["a", "b", "c"]
    assert happened([]) == []
    # Where no entry is the parent, it is the one above; one that has none is the first.
    assert [each.write_id for each in happened([entry("a"), entry("b", "z")])] == ["a", "b"]
    assert [each.write_id for each in happened([entry("a", "z"), entry("b", "a")])] == ["a", "b"]
    assert [each.write_id for each in happened([entry("a"), entry("b"), entry("c", "b")])] == [
        "b", "c",
    ]  # fmt: skip
    assert [each.write_id for each in happened([entry("a"), entry("b", "b")])] == ["a", "b"]
    later = [entry("a", "c"), entry("b", "a"), entry("c", "b")]
    assert [each.write_id for each in happened(later)] == ["a", "b", "c"]


def there(name: str, after: Value = "there") -> Change:
    return Change("mnist-cnn", "version", name, None, after)


def test_replay_keeps_only_what_points_to_a_known_version() -> None:
    lines = {each.ref: version_line(each) for each in (version(1), version(2))}
    changed = (
        there("v1"), there("v2"), there("v3"),
        Change("mnist-cnn", "alias", "prod", None, "v2"),
        Change("mnist-cnn", "alias", "lost", None, "v3"),
        Change("mnist-cnn", "alias", "odd", None, "latest"),
        Change("mnist-cnn", "protected", "prod", None, True),
        Change("mnist-cnn", "protected", "lost", None, True),
        Change("mnist-cnn", "tag", "golden", None, ("v1", "v3")),
        Change("mnist-cnn", "tag", "lost", None, ("v3",)),
        Change("mnist-cnn", "tag", "odd", None, "v1"),
    )  # fmt: skip
    index = replayed([entry("a", "", *changed, versions=lines, serial=4)])
    model = index.models["mnist-cnn"]
    assert (index.serial, index.write_id) == (4, "a")
    assert sorted(model.versions) == [1, 2]
    assert (model.aliases, model.protected) == ({"prod": 2}, {"prod"})
    assert (model.tags, model.next_number) == ({"golden": (1,)}, 3)
    gone = entry("b", "a", there("v2", "removed"), there("v1", None), next_numbers={"mnist-cnn": 9})
    index = replayed([entry("a", "", *changed, versions=lines, serial=4), gone])
    model = index.models["mnist-cnn"]
    assert (sorted(model.versions), sorted(model.removed), model.next_number) == ([], [2], 9)
    assert (model.aliases, index.serial, index.write_id) == ({}, 4, "b")
    assert replayed([]) == Index()


@pytest.mark.parametrize("ref", ["mnist-cnn:v2", "mnist-cnn:prod", "mnist-cnn", "", ":"])
def test_line_of_the_reflog_that_is_no_version_is_passed_over(ref: str) -> None:
    lines = {"mnist-cnn:v1": version_line(version(1)), ref: {"size": "8"}}
    index = replayed([entry("a", "", there("v1"), there("v2"), versions=lines)])
    assert list(index.models["mnist-cnn"].versions) == [1]


def test_entry_of_a_write_holds_what_it_changed_and_no_more() -> None:
    before = Index().with_version(version(1)).with_version(version(1, "other"))
    before = replace(before, write_id="a", serial=3)
    after = replace(before.with_version(version(2)), write_id="b", serial=4)
    after = after.with_model(after.models["mnist-cnn"].with_alias("prod", 1))
    made = write_entry(before, after, "what", time="t", undoes="z")
    assert (made.write_id, made.parent, made.serial, made.undoes) == ("b", "a", 4, "z")
    assert list(made.versions) == ["mnist-cnn:v2"]
    assert (made.next_numbers, made.gone, made.elsewhere) == ({"mnist-cnn": 3}, (), False)
    model = after.models["mnist-cnn"].without(2, at="2026-11-25T09:00:00+00:00")
    gone = replace(after.with_model(model), write_id="c")
    made = write_entry(after, gone, "what", time="t", parent="", elsewhere=True)
    assert (made.parent, list(made.versions), made.gone) == ("", ["mnist-cnn:v2"], ())
    assert made.elsewhere
    twin = replace(version(2), also=(version(9).manifest,))
    both = gone.with_model(replace(model, removed={2: twin}))
    forgotten = both.with_model(both.models["mnist-cnn"].forgotten(2))
    made = write_entry(both, forgotten, "what", time="t")
    assert (made.versions, made.gone) == ({}, twin.manifests)
    same = write_entry(before, before, "what", time="t")
    assert (same.changes, same.versions, same.next_numbers) == ((), {}, {})
