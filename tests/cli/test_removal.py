"""Versions that are removed and restored, and other changes that are undone."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, weights


@pytest.fixture
def two(ckpt: Run, folder: Path) -> Run:
    """`net` v1, and v2 that renames it."""
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    assert ckpt("rename", "net:v1", "--rule", "conv=embed").code == 0
    return ckpt


def model(folder: Path) -> dict[str, object]:
    """The model as it is, without its history, which only grows."""
    found = json.loads((folder / "registry.json").read_text())["models"]["net"]
    return {name: value for name, value in found.items() if name != "log"}


def test_removed_version_is_gone_and_comes_back_byte_for_byte(two: Run, folder: Path) -> None:
    before = model(folder)
    assert two("tag", "v2", "golden").code == 0
    assert two("rm", "v2", "--yes").out == "removed net:v2; ckpt undo  restores what was removed\n"
    gone = two("show", "net:v2")
    assert (gone.code, "net:v2 was removed" in gone.err) == (2, True)
    assert [row["version"] for row in two("ls", "--json").data] == ["v1"]
    assert two("show", "net", "--json").data["version"]["version"] == "v1", "the latest"
    back = two("undo")
    assert back.out.splitlines()[0].startswith("undid: rm net:v2")
    assert "  net version v2  removed -> present" in back.out
    assert "  net tag golden  absent -> v2" in back.out
    assert two("undo").code == 0  # the tag
    assert model(folder) == before
    assert two("verify").code == 0


def test_number_of_a_removed_version_is_not_given_out_again(two: Run, folder: Path) -> None:
    assert two("rm", "v2", "--yes").code == 0
    again = two("rename", "net:v1", "--rule", "conv=embed", "--json")
    assert again.data["added"]["version"] == "v3"
    assert two("undo").out.startswith("undid: rename of v1 as net")
    assert [row["version"] for row in two("ls", "--json").data] == ["v1"]
    torch.save(weights(5), folder / "net.pt")
    assert two("register", "net.pt", "--json").data["version"] == "v4"


def test_aliased_version_is_not_removed(two: Run, folder: Path) -> None:
    assert two("alias", "prod", "v2").code == 0
    before = (folder / "registry.json").read_bytes()
    ran = two("rm", "v1", "v2", "--yes")
    assert (ran.code, "net:v2 cannot be removed: net@prod points to it" in ran.err) == (6, True)
    assert "ckpt alias -d net@prod" in ran.err
    assert (folder / "registry.json").read_bytes() == before, "all or none"


def test_nobody_is_asked_where_nobody_answers(two: Run, folder: Path) -> None:
    before = (folder / "registry.json").read_bytes()
    ran = two("rm", "v2")
    assert (ran.code, "not removed: net:v2" in ran.err) == (2, True)
    assert (folder / "registry.json").read_bytes() == before


def test_undo_goes_back_step_by_step(two: Run, folder: Path) -> None:
    assert two("alias", "prod", "v1", "--protect").code == 0
    assert two("alias", "prod", "v2", "--expect", "v1").code == 0
    for expected in ({"prod": "v1"}, {}):
        assert two("undo").code == 0
        assert model(folder)["aliases"] == expected
    assert two("undo").code == 0
    assert list(model(folder)["removed"]) == ["v2"]
    listed = two("undo", "--list", "--json").data
    assert [entry["undone"] for entry in listed] == [False] * 3 + [True] * 3 + [False]
    assert two("undo").code == 0
    ran = two("undo")
    assert (ran.code, "nothing to undo" in ran.err) == (2, True)
    assert "undone" in two("undo", "--list").out


def test_what_was_done_elsewhere_is_not_undone(two: Run, folder: Path) -> None:
    """As after a `git pull`: the index's last write is none of this machine's."""
    path = folder / "registry.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "write_id": "0123456789abcdef"}))
    ran = two("undo")
    assert (ran.code, "was made elsewhere" in ran.err) == (2, True)


def test_index_put_back_by_hand_takes_the_chain_that_led_to_it(two: Run, folder: Path) -> None:
    """As after `git checkout registry.json`: what came after it is no part of its history."""
    path = folder / "registry.json"
    earlier = path.read_bytes()
    assert two("alias", "prod", "v1").code == 0
    path.write_bytes(earlier)
    assert two("undo").out.startswith("undid: rename of v1 as net")


def test_reflog_that_a_crash_has_cut_short_is_read_and_goes_on(two: Run, folder: Path) -> None:
    reflog = folder / ".ckpt" / "reflog"
    with reflog.open("ab") as file:
        file.write(b'{"write_id":"torn')
    assert two("tag", "v1", "x").code == 0
    assert two("undo").out.startswith("undid: tag net:v1 x")
    assert len(two("undo", "--list", "--json").data) == 4
    reflog.unlink()
    assert two("undo").code == 2
    assert two("verify").code == 0


def test_lineage_goes_through_removed_versions(two: Run) -> None:
    assert two("rm", "v1", "--yes").code == 0
    assert [step["version"] for step in two("log", "net:v2", "--json").data] == ["v2", "v1"]
    assert two("export", "net:v2", "-o", "x.pt").code == 0
