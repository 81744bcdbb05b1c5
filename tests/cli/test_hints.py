"""What people type for something else: the hint is what they meant, and works."""

import shlex
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.support import Git, Run, commit, save, weights


@pytest.fixture
def shelf(ckpt: Run, folder: Path) -> Run:
    torch.save(weights(), folder / "old.pt")
    assert ckpt("register", "old.pt", "--name", "net").code == 0
    assert ckpt("alias", "prod", "net:v1").code == 0
    return ckpt


@pytest.mark.parametrize(
    "typed",
    [
        "rename old.pt new.pt --rule conv=embed",
        "rename old.pt new.safetensors --rule conv=embed",
        "export old.pt new.safetensors",
    ],
)
def test_output_without_its_option(shelf: Run, folder: Path, typed: str) -> None:
    ran = shelf(*shlex.split(typed))
    assert ran.code == 2
    (hint,) = [line for line in ran.err.splitlines() if line.startswith("hint:")]
    command = shlex.split(hint.removeprefix("hint:"))
    assert command[0] == "ckpt"
    assert shelf(*command[1:]).code == 0
    assert (folder / shlex.split(typed)[2]).is_file()


def test_alias_without_its_model(shelf: Run) -> None:
    ran = shelf("show", "prod")
    assert (ran.code, ran.err.splitlines()[1]) == (
        2,
        "hint:  net@prod  is the version with this alias",
    )
    assert shelf("show", "net@prod").code == 0


def test_wrong_suffix(shelf: Run) -> None:
    ran = shelf("show", "old.ptt")
    assert (ran.code, ran.err.splitlines()[1]) == (2, "hint:  or the file old.pt?")


def test_revision_of_git_gets_what_takes_one(shelf: Run, git: Git, folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models/net.py").write_text("import torch\nNet = lambda: torch.nn.Linear(1, 1)\n")
    commit(git)
    git("branch", "other/main")
    assert shelf("register", "old.pt", "--name", "second").code == 0
    for words in (("diff", "git:other/main", "HEAD"), ("diff", "net:v1", "git:other/main")):
        ran = shelf(*words)
        assert (ran.code, ran.err) == (
            2,
            "error: git:other/main: a revision of git, expected a version, a file or a class\n"
            "hint:  which versions it changed, after  ckpt git-driver install :\n"
            "       git diff other/main -- registry.json\n"
            "       whether a class still loads the checkpoints of its earlier form:\n"
            "       ckpt guard models/net.py:Net --against git:other/main\n",
        )
    assert shelf("git-driver", "install").code == 0
    assert "second" in git("diff", "other/main", "--", "registry.json").stdout
    ran = shelf("show", "HEAD~1")
    assert ran.err.startswith("error: HEAD~1: a revision of git, expected a version")
    torch.save(weights(), folder / "HEAD")
    assert shelf("show", "HEAD").code == 0
    assert shelf("register", "old.pt", "--name", "git").code == 0
    assert shelf("show", "git:v1").code == 0
    (folder / "HEAD").unlink()
    assert shelf("show", "HEAD").code == 2
    assert shelf("register", "old.pt", "--name", "HEAD").code == 0
    assert shelf("show", "HEAD").out.startswith("HEAD:v1 ")


def test_code_without_a_class(shelf: Run, folder: Path) -> None:
    (folder / "net.py").write_text("class Net(x.Module):\n    pass\nclass Other(Net):\n    pass\n")
    ran = shelf("diff", "old.pt", "net.py")
    assert (ran.code, ran.err) == (
        2,
        "error: net.py: Python code, and no class is named\nhint:  net.py:Net  net.py:Other\n",
    )


def test_framework_that_is_not_installed(shelf: Run, folder: Path) -> None:
    (folder / "net.py").write_text("import no_such_framework.nn\nclass Net: pass\n")
    ran = shelf("diff", "old.pt", "net.py:Net")
    assert ran.code == 3
    hint = f"{sys.prefix} has no no_such_framework; install ckpt beside your project's packages"
    assert ran.err.splitlines()[1] == f"hint:  {hint}"


@pytest.mark.parametrize("typed", ["--foo", "--out other.pt", "-oother.pt"])
def test_other_mistakes_get_no_command_that_fails_again(shelf: Run, typed: str) -> None:
    ran = shelf("rename", "old.pt", "new.pt", "--rule", "conv=embed", *typed.split())
    assert (ran.code, ran.err.splitlines()[1]) == (2, "hint:  ckpt rename --help")


@pytest.mark.parametrize(
    "words",
    [
        ("rm", "{}", "--yes"),
        ("alias", "prod", "{}"),
        ("tag", "{}", "nice"),
        ("restore", "{}"),
        ("log", "{}"),
        ("note", "{}", "-m", "x"),
        ("metric", "{}", "loss=1"),
        ("pin", "{}"),
        ("blame", "w", "{}"),
        ("copy", "{}", "."),
        ("ls", "{}"),
        ("du", "{}"),
        ("register", "net.pt", "--parent", "{}"),
    ],
    ids=lambda words: words[0],
)
def test_file_where_a_version_is_expected_is_told_apart(
    words: tuple[str, ...], ckpt: Run, folder: Path
) -> None:
    save(folder / "net.pt", 1)
    assert ckpt("register", "net.pt").code == 0
    (folder / "bare").write_bytes((folder / "net.pt").read_bytes())
    (folder / "run 1").mkdir()
    for path, kind, typed in (
        ("./net.pt", "file", "./net.pt"),
        ("bare", "file", "bare"),
        ("./run 1", "folder", "'./run 1'"),
    ):
        ran = ckpt(*(word.format(path) for word in words))
        assert (ran.code, ran.out, ran.err) == (
            2,
            "",
            f"error: {path} is a {kind}, not a version in the registry\n"
            f"hint:  to register it first:  ckpt register {typed}\n",
        )


def test_model_that_is_missing_is_not_taken_for_a_folder(ckpt: Run, folder: Path) -> None:
    save(folder / "net.pt", 1)
    assert ckpt("register", "net.pt").code == 0
    (folder / "nets").mkdir()
    ran = ckpt("tag", "nets:v1", "x")
    assert (ran.code, "no model 'nets'" in ran.err, "folder" in ran.err) == (2, True, False)
    (folder / "net").mkdir()
    assert ckpt("tag", "net", "x").code == 0


@pytest.mark.parametrize("version", ["net:v1", "v1"])
def test_alias_and_version_the_other_way_round(shelf: Run, version: str) -> None:
    ran = shelf("alias", version, "best")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            f"error: {version!r} is a version, not the name of an alias",
            f"hint:  ckpt alias best {version}",
        ],
    )
    assert shelf("alias", "best", version).code == 0


@pytest.mark.parametrize(
    "words",
    [
        *(("verify",), ("verify", "--repair", "old.pt"), ("du",), ("redo",)),
        *(("pull",), ("push",), ("fetch",), ("evict", "net:v1"), ("site", "-o", "pages")),
        *(("alias", "prod"), ("alias", "prod", "net:v1"), ("tag", "net:v1", "x")),
        *(("note", "net:v1", "-m", "x"), ("restore", "net:v1")),
    ],
    ids=" ".join,
)
def test_command_that_needs_a_registry_says_that_there_is_none(
    words: tuple[str, ...], ckpt: Run, folder: Path
) -> None:
    ran = ckpt(*words)
    error = f"error: {folder}: no registry here or above\n"
    said = f"{error}hint:  ckpt register FILE  creates one\n"
    assert (ran.code, ran.out, ran.err) == (2, "", said)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("export", "net@prod", "-o", "p.pt"), "no model 'net'"),
        (("ls", "net"), "no model 'net'"),
        (("log",), "the registry holds 0 models"),
        (("show", "v1"), "the registry holds 0 models"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else None,
)
def test_ref_without_a_registry_says_that_there_is_none(
    words: tuple[str, ...], error: str, ckpt: Run, folder: Path
) -> None:
    ran = ckpt(*words)
    hint = f"{folder}: no registry here or above"
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {error}\nhint:  {hint}\n")
    named = ckpt(*words, "--registry", ".")
    assert named.err == f"error: {error}\nhint:  .: no registry here\n"
    assert not list(folder.iterdir())


def test_list_without_a_registry_is_empty(ckpt: Run, folder: Path) -> None:
    ran = ckpt("ls")
    first = "ckpt register FILE  or  ckpt train --register  adds the first"
    assert (ran.code, ran.err) == (0, f"no versions in {folder}: {first}\n")


@pytest.mark.parametrize(
    "words",
    [
        ("diff", "net.pt", "nets"),
        ("rename", "nets", "--strip", "x"),
        ("export", "nets", "-o", "new.pt"),
        ("show", "nets::ema"),
        ("audit", "nets"),
    ],
    ids=lambda words: words[0],
)
def test_missing_folder_is_not_only_a_missing_model(
    words: tuple[str, ...], ckpt: Run, folder: Path
) -> None:
    save(folder / "net.pt", 1)
    assert ckpt("register", "net.pt").code == 0
    ran = ckpt(*words)
    said = "error: no model, file or folder 'nets'\nhint:  the registry holds net\n"
    assert (ran.code, ran.err) == (2, said)


@pytest.mark.parametrize(
    ("ref", "out"),
    [
        ("net@prod", "net-prod.pt"),
        ("net:v1", "net-v1.pt"),
        ("net.pt", "net.safetensors"),
        ("runs/a.safetensors", "a.pt"),
        ("s3://b/team#net@prod", "net-prod.pt"),
    ],
)
def test_export_without_an_output_shows_the_whole_line(ckpt: Run, ref: str, out: str) -> None:
    ran = ckpt("export", ref)
    typed = f"'{ref}'" if "#" in ref else ref
    said = f"error: no output given\nhint:  ckpt export {typed} -o {out}\n"
    assert (ran.code, ran.out, ran.err) == (2, "", said)


@pytest.mark.parametrize("command", ["ls", "du"])
def test_version_where_a_model_is_expected(ckpt: Run, folder: Path, command: str) -> None:
    save(folder / "net.pt", 1)
    assert ckpt("register", "net.pt", "--alias", "prod").code == 0
    ran = ckpt(command, "net@prod")
    error = "error: net@prod is a version, expected a model: net\n"
    assert (ran.code, ran.err) == (2, f"{error}hint:  ckpt show net@prod\n")


def test_every_part_of_a_file_that_holds_tensors_is_named(ckpt: Run, folder: Path) -> None:
    moments = {"state": {0: {"exp_avg": torch.ones(2)}}}
    parts = {"state_dict": {"w": torch.ones(2)}, "optimizer_states": [moments]}
    torch.save({**parts, "hyper_parameters": {"lr": 0.1}}, "light.ckpt")
    ran = ckpt("show", "light.ckpt::hyper_parameters")
    error = "error: light.ckpt: holds no state_dict 'hyper_parameters'\n"
    hint = "hint:  name one: light.ckpt::state_dict  or  light.ckpt::optimizer_states\n"
    assert (ran.code, ran.err) == (3, error + hint)
    assert ckpt("show", "light.ckpt::optimizer_states").code == 0


NET = "from torch import nn\n\nclass Net(nn.Module):\n    pass\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("rename old.pt net.py:Net", "ckpt rename old.pt --to net.py:Net"),
        ("rename old.pt net.py:Net -o new.pt", "ckpt rename old.pt --to net.py:Net -o new.pt"),
        ("rename net.py:Net --to old.pt", "ckpt rename old.pt --to net.py:Net"),
        ("rename old.pt --to net.Net", "or the class net.py:Net?"),
    ],
)
def test_class_in_the_wrong_place_is_put_into_the_right_one(
    words: str, hint: str, old: Path, ckpt: Run
) -> None:
    (old.parent / "net.py").write_text(NET)
    ran = ckpt(*words.split())
    assert (ran.code, ran.err.splitlines()[1:]) == (2, [f"hint:  {hint}"])


def test_word_of_another_tool_names_the_command(ckpt: Run) -> None:
    ran = ckpt("convert", "old.pt")
    assert ran.err.startswith("error: no command 'convert'; did you mean 'export'?\n")


def test_undo_without_a_registry_says_what_it_is_for(ckpt: Run, folder: Path) -> None:
    ran = ckpt("undo")
    assert (ran.code, ran.err) == (
        2,
        f"error: {folder}: no registry here or above\n"
        "hint:  undo is for changes to a registry; to give a file its old keys back:  "
        "ckpt rename FILE --to OLD_DEF\n",
    )
    error = f"error: {folder}: no registry here or above\n"
    assert ckpt("redo").err == f"{error}hint:  ckpt register FILE  creates one\n"
    assert not (folder / ".ckpt").exists()
