"""Notes and metrics that are added to versions later."""

import json
from pathlib import Path

import pytest

import ckpt as package
from ckpt.errors import UsageError
from tests.cli.support import Git, Ran, Run, commit, register_seeds, save


@pytest.fixture
def net(ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CKPT_AUTHOR", "Ann")
    register_seeds(ckpt, folder, 1)
    return ckpt


def words(ran: Ran) -> list[tuple[object, ...]]:
    history = ran.data["history"]
    return [(each["did"], each["message"], each["metrics"]) for each in history]


def test_notes_and_metrics_are_added_and_none_is_overwritten(net: Run, folder: Path) -> None:
    stored = {path: path.read_bytes() for path in folder.glob(".ckpt/manifests/*/*")}
    assert net("note", "v1", "-m", "fails on rotated images").out == "net:v1: note added\n"
    assert net("metric", "v1", "accuracy=0.5", "loss=1").out == "net:v1  accuracy 50.00%  loss 1\n"
    again = net("metric", "v1", "accuracy=0.75", "-m", "new test set")
    assert again.out == "net:v1  accuracy 75.00% (before: 50.00%)\n"
    assert words(net("show", "v1", "--json")) == [
        ("note", "fails on rotated images", {}),
        ("metric", "", {"accuracy": 0.5, "loss": 1.0}),
        ("metric", "new test set", {"accuracy": 0.75}),
    ]
    newest = {"accuracy": 0.75, "loss": 1.0}
    assert net("show", "v1", "--json").data["version"]["metrics"] == newest
    assert net("ls", "--json").data[0]["metrics"] == newest
    assert net("ls", "--where", "accuracy>0.7", "--json").data
    assert net("log", "v1", "--json").data[0]["history"][2]["metrics"] == {"accuracy": 0.75}
    for command in ("show", "log"):
        text = net(command, "v1").out
        assert "by Ann: accuracy 50.00%  loss 1\n" in text
        assert "by Ann: accuracy 75.00%, new test set\n" in text
        assert "by Ann: fails on rotated images\n" in text
    lines = net("git-driver", "text", "registry.json").out.splitlines()
    assert "accuracy=0.75" in lines[0]
    assert lines[1:] == [
        "net:v1  note  Ann  fails on rotated images",
        "net:v1  metric  Ann  accuracy=0.5  loss=1",
        "net:v1  metric  Ann  accuracy=0.75  new test set",
    ]
    assert stored == {path: path.read_bytes() for path in folder.glob(".ckpt/manifests/*/*")}


def test_undo_leaves_notes_and_metrics_and_says_so(net: Run, folder: Path) -> None:
    net("alias", "prod", "v1")
    net("metric", "v1", "loss=1")
    net("note", "v1", "-m", "as shipped")
    before = (folder / "registry.json").read_bytes()
    (name,) = (each["write_id"] for each in net("undo", "--list", "--json").data[:1])
    ran = net("undo", name)
    assert (ran.code, ran.out) == (2, "")
    assert "note net:v1: changed no version, alias or tag, so nothing can be undone" in ran.err
    assert (folder / "registry.json").read_bytes() == before
    assert net("undo").out.startswith("undid: alias net@prod v1  (")
    said = words(net("show", "v1", "--json"))
    assert said[1:3] == [("metric", "", {"loss": 1.0}), ("note", "as shipped", {})]


def test_step_that_runs_twice_adds_once(net: Run, folder: Path) -> None:
    for _ in range(2):
        assert net("note", "v1", "-m", "x").code == 0
        assert net("metric", "v1", "loss=0.5").code == 0
        before = (folder / "registry.json").read_bytes()
    assert net("note", "v1", "-m", "x").out == "net:v1 has this note already\n"
    assert net("note", "v1", "-m", "seed 1").out == "net:v1 has this note already\n", "its message"
    assert net("metric", "v1", "loss=0.5").out == "net:v1 has these values already\n"
    assert (folder / "registry.json").read_bytes() == before
    assert net("metric", "v1", "loss=0.5", "f1=1", "--json").data["added"] == {"f1": 1.0}


def test_register_again_adds_message_and_metrics_to_the_version(net: Run, folder: Path) -> None:
    ran = net("register", "net.pt", "-m", "seed 1")
    assert ran.out.endswith("the same bytes, nothing added\n")
    ran = net("register", "net.pt", "-m", "as shipped", "--metric", "accuracy=0.5")
    assert ran.out.endswith("the same bytes, added the message and accuracy 50.00%\n")
    assert words(net("show", "v1", "--json")) == [
        ("note", "as shipped", {}),
        ("metric", "", {"accuracy": 0.5}),
    ]
    ran = net("register", "net.pt", "--metric", "accuracy=0.75", "--json")
    assert (ran.data["new"], ran.data["noted"]) == (False, None)
    assert ran.data["measured"] == ran.data["metrics"] == {"accuracy": 0.75}


def test_rename_inherits_the_newest_metrics_of_its_weights(net: Run) -> None:
    assert net("metric", "v1", "accuracy=0.5").code == 0
    assert net("rename", "v1", "--rule", "w=x").code == 0
    assert net("metric", "v1", "accuracy=0.75").code == 0
    rows = {row["version"]: row["metrics"] for row in net("ls", "--json").data}
    assert rows == {"v1": {"accuracy": 0.75}, "v2": {"accuracy": 0.5}}


BAD = [
    (("note", "v1", "-m", " "), "the note is empty"),
    (("note", "v9", "-m", "x"), "net has no v9"),
    (("note", "v1", "-m", "x" * 10_001), "a text of 10,001 characters"),
    (("alias", "prod", "v1", "-m", "x" * 10_001), "a text of 10,001 characters, over the limit"),
    (("note", "v1"), "--message"),
    (("metric", "v1"), "NAME=NUMBER"),
    (("metric", "v1", "accuracy"), "is not NAME=NUMBER"),
    (("metric", "v1", "accuracy=nan"), "is not NAME=NUMBER"),
]


@pytest.mark.parametrize(("line", "says"), BAD, ids=[says for _, says in BAD])
def test_bad_words_change_nothing(net: Run, folder: Path, line, says) -> None:
    before = (folder / "registry.json").read_bytes()
    ran = net(*line)
    assert (ran.code, says in ran.err) == (2, True), ran.err
    assert (folder / "registry.json").read_bytes() == before


@pytest.mark.parametrize("values", [{}, {"ok": True}, {"n": "x"}, {"n": float("nan")}, {1: 0.5}])
def test_values_that_are_no_numbers_are_refused(net: Run, folder: Path, values) -> None:
    before = (folder / "registry.json").read_bytes()
    with pytest.raises(UsageError):
        package.metric("v1", values)
    assert (folder / "registry.json").read_bytes() == before


def test_words_of_two_clones_are_joined_by_a_merge(
    shared: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for branch, author, value in (("main", "Ann", "0.5"), ("other", "Bob", "0.75")):
        git("checkout", "-q", branch)
        monkeypatch.setenv("CKPT_AUTHOR", author)
        assert shared("note", "net:v1", "-m", f"by {author}").code == 0
        assert shared("metric", "net:v1", f"accuracy={value}").code == 0
        save(folder / "net.pt", 5)
        assert shared("register", "net.pt", "-m", f"from {author}").code == 0
        commit(git)
    git("merge", "-q", "--no-edit", "main")
    history = shared("show", "net:v1", "--json").data["history"]
    assert [(each["by"]["author"], each["did"]) for each in history if each["did"] != "alias"] == [
        ("Ann", "note"),
        ("Ann", "metric"),
        ("Bob", "note"),
        ("Bob", "metric"),
    ]
    assert shared("show", "net:v1", "--json").data["version"]["metrics"] == {"accuracy": 0.75}
    lines = json.loads((folder / "registry.json").read_text())["models"]["net"]["versions"]
    assert len(lines) == 3, "the same bytes are one version"
