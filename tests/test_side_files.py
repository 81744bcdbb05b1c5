"""Names of side files, and the files that a folder gives."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import UsageError
from ckpt.side_files import expect_names, named, of_folder, write_files

BAD = [
    *("", ".", "..", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "/", "a\\b", "c:x", "a/./b"),
    *("a\nb", "\x1b[31m", "nul\0", "\ud800", "/".join("a" * 33), "x" * 256),
]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        expect_names([name])


@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a", "A"), ("d/a", "D/a"), ("ß", "SS"), ("\u00e9", "e\u0301"), ("a", "a/b")],
    ids=ascii,
)
def test_names_that_collide_on_some_system_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"would be"):
        expect_names(names)
    with pytest.raises(ValueError, match=r"would be"):
        expect_names(reversed(names))


@given(st.lists(st.text(max_size=6), max_size=4))
def test_accepted_names_stay_inside_and_apart(names: list[str]) -> None:
    try:
        expect_names(names)
    except ValueError:
        return
    paths = {os.path.normpath(Path("/root") / name) for name in names}
    assert len(paths) == len(names)
    assert all(path.startswith("/root/") for path in paths)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_folder_gives_small_files_and_names_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "model"
    write(root, "model.safetensors", "config.json", "1_Pooling/config.json", "sub/deep/a.txt")
    write(root, "optimizer.pt", "tf_model.h5", "step-5/x.bin", ".git/config", ".env")
    write(tmp_path, "secret")
    (root / "inside").symlink_to("config.json")
    (root / "outside").symlink_to("../secret")
    (root / "sub" / "outside").symlink_to("../../secret")
    (root / "sub" / "up").symlink_to("../config.json")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    found = of_folder(root, ["model.safetensors"])
    assert [file.name for file in found.files] == [
        *("1_Pooling/config.json", "config.json", "inside", "sub/deep/a.txt", "sub/up")
    ]
    assert sorted(found.left) == [
        *("folder", "optimizer.pt", "outside", "pipe", "step-5/", "sub/outside", "tf_model.h5")
    ]


def test_links_of_the_cache_of_hugging_face_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "blobs/1", "blobs/2", "other/3")
    snapshot = tmp_path / "snapshots" / "abc"
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (snapshot / "sub" / "a.json").symlink_to("../../../blobs/2")
    (snapshot / "b.json").symlink_to("../../other/3")
    found = of_folder(snapshot, [])
    assert {file.name: b"".join(file.chunks()) for file in found.files} == {
        "config.json": b"blobs/1",
        "sub/a.json": b"blobs/2",
    }
    assert found.left == ("b.json",)


def test_index_of_a_registry_is_no_side_file(tmp_path: Path) -> None:
    write(tmp_path, "registry.json", ".ckpt/id", "config.json")
    assert [file.name for file in of_folder(tmp_path, []).files] == ["config.json"]


def test_named_folder_gives_everything_in_it(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer/vocab.txt", "tokenizer/.hidden", "tokenizer/x/a.pt", "c.json")
    names = [each.name for each in named([tmp_path / "tokenizer", tmp_path / "c.json"])]
    assert names == ["tokenizer/.hidden", "tokenizer/vocab.txt", "tokenizer/x/a.pt", "c.json"]
    (tmp_path / "tokenizer" / "x" / "b").symlink_to("../../c.json")
    with pytest.raises(UsageError, match="leads out of the folder"):
        list(named([tmp_path / "tokenizer"]))


def test_written_files_are_those_that_were_read(tmp_path: Path) -> None:
    write(tmp_path / "a", "x.txt", "deep/er/y.txt")
    (tmp_path / "a" / "x.txt").chmod(0o600)
    (tmp_path / "b").mkdir()
    files = of_folder(tmp_path / "a", []).files
    assert write_files(files, tmp_path / "b") == sum(file.nbytes for file in files)
    assert (tmp_path / "b/deep/er/y.txt").read_text() == "deep/er/y.txt"
    assert (tmp_path / "b/x.txt").stat().st_mode & 0o077 == 0
