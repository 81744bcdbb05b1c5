"""FAULTS 23: names of models, aliases and tags are of an allow-list, on the way in.

Names stand in registry.json alone; no file or folder is named after one, since objects are named
by their digests. Hence two decisions:

- Case twins are legal: `Net` and `net` are two models, on a file system that folds case as well.
- `CON`, `NUL` and the like, which Windows keeps for devices, are names like others. Whoever makes
  files out of names (`ckpt train` without --register, pages) has to look to that there.

Twins in NFC and NFD cannot be: no name has a character beyond ASCII.
"""

import json
import unicodedata
from pathlib import Path

import pytest
import torch

from tests.cli.support import Run, tree, weights

BAD = {
    "empty": "",
    "dots": "..",
    "dot": ".",
    "hidden": ".git",
    "path": "a/b",
    "backslash": "a\\b",
    "drive": "C:",
    "option": "-rf",
    "trailing dot": "x.",
    "300 characters": "a" * 300,
    "129 characters": "a" * 129,
    "NFC": unicodedata.normalize("NFC", "é"),
    "NFD": unicodedata.normalize("NFD", "é"),
    "full width": "ｎｅｔ",
    "cyrillic a": "b\u0430d",
    "ESC": "a\x1b[2J",
    "newline": "a\nb",
    "trailing newline": "net\n",
    "tab": "a\tb",
    "RTL": "\u202egpj",
    "zero width": "a\u200bb",
    "emoji": "🚀",
    "space": "a b",
    "blank": " ",
    "colon": "a:b",
    "star": "a*",
    "underscore first": "_a",
    "surrogate": "a\udcff",
}
NOT_AN_ALIAS = {"version": "v2", "latest": "latest"}
GOOD = ["CON", "nul", "a", "0", "A.b_c-d", "net.v2", "a" * 128]


@pytest.fixture
def registered(ckpt: Run, folder: Path) -> Run:
    """`net` v1."""
    torch.save(weights(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    torch.save(weights(1), folder / "net.pt")
    return ckpt


def expect_refused(ckpt: Run, folder: Path, *words: str) -> None:
    before = tree(folder)
    ran = ckpt(*words)
    assert (ran.code, ran.out) == (2, ""), words
    first = ran.err.splitlines()[0]
    assert first.startswith("error: ")
    assert first.isprintable()
    assert tree(folder) == before, words


@pytest.mark.parametrize("name", BAD.values(), ids=list(BAD))
def test_fault_23_name_is_refused_and_nothing_is_written(
    registered: Run, folder: Path, name: str
) -> None:
    for words in (
        ("register", "net.pt", "--name", name),
        ("rename", "net.pt", "--rule", "conv=embed", "--register", "--name", name),
        ("train", "--register", "--name", name, "--dataset", "digits"),
        ("train", "--name", name, "--dataset", "digits"),
        ("alias", name, "net:v1"),
        ("alias", f"net@{name}", "net:v1"),
        ("alias", name, "net:v1", "--expect", "none", "--protect"),
        ("alias", f"{name}@prod", "v1"),
        ("tag", "net:v1", name),
        ("tag", "net:v1", "good", name),
        ("tag", "net:v1", "-d", name),
    ):
        if name == "" and words[:2] == ("alias", "@prod"):
            continue  # prod of the only model
        expect_refused(registered, folder, *words)


@pytest.mark.parametrize("name", NOT_AN_ALIAS.values(), ids=list(NOT_AN_ALIAS))
def test_fault_23_alias_is_not_named_as_what_refs_mean(
    registered: Run, folder: Path, name: str
) -> None:
    expect_refused(registered, folder, "alias", name, "net:v1")
    expect_refused(registered, folder, "alias", f"net@{name}", "net:v1")


@pytest.mark.parametrize("name", GOOD, ids=lambda name: name[:8])
def test_fault_23_names_of_the_allow_list_are_names(
    registered: Run, folder: Path, name: str
) -> None:
    assert registered("register", "net.pt", "--name", name).code == 0
    assert registered("alias", name, f"{name}:v1").code == 0
    assert registered("tag", f"{name}@{name}", name).code == 0
    (shown,) = registered("ls", name, "--json").data
    assert (shown["model"], shown["aliases"], shown["tags"]) == (name, [name], [name])
    files = {Path(each).name for each in tree(folder)}
    assert not {name, f"{name}.json"} & files, "no file is named after it"


def test_fault_23_case_twins_are_two_models(registered: Run, folder: Path) -> None:
    """See above: a name is a key of registry.json, where case counts, and no file's."""
    before = set(tree(folder / ".ckpt" / "objects"))
    torch.save(weights(), folder / "net.pt")
    assert registered("register", "net.pt", "--name", "Net").code == 0
    for name in ("prod", "Prod"):
        assert registered("alias", f"Net@{name}", "v1").code == 0
    models = json.loads((folder / "registry.json").read_text())["models"]
    assert (sorted(models), models["Net"]["aliases"]) == (
        ["Net", "net"],
        {"Prod": "v1", "prod": "v1"},
    )
    assert set(tree(folder / ".ckpt" / "objects")) == before, "the same bytes, once"
    assert registered("rm", "net:v1", "--yes").code == 0
    assert registered("export", "Net@Prod", "-o", "again.pt").code == 0
