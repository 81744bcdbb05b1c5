"""FAULTS 26: whatever stands in registry.json, it is refused with what to type, and left alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ckpt.cli import main
from ckpt.errors import IndexDamageError
from ckpt.registry.index import Index
from ckpt.registry.index_file import IndexFile
from tests.cli.support import tree
from tests.registry.test_index import version

Damage = Callable[[str], str]
COMMANDS = [
    ("ls",),
    ("show", "v1"),
    ("log", "v1"),
    ("diff", "v1", "v2"),
    ("export", "v1", "-o", "x.pt"),
    ("rename", "v1", "--rule", "a=b"),
    ("alias",),
    ("alias", "prod", "v1"),
    ("tag", "v1", "x"),
    ("rm", "v1", "--yes"),
    ("undo",),
    ("gc", "--yes"),
    ("du",),
    ("verify",),
    ("fsck",),
    ("plot", "v1"),
]


def good() -> str:
    index = Index(serial=7, write_id="ab").with_version(version(1)).with_version(version(2))
    return index.with_model(index.model(None).with_alias("prod", 2)).to_text()


DAMAGES: dict[str, Damage] = {
    "key stands twice": lambda text: text.replace('"serial": 7', '"serial": 7, "serial": 7'),
    "version stands twice": lambda text: text.replace('"v2":', '"v1":'),
    "NaN": lambda text: text.replace("0.99", "NaN", 1),
    "Infinity": lambda text: text.replace("0.99", "-Infinity", 1),
    "nested 10^5 deep": lambda text: text.replace('"ab"', "[" * 10**5 + "]" * 10**5),
    "digits without end": lambda text: text.replace('"serial": 7', f'"serial": {"7" * 10**5}'),
    "BOM": lambda text: "\ufeff" + text,
    "newer schema": lambda text: text.replace('"schema": 1', '"schema": 3'),
    "schema of words": lambda text: text.replace('"schema": 1', '"schema": "one"'),
    "digest without an algorithm": lambda text: text.replace("sha256:", "", 1),
    "digest in capitals": lambda text: text.replace("sha256:", "SHA256:", 1),
    "digest too short": lambda text: re.sub("sha256:.", "sha256:", text, count=1),
    "schema is true": lambda text: text.replace('"schema": 1', '"schema": true'),
    "size is a text": lambda text: text.replace('"size":8', '"size":"8"', 1),
    "message is a list": lambda text: text.replace('"message":""', '"message":[]', 1),
    "metrics are a list": lambda text: text.replace('{"accuracy":0.99}', "[1]", 1),
    "metric is a text": lambda text: text.replace("0.99", '"high"', 1),
    "removed at no time": lambda text: text.replace('"size":8', '"size":8,"removed":"once"', 1),
    "removed in no zone": lambda text: text.replace(
        '"size":8', '"size":8,"removed":"2026-11-24T10:00:00"', 1
    ),
    "model of a bad name": lambda text: text.replace("mnist-cnn", "../\\u001b[2J"),
    "alias of a bad name": lambda text: text.replace('"prod"', '"a/b"'),
    "alias named as a version": lambda text: text.replace('"prod"', '"v1"'),
    "tag of a bad name": lambda text: text.replace(
        '"aliases":', '"tags": {"\\u202ex":["v1"]}, "aliases":'
    ),
    "label is a number": lambda text: text.replace('"prod":"v2"', '"prod":2'),
    "digest leads elsewhere": lambda text: text.replace("sha256:", "../../x", 1),
    "digest is a number": lambda text: text.replace('"manifest":"', '"manifest":7,"x":"', 1),
    "digest is missing": lambda text: text.replace('"manifest":', '"manifes":', 1),
    "alias names an alias": lambda text: text.replace('"prod":"v2"', '"prod":"next","next":"prod"'),
    "alias names itself": lambda text: text.replace('"prod":"v2"', '"prod":"prod"'),
    "alias of no version": lambda text: text.replace('"prod":"v2"', '"prod":"v9"'),
    "version v0": lambda text: text.replace('"v1"', '"v0"'),
    "version with a zero": lambda text: text.replace('"v1"', '"v01"'),
    "number to come": lambda text: text.replace('"next": 3', '"next": 1'),
    "models are a list": lambda text: text[: text.index('"models"')] + '"models": []}',
    "no document": lambda _: "null",
    "nothing": lambda _: "",
    "zeros": lambda text: "\0" * len(text),  # what a file system may leave after a power cut
    "conflict": lambda text: text.replace(
        '"serial": 7,', '<<<<<<< HEAD\n"serial": 7,\n=======\n"serial": 8,\n>>>>>>> other'
    ),
}


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as done:
        main(words)
    out, err = capfd.readouterr()
    return done.value.code, out, err


@pytest.mark.parametrize("name", DAMAGES)
def test_fault_26_damage_is_refused_by_every_command_and_left_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = DAMAGES[name](good())
    assert text != good()
    (tmp_path / "registry.json").write_text(text)
    before = tree(tmp_path)
    for words in COMMANDS:
        code, out, err = run(capfd, *words)
        said = out + err
        assert code == 4, (words, said)
        repair = "pip install -U" if name == "newer schema" else "ckpt fsck --rebuild-index"
        assert repair in said, (words, said)
        assert "registry.json" in said
        assert max(map(len, said.splitlines())) < 1000, "a damaged document is not shown whole"
        after = {each: data for each, data in tree(tmp_path).items() if ".ckpt" not in each}
        assert after == before, words


def test_fault_26_cut_anywhere_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = good().encode().rstrip()
    file = IndexFile(tmp_path)
    for end in range(len(whole)):
        file.path.write_bytes(whole[:end])
        with pytest.raises(IndexDamageError) as caught:
            file.read()
        assert "--rebuild-index" in str(caught.value.hint)
        with pytest.raises(IndexDamageError):
            file.commit(lambda index: index.with_version(version(3)), "x")
        assert file.path.read_bytes() == whole[:end]
        if end % 97 == 0:
            assert run(capfd, "ls")[0] == 4
    file.path.write_bytes(whole)
    assert len(file.read().model(None).versions) == 2


def test_fault_26_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    for bad in (b"\xff", b"\xed\xa0\x80", b"\x1b[2J"):
        file.path.write_bytes(good().encode().replace(b"ab", bad))
        with pytest.raises(IndexDamageError, match="not a registry") as caught:
            file.read()
        assert "--rebuild-index" in str(caught.value.hint)


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> other"])
@pytest.mark.parametrize("line", [0, 3, 5, 8])
def test_fault_26_conflict_marker_is_named_by_its_line(
    tmp_path: Path, marker: str, line: int
) -> None:
    lines = good().splitlines()
    file = IndexFile(tmp_path)
    file.path.write_text("\n".join([*lines[:line], marker, *lines[line:]]))
    with pytest.raises(IndexDamageError) as caught:
        file.read()
    error = caught.value
    assert (error.kind, error.line) == ("conflict", line + 1)
    assert f"registry.json: line {line + 1} is a git conflict marker, {marker[:7]}" in str(error)
    for command in (
        "ckpt git-driver install",
        "ckpt fsck --rebuild-index",
        "ckpt git-driver resolve",
    ):
        assert command in str(error.hint)


def test_fault_26_unknown_fields_are_kept_by_a_write(tmp_path: Path) -> None:
    document = json.loads(good())
    model = document["models"]["mnist-cnn"]
    for place in (document, model, model["versions"]["v1"]):
        place["future"] = {"a": [1, None]}
    file = IndexFile(tmp_path)
    file.path.write_text(json.dumps(document))
    file.commit(lambda index: index.with_version(version(3)), "x")
    kept = json.loads(file.path.read_text())
    model = kept["models"]["mnist-cnn"]
    places = (kept, model, model["versions"]["v1"])
    assert [place["future"] for place in places] == [{"a": [1, None]}] * 3


def test_fault_26_version_whose_manifest_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry.json").write_text(good())
    before = tree(tmp_path)
    for words in (
        ("show", "v1"),
        ("export", "v2", "-o", "x.pt"),
        ("diff", "v1", "v2"),
        ("log", "v1"),
        ("rename", "v1", "--rule", "a=b"),
        ("verify",),
    ):
        code, out, err = run(capfd, *words)
        assert (code, "is missing" in out + err, "ckpt verify" in out + err) == (4, True, True)
        assert tree(tmp_path) == before, words
