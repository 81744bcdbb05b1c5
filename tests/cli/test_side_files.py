"""Files that are kept beside the weights: config.json, a tokenizer."""

import filecmp
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckpt.errors import IntegrityError
from ckpt.registry.manifest import Manifest
from tests.cli.support import Run, save
from tests.faults.checker import check
from tests.test_schemas import expect_valid

CONFIG = '{\n "target_modules": ["q_proj"],\n "layers": 12\n}\n'


@pytest.fixture
def with_files(ckpt: Run, folder: Path) -> Run:
    """`net:v1`, of net.pt with config.json and the folder tokenizer."""
    torch.save({"enc.q_proj.weight": torch.arange(4096.0), "enc.b": torch.zeros(3)}, "net.pt")
    (folder / "config.json").write_text(CONFIG)
    (folder / "tokenizer" / "sub").mkdir(parents=True)
    (folder / "tokenizer" / "vocab.txt").write_bytes(os.urandom(9000))
    (folder / "tokenizer" / "sub" / "empty").write_bytes(b"")
    ran = ckpt("register", "net.pt", "--with", "config.json", "--with", "tokenizer/")
    assert ran.code == 0, ran.err
    assert ", 3 side files, " in ran.out
    return ckpt


def same_folders(one: Path, two: Path) -> bool:
    compared = filecmp.dircmp(one, two, ignore=[])
    names = compared.common_files
    _, differ, odd = filecmp.cmpfiles(one, two, names, shallow=False)
    inner = all(same_folders(one / name, two / name) for name in compared.common_dirs)
    return inner and not (compared.left_only or compared.right_only or differ or odd)


def peft(folder: Path) -> Path:
    """An adapter as PEFT saves it, with what a trainer leaves."""
    folder.mkdir()
    save_file({"a.q_proj.weight": torch.ones(40, 40)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"target_modules": ["q_proj"]}')
    (folder / "README.md").write_text("words\n")
    torch.save({}, folder / "optimizer.pt")
    return folder


def object_of(folder: Path, nbytes: int) -> Path:
    (found,) = [p for p in folder.glob(".ckpt/objects/??/*") if p.stat().st_size == nbytes]
    found.chmod(0o644)
    return found


def test_export_to_a_folder_gives_everything_back(with_files: Run, folder: Path) -> None:
    ran = with_files("export", "v1", "-o", "out")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("wrote out/  4 files, ")
    assert filecmp.cmp(folder / "net.pt", folder / "out" / "net.pt", shallow=False)
    assert same_folders(folder / "tokenizer", folder / "out" / "tokenizer")
    assert (folder / "out" / "config.json").read_text() == CONFIG
    assert len(list((folder / "out").iterdir())) == 3
    assert with_files("export", "v1", "-o", "out").code == 2


def test_export_to_a_file_says_what_it_leaves_out(with_files: Run, folder: Path) -> None:
    ran = with_files("export", "v1", "-o", "one.safetensors")
    assert "not written (the new file cannot hold it): 3 side files" in ran.err
    assert set(load_file("one.safetensors")) == {"enc.q_proj.weight", "enc.b"}


def test_same_weights_with_other_files_are_another_version(with_files: Run, folder: Path) -> None:
    again = with_files("register", "net.pt", "--with", "config.json", "--with", "tokenizer")
    assert "already registered as net:v1" in again.out
    (folder / "config.json").write_text(CONFIG.replace("12", "13"))
    more = with_files("register", "net.pt", "--with", "config.json", "--with", "tokenizer")
    assert "registered net:v2" in more.out
    assert re.search(r" 3 side files, [123]\.\d kB new\n$", more.out), "the manifest alone"
    assert "registered net:v3" in with_files("register", "net.pt").out
    expect_valid(folder)
    check(folder)


def test_diff_shows_files_that_differ(with_files: Run, folder: Path) -> None:
    (folder / "config.json").write_text(CONFIG.replace("12", "13"))
    (folder / "tokenizer" / "vocab.txt").write_bytes(os.urandom(70_000))
    with_files("register", "net.pt", "--with", "config.json", "--with", "tokenizer/vocab.txt")
    ran = with_files("diff", "v1", "v2")
    assert "no difference" not in ran.out
    assert re.search(r"config.json +49 B +49 B\n", ran.out)
    assert re.search(r"tokenizer/vocab.txt +9.0 kB *\n", ran.out)
    assert '  - "layers": 12\n  + "layers": 13\n' in ran.out
    assert with_files("diff", "v1", "v2", "--exit-code").code == 1
    assert with_files("diff", "v1", "v1", "--exit-code").code == 0
    files = with_files("diff", "v1", "v2", "--json").data["side_files"]
    assert [(each["name"], each["before"], each["after"]) for each in files] == [
        ("config.json", 49, 49),
        ("tokenizer/sub/empty", 0, None),
        ("tokenizer/vocab.txt", 9000, None),
        ("vocab.txt", None, 70_000),
    ]
    assert "config.json" in with_files("diff", "v1", "v2", "--format", "markdown").out
    # A file alone does not say what belongs to it.
    assert with_files("diff", "v1", "net.pt", "--exit-code").code == 0


def test_show_lists_files(with_files: Run) -> None:
    shown = with_files("show", "v1").out
    assert "side files:\n  config.json          49 B  sha256:" in shown
    (first, *_) = with_files("show", "v1", "--json").data["side_files"]
    assert (first["name"], first["size"]) == ("config.json", 49)
    assert first["digest"].startswith("sha256:")


def test_folder_brings_its_small_files_along(ckpt: Run, folder: Path) -> None:
    peft(folder / "lora")
    ran = ckpt("register", "lora")
    assert ", 2 side files, " in ran.out
    assert "not registered: optimizer.pt" in ran.err
    assert ckpt("register", "lora", "--json").data["left"] == ["optimizer.pt"]
    assert ckpt("diff", "./lora", "lora:v1", "--exit-code").code == 0
    ckpt("export", "lora:v1", "-o", "again")
    (folder / "lora" / "optimizer.pt").unlink()
    assert same_folders(folder / "lora", folder / "again")
    assert "side file" not in ckpt("register", "lora", "--no-files", "--name", "bare").out


def test_named_file_goes_before_that_of_the_folder(ckpt: Run, folder: Path) -> None:
    peft(folder / "lora")
    (folder / "README.md").write_text("other words\n")
    ckpt("register", "lora", "--with", "README.md")
    ckpt("export", "lora:v1", "-o", "again")
    assert (folder / "again" / "README.md").read_text() == "other words\n"


def test_rename_keeps_files_and_names_those_to_look_at(with_files: Run, folder: Path) -> None:
    said = "not changed, but names what is renamed: config.json (q_proj)"
    assert said in with_files("rename", "v1", "--rule", "q_proj=query", "--dry-run").out
    ran = with_files("rename", "v1", "--rule", "q_proj=query")
    assert said in ran.out
    with_files("rename", "v2", "--drop", r"enc\.b")
    for version in ("v2", "v3"):
        with_files("export", version, "-o", f"out-{version}")
        assert same_folders(folder / "tokenizer", folder / f"out-{version}" / "tokenizer")
    check(folder)
    expect_valid(folder)


def test_rename_of_a_folder_is_a_folder(ckpt: Run, folder: Path) -> None:
    peft(folder / "lora")
    ran = ckpt("rename", "lora", "--rule", "q_proj=query", "--json")
    assert ran.data["mentions"] == ["adapter_config.json (q_proj)"]
    assert ran.data["left_out"] == []
    assert ran.data["written"]["left_out"] == ["optimizer.pt"]
    why = "its parameters are numbered in the order of a class"
    assert ran.data["unfollowed"] == f"{why}; --check NEW_DEF --from OLD_DEF  takes it along"
    renamed = folder / "lora.renamed"
    assert set(load_file(renamed / "adapter_model.safetensors")) == {"a.query.weight"}
    assert sorted(path.name for path in renamed.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors")
    ]
    one = ckpt("rename", "lora", "--rule", "q_proj=query", "-o", "one.safetensors")
    assert "2 side files" in one.out
    assert "mentions" not in one.out


def test_sharded_folder_keeps_its_files(ckpt: Run, folder: Path) -> None:
    (folder / "big" / "sub").mkdir(parents=True)
    for key in "ab":
        save_file({key: torch.full((2000,), ord(key))}, folder / "big" / f"{key}.safetensors")
    names = {key: f"{key}.safetensors" for key in "ab"}
    (folder / "big" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "big" / "sub" / "config.json").write_text("{}")
    assert ", 1 side file, " in ckpt("register", "big").out
    ckpt("export", "big:v1", "-o", "again")
    ckpt("export", "./big", "-o", "third")
    assert same_folders(folder / "big", folder / "again")
    assert same_folders(folder / "big", folder / "third")
    ckpt("rename", "./big", "--rule", "a=c", "-o", "renamed")
    assert (folder / "renamed" / "sub" / "config.json").read_text() == "{}"
    assert ckpt("show", "renamed").code == 0


def test_folder_with_a_dataset_gives_its_weights(ckpt: Run, folder: Path) -> None:
    peft(folder / "lora")
    (folder / "lora" / "data").mkdir()
    for number in range(1001):
        (folder / "lora" / "data" / f"{number}.txt").touch()
    ran = ckpt("register", "lora")
    assert ran.code == 2
    assert "1,003 files beside the weights, the limit is 1,000" in ran.err
    assert ckpt("register", "lora", "--no-files").code == 0
    assert ckpt("show", "./lora").code == 0
    ran = ckpt("export", "./lora", "-o", "again")
    assert "not written (the new file cannot hold it): 1,003 files of 36 bytes" in ran.err
    assert os.listdir(folder / "again") == ["adapter_model.safetensors"]


def test_gc_keeps_files_and_verify_names_a_damaged_one(with_files: Run, folder: Path) -> None:
    with_files("gc", "--grace", "0", "--yes")
    check(folder)
    stored = object_of(folder, 9000)
    good = stored.read_bytes()
    stored.write_bytes(b"x" * 9000)
    ran = with_files("verify")
    assert ran.code == 4
    assert "net:v1 tokenizer/vocab.txt" in ran.out + ran.err
    assert with_files("export", "v1", "-o", "out").code == 4
    assert not (folder / "out").exists()
    assert with_files("verify", "--repair", "tokenizer/vocab.txt").code == 0
    assert stored.read_bytes() == good
    check(folder)


def test_repair_takes_files_from_a_folder(ckpt: Run, folder: Path) -> None:
    peft(folder / "lora")
    (folder / "lora" / "vocab.txt").write_bytes(os.urandom(9000))
    ckpt("register", "lora")
    object_of(folder, 9000).unlink()
    assert ckpt("verify").code == 4
    assert ckpt("verify", "--repair", "./lora").code == 0
    check(folder)


def test_removed_version_frees_its_files(with_files: Run, folder: Path) -> None:
    assert with_files("du", "--json").data["versions"][0]["alone"] > 9000 + 16_000
    with_files("rm", "v1", "--yes")
    with_files("gc", "--grace", "0", "--keep-removed", "0", "--yes")
    assert not list(folder.glob(".ckpt/objects/??/*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--with", "nothing"), "nothing: no such file"),
        (("--with", "tokenizer", "--max", "1kB"), "is tokenizer/vocab.txt, 9,000 bytes"),
        (("--with", "config.json", "--with", "other/CONFIG.json"), "would be one file"),
        (("--with", "other/net.pt"), "'net.pt' and 'net.pt' would be one file"),
        (("--with", "link"), "link/x: not a file, or a link that leads out of the folder"),
        (("--with", "pipe"), "not a regular file"),
        (("--max", "much"), "'much' is not a size like 100MB"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(
    with_files: Run, folder: Path, words: tuple[str, ...], says: str
) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "CONFIG.json").write_text("{}")
    save(folder / "other" / "net.pt", 1)
    (folder / "link").mkdir()
    (folder / "link" / "x").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    before = sorted(folder.rglob("*"))
    ran = with_files("register", "net.pt", *words)
    assert ran.code in (2, 3)
    assert says in ran.err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "net.pt", "NET.PT", "\u001b[2J"])
def test_hostile_manifest_is_refused(with_files: Run, folder: Path, name: str) -> None:
    (path,) = folder.glob(".ckpt/manifests/??/*")
    document = json.loads(path.read_bytes())
    document["side_files"][0][0] = name
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(json.dumps(document).encode())


def test_private_file_is_not_readable_for_others(ckpt: Run, folder: Path) -> None:
    save(folder / "net.pt", 1)
    (folder / "secret.json").write_text("{}")
    (folder / "secret.json").chmod(0o600)
    ckpt("register", "net.pt", "--with", "secret.json")
    (manifest,) = folder.glob(".ckpt/manifests/??/*")
    assert manifest.stat().st_mode & 0o077 == 0
    ckpt("export", "v1", "-o", "out")
    assert (folder / "out" / "secret.json").stat().st_mode & 0o077 == 0
