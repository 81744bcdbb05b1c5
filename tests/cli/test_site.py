"""`ckpt site`: the folder appears whole, is replaced if it is ours, and refused if it is not."""

import json
from pathlib import Path

import pytest

import ckpt.cli.site
from ckpt.io import temporaries
from tests.cli.documents import make_registry, manifests, replace_manifest
from tests.cli.support import Run, register_seeds, tree
from tests.cli.test_hostile_text import hostile_documents, is_harmless


@pytest.fixture
def team(ckpt: Run, folder: Path) -> Run:
    register_seeds(ckpt, folder, 1, 2)
    return ckpt


def test_site_is_written_and_told(team: Run, folder: Path) -> None:
    ran = team("site", "-o", "out", "--json")
    names = {path.relative_to(folder / "out").as_posix() for path in folder.rglob("out/**/*.*")}
    assert names == {
        *("index.html", "style.css", "script.js", "ckpt-site.json"),
        *(f"models/net/{name}" for name in ("index.html", "compare.html")),
        *(f"models/net/v{number}.{suffix}" for number in (1, 2) for suffix in ("html", "js")),
    }
    assert (ran.code, ran.data["versions"], ran.data["files"]) == (0, 2, len(names) - 1)
    assert ran.data["start"] == "out/index.html"
    assert "seed 2" in (folder / "out" / "models" / "net" / "v2.html").read_text()


@pytest.mark.parametrize("swaps", [True, False], ids=["exchanged", "renamed"])
def test_own_site_is_replaced_and_equal_registries_give_equal_pages(
    team: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(temporaries, "_exchange", lambda *_: False)
    (folder / "out").mkdir()
    assert team("site", "-o", "out").code == 0
    first = tree(folder / "out")
    assert team("site", "-o", "out").code == 0
    assert tree(folder / "out") == first
    register_seeds(team, folder, 3)
    ran = team("site", "-o", "out")
    assert ran.out.startswith("wrote out/  3 versions, 11 files, ")
    assert "models/net/v3.html" in tree(folder / "out")
    assert {path.name for path in folder.iterdir()} == {".ckpt", "registry.json", "net.pt", "out"}


def test_folder_with_other_files_is_refused_and_left(team: Run, folder: Path) -> None:
    assert team("site", "-o", "out").code == 0
    (folder / "out" / "models" / "mine.txt").write_text("x")
    before = tree(folder)
    ran = team("site", "-o", "out")
    assert ran.code == 2
    assert ran.err == (
        f"error: {folder / 'out'}: holds files that ckpt site did not write: models/mine.txt\n"
        "hint:  name a new folder with -o\n"
    )
    assert team("site", "-o", ".").code == team("site", "-o", "net.pt").code == 2
    assert team("site", "-o", "no/such/folder").code == 2
    assert tree(folder) == before


def test_damaged_registry_leaves_the_old_site(team: Run, folder: Path) -> None:
    assert team("site", "-o", "out").code == 0
    before = tree(folder / "out")
    for manifest in folder.glob(".ckpt/manifests/*/*"):
        manifest.chmod(0o644)
        manifest.write_bytes(b"{}")
    assert team("site", "-o", "out").code == 4
    assert tree(folder / "out") == before


def test_without_a_registry_nothing_is_written(ckpt: Run, folder: Path) -> None:
    ran = ckpt("site", "-o", "out")
    assert (ran.code, ran.out, list(folder.iterdir())) == (2, "", [])
    assert ran.err.endswith("hint:  ckpt register FILE  creates one\n")


def test_pages_are_for_those_who_may_read_the_manifests(team: Run, folder: Path) -> None:
    assert team("site", "-o", "out").code == 0
    assert (folder / "out" / "index.html").stat().st_mode & 0o077
    for manifest in folder.glob(".ckpt/manifests/*/*"):
        manifest.chmod(0o400)
    assert team("site", "-o", "out").code == 0
    modes = {path.stat().st_mode & 0o077 for path in folder.rglob("out/**/*.*")}
    assert modes == {0}


def test_first_page_is_opened(team: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(ckpt.cli.site.webbrowser, "open", lambda url: opened.append(url))
    ran = team("site", "-o", "out", "--open")
    assert opened == [(folder / "out" / "index.html").as_uri()]
    assert ran.err == "no browser found; open out/index.html\n"


@pytest.mark.long
def test_fault_24_every_text_of_a_manifest_is_harmless_in_the_pages(
    ckpt: Run, folder: Path
) -> None:
    make_registry(folder)
    index = (folder / "registry.json").read_text()
    old = json.loads(index)["models"]["net"]["versions"]["v1"]["manifest"]
    for where, mutant in hostile_documents(manifests(folder)[old]):
        replace_manifest(folder, index, old, mutant)
        ran = ckpt("site", "-o", "out")
        assert ran.code in (0, 3, 4), (where, ran.err)
        assert is_harmless(ran.err), (where, ran.err)
        for page in folder.glob("out/**/*.html"):
            assert is_harmless(page.read_text()), (where, page)
