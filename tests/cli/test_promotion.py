"""Promotion as a pipeline does it: conditions, compare-and-swap, steps that run twice."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import Run, save


@pytest.fixture
def net(ckpt: Run, folder: Path) -> Run:
    """`net` v1 to v3: v2 is better than v1, v3 was not measured; `prod` is at v1."""
    for seed, accuracy in ((1, "0.9"), (2, "0.95"), (3, None)):
        save(folder / "net.pt", seed)
        metric = ("--metric", f"accuracy={accuracy}") if accuracy else ()
        assert ckpt("register", "net.pt", *metric).code == 0
    assert ckpt("alias", "prod", "v1").code == 0
    return ckpt


def index_of(folder: Path) -> bytes:
    return (folder / "registry.json").read_bytes()


BETTER = ("--if", "accuracy >= prod.accuracy and keys < 1K")


def test_alias_moves_to_a_version_that_is_better_and_the_step_may_run_twice(
    net: Run, folder: Path
) -> None:
    step = ("alias", "prod", "v2", "--expect", "v1", *BETTER)
    assert net(*step).out == "net@prod points to v2 (before: v1)\n"
    before = index_of(folder)
    again = net(*step)
    assert (again.code, again.out) == (0, "net@prod already points to v2\n")
    assert index_of(folder) == before


REFUSED = {
    "worse": (("v1", "--expect", "v2", *BETTER), 3, "accuracy is 0.9, prod.accuracy is 0.95"),
    "not measured": (("v3", *BETTER), 3, "net:v3 does not meet"),
    "missing": (("v3", *BETTER), 3, "accuracy is missing"),
    "expected another": (("v3", "--expect", "v1", *BETTER), 6, "points to v2, expected v1"),
    "no such alias": (("v3", "--if", "accuracy > best.accuracy"), 2, "nor 'best' an alias"),
    "malformed": (("v3", "--if", "accuracy >"), 2, "--if 'accuracy >' is not a condition"),
    "no version": (("--protect", "--if", "accuracy > 0"), 2, "--if needs a version"),
}


@pytest.mark.parametrize(("words", "code", "says"), REFUSED.values(), ids=REFUSED)
def test_refused_promotion_changes_nothing(net: Run, folder: Path, words, code, says) -> None:
    assert net("alias", "prod", "v2").code == 0
    before = index_of(folder)
    ran = net("alias", "prod", *words)
    assert (ran.code, says in ran.err) == (code, True), ran.err
    assert index_of(folder) == before


def test_first_promotion_has_nothing_to_compare_with(net: Run, folder: Path) -> None:
    better = ("alias", "staging", "v1", "--if", "accuracy > staging.accuracy")
    before = index_of(folder)
    ran = net(*better)
    error = "error: --if: 'staging.accuracy' is not a metric, nor 'staging' an alias\n"
    create = "ckpt alias staging net:v1 --expect none"
    assert (ran.code, ran.err) == (2, f"{error}hint:  to create it:  {create}\n")
    assert index_of(folder) == before
    ran = net("alias", "staging", "v1", "--if", "acuracy > staging.accuracy and keys > 1")
    assert (ran.code, "did you mean accuracy?" in ran.err) == (2, True)
    assert net(*create.split()[1:]).out == "net@staging points to v1\n"


@pytest.mark.long
def test_script_of_the_page_promotes_the_first_version_and_then_better_ones(
    net: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
    (script,) = re.findall(r"^ckpt alias staging .*(?:\n.*)?--if .*$", page, re.MULTILINE)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for version, at in (("v1", "v1"), ("v1", "v1"), ("v2", "v2"), ("v1", "v2")):
        done = subprocess.run(
            ["sh", "-c", script], cwd=folder, env={**os.environ, "NEW": f"net:{version}"}
        )
        assert done.returncode == (0 if version == at else 3)
        (alias,) = net("alias", "staging", "--json").data
        assert alias["version"] == at


def test_lists_take_the_same_conditions(net: Run) -> None:
    rows = net("ls", "--where", "accuracy >= prod.accuracy or alias = prod", "--json").data
    assert [row["version"] for row in rows] == ["v2", "v1"]


def test_file_is_registered_with_alias_and_tags_in_one_write(net: Run, folder: Path) -> None:
    save(folder / "net.pt", 4)
    serial = json.loads(index_of(folder))["serial"]
    ran = net("register", "net.pt", "--alias", "prod", "--tag", "golden", "--tag", "small")
    assert ran.code == 0
    assert ran.out.splitlines()[1:] == ["net@prod points to v4", "net:v4 is tagged golden, small"]
    document = json.loads(index_of(folder))
    assert document["serial"] == serial + 1
    assert document["models"]["net"]["aliases"] == {"prod": "v4"}
    assert document["models"]["net"]["tags"] == {"golden": ["v4"], "small": ["v4"]}
    before = index_of(folder)
    again = net("register", "net.pt", "--alias", "prod", "--tag", "golden", "--json")
    assert (again.code, again.data["new"], again.data["aliases"]) == (0, False, ["prod"])
    assert index_of(folder) == before, "a step may run twice"
    save(folder / "net.pt", 1)
    assert net("register", "net.pt", "--alias", "prod").code == 0
    assert json.loads(index_of(folder))["models"]["net"]["aliases"] == {"prod": "v1"}


def test_protected_alias_is_not_moved_by_register(net: Run, folder: Path) -> None:
    assert net("alias", "prod", "--protect").code == 0
    before = index_of(folder)
    for seed in (2, 5):  # one that is there, and a new one
        save(folder / "net.pt", seed)
        ran = net("register", "net.pt", "--alias", "prod", "--tag", "golden")
        assert (ran.code, "net@prod is protected, and points to v1" in ran.err) == (6, True)
        assert "hint:  ckpt alias net@prod REF --expect v1  moves it anyway" in ran.err
    save(folder / "net.pt", 1)
    assert net("register", "net.pt", "--alias", "prod").code == 0, "it points there"
    assert index_of(folder) == before
    for words in (("--alias", "v2"), ("--alias", "a b"), ("--tag", "a b")):
        assert net("register", "net.pt", *words).code == 2


def test_rename_takes_a_message_for_the_version_that_it_adds(net: Run, folder: Path) -> None:
    line = ("rename", "v1", "--rule", "w=x", "-m", "for the new class")
    assert net(*line).code == 0
    assert net("show", "v4", "--json").data["version"]["message"] == "for the new class"
    line = ("rename", "v1", "--rule", "w=x", "-m", "again")
    assert net(*line).out.endswith("the same bytes, added the message\n")
    assert net("show", "v4", "--json").data["history"][-1]["message"] == "again"
    save(folder / "old.pt", 9)
    line = ("rename", "old.pt", "--rule", "w=y", "-m", "from a file")
    ran = net(*line, "-o", "a.pt")
    assert (ran.code, "-m is for a version" in ran.err) == (2, True)
    assert not (folder / "a.pt").exists()
    assert net(*line, "-o", "a.pt", "--register", "--name", "net").code == 0
    assert net("show", "v5", "--json").data["version"]["message"] == "from a file"


def test_rename_of_what_fits_already_is_done(net: Run, folder: Path) -> None:
    save(folder / "old.pt", 9)
    before, index = (folder / "old.pt").read_bytes(), index_of(folder)
    for words in (("old.pt",), ("old.pt", "--in-place"), ("v1",), ("old.pt", "--dry-run")):
        ran = net("rename", *words, "--to", "net.pt")
        assert (ran.code, ran.out.endswith("\n\nnothing to rename\n")) == (0, True), ran
    assert ((folder / "old.pt").read_bytes(), index_of(folder)) == (before, index)
    assert not (folder / "old.renamed.pt").exists()
    assert net("rename", "old.pt", "--to", "net.pt", "-o", "new.pt").code == 0
    assert (folder / "new.pt").read_bytes() == before, "what was asked for is there"
