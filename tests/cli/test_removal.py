"""Versions that are removed and restored, and other changes that are undone."""

import json
import re
from pathlib import Path

import pytest
import torch

from ckpt.in_python import Registry
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
    assert two("rm", "v2", "--yes").out == (
        "removed net:v2; to bring it back:  ckpt restore net:v2\n"
    )
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


def test_model_whose_versions_are_removed_does_not_count(ckpt: Run, old: Path) -> None:
    assert ckpt("register", "old.pt").code == ckpt("rm", "old:v1", "--yes").code == 0
    assert ckpt("register", "old.pt", "--name", "digits").code == 0
    assert ckpt("alias", "prod", "v1").out == "digits@prod points to v1\n"
    gone = ckpt("log", "other:v1")
    assert (gone.code, gone.err) == (
        2,
        "error: no model 'other'\nhint:  the registry holds digits\n",
    )
    assert Registry().models == ["digits"]
    ran = ckpt("rm", "old", "--yes")
    hint = "hint:  to bring the last one back:  ckpt restore old:v1\n"
    assert (ran.code, ran.err) == (2, f"error: old has no versions\n{hint}")
    assert ckpt("gc", "--keep-removed", "0", "--grace", "0", "--yes").code == 0
    ran = ckpt("rm", "old:v1", "--yes")
    assert (ran.code, ran.err) == (2, "error: old has no v1\n")
    assert ckpt("register", "old.pt").out.startswith("registered old:v2 ")
    ran = ckpt("log", "v1")
    hint = "hint:  name one: digits:v1, old:v2\n"
    assert (ran.code, ran.err) == (2, f"error: the registry holds 2 models\n{hint}")


def test_short_ref_of_the_only_model_restores_it(ckpt: Run, old: Path) -> None:
    assert ckpt("register", "old.pt").code == ckpt("rm", "v1", "--yes").code == 0
    assert ckpt("restore", "v1").out == "restored: old:v1\n"


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


def test_restore_leaves_what_came_after(two: Run, folder: Path) -> None:
    """`undo` would have to take the alias and the tag back first."""
    before = model(folder)["versions"]["v2"]
    assert two("rm", "v2", "--yes").code == 0
    hint = two("show", "net:v2").err
    assert hint.endswith("hint:  to bring it back:  ckpt restore net:v2\n")
    assert two("alias", "prod", "v1").code == two("tag", "v1", "golden").code == 0
    ran = two("restore", "net:v2")
    assert (ran.code, ran.out, ran.err) == (0, "restored: net:v2\n", "")
    now = model(folder)
    assert (now["aliases"], now["tags"]) == ({"prod": "v1"}, {"golden": ["v1"]})
    assert {**now["versions"]["v2"], "restored": None} == {**before, "restored": None}
    assert two("export", "net:v2", "-o", "v2.pt").code == two("verify").code == 0
    again = two("restore", "net:v2")
    assert (again.code, again.out) == (0, "in the list already: net:v2\n")
    assert two("restore", "net:v2", "--json").data["present"][0]["version"] == "v2"


def test_restore_takes_all_or_none_and_digests(two: Run, folder: Path) -> None:
    digests = [two("pin", ref).out.strip() for ref in ("v1", "v2")]
    assert two("rm", "v1", "v2", "--yes").code == 0
    before = (folder / "registry.json").read_bytes()
    for words, message in (
        (
            ("v1", "net:v3"),
            "error: net:v3: no such version\nhint:  removed and still there: v1, v2",
        ),
        (("v1", "sha256:" + "0" * 20), "names no version, and no removed one"),
        (("v1", "net@prod"), "error: net@prod names no removed version"),
        (("v1", "other:v1"), "no model 'other'"),
    ):
        ran = two("restore", *words)
        assert (ran.code, message in ran.err) == (2, True), ran
    assert (folder / "registry.json").read_bytes() == before
    assert two("restore", digests[1][:20], digests[0]).out == "restored: net:v2, net:v1\n"
    assert two("undo").out.startswith("undid: restore net:v2, net:v1")
    assert list(model(folder)["removed"]) == ["v1", "v2"]


def test_restore_needs_the_bytes(two: Run, folder: Path) -> None:
    assert two("rm", "v2", "--yes").code == 0
    store = folder / ".ckpt" / "objects"
    kept = [path.rename(folder / path.name) for path in store.glob("??/*")]
    ran = two("restore", "v2")
    assert (ran.code, "net:v2: object of " in ran.err, " is missing" in ran.err) == (4, True, True)
    assert list(model(folder)["removed"]) == ["v2"]
    for path in kept:
        path.rename(next(store.glob("??")) / path.name)
    assert two("gc", "--keep-removed", "0", "--grace", "0", "--yes").code == 0
    ran = two("restore", "v2")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: net:v2: deleted by gc")


def ids(ckpt: Run) -> dict[str, str]:
    """The id of each change, as `--list` prints it."""
    rows = [line.split() for line in ckpt("undo", "--list").out.splitlines()[2:]]
    return {" ".join(words): name for name, _, *words in rows}


def test_one_change_is_undone_without_those_after_it(two: Run, folder: Path) -> None:
    assert two("tag", "v2", "golden").code == 0
    assert two("rm", "v2", "--yes").code == 0
    assert two("alias", "prod", "v1").code == 0
    ran = two("undo", ids(two)["rm net:v2"])
    assert (ran.code, ran.out.splitlines()[0][:16]) == (0, "undid: rm net:v2")
    now = model(folder)
    assert (now["aliases"], now["tags"]) == ({"prod": "v1"}, {"golden": ["v2"]})
    assert list(now["versions"]) == ["v1", "v2"]
    again = two("undo", ids(two)["rm net:v2 undone"])
    assert (again.code, "rm net:v2 is undone already" in again.err) == (2, True)
    redone = two("redo")
    assert redone.out.startswith("redid: rm net:v2  (")
    assert "  net version v2  present -> removed" in redone.out
    assert list(model(folder)["removed"]) == ["v2"]


def test_change_that_was_overwritten_or_is_not_there_is_not_undone(two: Run, folder: Path) -> None:
    assert two("alias", "prod", "v2").code == two("alias", "prod", "v1").code == 0
    before = (folder / "registry.json").read_bytes()
    for name, code, message in (
        (ids(two)["alias net@prod v2"], 6, "net: alias prod has changed since: it is v1"),
        ("0" * 16, 2, "'0000000000000000' names no change made on this machine"),
        (ids(two)["alias net@prod v1"][:3], 2, "to list them:  ckpt undo --list"),
    ):
        ran = two("undo", name)
        assert (ran.code, message in ran.err) == (code, True), ran
    assert two("undo", "--list", "x").code == 2
    assert (folder / "registry.json").read_bytes() == before


def test_alias_is_not_put_back_on_a_version_that_was_removed(two: Run) -> None:
    assert two("alias", "prod", "v2").code == two("alias", "prod", "v1").code == 0
    assert two("tag", "v2", "x").code == two("tag", "v2", "-d", "x").code == 0
    assert two("rm", "v2", "--yes").code == 0
    for what, kind in (("alias net@prod v1", "alias prod"), ("tag net:v2 -d x", "tag x")):
        ran = two("undo", ids(two)[what])
        assert (ran.code, f"net: {kind} was on v2, which was removed" in ran.err) == (6, True)
        assert ran.err.endswith("hint:  to bring it back first:  ckpt restore net:v2\n")
    assert two("restore", "v2").code == 0
    assert two("undo", ids(two)["alias net@prod v1"]).code == 0


def test_redo_brings_back_step_by_step(two: Run, folder: Path) -> None:
    assert two("redo").err.startswith("error: nothing to redo")
    assert two("alias", "prod", "v1").code == two("alias", "prod", "v2").code == 0
    states = [model(folder)]
    for _ in range(3):
        assert two("undo").code == 0
        states.append(model(folder))
    for state in states[2::-1]:
        assert two("redo").code == 0
        assert model(folder) == state
    assert two("redo").code == 2
    assert two("undo").code == two("tag", "v1", "x").code == two("redo").code == 0
    assert (model(folder)["aliases"], model(folder)["tags"]) == ({"prod": "v2"}, {"x": ["v1"]})
    assert two("undo", "--json").data["what"] == "tag net:v1 x", "the last change comes first"


def test_redo_never_overwrites_a_later_change(two: Run, folder: Path) -> None:
    assert two("alias", "prod", "v1").code == two("undo").code == 0
    assert two("alias", "prod", "v2").code == 0
    before = (folder / "registry.json").read_bytes()
    ran = two("redo")
    assert (ran.code, "alias prod has changed since: it is v2, expected absent" in ran.err) == (
        6,
        True,
    )
    assert (folder / "registry.json").read_bytes() == before


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_version_that_an_older_index_does_not_name_comes_back_by_its_digest(
    two: Run, folder: Path, taken: bool
) -> None:
    """As after `register; git checkout registry.json`."""
    before = (folder / "registry.json").read_bytes()
    torch.save(weights(7), folder / "net.pt")
    data = (folder / "net.pt").read_bytes()
    lost = two("register", "net.pt", "--json").data
    (folder / "registry.json").write_bytes(before)
    if taken:
        torch.save(weights(8), folder / "net.pt")
        assert two("register", "net.pt", "--json").data["version"] == lost["version"] == "v3"
    assert two("restore", "net:v4").code == 2
    ran = two("restore", lost["manifest"][:20])
    label = "v4" if taken else "v3"
    assert (ran.code, ran.out) == (0, f"restored: net:{label}{' (was v3)' * taken}\n")
    assert model(folder)["versions"][label]["manifest"] == lost["manifest"]
    assert two("show", f"net:{label}", "--json").data["history"][-1]["did"] == "restore"
    assert two("export", f"net:{label}", "-o", "back.pt").code == two("verify").code == 0
    assert (folder / "back.pt").read_bytes() == data
    assert two("restore", lost["manifest"]).out == f"in the list already: net:{label}\n"
    (folder / "registry.json").write_bytes(before)
    assert two("register", "back.pt", "--name", "net", "--json").data["version"] == "v3"
    again = two("restore", lost["manifest"])
    assert again.out == "in the list already: net:v3\n", "the same bytes"
    label = "v3"
    assert two("rm", f"net:{label}", "--yes").code == 0
    assert two("gc", "--keep-removed", "0", "--keep-reflog", "0", "--grace", "0", "--yes").code == 0
    assert two("restore", lost["manifest"]).code == 2


def test_where_there_is_no_registry_nothing_is_made(ckpt: Run, folder: Path) -> None:
    ran = ckpt("restore", "v1")
    assert (ran.code, "no registry here" in ran.err) == (2, True)
    assert not list(folder.iterdir())


def test_log_and_show_say_when_by_whom_and_why(
    two: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPT_AUTHOR", "Ann")
    for words in (
        ("tag", "v2", "golden"),
        ("tag", "v2", "clean", "-m", "no duplicates"),
        ("rm", "v2", "--yes", "-m", "wrong labels"),
        ("restore", "net:v2", "-m", "labels were right"),
        ("rm", "v2", "--yes"),
        ("undo", "-m", "too early"),
        ("undo", "-m", "v2 is back for good"),
        ("redo", "-m", "not yet"),
    ):
        assert two(*words).code == 0, words
    said = [
        "tag: clean, no duplicates",
        "removed: wrong labels",
        "restored: labels were right",
        "removed",
        "restored: undo rm net:v2: too early",
        "removed: undo restore net:v2: v2 is back for good",
        "restored: redo restore net:v2: not yet",
    ]
    for command in ("log", "show"):
        lines = re.findall(r"^  (\w+) +\d{4}-\d\d-\d\d by Ann(.*)$", two(command, "v2").out, re.M)
        assert ["".join(line) for line in lines] == said
    texts = [each["message"] for each in two("log", "v2", "--json").data[0]["history"]]
    assert texts[:4] == ["", "no duplicates", "wrong labels", "labels were right"]


@pytest.mark.parametrize(
    "words",
    [("rm", "v2", "--yes"), ("restore", "net:v2"), ("tag", "v2", "x"), ("undo",), ("redo",)],
)
def test_reason_that_is_too_long_changes_nothing(
    words: tuple[str, ...], two: Run, folder: Path
) -> None:
    before = (folder / "registry.json").read_bytes()
    ran = two(*words, "-m", "x" * 100_000)
    assert (ran.code, "a text of 100,000 characters, over the limit" in ran.err) == (2, True)
    assert (folder / "registry.json").read_bytes() == before
