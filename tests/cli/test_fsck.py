"""An index that is missing or damaged: refused, explained, and rebuilt."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ckpt.registry.registry import Registry
from tests.cli.support import Run, tree
from tests.effort import by_effort

CONFLICT = (
    '{\n"schema": 1,\n<<<<<<< HEAD\n"serial": 40,\n=======\n"serial": 30,\n>>>>>>> other\n'
    '"write_id": "",\n"models": {}\n}\n'
)


def save(path: Path, seed: int, *, key: str = "conv.weight") -> None:
    generator = torch.Generator().manual_seed(seed)
    torch.save({key: torch.randn(2000, generator=generator), "b": torch.zeros(3)}, path)


@pytest.fixture
def used(ckpt: Run, folder: Path) -> Run:
    """`net` v1 to v5 and `other` v1: renamed, aliased, tagged, removed, brought back."""
    for seed in (1, 2):
        save(folder / "net.pt", seed)
        words = ("register", "net.pt", "-m", f"seed {seed}", "--metric", f"accuracy=0.9{seed}")
        assert ckpt(*words).code == 0
    assert ckpt("register", "net.pt", "--name", "other").code == 0
    assert ckpt("rename", "net:v1", "--rule", "conv=embed").code == 0
    save(folder / "net.pt", 3)
    assert ckpt("register", "net.pt").code == 0
    for words in (
        ("alias", "prod", "net:v1", "--protect"),
        ("alias", "next", "net:v3"),
        ("tag", "net:v3", "golden", "x"),
        ("tag", "net:v1", "golden"),
        ("rm", "net:v2", "--yes"),
        ("rm", "net:v4", "other:v1", "--yes"),
        ("undo",),
        ("rm", "net:v4", "--yes"),
    ):
        assert ckpt(*words).code == 0, words
    save(folder / "net.pt", 4)
    assert ckpt("register", "net.pt").code == 0
    return ckpt


def index(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "registry.json").read_text())


def rebuilt(ckpt: Run, *words: str) -> dict[str, Any]:
    ran = ckpt("fsck", "--rebuild-index", "--yes", "--json", *words)
    assert ran.code == 0, ran.err
    assert ckpt("verify").code == 0
    assert ckpt("fsck").code == 0
    return ran.data


def test_rebuilt_index_is_the_lost_one(used: Run, folder: Path) -> None:
    before = index(folder)
    (folder / "registry.json").unlink()
    data = rebuilt(used)
    assert index(folder)["models"] == before["models"]
    assert index(folder)["serial"] > before["serial"]
    assert index(folder)["write_id"] != before["write_id"]
    assert (data["added"], data["unread"], data["damages"], data["kept"]) == ([], [], [], None)
    assert data["removed"] == ["net:v2", "net:v4"]
    assert used("undo").out.startswith("undid: register net.pt as net"), "history goes on"


def test_index_cut_anywhere_is_rebuilt_and_kept(used: Run, folder: Path, tmp_path: Path) -> None:
    path = folder / "registry.json"
    whole, models = path.read_bytes(), index(folder)["models"]
    kept = []
    for end in range(0, len(whole) - 1, by_effort(211, 31, 1)):
        path.write_bytes(whole[:end])
        checked = used("fsck", "--json")
        assert (checked.code, checked.data["state"]) == (4, "damaged")
        data = rebuilt(used)
        assert index(folder)["models"] == models
        kept.append(Path(data["kept"]))
        assert kept[-1].read_bytes() == whole[:end]
    assert len(set(kept)) == len(kept)
    assert [each.name for each in kept[:2]] == ["registry.json.damaged", "registry.json.damaged.2"]


def test_serial_is_greater_than_any_known_one(used: Run, folder: Path) -> None:
    models = index(folder)["models"]
    (folder / "registry.json").write_text(CONFLICT)
    rebuilt(used)
    assert index(folder)["serial"] == 41
    assert index(folder)["models"] == models


def test_without_reflog_every_version_is_there(used: Run, folder: Path) -> None:
    for ref in ("net:v1", "net:v3", "net:v5", "other:v1"):
        assert used("export", ref, "-o", f"{ref.replace(':', '-')}.pt").code == 0
    rows = {row["manifest"]: row for row in used("ls", "--json").data}
    (folder / "registry.json").unlink()
    (folder / ".ckpt" / "reflog").unlink()
    data = rebuilt(used)
    assert len(data["added"]) == 6, "those that were removed as well: no manifest says so"
    told = ("model", "made_by", "metrics", "keys", "size", "created", "message", "file")
    again = {row["manifest"]: row for row in used("ls", "--json").data}
    files = Counter(row["file"] for row in again.values() if row["file"])
    for manifest, row in rows.items():
        # Of two versions of the same second and bytes, nothing tells which one stored them.
        names = told if files[row["file"]] > 1 else (*told, "new_bytes")
        assert [again[manifest][name] for name in names] == [row[name] for name in names]
    kinds = (folder / ".ckpt" / "objects", folder / ".ckpt" / "manifests")
    sizes = (path.stat().st_size for kind in kinds for path in kind.rglob("*") if path.is_file())
    assert sum(row["new_bytes"] for row in again.values()) == sum(sizes), "each object once"
    (child,) = (row for row in again.values() if row["made_by"] == "rename of v1")
    parent = used("log", f"net:{child['version']}", "--json").data[1]
    assert int(parent["version"][1:]) < int(child["version"][1:]), "parents first"
    for manifest, row in rows.items():
        version = again[manifest]["version"]
        assert used("export", f"{row['model']}:{version}", "-o", "again.pt", "--force").code == 0
        before = folder / f"{row['model']}-{row['version']}.pt"
        assert (folder / "again.pt").read_bytes() == before.read_bytes()


def test_versions_that_only_manifests_tell_of_come_after_the_known(used: Run, folder: Path) -> None:
    """As when the last write's line of the reflog was lost."""
    reflog = folder / ".ckpt" / "reflog"
    reflog.write_bytes(b"".join(reflog.read_bytes().splitlines(keepends=True)[:-1]))
    before = index(folder)["models"]["net"]["versions"]
    (folder / "registry.json").unlink()
    data = rebuilt(used)
    assert data["added"] == ["net:v5"]
    lines = index(folder)["models"]["net"]["versions"]
    assert lines["v5"] == before["v5"]


def test_clone_that_wrote_once_rebuilds_the_numbers_of_others(used: Run, folder: Path) -> None:
    (folder / ".ckpt" / "reflog").unlink()
    save(folder / "net.pt", 9)
    assert used("register", "net.pt").code == 0
    models = index(folder)["models"]
    (folder / "registry.json").unlink()
    rebuilt(used)
    assert index(folder)["models"] == models
    assert "v6" in models["net"]["versions"]


@pytest.mark.parametrize("reflog", ["there", "gone"])
def test_damaged_manifest_is_named(used: Run, folder: Path, reflog: str) -> None:
    """What the reflog tells of it stays, for a repair; of what nothing tells, nothing is made."""
    models = index(folder)["models"]
    manifest = models["net"]["versions"]["v1"]["manifest"]
    hexadecimal = manifest.removeprefix("sha256:")
    path = folder / ".ckpt" / "manifests" / hexadecimal[:2] / hexadecimal[2:]
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-9])
    (folder / "registry.json").unlink()
    if reflog == "gone":
        (folder / ".ckpt" / "reflog").unlink()
    ran = used("fsck", "--rebuild-index", "--yes", "--json")
    assert (ran.code, manifest in ran.data["damages"][0]) == (0, True)
    if reflog == "there":
        assert ran.data["unread"] == ["net:v1"]
        assert index(folder)["models"] == models
        assert used("verify").code == 4
        path.write_bytes(good)
        assert used("verify").code == 0
    else:
        assert manifest not in (folder / "registry.json").read_text()
        assert len(ran.data["added"]) == 5
        assert used("verify").code == 0


def test_nothing_is_written_unasked(used: Run, folder: Path) -> None:
    (folder / "registry.json").write_bytes(b"{")
    before = tree(folder)
    ran = used("fsck", "--rebuild-index")
    assert (ran.code, "--yes  writes this" in ran.err) == (2, True)
    assert "net  3 versions" in ran.out
    assert "2 removed" in ran.out
    assert tree(folder) == before
    done = used("fsck", "--rebuild-index", "--yes")
    assert (
        done.code,
        f"the damaged file is kept as {folder}/registry.json.damaged" in done.out,
    ) == (
        0,
        True,
    )


def test_index_that_is_fine_is_not_rebuilt(used: Run, folder: Path) -> None:
    before = tree(folder)
    assert used("fsck").out == "registry.json is fine: 2 models, 4 versions\n"
    ran = used("fsck", "--rebuild-index", "--yes")
    assert (ran.code, "fine, so it is not rebuilt" in ran.err) == (2, True)
    assert tree(folder) == before


def test_index_of_a_newer_schema_is_not_rebuilt(used: Run, folder: Path) -> None:
    path = folder / "registry.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 9'))
    before = tree(folder)
    assert used("fsck", "--json").data["state"] == "newer"
    ran = used("fsck", "--rebuild-index", "--yes")
    assert (ran.code, "pip install -U" in ran.err) == (4, True)
    assert tree(folder) == before


def test_folder_without_a_registry_has_none_to_check(ckpt: Run, folder: Path) -> None:
    ran = ckpt("fsck")
    said = "no registry here or above; to create one:  ckpt register FILE\n"
    assert (ran.code, ran.out) == (2, said)
    assert ckpt("fsck", "--json").data["state"] == "none"
    assert ckpt("fsck", "--rebuild-index", "--yes").code == 2
    assert tree(folder) == {}


def test_manifests_of_the_same_bytes_are_one_version(used: Run, folder: Path) -> None:
    """As a register that was cut off leaves one, or a merge; children may be of either."""
    registry = Registry(folder)
    (line,) = (row for row in used("ls", "net", "--json").data if row["version"] == "v5")
    manifest = registry.store.manifest(line["manifest"])
    record = {**manifest.record, "created": "2026-11-24T00:00:00+00:00"}
    twin = registry.store.put_manifest(replace(manifest, record=record)).digest
    (folder / "registry.json").unlink()
    assert rebuilt(used)["added"] == []
    (folder / "registry.json").unlink()
    (folder / ".ckpt" / "reflog").unlink()
    assert len(rebuilt(used)["added"]) == 6
    lines = index(folder)["models"]["net"]["versions"].values()
    (also,) = (each for each in lines if "also" in each)
    assert (also["manifest"], also["also"]) == (twin, [line["manifest"]]), "the earlier one"


WRITING = [
    ("register", "net.pt"),
    ("rename", "net:v1", "--rule", "conv=x"),
    ("alias", "prod", "net:v1"),
    ("tag", "net:v1", "t"),
    ("rm", "net:v1", "--yes"),
    ("undo",),
    ("ls",),
]


@pytest.mark.parametrize("words", WRITING, ids=lambda words: words[0])
@pytest.mark.parametrize("state", ["missing", "conflict"])
def test_index_that_is_lost_is_not_begun_again(
    used: Run, folder: Path, words: tuple[str, ...], state: str
) -> None:
    if state == "missing":
        (folder / "registry.json").unlink()
    else:
        (folder / "registry.json").write_text(CONFLICT)
    before = tree(folder)
    ran = used(*words)
    assert (ran.code, "ckpt fsck --rebuild-index" in ran.err) == (4, True), ran.err
    says = "missing, but" if state == "missing" else "line 3 is a git conflict marker, <<<<<<<"
    assert says in ran.err
    after = {name: data for name, data in tree(folder).items() if "/objects/" not in name}
    assert after == {name: data for name, data in before.items() if "/objects/" not in name}
    assert used("fsck", "--json").data["state"] == state


def test_lost_registry_is_found_from_below(used: Run, folder: Path) -> None:
    models = index(folder)["models"]
    (folder / "registry.json").unlink()
    (folder / "inner").mkdir()
    os.chdir(folder / "inner")
    assert used("fsck").code == 4
    rebuilt(used)
    assert index(folder)["models"] == models


def test_person_is_asked_on_a_terminal(used: Run, folder: Path) -> None:
    if shutil.which("script") is None:
        pytest.skip("no script(1) to be a terminal")
    (folder / "registry.json").unlink()
    ckpt = Path(sys.executable).with_name("ckpt")
    command = ["script", "-qec", f"{ckpt} fsck --rebuild-index", "/dev/null"]
    for answer, there in (("n", False), ("y", True)):
        done = subprocess.run(command, input=answer + "\n", text=True, capture_output=True)
        assert "net  3 versions" in done.stdout
        assert (folder / "registry.json").exists() == there
