"""`ckpt remote`, `push`, `fetch`, `pull`, `clone` and `evict`, to a folder and to S3 over HTTP."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

import ckpt as ckpt_package
from tests.cli.support import Git, Run, commit, register_seeds, save, tree
from tests.effort import long_but
from tests.remote.conftest import s3, s3_endpoint  # noqa: F401
from tests.remote.plain_checker import problems_of

DOCS = Path(__file__).parent.parent.parent / "docs"
SCHEMA = DOCS / "schemas" / "remotes.schema.json"


@pytest.fixture(params=long_but(["folder"], ["folder", "s3"]))
def url(request: pytest.FixtureRequest, folder: Path) -> str:
    return request.getfixturevalue("s3") if request.param == "s3" else str(folder / "remote")


@pytest.fixture
def ann(ckpt: Run, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Ann's registry in `ann`: `net` v1 and v2, pushed, with `prod` on v1."""
    here = enter(folder / "ann", ckpt, monkeypatch)
    register_seeds(here, folder / "ann", 1, 2)
    assert here("alias", "prod", "net:v1").code == 0
    assert here("remote", "add", "origin", url).code == 0
    assert here("push").code == 0
    return here


@pytest.fixture
def bob(ann: Run, ckpt: Run, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Bob's clone in `bob`."""
    assert ckpt("clone", url, str(folder / "bob")).code == 0
    return enter(folder / "bob", ckpt, monkeypatch)


def enter(folder: Path, ckpt: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    folder.mkdir(exist_ok=True)

    def run(*words: str) -> Any:
        monkeypatch.chdir(folder)
        return ckpt(*words)

    return run


def labels(run: Run) -> dict[str, str]:
    """Each version, with the message that says which bytes it has."""
    return {each["version"]: each["message"] for each in run("ls", "--json").data}


def test_remote_is_added_after_a_probe_and_listed(ckpt: Run, folder: Path, url: str) -> None:
    added = ckpt("remote", "add", "origin", url, "--json")
    assert (added.code, added.data["index"], added.data["ignores"]) == (0, "bucket", [])
    assert ckpt("remote", "ls", "--json").data == [added.data]
    document = json.loads((folder / ".ckpt" / "remotes.json").read_bytes())
    Draft202012Validator(json.loads(SCHEMA.read_bytes())).validate(document)
    assert document["remotes"]["origin"]["url"] == added.data["url"]
    again = ckpt("remote", "add", "origin", url)
    assert (again.code, "already a remote" in again.err) == (2, True)
    other = ckpt("remote", "add", "other", url, "--index", "git")
    assert (other.code, "is kept by 'bucket'" in other.err) == (2, True)
    assert ckpt("remote", "rm", "origin").code == 0
    assert ckpt("remote", "ls", "--json").data == []
    assert ckpt("push").code == 2


def test_push_and_clone_have_the_same_versions(ann: Run, bob: Run, folder: Path) -> None:
    assert problems_of(ann, folder / "ann") == []
    assert labels(bob) == labels(ann) == {"v1": "seed 1", "v2": "seed 2"}
    assert bob("pin", "net@prod").out == ann("pin", "net@prod").out
    exported = bob("export", "v2", "-o", "v2.pt")
    assert exported.code == 0
    assert exported.err.startswith("net:v2: 1 of its objects, 8,000 bytes, are not here; fetching")
    assert (folder / "bob" / "v2.pt").read_bytes() == (folder / "ann" / "net.pt").read_bytes()
    assert "are not here" not in bob("export", "v2", "-o", "again.pt").err


def test_push_twice_changes_nothing(ann: Run, folder: Path) -> None:
    before = tree(folder)
    again = ann("push", "--json")
    assert (again.code, again.data["new"], again.data["changed"]) == (0, [], False)
    after = tree(folder)
    assert after == before


def test_push_sends_only_what_is_missing(ann: Run, folder: Path) -> None:
    assert ann("rename", "v2", "--rule", "w=x").code == 0
    pushed = ann("push", "--json").data
    assert (pushed["new"], pushed["objects"], pushed["bytes"]) == (["net:v3"], 0, 0)


def test_published_number_stays_and_ours_moves(ann: Run, bob: Run, folder: Path) -> None:
    register_seeds(ann, folder / "ann", 3)
    register_seeds(bob, folder / "bob", 4)
    assert ann("push").code == 0
    pushed = bob("push")
    assert pushed.code == 0
    assert "net:v3 of ours is now v4, since its number was taken" in pushed.err
    assert pushed.out.startswith("pushed net:v4 to origin: 1 object")
    assert ann("fetch").out == "fetched net:v4 from origin\n"
    expected = {"v1": "seed 1", "v2": "seed 2", "v3": "seed 3", "v4": "seed 4"}
    assert labels(ann) == labels(bob) == expected
    assert bob("push").out == "origin has everything already\n"


def test_same_bytes_pushed_twice_are_one_version(ann: Run, bob: Run, folder: Path) -> None:
    register_seeds(ann, folder / "ann", 3)
    register_seeds(bob, folder / "bob", 3)
    assert ann("push").code == bob("push").code == 0
    assert labels(ann) == labels(bob)
    assert len(labels(bob)) == 3


def test_pushing_one_version_keeps_the_numbers_of_the_others(
    ann: Run, bob: Run, folder: Path
) -> None:
    register_seeds(ann, folder / "ann", 3, 4, 5)
    assert ann("push", "v4").out.startswith("pushed net:v4 to origin")
    assert bob("fetch").code == 0
    assert [*labels(bob)] == ["v4", "v2", "v1"]
    register_seeds(bob, folder / "bob", 6)
    assert bob("push").out.startswith("pushed net:v5")
    fetched = ann("fetch")
    assert "net:v5 of ours is now v6" in fetched.out
    assert labels(ann) == {**{f"v{n}": f"seed {n}" for n in (1, 2, 3, 4)}, "v5": "seed 6",
                           "v6": "seed 5"}  # fmt: skip
    assert ann("push").code == 0
    assert bob("fetch").code == 0
    assert labels(bob) == labels(ann)


def test_aliases_tags_and_removals_travel(ann: Run, bob: Run) -> None:
    assert ann("alias", "prod", "v2", "-m", "better").code == 0
    assert ann("tag", "v1", "small").code == 0
    assert ann("note", "v1", "-m", "noisy").code == 0
    assert ann("push").out == "pushed aliases, tags and history to origin\n"
    assert bob("fetch").code == 0
    assert bob("pin", "net@prod").out == ann("pin", "v2").out
    assert bob("ls", "--json").data[1]["tags"] == ["small"]
    log = bob("alias", "prod", "--log", "--json").data["log"]
    assert [each["message"] for each in log] == ["better", ""]
    assert bob("alias", "-d", "net@prod").code == 0
    assert bob("rm", "v1", "--yes").code == 0
    assert bob("push").code == 0
    assert ann("fetch").code == 0
    assert [*labels(ann)] == ["v2"]
    assert ann("restore", "v1").code == 0


def test_alias_moved_on_both_sides_is_a_conflict(ann: Run, bob: Run, folder: Path) -> None:
    register_seeds(ann, folder / "ann", 3)
    assert ann("alias", "prod", "v3").code == 0
    assert bob("alias", "prod", "v2").code == 0
    assert ann("push").code == 0
    before = (folder / "bob" / "registry.json").read_bytes()
    refused = bob("push")
    assert refused.code == 6
    assert refused.err.splitlines() == [
        "error: net@prod: v2 here, v3 on origin, before v1",
        "hint:  ckpt fetch origin --ours  or  --theirs  decides",
    ]
    assert (folder / "bob" / "registry.json").read_bytes() == before
    assert bob("fetch", "--ours").code == 0
    assert bob("push").code == 0
    assert ann("fetch").code == 0
    assert ann("pin", "net@prod").out == ann("pin", "v2").out


def test_fetched_versions_are_listed_compared_and_renamed_without_tensors(
    bob: Run, folder: Path
) -> None:
    objects = folder / "bob" / ".ckpt" / "objects"
    assert bob("show", "v1").code == bob("log", "v2").code == bob("du").code == 0
    assert bob("diff", "v1", "v2").code == 0
    assert bob("rename", "v2", "--rule", "w=x").code == 0
    assert bob("verify").code == 0
    assert not objects.exists()
    assert bob("push").out == "pushed net:v3 to origin: 0 objects, 0 B\n"


def test_values_are_fetched_for_a_diff_and_a_load(bob: Run) -> None:
    assert bob("diff", "v1", "v2", "--values", "--exit-code").code == 1
    weights = ckpt_package.load("v2")
    assert torch.equal(weights["w"], torch.full((2000,), 2.0))


def test_pull_gets_the_latest_and_those_with_an_alias(bob: Run, ann: Run, folder: Path) -> None:
    register_seeds(ann, folder / "ann", 3)
    assert ann("push").code == 0
    pulled = bob("pull", "--json").data
    assert (pulled["versions"], pulled["objects"]) == (["net:v1", "net:v3"], 2)
    assert bob("pull", "v2", "--json").data["objects"] == 1
    assert bob("pull", "--all", "--json").data["objects"] == 0


def test_pull_of_keys_gets_these_tensors_alone(ann: Run, bob: Run, folder: Path) -> None:
    tensors = {name: torch.rand(2000) for name in ("encoder.w", "head.w")}
    torch.save(tensors, folder / "ann" / "two.pt")
    assert ann("register", "two.pt").code == 0
    assert ann("push").code == 0
    assert bob("pull", "two:v1", "--keys", "^enc", "--json").data["objects"] == 1
    with ckpt_package.open("two:v1") as lazy:
        assert torch.equal(lazy["encoder.w"], tensors["encoder.w"])
    assert len([*(folder / "bob" / ".ckpt" / "objects").rglob("?" * 62)]) == 1


def test_evict_frees_what_the_remote_has(ann: Run, folder: Path) -> None:
    register_seeds(ann, folder / "ann", 3)
    kept = ann("evict", "v3")
    assert "kept net:v3: w: origin lacks it" in kept.out
    assert ann("evict", "v1", "-n").out.startswith("would free 1 object, 8.0 kB, of net:v1")
    assert ann("evict", "v1", "v2").out == (
        "freed 2 objects, 16.0 kB, of net:v1, net:v2; origin has them\n"
    )
    verified = ann("verify")
    assert verified.code == 0
    assert "2 objects are not here (on remote origin)" in verified.out
    assert ann("du").code == ann("gc", "--yes").code == ann("fsck").code == 0
    assert ann("export", "v1", "-o", "v1.pt").code == 0
    assert torch.equal(torch.load(folder / "ann" / "v1.pt")["w"], torch.full((2000,), 1.0))


def test_gc_of_a_remote_shows_what_goes_and_removes_it_once_told(
    ann: Run, bob: Run, folder: Path
) -> None:
    assert ann("rm", "v2", "--yes").code == 0
    assert ann("push").code == 0
    asked = ("gc", "--remote", "origin", "--keep-removed", "0", "--grace", "0")
    before = tree(folder)
    shown = ann(*asked)
    assert (shown.code, shown.err) == (0, "to remove this, run the same command with --yes\n")
    assert shown.out.startswith("would remove\n  net:v2  removed on ")
    assert "1 object, 1 manifest" in shown.out
    assert ann(*asked, "--dry-run").err == ""
    assert tree(folder) == before, "shown only"
    removed = ann(*asked, "--yes", "--json")
    assert (removed.code, removed.data["versions"]) == (0, ["net:v2"])
    assert ann("gc", "--remote", "origin").out == "nothing to remove\n"
    assert bob("pull", "--all").code == 0
    assert labels(bob) == {"v1": "seed 1"}


@pytest.mark.parametrize("other", [("--local",), ("--files", ".")], ids=["local", "files"])
def test_gc_of_a_remote_is_of_nothing_else(other: tuple[str, ...], ckpt: Run) -> None:
    ran = ckpt("gc", "--remote", "origin", *other)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: --remote and {other[0]} exclude each other\n"
        f"hint:  ckpt gc --remote origin\n       ckpt gc {' '.join(other)}\n"
    )


def test_what_no_remote_has_is_missing(ann: Run, folder: Path) -> None:
    register_seeds(ann, folder / "ann", 3)
    for path in (folder / "ann" / ".ckpt" / "objects").rglob("?" * 62):
        path.unlink()
    verified = ann("verify")
    assert verified.code == 4
    assert "net:v3 w is missing" in verified.out
    assert "net:v1 w" not in verified.out
    refused = ann("push")
    assert refused.code == 4
    assert "net:v3: w is missing, so it cannot be pushed" in refused.err


def test_damaged_object_is_not_pushed(ann: Run, folder: Path) -> None:
    register_seeds(ann, folder / "ann", 3)
    path = newest_object(folder / "ann" / ".ckpt")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    refused = ann("push")
    assert refused.code == 4
    assert "is damaged" in refused.err
    assert ann("remote", "check").code == 4


def newest_object(store: Path) -> Path:
    return max((store / "objects").rglob("?" * 62), key=lambda path: path.stat().st_mtime_ns)


def test_other_registry_is_refused(ann: Run, ckpt: Run, folder: Path, url: str,
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    eve = enter(folder / "eve", ckpt, monkeypatch)
    register_seeds(eve, folder / "eve", 9)
    refused = eve("remote", "add", "origin", url)
    assert refused.code == 2
    assert "holds another registry" in refused.err
    assert f"ckpt clone {ann('remote', 'ls', '--json').data[0]['url']} DIR" in refused.err


def test_check_tells_what_the_remote_lacks(ann: Run, folder: Path) -> None:
    assert ann("remote", "check").out == "origin has everything of 2 versions\n"
    register_seeds(ann, folder / "ann", 3)
    checked = ann("remote", "check", "--json")
    assert checked.code == 4
    assert [each["version"] for each in checked.data["missing"]] == ["net:v3", "net:v3"]


def test_clone_needs_a_registry_and_a_new_folder(ckpt: Run, folder: Path, url: str) -> None:
    refused = ckpt("clone", url, "new")
    assert (refused.code, "no registry there" in refused.err) == (2, True)
    assert not (folder / "new").exists()
    save(folder / "net.pt", 1)
    assert ckpt("register", "net.pt").code == 0
    assert ckpt("remote", "add", "origin", url).code == ckpt("push").code == 0
    (folder / "new").mkdir()
    assert ckpt("clone", url, "new").code == 2


@pytest.mark.parametrize("secret", ["s3://AKIA:hunter2@team/x", "s3://hunter2@team/x"])
def test_credentials_in_a_url_are_refused_and_not_printed(ckpt: Run, secret: str) -> None:
    for words in (("remote", "add", "origin", secret), ("clone", secret)):
        refused = ckpt(*words)
        assert refused.code == 2
        assert "hunter2" not in refused.out + refused.err


def test_git_keeps_the_index_and_the_remote_the_objects(
    ckpt: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_seeds(ckpt, folder, 1)
    (folder / ".gitignore").write_text("*.pt\n.ckpt/objects/\nremote/\nbob/\n")
    commit(git)
    added = ckpt("remote", "add", "origin", str(folder / "remote"), "--json")
    assert added.data["index"] == "git"
    assert ckpt("remote", "check").code == 4
    assert ckpt("push").out == "pushed net:v1 to origin: 1 object, 8.0 kB\n"
    assert ckpt("push").out == "origin has everything already\n"
    assert ckpt("remote", "check").code == 0
    assert not (folder / "remote" / "registry.json").exists()
    commit(git)
    git("clone", "-q", ".", "bob")
    bob = enter(folder / "bob", ckpt, monkeypatch)
    assert bob("ls").code == bob("verify").code == bob("fetch").code == 0
    assert bob("export", "v1", "-o", "v1.pt").code == 0
    assert (folder / "bob" / "v1.pt").read_bytes() == (folder / "net.pt").read_bytes()
    assert bob("pull").out == "nothing to get from origin for net:v1\n"
    assert bob("evict", "v1").out.startswith("freed 1 object")
    refused = ckpt("clone", str(folder / "remote"), str(folder / "eve"))
    assert (refused.code, "no registry there" in refused.err) == (2, True)


def test_objects_that_git_tracks_are_taken_out_of_it(
    ckpt: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed commands are run: after them git has no object, and a clone has them all."""
    register_seeds(ckpt, folder, 1)
    (folder / ".gitignore").write_text("*.pt\nremote/\nbob/\nnotes/\n")
    commit(git)
    steps = "  echo objects/ >> .ckpt/.gitignore\n  git rm -r -q --cached .ckpt/objects\n"
    added = ckpt("remote", "add", "origin", str(folder / "remote"))
    assert (added.code, added.err) == (
        0,
        "git takes the objects, too; to keep them out of it, once they are pushed:\n" + steps,
    )
    assert ckpt("push").code == 0
    said = "git tracks 1 of these objects and {} it as deleted; to keep objects out of git:\n"
    dry = ckpt("evict", "v1", "--dry-run")
    assert dry.err == said.format("would show") + steps
    evicted = ckpt("evict", "v1", "--json")
    assert (evicted.data["tracked"], evicted.err) == (1, said.format("shows") + steps)
    for step in steps.splitlines():
        subprocess.run(step, shell=True, cwd=folder, check=True)
    commit(git)
    assert "objects" not in git("ls-files").stdout
    register_seeds(ckpt, folder, 2)
    assert ckpt("push").code == 0
    commit(git)
    assert "objects" not in git("ls-files").stdout
    again = ckpt("evict", "v2", "--json")
    assert (again.data["objects"], again.data["tracked"], again.err) == (1, 0, "")
    git("clone", "-q", ".", "bob")
    bob = enter(folder / "bob", ckpt, monkeypatch)
    for ref, seed in (("v1", 1), ("v2", 2)):
        assert bob("export", ref, "-o", f"{ref}.pt").code == 0
        assert torch.equal(
            torch.load(folder / "bob" / f"{ref}.pt")["w"], torch.full((2000,), 1.0 * seed)
        )


def test_steps_out_of_git_are_for_the_current_folder_and_only_what_is_left_to_do(
    ckpt: Run, git: Git, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = folder / "a b"
    register_seeds(enter(below, ckpt, monkeypatch), below, 1)
    commit(git)
    here = enter(folder, ckpt, monkeypatch)
    words = ("--registry", "a b", "-q")
    added = here("remote", "add", "origin", str(folder / "remote"), *words[:2])
    steps = ["echo objects/ >> 'a b/.ckpt/.gitignore'", "git rm -r -q --cached 'a b/.ckpt/objects'"]
    for todo in (steps, steps[1:], []):
        assert [line.strip() for line in added.err.splitlines()[1:]] == todo
        for step in todo[:1]:
            subprocess.run(step, shell=True, cwd=folder, check=True)
        assert here("remote", "rm", "origin", *words).code == 0
        added = here("remote", "add", "origin", str(folder / "remote"), *words[:2])


def test_pre_push_hook_keeps_an_index_without_its_objects_from_being_published(
    ckpt: Run, git: Git, folder: Path
) -> None:
    """The hook of docs/remotes.md."""
    page = (DOCS / "remotes.md").read_text()
    (hook,) = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    git("init", "-q", "--bare", "there")
    git("remote", "add", "there", "there")
    path = folder / ".git" / "hooks" / "pre-push"
    path.parent.mkdir(exist_ok=True)
    path.write_text(hook)
    path.chmod(0o755)
    register_seeds(ckpt, folder, 1)
    (folder / ".gitignore").write_text("*.pt\n.ckpt/objects/\nremote/\nthere/\n")
    commit(git)
    assert ckpt("remote", "add", "origin", str(folder / "remote")).code == 0
    commit(git)
    assert "origin lacks" in git("push", "-q", "there", "main", code=1).stdout
    assert ckpt("push").code == 0
    git("push", "-q", "there", "main")


def test_what_cannot_be_fetched_is_not_here_and_named(bob: Run, folder: Path, url: str) -> None:
    """Offline, or lost on the remote: never "damaged", and nothing is written."""
    if url.startswith("s3"):
        return
    (folder / "remote" / "objects").rename(folder / "away")
    refused = bob("export", "v1", "-o", "v1.pt")
    assert refused.code == 4
    line = refused.err.splitlines()[1]
    assert line.startswith("error: net:v1: w is not here (on remote origin): origin: object ")
    assert line.endswith(" of net:v1: w is missing there")
    assert refused.err.splitlines()[2] == "hint:  ckpt pull net:v1"
    assert not (folder / "bob" / "v1.pt").exists()
    assert bob("show", "v1").code == bob("ls").code == 0
    pulled = bob("pull", "v1")
    assert (pulled.code, "is missing there" in pulled.err) == (4, True)
