"""The reflog's file, where the system does not do what it is asked."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckpt.errors import DiskError
from ckpt.registry.history.changes import Change
from ckpt.registry.history.reflog import Entry, Reflog

ENTRY = Entry(write_id="1" * 16, parent="", time="2025-01-01T00:00:00+00:00", what="x", changes=())


def test_entry_is_written_whole_although_the_system_takes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk that is nearly full does, before it says that it is full."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    reflog = Reflog(tmp_path / "reflog")
    reflog.append(ENTRY)
    assert list(reflog.chain(ENTRY.write_id)) == [ENTRY]


def test_file_that_cannot_be_written_or_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "reflog").mkdir()
    reflog = Reflog(tmp_path / "reflog")
    with pytest.raises(DiskError, match=r"reflog: Is a directory"):
        reflog.append(ENTRY)
    with pytest.raises(DiskError, match=r"reflog: Is a directory"):
        next(reflog.chain(ENTRY.write_id))


def entry(write_id: str, parent: str = "", what: str = "x", **fields: Any) -> Entry:
    return replace(ENTRY, write_id=write_id, parent=parent, what=what, **fields)


@pytest.mark.parametrize("cut", [1, 2, 5, 6])
def test_entry_after_a_broken_line_begins_one_of_its_own(tmp_path: Path, cut: int) -> None:
    reflog = Reflog(tmp_path / "reflog")
    reflog.append(entry("a"), entry("b", "a"))
    whole = (tmp_path / "reflog").read_bytes()
    (tmp_path / "reflog").write_bytes(whole[:-cut])
    reflog.append(entry("c", "a"))
    told = ["a", "b", "c"] if cut == 1 else ["a", "c"]  # without its last byte it is whole
    assert [each.write_id for each in reflog.entries()] == told
    assert reflog.ends_with("c")
    assert b"\n\n" not in (tmp_path / "reflog").read_bytes()
    (tmp_path / "reflog").write_bytes(whole[:-cut])
    assert reflog.ends_with("b") == (cut == 1)
    assert not reflog.ends_with("a")


def test_chain_goes_back_to_the_first_write_or_to_what_was_done_elsewhere(tmp_path: Path) -> None:
    reflog = Reflog(tmp_path / "reflog")
    reflog.append(entry("a"), entry("lost", "a"), entry("b", "a"), entry("c", "b"))
    assert [each.write_id for each in reflog.chain("c")] == ["c", "b", "a"]
    assert [each.write_id for each in reflog.chain("z")] == []
    reflog.append(entry("d", "c", elsewhere=True), entry("e", "d"), entry("f", "e"))
    assert [each.write_id for each in reflog.chain("f")] == ["f", "e"]
    reflog.append(entry("g", "g"))
    assert [each.write_id for each in reflog.chain("g")] == ["g"], "a circle ends"


@pytest.mark.parametrize("longer", [-1, 0, 1, 2])
def test_last_entry_of_64_kib_is_read_from_the_end_and_a_longer_one_is_not(
    tmp_path: Path, longer: int
) -> None:
    reflog = Reflog(tmp_path / "reflog")
    reflog.append(entry("a"))
    first = (tmp_path / "reflog").stat().st_size
    reflog.append(entry("b", what=""))
    rest = (tmp_path / "reflog").stat().st_size - first
    (tmp_path / "reflog").unlink()
    reflog.append(entry("a"), entry("b", what="y" * (65_536 - rest + longer)))
    assert (tmp_path / "reflog").stat().st_size == first + 65_536 + longer
    assert reflog.ends_with("b") == (longer <= 0)
    assert len(reflog.entries()) == 2


def test_reflog_that_is_absent_or_empty_ends_with_nothing(tmp_path: Path) -> None:
    reflog = Reflog(tmp_path / "reflog")
    assert reflog.entries() == []
    assert not reflog.ends_with("a")
    assert reflog.manifests() == set()
    (tmp_path / "reflog").touch()
    assert not reflog.ends_with("a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError, match="folder: Is a directory"):
        Reflog(tmp_path / "folder").ends_with("a")


def test_manifests_are_those_of_versions_that_have_not_gone_for_good(tmp_path: Path) -> None:
    one, two, three = (f"sha256:{letter * 64}" for letter in "abc")
    reflog = Reflog(tmp_path / "reflog")
    reflog.append(
        entry("a", versions={"net:v1": {"manifest": one}, "net:v2": {"manifest": "no digest"}}),
        entry("b", "a", versions={"net:v3": {"manifest": two, "also": [three]}}),
    )
    assert reflog.manifests() == {one, two, three}
    reflog.append(entry("b2", "b", gone=(one,), elsewhere=True))
    assert reflog.manifests() == {one, two, three}, "another branch may have it"
    reflog.append(entry("c", "b", gone=(one, three)))
    assert reflog.manifests() == {two}
    reflog.append(entry("d", "c", versions={"net:v1": {"manifest": one}}))
    assert reflog.manifests() == {one, two}


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[]", "null", "3", '{"changes": 3}', '{"changes": [3]}', '{"changes": [{}]}',
     '{"changes": [], "write_id": "a", "parent": "", "time": "", "what": "", "new": 1}',
     '{"changes": [], "write_id": "a", "write_id": "b", "parent": "", "time": "", "what": ""}',
     "[" * 100_000],
)  # fmt: skip
def test_line_that_is_no_entry_is_passed_over(tmp_path: Path, line: str) -> None:
    reflog = Reflog(tmp_path / "reflog")
    reflog.append(entry("a"))
    with (tmp_path / "reflog").open("a") as file:
        file.write(line + "\n")
    reflog.append(entry("b", "a"))
    assert [each.write_id for each in reflog.entries()] == ["a", "b"]


def test_entry_reads_back_with_all_its_fields(tmp_path: Path) -> None:
    changed = (
        Change("net", "version", "v1", None, "there"),
        Change("net", "tag", "golden", ("v1", "v2"), None),
        Change("net", "protected", "prod", True, None),
    )
    full = entry("a", "b", changes=changed, undoes="c", versions={"net:v1": {"size": 3}},
                 next_numbers={"net": 2}, gone=("sha256:0",), serial=7, elsewhere=True)  # fmt: skip
    Reflog(tmp_path / "reflog").append(full)
    assert Reflog(tmp_path / "reflog").entries() == [full]
    assert not full.is_final
    assert replace(full, changes=(*changed, Change("net", "version", "v1", "there", None))).is_final
