"""Fault 24: whatever stands in a file, what reaches the terminal is text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.support import Run
from tests.effort import by_effort, long_but

EVIL = {
    "ESC": "\x1b[2J\x1b[31m",
    "OSC": "\x1b]0;title\x07",
    "C1": "\x9b31m\x90",
    "CR": "safe\rmasked",
    "newline": "one\ntwo",
    "RTL": "\u202egpj.exe",
    "isolate": "\u2066a\u2069",
    "zero width": "a\u200bb\ufeff",
    "NUL and DEL": "a\x00b\x7f",
    "tabs": "a\tb\vc\fd",
    "separators": "a\u2028b\u2029c",
}
CKPT = [sys.executable, "-P", "-m", "ckpt"]


def write_all(folder: Path, evil: str) -> list[str]:
    """Files that have the text wherever a file can have one; their refs."""
    tensors = {f"a.{evil}.weight": torch.ones(2), f"{evil}": torch.zeros(3)}
    rest = {"epoch": 3, evil: evil, "list": [evil, {evil: evil}], "opt": {evil: torch.ones(1)}}
    torch.save(tensors, folder / "plain.pt")
    torch.save({"model": tensors, **rest}, folder / "training.pt")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "meta.safetensors", metadata={evil: evil})
    shards = folder / "shards"
    shards.mkdir()
    save_file(tensors, shards / "x.safetensors")
    index = {"metadata": {evil: evil}, "weight_map": dict.fromkeys(tensors, "x.safetensors")}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "map.json").write_text(json.dumps({f"a.{evil}.weight": f"b.{evil}.weight"}))
    return ["plain.pt", "training.pt::model", "old.pt", "meta.safetensors", "shards/"]


def commands(refs: list[str], evil: str) -> list[list[str]]:
    """Every command on every file; and the text where a person may type it."""
    found = []
    for number, ref in enumerate(refs):
        found += [
            ["show", ref],
            ["show", ref, "--json"],
            ["show", ref, "--deep"],
            ["show", ref, "--tree"],
            ["diff", ref, refs[number - 1]],
            ["diff", ref, "ckpt.models.mnist_cnn:Net"],
            ["rename", ref, "--rule", "weight=bias", "--dry-run"],
            ["rename", ref, "--rule", f"weight={evil.replace(chr(0), '')}=", "--dry-run"],
            ["rename", ref, "--map", "map.json", "-o", f"out{number}.pt"],
            ["rename", ref, "--rule", ".*=one", "--dry-run"],
            ["rename", ref, "--rule", "nothing=name"],
            ["export", ref, "-o", f"copy{number}.safetensors"],
            ["register", ref, "--name", "m", "-m", evil.replace("\0", "")],
        ]
    typed = evil.replace("\0", "")
    return [
        *found,
        ["ls"],
        ["ls", "--json"],
        ["log", "m:v1"],
        ["show", "m:v1"],
        ["diff", "m:v1", "m:v2"],
        ["rename", "m:v1", "--rule", "weight=bias"],
        ["verify"],
        ["show", f"{typed}.pt"],
        ["show", f"training.pt::{typed}"],
        ["show", typed],
        ["register", "plain.pt", "--name", typed],
        ["register", "plain.pt", "--metric", f"{typed}=1"],
        [typed],
        ["show", f"--{typed}"],
    ]


def is_text(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("name", long_but(["OSC", "newline", "RTL"], EVIL))
def test_fault_24_nothing_but_text_reaches_the_terminal(ckpt: Run, folder: Path, name: str) -> None:
    evil = EVIL[name]
    for words in commands(write_all(folder, evil), evil):
        ran = ckpt(*words)
        assert is_text(ran.out), (words, ran.out)
        assert is_text(ran.err), (words, ran.err)
        assert "Traceback" not in ran.err, (words, ran.err)
        assert ran.code in (0, 2, 3), (words, ran.err)
        if "--json" in words and ran.code == 0:
            json.loads(ran.out)


ENCODINGS = ["utf-8", "ascii", "latin-1"]


@pytest.mark.long
def test_fault_24_file_names_of_any_bytes(folder: Path) -> None:
    """A name that is no UTF-8 reaches Python as half surrogates, which cannot be encoded."""
    for number, name in enumerate((b"\xff\xfe.pt", b"\x1b[2J.pt", "\u202e.pt".encode())):
        torch.save({"a": torch.ones(1)}, folder / "a.pt")
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes((folder / "a.pt").read_bytes())
        for place, words in enumerate(
            (
                [b"show", name],
                [b"show", name, b"--json"],
                [b"rename", name, b"--rule", b"a=b"],
                [b"rename", name, b"--rule", b"a=b"],  # its output stands there now
                [b"register", name, b"--name", b"m%d" % number],
                [b"export", name, b"-o", b"x" + name],
                [b"show", b"absent" + name],
            )
        ):
            one = ENCODINGS[(number + place) % len(ENCODINGS)]
            for encoding in by_effort([one], [one], ENCODINGS):
                environment = {**os.environ, "PYTHONIOENCODING": encoding}
                ran = subprocess.run(
                    [*(word.encode() for word in CKPT), *words],
                    capture_output=True,
                    env=environment,
                    check=False,
                )
                for text in (ran.stdout.decode(encoding), ran.stderr.decode(encoding)):
                    assert is_text(text), (words, text)
                    assert "Traceback" not in text, (words, text)
                    assert "UnicodeEncodeError" not in text, (words, text)


@pytest.mark.parametrize("locale", ["C", "POSIX"])
@pytest.mark.long
def test_fault_24_ascii_for_an_ascii_terminal(folder: Path, locale: str) -> None:
    refs = write_all(folder, "ü·×→\u202e")
    environment = {**os.environ, "LANG": locale, "LC_ALL": locale, "PYTHONUTF8": "0"}
    environment["PYTHONIOENCODING"] = "ascii"
    for words in (
        *([word, ref] for ref in refs for word in ("show", "register")),
        *(["show", ref, "--tree"] for ref in refs),
        ["diff", *refs[:2]],
        ["rename", refs[0], "--rule", "weight=b·as", "--dry-run"],
        ["ls"],
        ["show", "·.pt"],
    ):
        ran = subprocess.run([*CKPT, *words], capture_output=True, env=environment, check=False)
        # Bytes that this locale does not know make a key that is no text: refused, in ASCII.
        refused = words[0] == "rename" and b"is not valid Unicode" in ran.stderr
        assert ran.returncode in (0, 2) or refused, (words, ran.stderr)
        assert (ran.stdout + ran.stderr).isascii(), (words, ran.stdout, ran.stderr)


@pytest.mark.parametrize(
    "words",
    [["show", "many.pt"], ["show", "many.pt", "--json"], ["diff", "many.pt", "one.pt"]],
    ids=" ".join,
)
def test_fault_24_broken_pipe_is_quiet(folder: Path, words: list[str]) -> None:
    torch.save({f"layer.{i}.w{i}": torch.zeros(1) for i in range(5000)}, folder / "many.pt")
    torch.save({"a": torch.zeros(1)}, folder / "one.pt")
    command = " ".join([*CKPT, *words])
    ran = subprocess.run(
        ["bash", "-c", f"{command} | head -1"], capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""
    assert len(ran.stdout.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["ls"], ["show", "none.pt"], ["--help"]])
def test_output_that_nobody_takes_is_a_fault_of_the_system(
    tmp_path: Path, words: list[str]
) -> None:
    """Not 1, which means that things differ."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-P", "-m", "ckpt", *words]
        ran = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=full, check=False)
    assert ran.returncode == 5
