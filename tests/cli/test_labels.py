"""Aliases, tags, and lists chosen by them, as typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt.ops.ls import ls
from ckpt.registry.registry import Registry
from ckpt.show.ls import versions_text
from tests.cli.support import Run, weights
from tests.effort import PATIENCE, by_effort


@pytest.fixture
def three(ckpt: Run, folder: Path) -> Run:
    """`net` v1 to v3, of which v3 has no accuracy; v2 is the best."""
    import torch

    for seed, accuracy in ((1, "0.91"), (2, "0.99"), (3, None)):
        torch.save(weights(seed), folder / "net.pt")
        metric = ("--metric", f"accuracy={accuracy}") if accuracy else ()
        assert ckpt("register", "net.pt", *metric).code == 0
    return ckpt


def test_alias_points_and_moves_and_is_a_ref(three: Run, folder: Path) -> None:
    assert three("alias", "prod", "v1").out == "net@prod points to v1\n"
    assert three("alias", "prod", "v2").out == "net@prod points to v2 (before: v1)\n"
    assert three("export", "net@prod", "-o", "prod.pt").code == 0
    assert three("export", "net:v2", "-o", "v2.pt").code == 0
    assert (folder / "prod.pt").read_bytes() == (folder / "v2.pt").read_bytes()
    assert "net@prod  v2" in three("alias").out
    assert three("show", "net@prod", "--json").data["version"]["aliases"] == ["prod"]
    gone = three("alias", "-d", "net@prod")
    assert gone.out == "deleted net@prod, which pointed to v2\n"
    assert three("show", "net@prod").code == 2


def test_expected_version_is_compared_before_an_alias_moves(three: Run, folder: Path) -> None:
    assert three("alias", "prod", "v1", "--expect", "none").code == 0
    before = (folder / "registry.json").read_bytes()
    again = three("alias", "prod", "v2", "--expect", "none")
    assert (again.code, "net@prod points to v1, expected none" in again.err) == (6, True)
    wrong = three("alias", "prod", "v3", "--expect", "v2")
    assert (wrong.code, "net@prod points to v1, expected v2" in wrong.err) == (6, True)
    assert (folder / "registry.json").read_bytes() == before
    assert three("alias", "prod", "v3", "--expect", "v1").code == 0


def test_protected_alias_moves_only_if_it_is_said_from_where(three: Run) -> None:
    assert three("alias", "prod", "v1", "--protect").out == "net@prod points to v1, protected\n"
    for words in (("prod", "v2"), ("-d", "prod")):
        ran = three("alias", *words)
        assert (ran.code, "net@prod is protected, and points to v1" in ran.err) == (6, True)
    assert three("alias", "prod", "v2", "--expect", "v1").code == 0
    assert three("alias", "--json").data[0]["protected"] is True
    assert three("alias", "prod", "--unprotect").out == "net@prod points to v2\n"
    assert three("alias", "prod", "v3").code == 0


BAD = [
    (("alias", "latest", "v1"), "cannot be an alias"),
    (("alias", "v9", "v1"), "cannot be an alias"),
    (("alias", "../x", "v1"), "not a valid name"),
    (("alias", "prod"), "no alias 'prod'"),
    (("alias", "prod", "v9"), "net has no v9"),
    (("alias", "prod", "v1", "--expect", "prod"), "expected a version such as v2, or none"),
    (("alias", "other@prod", "net:v1"), "of another model"),
    (("alias", "-d", "prod"), "net has no alias 'prod'"),
    (("alias", "-d", "prod", "v1"), "-d takes only a name and --expect"),
    (("tag", "v1", "a b"), "not a valid name"),
    (("tag", "v1", "-d", "golden"), "net:v1 has no tag 'golden'"),
    (("ls", "--where", "accuracy"), "is not a condition"),
    (("ls", "--where", "acuracy>0.9"), "did you mean accuracy?"),
    (("ls", "--where", "accuracy>high"), "'high' is not a number"),
    (("ls", "--where", "tag>golden"), "= or !="),
    (("ls", "--sort", "speed"), "no version has a field 'speed'"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_words_change_nothing(three: Run, folder: Path, words, says) -> None:
    before = (folder / "registry.json").read_bytes()
    ran = three(*words)
    assert ran.code == 2
    assert says in ran.err
    assert (folder / "registry.json").read_bytes() == before


def test_tags_stand_on_versions(three: Run) -> None:
    assert three("tag", "v1", "golden", "old").out == "net:v1  golden, old\n"
    assert three("tag", "v3", "golden").code == 0
    assert three("tag", "v1", "-d", "old").out == "net:v1  golden\n"
    assert three("tag", "v2").out == "net:v2  no tags\n"
    rows = three("ls", "--where", "tag=golden", "--json").data
    assert [(row["version"], row["tags"]) for row in rows] == [
        ("v3", ["golden"]),
        ("v1", ["golden"]),
    ]
    assert [row["version"] for row in three("ls", "--where", "tag!=golden", "--json").data] == [
        "v2"
    ]
    assert "golden" in three("ls").out


CHOSEN = {
    "metric": (("--where", "accuracy>0.9"), ["v2", "v1"]),
    "two conditions": (("--where", "accuracy>0.9", "--where", "accuracy<0.95"), ["v1"]),
    "descending, those without last": (("--sort", "-accuracy"), ["v2", "v1", "v3"]),
    "ascending, those without last": (("--sort", "accuracy"), ["v1", "v2", "v3"]),
    "version": (("--where", "version>=v2", "--sort", "version"), ["v2", "v3"]),
    "text": (("--where", "made_by=register net.pt", "--sort", "version"), ["v1", "v2", "v3"]),
    "date": (("--where", "created>2026-01"), ["v3", "v2", "v1"]),
    "none": (("--where", "size<1"), []),
}


@pytest.mark.parametrize(("words", "expected"), CHOSEN.values(), ids=CHOSEN)
def test_list_is_chosen_and_sorted(three: Run, words, expected) -> None:
    rows = three("ls", *words, "--json").data
    assert [row["version"] for row in rows] == expected


def test_of_many_who_expect_the_same_one_version_wins(three: Run, folder: Path) -> None:
    """Compare-and-swap, by processes of their own at the same time."""
    assert three("alias", "prod", "v1").code == 0
    command = [sys.executable, "-P", "-m", "ckpt", "alias", "prod"]
    runs = [
        subprocess.Popen(
            [*command, f"v{2 + at % 2}", "--expect", "v1"], cwd=folder, env=dict(os.environ),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for at in range(by_effort(4, 8, 8))
    ]  # fmt: skip
    ended = [(run.communicate(timeout=PATIENCE)[0], run.returncode) for run in runs]
    now = json.loads((folder / "registry.json").read_text())["models"]["net"]["aliases"]["prod"]
    for at, (out, code) in enumerate(ended):
        assert (code, bool(out)) == ((0, True) if f"v{2 + at % 2}" == now else (6, False))
    moved = [out for out, _ in ended if f"points to {now} (before: v1)" in out]
    assert len(moved) == 1, "the others who wanted that find it done"


def test_alias_alone_is_shown(three: Run) -> None:
    assert three("alias", "prod", "v2").code == 0
    assert three("alias", "canary", "v3").code == 0
    shown = three("alias", "prod").out
    assert shown.splitlines()[2:] == ["net@prod  v2"]
    assert three("alias", "net@canary", "--json").data[0]["version"] == "v3"
    ran = three("alias", "staging")
    assert (ran.code, ran.out) == (2, "")
    assert "no alias 'staging'" in ran.err
    assert "known: net@canary, net@prod" in ran.err


def test_list_of_refs_columns_and_the_first_ones(three: Run) -> None:
    assert three("ls", "-q").out == "net:v3\nnet:v2\nnet:v1\n"
    assert three("ls", "-q", "--limit", "1").out == "net:v3\n"
    lines = three("ls", "--columns", "version,size").out.splitlines()
    assert lines[0].split() == ["version", "size"]
    ran = three("ls", "--columns", "version,colour")
    assert ran.code == 2
    assert "no column 'colour'" in ran.err
    assert "columns: model,version," in ran.err


def test_history_is_that_of_the_latest_version_without_a_ref(three: Run) -> None:
    assert three("log").out == three("log", "v3").out


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 300])
def test_list_fits_the_terminal(three: Run, folder: Path, width: int) -> None:
    message = "a message that says at length why these weights are better than all before them"
    assert three("tag", "v2", "golden", "of-the-paper").code == 0
    assert three("register", "net.pt", "--name", "other", "-m", message).code == 0
    registry = Registry(folder)
    text = versions_text(ls(registry=registry), registry.index(), width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 2 + 4
    assert {"model", "version"} <= set(lines[0].split())
    assert ("message" in lines[0]) == (width >= 60)
    assert (message in text) == (width == 300)


def test_alias_without_a_version_names_what_shows_it(ckpt: Run, folder: Path) -> None:
    ran = ckpt("alias", "prod", "-m", "why")
    hint = "in Python, to show it:  ckpt.aliases('prod');\n       to list versions:  ckpt ls"
    said = f"error: no version given: ckpt alias prod REF\nhint:  {hint}\n"
    assert (ran.code, ran.out, ran.err) == (2, "", said)
