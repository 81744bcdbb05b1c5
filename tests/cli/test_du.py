"""What versions take of the disk: shared tensors count once, and alone for nobody."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import torch

from ckpt.registry.registry import Registry
from tests.cli.support import SHAPES, Run, weights

TENSORS = sum(4 * torch.Size(shape).numel() for shape in SHAPES.values())
BIG = 4 * 64 * 9216  # fc1.weight


def on_disk(folder: Path) -> int:
    kinds = (folder / ".ckpt" / kind for kind in ("objects", "manifests"))
    return sum(path.stat().st_size for kind in kinds for path in kind.rglob("*") if path.is_file())


def test_rename_takes_its_manifest_alone(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    single = ckpt("du", "--json").data
    assert single["stored"] == single["versions"][0]["alone"] == on_disk(folder)
    assert ckpt("rename", "net:v1", "--rule", "fc=head").code == 0
    both = ckpt("du", "--json").data
    assert both["stored"] == on_disk(folder)
    renamed, first = both["versions"]
    assert (renamed["version"], first["version"]) == ("v2", "v1")
    assert renamed["alone"] < 16_384
    assert first["alone"] < 16_384
    assert min(renamed["needed"], first["needed"]) > 0.99 * TENSORS
    assert both["unneeded"] == 0
    assert "of files (5" in ckpt("du").out


def test_changed_tensor_is_what_a_version_takes(ckpt: Run, folder: Path) -> None:
    state = weights()
    torch.save(state, folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    state["fc1.weight"] = state["fc1.weight"] + 1
    torch.save(state, folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    second, first = ckpt("du", "--json").data["versions"]
    for each in (first, second):
        assert BIG <= each["alone"] < BIG + 16_384


def test_what_nobody_needs_is_said(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    stray = folder / ".ckpt" / "objects" / "ab" / ("c" * 62)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x" * 5000)
    (stray.parent / "README").write_text("no object")
    assert ckpt("du", "--json").data["unneeded"] == 5000
    assert "5.0 kB that nothing needs: ckpt gc  frees them" in ckpt("du").out


def test_what_holds_the_bytes_is_said(ckpt: Run, folder: Path) -> None:
    """And `gc` frees what is said to be held by nothing, and no more."""
    for number in range(4):
        torch.save({"w": torch.full((2000,), float(number))}, folder / "net.pt")
        before = (folder / "registry.json").read_bytes() if number else b""
        assert ckpt("register", "net.pt").code == 0
    (folder / "registry.json").write_bytes(before)
    assert ckpt("rm", "net:v2", "--yes").code == 0
    Registry(folder).store.put([b"x" * 5000])
    usage = ckpt("du", "--json").data
    held = {each["by"]: each for each in usage["held"]}
    assert list(held) == ["version", "removed", "reflog", "nothing"]
    assert sum(each["bytes"] for each in held.values()) == on_disk(folder)
    assert held["version"]["bytes"] == usage["stored"]
    today = datetime.now(UTC).date()
    days = {by: each["until"] and date.fromisoformat(each["until"]) for by, each in held.items()}
    assert days["version"] is days["nothing"] is None
    assert abs((days["removed"] - today).days - 30) <= 1
    assert abs((days["reflog"] - today).days - 90) <= 1
    text = ckpt("du").out
    assert f"of removed versions: ckpt restore  brings them back until {days['removed']}" in text
    assert f"registry.json lost: ckpt fsck  lists them until {days['reflog']}" in text
    for option, by in (
        ((), "nothing"), (("--keep-removed", "0"), "removed"), (("--keep-reflog", "0"), "reflog"),
    ):  # fmt: skip
        data = ckpt("gc", "--grace", "0", *option, "--yes", "--json").data
        assert data["bytes"] == held.pop(by)["bytes"]
        assert [each["by"] for each in ckpt("du", "--json").data["held"]] == list(held)


def test_time_of_a_removal_may_be_any_that_can_be_written(ckpt: Run, folder: Path) -> None:
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == ckpt("rm", "v1", "--yes").code == 0
    document = json.loads((folder / "registry.json").read_text())
    document["models"]["net"]["removed"]["v1"]["removed"] = "9999-12-31T23:59:59+00:00"
    (folder / "registry.json").write_text(json.dumps(document))
    assert ckpt("du").out.endswith(" of removed versions: ckpt restore  brings them back\n")
    assert ckpt("verify").code == 0


def test_version_with_one_tensor_changed_adds_that_tensor_and_a_manifest(
    ckpt: Run, folder: Path
) -> None:
    state = weights()
    torch.save(state, folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    before = {each.path for each in Registry(folder).store.objects()}
    state["fc1.weight"] += 1
    torch.save(state, folder / "net.pt")
    nbytes = state["fc1.weight"].nbytes
    new_bytes = ckpt("register", "net.pt", "--json").data["new_bytes"]
    added = [each for each in Registry(folder).store.objects() if each.path not in before]
    assert [each.nbytes for each in added if not each.is_manifest] == [nbytes]
    assert sum(each.is_manifest for each in added) == 1
    assert sum(each.nbytes for each in added) == new_bytes
