"""Small files that a person names: regular and bounded, whatever kind of thing has their name."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import Run, tree

READERS = [
    ["rename", "old.pt", "--map", "{}", "--dry-run"],
    ["rename", "old.pt", "--rules", "{}", "--dry-run"],
    ["train", "--recipe", "{}"],
    ["git-driver", "text", "{}"],
    ["git-driver", "merge", "{}", "{}", "{}"],
]
SUFFIXES = [".json", ".toml", ".csv"]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder_there(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)  # sparse


@pytest.mark.parametrize("make", [fifo, zeros, folder_there, huge])
@pytest.mark.parametrize("words", READERS, ids=lambda words: " ".join(words[:3]))
def test_what_is_not_a_small_file_is_refused(
    ckpt: Run, old: Path, folder: Path, words: list[str], make: Callable[[Path], None]
) -> None:
    for suffix in SUFFIXES:
        path = folder / f"it{suffix}"
        make(path)
        ran = ckpt(*(word.format(path) for word in words))
        said = ran.out + ran.err
        assert ran.code in ((0,) if "text" in words else (2, 3)), said
        assert "not a regular file" in said or "limit is" in said or "no such recipe" in said \
            or "truncated" in said or "not a checkpoint" in said  # fmt: skip


@pytest.mark.parametrize("make", [fifo, zeros, huge])
@pytest.mark.parametrize("words", [["ls"], ["log", "v1"], ["fsck"], ["register", "old.pt"]])
def test_index_that_is_not_a_small_file_is_refused(
    ckpt: Run, old: Path, folder: Path, words: list[str], make: Callable[[Path], None]
) -> None:
    assert ckpt("register", "old.pt").code == 0
    (folder / "registry.json").unlink()
    make(folder / "registry.json")
    ran = ckpt(*words, "--registry", str(folder))
    assert ran.code == 4, ran.err
    said = ("not a regular file", "a symbolic link", "the limit is")
    assert any(words in ran.err for words in said), ran.err


def test_attributes_of_any_bytes_are_kept(ckpt: Run, old: Path, folder: Path) -> None:
    assert ckpt("register", "old.pt").code == 0
    os.system("git init -q .")
    (folder / ".gitattributes").write_bytes(b"# \xff\n")
    assert ckpt("git-driver", "install").code == 0
    assert (folder / ".gitattributes").read_bytes().startswith(b"# \xff\nregistry.json merge=ckpt")


DOTTED = ".".join("a" * 50_000)


@pytest.mark.parametrize("text", [f"{DOTTED} = 1", f"[{DOTTED}]", '"="' + '."="' * 25_000 + " = 1"])
def test_toml_of_dotted_keys_is_refused(ckpt: Run, old: Path, folder: Path, text: str) -> None:
    for name, words in (
        ("it.toml", ["rename", "old.pt", "--map", "it.toml"]),
        ("it.toml", ["rename", "old.pt", "--rules", "it.toml"]),
        ("it.toml", ["train", "--recipe", "it.toml"]),
    ):
        (folder / name).write_text(text)
        ran = ckpt(*words)
        assert (ran.code, "too many dots" in ran.err) == (2, True), ran.err


def test_map_of_many_dotted_keys_is_read(ckpt: Run, old: Path, folder: Path) -> None:
    lines = (f'"a.b.c.d.e.f.g.{n}" = "b.c.d.e.f.g.h.{n}"' for n in range(10_000))
    (folder / "it.toml").write_text("\n".join(lines))
    ran = ckpt("rename", "old.pt", "--map", "it.toml")
    assert (ran.code, "a.b.c.d.e.f.g.0" in ran.err) == (3, True), "it was read, and matches nothing"


FILL = """
[[rules]]
fill = "new"
beside = "fc1.bias"
value = 0
shape = [{}]
dtype = "float32"
"""


@pytest.mark.parametrize("source", ["old.pt", "v1"])
def test_tensors_far_larger_than_the_source_are_asked_for(
    ckpt: Run, old: Path, folder: Path, source: str
) -> None:
    assert ckpt("register", "old.pt").code == 0
    (folder / "fill.toml").write_text(FILL.format(1 << 50))
    before = tree(folder)
    for words in ([], ["--dry-run"], ["-o", "new.pt"]):
        ran = ckpt("rename", source, "--rules", "fill.toml", *words)
        assert (ran.code, ran.out) == (3, "")
        assert "make tensors of 4,503,599,6" in ran.err
    ran = ckpt("rename", source, "--rules", "fill.toml", "-o", "new.pt", "--force")
    assert (ran.code, ran.out) == (5, "")
    assert "bytes are needed" in ran.err
    assert "are free" in ran.err
    assert tree(folder) == before


def test_more_than_the_disk_has_is_refused_before_a_byte_is_written(
    ckpt: Run, old: Path, folder: Path
) -> None:
    free = shutil.disk_usage(folder).total
    (folder / "fill.toml").write_text(FILL.format(free))
    ran = ckpt("rename", "old.pt", "--rules", "fill.toml", "-o", "new.safetensors", "--force")
    assert ran.code == 5
    assert sorted(path.name for path in folder.iterdir()) == ["fill.toml", "old.pt"]
