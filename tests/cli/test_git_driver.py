"""Branches that both write to a registry, merged by a real git."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.support import Git, Run, commit, register_seeds, tree
from tests.effort import long_but, long_pairs


def publish(git: Git) -> None:
    """As after a push of main: its numbers hold, whenever the versions were created."""
    git("update-ref", "refs/remotes/origin/main", "main")


def model(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "registry.json").read_text())["models"]["net"]


def contents(folder: Path) -> dict[str, str]:
    return {label: line["content"] for label, line in model(folder)["versions"].items()}


def test_both_branches_register_and_all_versions_are_there(
    shared: Run, git: Git, folder: Path
) -> None:
    register_seeds(shared, folder, 3, 4)
    assert shared("tag", "net:v3", "golden").code == 0
    commit(git)
    publish(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 5)
    assert shared("rename", "net:v3", "--rule", "w=u").code == 0
    assert shared("tag", "net:v3", "theirs").code == 0
    commit(git)
    git("checkout", "-q", "main")
    merge = git("merge", "-q", "other", "-m", "m")
    assert "net:v3 of theirs is now v5, since its number was taken" in merge.stderr
    rows = {row["version"]: row for row in shared("ls", "--json").data}
    assert [rows[f"v{n}"]["message"] for n in (3, 4, 5)] == ["seed 3", "seed 4", "seed 5"]
    assert (rows["v5"]["renumbered"], rows["v6"]["renumbered"]) == ("v3", "v4")
    assert "renumbered" not in rows["v4"]
    assert (rows["v3"]["tags"], rows["v5"]["tags"]) == (["golden"], ["theirs"])
    lineage = shared("log", "net:v6", "--json").data
    assert [step["version"] for step in lineage] == ["v6", "v5"], "not v3, as its record says"
    assert "was       v3, until a merge renumbered it" in shared("show", "net:v5").out
    assert shared("verify").code == 0
    register_seeds(shared, folder, 6)
    assert model(folder)["next"] == 8
    before = model(folder)
    (folder / "registry.json").unlink()
    assert shared("fsck", "--rebuild-index", "--yes").code == 0
    assert model(folder) == before, "what the merge did is in the reflog, too"


def test_merges_either_way_have_the_same_versions_and_cross_without_loss(
    shared: Run, git: Git, folder: Path
) -> None:
    register_seeds(shared, folder, 3)
    commit(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 4, 3)
    commit(git)
    git("branch", "theirs")
    git("merge", "-q", "main", "-m", "m")
    one = contents(folder)
    git("checkout", "-q", "main")
    git("merge", "-q", "theirs", "-m", "m")
    two = contents(folder)
    assert one == two, "the same numbers, whoever merges"
    assert len(one) == 4
    git("merge", "-q", "other", "-m", "criss-cross")
    assert contents(folder) == one
    assert shared("verify").code == 0


def test_alias_that_one_side_moved_moves(shared: Run, git: Git, folder: Path) -> None:
    register_seeds(shared, folder, 3)
    commit(git)
    git("checkout", "-q", "other")
    assert shared("alias", "prod", "net:v2", "--protect").code == 0
    commit(git)
    git("merge", "-q", "main", "-m", "m")
    assert (model(folder)["aliases"], model(folder)["protected"]) == ({"prod": "v2"}, ["prod"])
    assert sorted(model(folder)["versions"]) == ["v1", "v2", "v3"]


def test_alias_that_both_moved_is_a_conflict_that_one_command_solves(
    shared: Run, git: Git, folder: Path
) -> None:
    register_seeds(shared, folder, 3)
    assert shared("alias", "prod", "net:v3").code == 0
    commit(git)
    publish(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 4)
    assert shared("alias", "prod", "net:v3").code == 0
    commit(git)
    git("checkout", "-q", "main")
    merge = git("merge", "-q", "other", "-m", "m", code=1)
    (line,) = (each for each in merge.stderr.splitlines() if each.startswith("error: net@prod"))
    assert "ours v3, theirs v4, base v1" in line
    assert "ckpt git-driver resolve --ours  or  --theirs  decides" in line
    assert "registry.json" in git("diff", "--name-only", "--diff-filter=U").stdout
    text = (folder / "registry.json").read_text()
    assert text.count('"prod":"v3"') == text.count('"prod":"v4"') == 1, "both sides are in it"
    for words in (["ls"], ["register", "net.pt"], ["fsck"]):
        assert shared(*words).code == 4, "nobody takes it for whole"
    assert shared("git-driver", "resolve").code == 6
    assert (folder / "registry.json").read_text() == text
    for side, number in (("--ours", "v3"), ("--theirs", "v4")):
        assert shared("git-driver", "resolve", side).code == 0
        assert model(folder)["aliases"] == {"prod": number}
        assert len(contents(folder)) == 4
    git("add", "registry.json")
    git("commit", "-qm", "m")
    ran = shared("git-driver", "resolve")
    assert (ran.code, "git has no conflict in it" in ran.err) == (2, True)
    assert shared("verify").code == 0


def test_same_bytes_on_both_branches_are_one_version(shared: Run, git: Git, folder: Path) -> None:
    register_seeds(shared, folder, 3, 4)
    commit(git)
    publish(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 4)
    assert shared("alias", "prod", "net:v3").code == 0
    assert shared("rename", "net:v3", "--rule", "w=u").code == 0
    commit(git)
    git("checkout", "-q", "main")
    merge = git("merge", "-q", "other", "-m", "m")
    assert "net:v3 of theirs is now v4, which has the same bytes" in merge.stderr
    assert model(folder)["aliases"] == {"prod": "v4"}
    assert len(set(contents(folder).values())) == len(contents(folder)) == 5
    lineage = shared("log", "net:v5", "--json").data
    assert [step["version"] for step in lineage] == ["v5", "v4"], "though ours has its manifest"


def test_removed_version_stays_where_the_other_branch_has_it_in_use(
    shared: Run, git: Git, folder: Path
) -> None:
    assert shared("rm", "net:v2", "--yes").code == 0
    commit(git)
    git("checkout", "-q", "other")
    assert shared("alias", "next", "net:v2").code == 0
    commit(git)
    merge = git("merge", "-q", "main", "-m", "m")
    assert "net:v2 was removed on one side, but is kept" in merge.stderr
    assert sorted(contents(folder)) == ["v1", "v2"]
    assert shared("export", "net@next", "-o", "next.pt").code == 0


def test_both_branches_begin_a_registry(ckpt: Run, git: Git, folder: Path) -> None:
    (folder / ".gitattributes").write_text("registry.json merge=ckpt\n")
    (folder / ".gitignore").write_text("*.pt\n")
    commit(git)
    git("branch", "other")
    register_seeds(ckpt, folder, 1)
    assert ckpt("git-driver", "install").code == 0
    commit(git)
    git("checkout", "-q", "other")
    register_seeds(ckpt, folder, 2)
    commit(git)
    publish(git)
    git("merge", "-q", "main", "-m", "m")
    rows = ckpt("ls", "--json").data
    assert [(row["version"], row["message"]) for row in rows] == [
        ("v2", "seed 2"),
        ("v1", "seed 1"),
    ]


def test_damaged_side_is_a_conflict_with_both_sides_in_the_file(
    shared: Run, git: Git, folder: Path
) -> None:
    register_seeds(shared, folder, 3)
    commit(git)
    before = (folder / "registry.json").read_text()
    git("checkout", "-q", "other")
    (folder / "registry.json").write_text("not an index\n")
    commit(git)
    git("checkout", "-q", "main")
    merge = git("merge", "-q", "other", "-m", "m", code=1)
    assert "error: registry.json of theirs" in merge.stderr
    lines = (folder / "registry.json").read_text().splitlines()
    assert {*before.splitlines(), "not an index", "<<<<<<< ours"} <= {*lines}
    assert shared("ls").code == 4


def test_clone_without_the_driver_is_told_of_it_at_the_markers(
    shared: Run, git: Git, folder: Path
) -> None:
    git("config", "--remove-section", "merge.ckpt")  # as in a clone that did not install it
    register_seeds(shared, folder, 3)
    commit(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 4)
    commit(git)
    git("merge", "-q", "main", "-m", "m", code=1)
    ran = shared("ls")
    lines = (folder / "registry.json").read_text().splitlines()
    line = next(number for number, each in enumerate(lines, 1) if each.startswith("<<<<<<<"))
    says = f"registry.json: line {line} is a git conflict marker, <<<<<<<"
    assert (ran.code, says in ran.err) == (4, True)
    assert "ckpt git-driver install" in ran.err
    assert "ckpt git-driver resolve" in ran.err
    assert shared("git-driver", "install").code == 0
    data = shared("fsck", "--rebuild-index", "--yes", "--json").data
    assert {row["message"] for row in data["versions"]} == {"", "seed 3", "seed 4"}
    assert shared("git-driver", "resolve").code == 0
    assert {row["message"] for row in shared("ls", "--json").data} == {"", "seed 3", "seed 4"}
    assert shared("verify").code == 0


def test_install_adds_its_lines_once_and_keeps_what_stands_there(
    ckpt: Run, git: Git, folder: Path
) -> None:
    register_seeds(ckpt, folder, 1)
    (folder / ".gitattributes").write_text("*.bin -text")
    first = ckpt("git-driver", "install", "--json")
    assert len(first.data["added"]) == 5
    assert "commit .gitattributes" in ckpt("git-driver", "install").out
    assert not ckpt("git-driver", "install", "--json").data["added"]
    assert (folder / ".gitattributes").read_text() == (
        "*.bin -text\nregistry.json merge=ckpt diff=ckpt\n"
        "*.pt diff=ckpt\n*.pth diff=ckpt\n*.safetensors diff=ckpt\n"
        ".ckpt/objects/** -text -delta\n"
    )
    driver = git("config", "merge.ckpt.driver").stdout
    assert f"{sys.executable} -P -m ckpt" in driver
    attribute = git("check-attr", "merge", "registry.json").stdout
    assert attribute == "registry.json: merge: ckpt\n"


def test_install_needs_a_repository(
    ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_seeds(ckpt, folder, 1)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    before = tree(folder)
    ran = ckpt("git-driver", "install")
    assert (ran.code, "is this a git repository?" in ran.err) == (2, True), ran.err
    monkeypatch.setenv("PATH", str(folder))
    ran = ckpt("git-driver", "install")
    assert (ran.code, "git is not installed" in ran.err) == (2, True)
    assert tree(folder) == before


@pytest.mark.parametrize("damaged", ["base", "ours", "theirs"])
def test_merge_of_a_damaged_file_writes_nothing(ckpt: Run, folder: Path, damaged: str) -> None:
    good = '{"schema":1,"serial":1,"write_id":"a","models":{}}'
    for name in ("base", "ours", "theirs"):
        (folder / name).write_text("<<<<<<< x\n" if name == damaged else good)
    before = tree(folder)
    ran = ckpt("git-driver", "merge", "base", "ours", "theirs")
    assert (ran.code, "conflict marker" in ran.err) == (4, True)
    assert tree(folder) == before
    assert ckpt("git-driver", "merge", "base", "ours", "absent").code in (2, 4)


def test_merge_as_json(ckpt: Run, folder: Path) -> None:
    (folder / "base").write_bytes(b"")
    for name in ("ours", "theirs"):
        (folder / name).write_text(
            json.dumps({"schema": 1, "serial": 1, "write_id": "a", "models": {}, "x": name})
        )
    ran = ckpt("git-driver", "merge", "base", "ours", "theirs", "--json")
    assert ran.code == 6
    assert ran.data["conflicts"] == [
        {
            "what": "field 'x' of registry.json",
            "ours": "ours",
            "theirs": "theirs",
            "base": "None",
        }
    ]


def test_group_without_a_word_says_what_is_missing(ckpt: Run) -> None:
    ran = ckpt("git-driver")
    assert (ran.code, ran.err.splitlines()[0].split()[:3]) == (2, ["Usage:", "ckpt", "git-driver"])
    assert "install" in ckpt("git-driver", "--help").out


def changed(git: Git, name: str) -> list[str]:
    """The lines that git says are not as they were."""
    lines = git("diff", name).stdout.splitlines()[4:]
    return [line for line in lines if line.startswith(("+", "-"))]


def line_of(key: str, tensor: torch.Tensor) -> str:
    shape = " ".join(map(str, tensor.shape))
    return f"{key}  float32  {shape}  {sha256(tensor.numpy().tobytes()).hexdigest()[:16]}"


def test_git_shows_weights_as_text(ckpt: Run, git: Git, folder: Path) -> None:
    assert ckpt("git-driver", "install").code == 0
    weight, zeros, ones = torch.ones(2, 2), torch.zeros(2), torch.ones(2)
    model = {"fc.weight": weight, "fc.bias": zeros}
    torch.save({"model": model, "ema": {"fc.weight": weight}, "epoch": 3}, folder / "net.pt")
    commit(git)
    model["fc.bias"] = ones
    torch.save({"model": model, "ema": {"fc.weight": weight}, "epoch": 4}, folder / "net.pt")
    assert changed(git, "net.pt") == [
        f"-{line_of('model::fc.bias', zeros)}",
        f"+{line_of('model::fc.bias', ones)}",
        "-epoch = 3",
        "+epoch = 4",
    ]


def test_git_shows_an_index_by_what_it_says(shared: Run, git: Git, folder: Path) -> None:
    register_seeds(shared, folder, 3)
    assert shared("alias", "prod", "net:v3", "--expect", "v1").code == 0
    assert shared("tag", "net:v3", "golden").code == 0
    moved, alias, added = sorted(changed(git, "registry.json"), key=lambda line: line[1:])[::-1]
    assert added.startswith("+net:v3  sha256:")
    assert added.endswith("  register net.pt  #golden  seed 3")
    assert [alias, moved] == ["-net@prod  v1", "+net@prod  v3"]


@pytest.mark.parametrize(
    "content", long_but([b"{"], [b"version https://git-lfs.github.com/spec/v1\n", b"{", b""])
)
def test_what_is_no_checkpoint_is_said_and_git_goes_on(
    content: bytes, ckpt: Run, git: Git, folder: Path
) -> None:
    assert ckpt("git-driver", "install").code == 0
    torch.save({"w": torch.ones(2)}, folder / "net.pt")
    commit(git)
    (folder / "net.pt").write_bytes(content)
    shown = git("diff", "net.pt").stdout
    assert "-w  float32  2" in shown
    assert not content or "+not a checkpoint: it: " in shown


def test_same_tensors_in_any_order_and_container_are_the_same_text(ckpt: Run, folder: Path) -> None:
    from safetensors.torch import save_file

    state = {"b": torch.ones(2), "a": torch.zeros(3)}
    torch.save(state, folder / "one.pt")
    save_file(state, folder / "two.safetensors")
    one, two = (ckpt("git-driver", "text", name).out for name in ("one.pt", "two.safetensors"))
    assert one == two
    assert one.startswith("a  float32  3  ")


@pytest.mark.parametrize(
    ("on_path", "python"),
    long_pairs(
        [(True, "without ckpt"), (False, "moved away")],
        [True, False],
        ["moved away", "without ckpt"],
    ),
)
def test_driver_that_cannot_run_leaves_markers_and_both_sides(
    shared: Run,
    git: Git,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    python: str,
    on_path: bool,
) -> None:
    interpreter = "/nowhere/python" if python == "moved away" else "/bin/false"
    for name in ("merge.ckpt.driver", "diff.ckpt.textconv"):
        command = git("config", name).stdout.rstrip("\n")
        git("config", name, command.replace(sys.executable, interpreter))
    if not on_path:
        places = os.environ["PATH"].split(":")
        kept = [place for place in places if not (Path(place) / "ckpt").exists()]
        monkeypatch.setenv("PATH", ":".join(kept))
    register_seeds(shared, folder, 3)
    commit(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 4)
    mine = model(folder)["versions"]["v3"]["content"]
    assert mine[-10:] in git("diff").stdout or on_path, "git diff shows the index in any case"
    commit(git)
    git("merge", "-q", "main", "-m", "m", code=0 if on_path else 1)
    if on_path:
        assert len(contents(folder)) == 4
        return
    text = (folder / "registry.json").read_text()
    theirs = json.loads(git("show", "main:registry.json").stdout)["models"]["net"]["versions"]
    assert (theirs["v3"]["content"] in text, mine in text) == (True, True)
    git("add", "-A")
    git("commit", "-qm", "m")  # as one does who overlooks it
    for words in (["fsck"], ["verify"], ["gc", "--grace", "0", "--yes"], ["ls"]):
        assert shared(*words).code == 4, words


def test_git_diff_goes_on_without_the_driver(ckpt: Run, git: Git, folder: Path) -> None:
    assert ckpt("git-driver", "install").code == 0
    torch.save({"w": torch.ones(2)}, folder / "net.pt")
    commit(git)
    torch.save({"w": torch.zeros(2)}, folder / "net.pt")
    command = git("config", "diff.ckpt.textconv").stdout.rstrip("\n")
    git(
        "config",
        "diff.ckpt.textconv",
        command.replace(sys.executable, "false").replace("ckpt ", "false "),
    )
    (new,) = (line for line in changed(git, "net.pt") if line.startswith("+"))
    assert new[1:] == git("hash-object", "net.pt").stdout.strip()


@pytest.mark.parametrize(
    ("how", "pushed"),
    long_pairs(
        [("merge -q -m m", "other"), ("rebase -q", "main")],
        ["merge -q -m m", "rebase -q", "cherry-pick", "merge -q --squash"],
        ["main", "other"],
    ),
)
def test_pushed_number_stays_in_every_kind_of_merge(
    shared: Run, git: Git, folder: Path, how: str, pushed: str
) -> None:
    names = {}
    for branch, seed in (("main", 3), ("other", 4)):
        git("checkout", "-q", branch)
        register_seeds(shared, folder, seed)
        names[branch] = contents(folder)["v3"]
        commit(git)
    git("update-ref", "refs/remotes/origin/x", pushed)
    git(*how.split(), "main")
    unpushed = {"main": "other", "other": "main"}[pushed]
    assert (contents(folder)["v3"], contents(folder)["v4"]) == (names[pushed], names[unpushed])


def test_number_that_both_pushed_stops_the_merge_where_no_default_branch_decides(
    shared: Run, git: Git, folder: Path
) -> None:
    names = {}
    for branch, seed in (("main", 3), ("other", 4)):
        git("checkout", "-q", branch)
        register_seeds(shared, folder, seed)
        names[branch] = contents(folder)["v3"]
        commit(git)
        git("update-ref", f"refs/remotes/origin/{branch}", branch)
    merge = git("merge", "-q", "-m", "m", "main", code=1)
    assert "error: net:v3, published with both: ours sha256:" in merge.stderr
    text = (folder / "registry.json").read_text()
    assert names["main"] in text
    assert names["other"] in text
    assert shared("ls").code == 4
    assert shared("git-driver", "resolve", "--theirs").code == 0
    assert contents(folder)["v3"] == names["main"]
    git("merge", "--abort")
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git("merge", "-q", "-m", "m", "main")
    assert (contents(folder)["v3"], contents(folder)["v4"]) == (names["main"], names["other"])


def test_merge_stops_if_what_was_published_cannot_be_read(
    shared: Run, git: Git, folder: Path
) -> None:
    for branch, seed in (("main", 3), ("other", 4)):
        git("checkout", "-q", branch)
        register_seeds(shared, folder, seed)
        commit(git)
    git("checkout", "-q", "-b", "third")
    (folder / "registry.json").write_text("{")
    commit(git)
    git("update-ref", "refs/remotes/origin/third", "third")
    git("checkout", "-q", "other")
    merge = git("merge", "-q", "-m", "m", "main", code=1)
    assert "error: refs/remotes/origin/third:./registry.json: not a registry" in merge.stderr
    assert shared("ls").code == 4


def test_merge_of_three_branches_loses_nothing(shared: Run, git: Git, folder: Path) -> None:
    """Git merges text itself there, and gives up at the first conflict."""
    git("branch", "third")
    for branch, seed in (("main", 3), ("other", 4), ("third", 5)):
        git("checkout", "-q", branch)
        register_seeds(shared, folder, seed)
        commit(git)
    before = contents(folder)
    done = subprocess.run(
        ["git", "merge", "-q", "-m", "m", "main", "other"], cwd=folder, capture_output=True
    )
    assert done.returncode != 0
    assert shared("ls").code == 4 or contents(folder) == before
    git("reset", "-q", "--hard", "third")
    for branch in ("main", "other"):
        git("merge", "-q", "-m", "m", branch)
    assert len(contents(folder)) == 5


def test_git_runs_no_module_of_the_work_tree(shared: Run, git: Git, folder: Path) -> None:
    (folder / "click.py").write_text("open('ran', 'w')")
    (folder / "ckpt").mkdir()
    (folder / "ckpt" / "__main__.py").write_text("open('ran', 'w')")
    (folder / ".gitignore").write_text("*.pt\n/click.py\n/ckpt/\n")
    register_seeds(shared, folder, 3)
    assert git("diff", "registry.json").stdout.count("net:v3") == 1
    commit(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 4)
    commit(git)
    git("merge", "-q", "-m", "m", "main")
    assert len(contents(folder)) == 4
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("way", "how"),
    long_pairs(
        [("merge", "restore"), ("rebase", "undo")], ["merge", "rebase"], ["restore", "undo"]
    ),
)
def test_restored_version_survives_a_branch_that_has_it_removed(
    shared: Run, git: Git, folder: Path, way: str, how: str
) -> None:
    assert shared("rm", "net:v2", "--yes").code == 0
    commit(git)
    removed = model(folder)["removed"]["v2"]
    git("branch", "-qf", "other")
    assert shared(*(["undo"] if how == "undo" else ["restore", "net:v2"])).code == 0
    commit(git)
    git("checkout", "-q", "other")
    assert shared("alias", "other", "net:v1").code == 0
    commit(git)
    git(way, "-q", "main")
    assert sorted(contents(folder)) == ["v1", "v2"]
    assert model(folder)["versions"]["v2"]["manifest"] == removed["manifest"]
    assert shared("export", "net:v2", "-o", "v2.pt").code == 0
    assert shared("verify").code == 0


def test_version_that_both_removed_and_one_restored_is_reported(
    shared: Run, git: Git, folder: Path
) -> None:
    assert shared("rm", "net:v2", "--yes").code == shared("restore", "net:v2").code == 0
    commit(git)
    git("checkout", "-q", "other")
    assert shared("rm", "net:v2", "--yes").code == 0
    path = folder / "registry.json"
    at = model(folder)["removed"]["v2"]["removed"]
    path.write_text(path.read_text().replace(at, "2001-01-01T00:00:00+00:00"))
    commit(git)
    merge = git("merge", "-q", "main", "-m", "m")
    said = "net:v2 was removed on one side and restored on the other; the restore is later"
    assert f"{said}, so it is present" in merge.stderr
    assert sorted(contents(folder)) == ["v1", "v2"]
