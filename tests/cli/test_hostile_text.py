"""Fault 24: hostile text in every text of every kind of file, found by walking the file itself.

The index, manifests and reflog are walked as JSON, safetensors as its header, `.pt` as the opcodes
of its pickle. Each text takes its turn, and every command that reads the file runs, as text and as
JSON.
"""

import io
import json
import pickletools
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.documents import (
    COMMANDS,
    SMALL,
    changed,
    make_registry,
    manifests,
    places,
    renamed,
    replace_manifest,
    value_at,
)
from tests.cli.support import Run
from tests.effort import by_effort, long_but

MARK = "FORGED"  # must never begin a line
HOSTILE = [
    f"a\n{MARK}\r{MARK}\x1b[2J\x1b[31m\x1b]0;t\x07\x9b2J\x85{MARK}\x7f",
    f"\u2028{MARK}\u2029{MARK}\u202e\u2066\u200b\ufeff\u00ad\U000e0041\u3164 \x0b{MARK}\x0c\t",
    "\ud800",
]


def is_harmless(text: str) -> bool:
    """Whether a text has only ink, spaces and line feeds, and no line that a file began."""
    kinds = {unicodedata.category(char) for char in text if char not in "\n "}
    return (
        not any(kind[0] in "CZ" for kind in kinds)
        and "\u3164" not in text
        and not any(line.strip(" |`#").startswith(MARK) for line in text.split("\n"))
    )


def expect_harmless(ckpt: Run, words: list[str], where: object) -> None:
    ran = ckpt(*words)
    assert is_harmless(ran.out), (words, where, ran.out)
    assert is_harmless(ran.err), (words, where, ran.err)
    assert "internal error" not in ran.err, (words, where, ran.err)
    if "--json" in words and ran.code == 0:
        json.loads(ran.out)


def hostile_documents(document: Any) -> Iterator[tuple[object, Any]]:
    """The document with one of its texts or keys replaced, for each."""
    for number, path in enumerate(places(document)):
        evil = HOSTILE[number % len(HOSTILE)]
        if isinstance(value_at(document, path), str):
            yield path, changed(document, path, evil)
        if isinstance(path[-1], str):
            yield (*path, "(key)"), renamed(document, path, evil)


def test_fault_24_every_text_of_the_index(ckpt: Run, folder: Path) -> None:
    make_registry(folder)
    file = folder / "registry.json"
    documents = [*hostile_documents(json.loads(file.read_text()))]
    for number, (where, mutant) in enumerate(documents[:: by_effort(2, 1, 1)]):
        file.write_text(json.dumps(mutant))
        short = COMMANDS[number % 5 :: 5] if ckpt("ls").code else COMMANDS
        for words in by_effort(short[number % 6 :: 6], COMMANDS[number % 2 :: 2], COMMANDS):
            expect_harmless(ckpt, words, where)


@pytest.mark.parametrize("label", long_but(["v2"], ["v1", "v2", "v3"]))
def test_fault_24_every_text_of_a_manifest(ckpt: Run, folder: Path, label: str) -> None:
    make_registry(folder)
    index = (folder / "registry.json").read_text()
    old = json.loads(index)["models"]["net"]["versions"][label]["manifest"]
    for number, (where, mutant) in enumerate(hostile_documents(manifests(folder)[old])):
        replace_manifest(folder, index, old, mutant)
        for words in by_effort(COMMANDS[number % 12 :: 12], COMMANDS[number % 3 :: 3], COMMANDS):
            expect_harmless(ckpt, words, where)


LISTED = (["undo", "--list"], ["undo", "--list", "--json"])


def test_fault_24_every_text_of_the_reflog(ckpt: Run, folder: Path) -> None:
    make_registry(folder)
    file = folder / ".ckpt" / "reflog"
    lines = file.read_text().splitlines()
    for at, line in enumerate(lines):
        documents = [*hostile_documents(json.loads(line))]
        for where, mutant in documents[at % 3 :: by_effort(4, 1, 1)]:
            file.write_text("\n".join([*lines[:at], json.dumps(mutant), *lines[at + 1 :]]) + "\n")
            for words in by_effort(LISTED[:1], LISTED, LISTED):
                expect_harmless(ckpt, words, (at, where))
    (folder / "registry.json").unlink()
    for words in (["fsck"], ["fsck", "--rebuild-index", "--dry-run"], ["ls"]):
        expect_harmless(ckpt, words, "the last one")


def hostile_headers(file: Path) -> Iterator[tuple[object, bytes]]:
    """A safetensors file with one text of its header replaced, for each."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for where, mutant in hostile_documents(json.loads(data[8 : 8 + length])):
        header = json.dumps(mutant).encode()
        yield where, struct.pack("<Q", len(header)) + header + data[8 + length :]


def hostile_pickles(file: Path) -> Iterator[tuple[object, bytes]]:
    """A `.pt` file with one text of its pickle replaced, for each."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in members if name.endswith("data.pkl"))
    ops = list(pickletools.genops(members[name]))
    for number, (op, text, begin) in enumerate(ops):
        if op.name == "BINUNICODE":
            evil = HOSTILE[number % len(HOSTILE)].encode("utf-8", "surrogatepass")
            op_bytes = b"X" + struct.pack("<I", len(evil)) + evil
            made = members[name][:begin] + op_bytes + members[name][ops[number + 1][2] :]
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as archive:
                for member, data in members.items():
                    archive.writestr(member, made if member == name else data)
            yield (begin, text), out.getvalue()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_fault_24_every_text_of_a_checkpoint(ckpt: Run, folder: Path, suffix: str) -> None:
    good, bad = folder / f"good.{suffix}", folder / f"bad.{suffix}"
    if suffix == "pt":
        torch.save({"model": SMALL, "epoch": 1, "note": {"who": "me", "list": ["x"]}}, good)
        mutants = list(hostile_pickles(good))
    else:
        save_file(SMALL, good, metadata={"format": "pt", "note": "text"})
        mutants = list(hostile_headers(good))
    assert len(mutants) > 8
    name = "bad.pt::model" if suffix == "pt" else "bad.safetensors"
    for where, data in mutants:
        bad.write_bytes(data)
        for words in (
            ["show", name],
            ["show", "bad.pt", "--json"],
            ["show", name, "--tree"],
            ["git-driver", "text", bad.name],
            ["git-driver", "text", bad.name, "--json"],
            *(
                ["diff", "--records", "--format", form, *pair]
                for form in ("text", "markdown", "html")
                for pair in ((name, good.name), (good.name, name))
            ),
            ["diff", name, "ckpt.models.mnist_cnn:Net"],
            ["diff", good.name, name, "--json"],
            ["diff", good.name, name, "--map"],
            ["rename", name, "--rule", "weight=x", "--dry-run"],
            ["rename", name, "--rule", ".*=one", "--dry-run"],
        ):
            expect_harmless(ckpt, words, where)


def test_fault_24_key_cannot_give_the_line_of_another_key(ckpt: Run, folder: Path) -> None:
    save_file({"a": torch.ones(2)}, folder / "one.safetensors")
    line = ckpt("git-driver", "text", "one.safetensors").out
    (digest,) = line.split()[-1:]
    keys = [f"b\na  float32  2  {digest}", f"a  float32  2  {digest}  x", "a\r", ' "a"']
    save_file({key: torch.ones(3) for key in keys}, folder / "two.safetensors")
    lines = ckpt("git-driver", "text", "two.safetensors").out.splitlines()
    assert len(lines) == len(keys)
    assert not {found for found in lines if found.startswith("a")}
    assert sorted(json.JSONDecoder().raw_decode(found)[0] for found in lines) == sorted(keys)


def test_fault_24_rules_and_maps(ckpt: Run, old: Path, folder: Path) -> None:
    evil = HOSTILE[0]
    documents: list[tuple[str, str, Any]] = [
        ("--map", "it.json", {"conv1.weight": "a.weight", "conv1.bias": "a.bias"}),
        ("--rules", "it.json", {"name": "x", "rules": [{"rename": "conv->a"}, {"drop": "fc"}]}),
        ("--rules", "it.json", {"rules": [{"fill": "a", "beside": "conv1.bias", "value": 0}]}),
    ]
    for option, name, document in documents:
        for where, mutant in hostile_documents(document):
            (folder / name).write_text(json.dumps(mutant))
            expect_harmless(ckpt, ["rename", "old.pt", option, name, "--dry-run"], where)
    (folder / "it.csv").write_text(f'conv1.weight,"{evil}"\n')
    expect_harmless(ckpt, ["rename", "old.pt", "--map", "it.csv", "--dry-run"], "csv")
    for text in (f'"{evil.encode("unicode_escape").decode()}" = 1', "epochs = 'x\u202e'"):
        (folder / "it.toml").write_text(text.replace("\\x", "\\u00"))
        expect_harmless(ckpt, ["train", "--recipe", "it.toml"], text)
