"""Who changed what, when and why: as typed, and by way of two clones."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.support import Git, Ran, Run, commit, register_seeds, save


def did(ran: Ran) -> list[tuple[str, ...]]:
    """The history that `alias --log --json` printed, oldest first."""
    rows = ran.data["log"][::-1]
    return [(row["did"], row["before"], row["version"], row["message"]) for row in rows]


@pytest.fixture
def two(ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CKPT_AUTHOR", "Ann <ann@example.org>")
    register_seeds(ckpt, folder, 1, 2)
    return ckpt


def test_history_of_an_alias_has_every_move_with_author_and_reason(two: Run) -> None:
    assert two("alias", "prod", "v1", "-m", "first").code == 0
    os.environ["CKPT_AUTHOR"] = "Bob"
    assert two("alias", "prod", "v2", "--protect").code == 0
    assert two("alias", "prod", "v2").out == "net@prod already points to v2, protected\n"
    assert two("undo").code == 0
    assert two("alias", "-d", "prod", "-m", "not used").code == 0
    ran = two("alias", "prod", "--log", "--json")
    assert did(ran) == [
        ("alias", None, "v1", "first"),
        ("alias", "v1", "v2", ""),
        ("protect", "v2", "v2", ""),
        ("alias", "v2", "v1", "undo alias net@prod v2 --protect"),
        ("unprotect", "v1", "v1", "undo alias net@prod v2 --protect"),
        ("unalias", "v1", None, "not used"),
    ]
    authors = [row["by"]["author"] for row in ran.data["log"]]
    assert authors == ["Bob"] * 5 + ["Ann <ann@example.org>"]
    lines = two("alias", "prod", "--log").out.splitlines()
    assert lines[0] == "net@prod was deleted"
    assert lines[-1].split()[2:] == ["none", "->", "v1", "Ann", "<ann@example.org>", "first"]
    assert two("alias", "--log", "--json").data["log"] == ran.data["log"]


def test_history_of_an_unknown_alias_and_with_other_options_is_refused(two: Run) -> None:
    ran = two("alias", "prod", "--log")
    assert (ran.code, ran.err) == (2, "error: no alias 'prod'\nhint:  there are none\n")
    assert two("alias", "prod", "v1", "--log").code == 2


def test_show_log_and_blame_say_who_made_a_version(two: Run) -> None:
    assert "\n  by        Ann <ann@example.org> on " in two("show", "v2").out
    assert "\n  by Ann <ann@example.org> on " in two("log", "v2").out
    assert two("log", "v1", "--json").data[0]["record"]["by"]["author"] == "Ann <ann@example.org>"
    assert two("blame", "w", "v2").out.splitlines()[-1].endswith("Ann <ann@example.org>")
    assert two("blame", "w", "--json").data[0]["by"]["author"] == "Ann <ann@example.org>"


def test_commit_of_the_work_tree_is_recorded_and_readers_ask_nobody(
    ckpt: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CKPT_AUTHOR")
    (folder / "code.py").write_text("1")
    commit(git)
    register_seeds(ckpt, folder, 1)
    by = ckpt("show", "v1", "--json").data["record"]["by"]
    head = git("rev-parse", "HEAD").stdout.strip()
    assert (by["author"], by["commit"], by["dirty"]) == ("Ann <ann@example.org>", head, False)
    asked = folder / "asked"
    spy = folder / "bin" / "git"
    spy.parent.mkdir()
    spy.write_text(f"#!/bin/sh\necho \"$@\" >> '{asked}'\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    for words in (["ls"], ["show", "v1"], ["log", "v1"], ["diff", "v1", "net.pt"], ["alias"]):
        assert ckpt(*words).code == 0
    assert not asked.exists()
    index = (folder / "registry.json").read_bytes()
    (folder / "registry.json").write_bytes(index + b"<<<<<<< ours\n")
    (folder / "cut.pt").write_bytes((folder / "net.pt").read_bytes()[:-9])
    assert (ckpt("tag", "v1", "golden").code, ckpt("register", "cut.pt").code) == (4, 3)
    assert not asked.exists(), "nor does one that refuses its input"
    (folder / "registry.json").write_bytes(index)
    assert ckpt("tag", "v1", "golden").code == 0
    assert "GIT_AUTHOR_IDENT" in asked.read_text()


def test_histories_of_two_clones_are_joined_by_a_pull(
    shared: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_AUTHOR", "Ann")
    save(folder / "net.pt", 3)
    assert shared("register", "net.pt").code == 0
    assert shared("alias", "prod", "net:v3", "-m", "ours is better").code == 0
    commit(git)
    git("checkout", "-q", "other")
    monkeypatch.setenv("CKPT_AUTHOR", "Bob")
    save(folder / "net.pt", 4)
    assert shared("register", "net.pt").code == 0
    assert shared("alias", "staging", "net:v3", "-m", "to try").code == 0
    commit(git)
    git("merge", "-q", "--no-edit", "main")
    rows = shared("alias", "--log", "--json").data["log"]
    assert {row["message"] for row in rows} == {"", "ours is better", "to try"}
    (theirs,) = [row for row in rows if row["message"] == "ours is better"]
    now = json.loads((folder / "registry.json").read_text())["models"]["net"]["aliases"]
    assert (theirs["version"], theirs["version_now"]) == ("v3", now["prod"])
    assert {*now.values()} == {"v3", "v4"}, "one of the two was renumbered"


def test_index_that_was_rebuilt_has_the_history(two: Run, folder: Path) -> None:
    assert two("alias", "prod", "v1", "-m", "first").code == 0
    before = two("alias", "prod", "--log", "--json").data
    (folder / "registry.json").unlink()
    assert two("fsck", "--rebuild-index", "--yes").code == 0
    assert two("alias", "prod", "--log", "--json").data == before


def test_hostile_author_and_reason_are_harmless(two: Run) -> None:
    os.environ["CKPT_AUTHOR"] = "a\x1b[2J\nFORGED"
    assert two("alias", "prod", "v1", "-m", "b\x1b[31m\nFORGED").code == 0
    text = two("alias", "prod", "--log").out
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.strip().startswith("FORGED")]
