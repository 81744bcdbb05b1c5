import json
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt.errors import IntegrityError, RefError
from ckpt.io import digest
from ckpt.refs import VersionRef
from ckpt.registry.index import Index, Version
from ckpt.registry.index_file import IndexFile, find_registry, parse_index


def version(number: int, model: str = "mnist-cnn", content: str = "") -> Version:
    return Version(
        model=model,
        number=number,
        manifest=digest.of_bytes(b"manifest %d" % number),
        content=digest.of_bytes(content.encode() or b"content %d" % number),
        file=None,
        size=8,
        keys=1,
        new_bytes=8,
        made_by="register old.pt",
        created="2026-11-24T10:00:00+00:00",
        metrics={"accuracy": 0.99},
    )


def index() -> Index:
    return Index().with_version(version(1)).with_version(version(2))


def test_index_reads_back_as_it_was_written() -> None:
    assert parse_index(index().to_text(), name="registry.json") == index()


def test_index_has_one_version_a_line() -> None:
    lines = index().to_text().splitlines()
    assert [line.strip()[:4] for line in lines if "register old.pt" in line] == ['"v1"', '"v2"']


@pytest.mark.parametrize(
    ("ref", "number"),
    [
        (VersionRef(None, "v1"), 1),
        (VersionRef(None), 2),
        (VersionRef("mnist-cnn", "v2"), 2),
    ],
)
def test_ref_finds_its_version(ref: VersionRef, number: int) -> None:
    assert index().version(ref).number == number


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        (VersionRef(None, "v9"), "mnist-cnn has no v9"),
        (VersionRef("mnist-cnn", "prod"), "mnist-cnn has no prod"),
        (VersionRef("mnist-cn"), "no model 'mnist-cn'"),
    ],
)
def test_unknown_ref_says_what_there_is(ref: VersionRef, says: str) -> None:
    with pytest.raises(RefError, match=says) as caught:
        index().version(ref)
    assert caught.value.hint


def test_bare_version_of_several_models_asks_which() -> None:
    two = index().with_version(version(1, "other"))
    with pytest.raises(RefError, match="holds 2 models"):
        two.version(VersionRef(None, "v1"))


def test_number_is_the_next_one_even_after_a_version_has_gone() -> None:
    document = json.loads(index().to_text())
    del document["models"]["mnist-cnn"]["versions"]["v2"]
    assert parse_index(json.dumps(document), name="r").next_number("mnist-cnn") == 3


def test_fault_26_unknown_fields_are_kept() -> None:
    document = json.loads(index().to_text())
    document["future"] = {"a": 1}
    document["models"]["mnist-cnn"]["owner"] = "ann"
    document["models"]["mnist-cnn"]["versions"]["v1"]["signed"] = [1]
    again = parse_index(json.dumps(document), name="r").with_version(version(3)).to_text()
    kept = json.loads(again)
    assert kept["future"] == {"a": 1}
    assert kept["models"]["mnist-cnn"]["owner"] == "ann"
    assert kept["models"]["mnist-cnn"]["versions"]["v1"]["signed"] == [1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"serial": 0', '"serial": 0, "serial": 1'),
        lambda text: text.replace("0.99", "NaN"),
        lambda text: "[" * 100_000,
        lambda text: "\ufeff" + text,
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda text: text.replace("sha256:", "sha256:../../", 1),
        lambda text: text.replace('"aliases": {}', '"aliases": {"prod":"v9"}'),
        lambda text: text.replace('"aliases": {}', '"aliases": {}, "tags": {"golden":["v9"]}'),
        lambda text: text.replace('"aliases": {}', '"aliases": {}, "protected": ["prod"]'),
        lambda text: text.replace('"next": 3', '"next": 2'),
        lambda text: "null",
        lambda text: "",
    ],
    ids=[
        "duplicate key",
        "NaN",
        "deep",
        "BOM",
        "newer",
        "digest",
        "alias",
        "tag",
        "protected",
        "next",
        "null",
        "empty",
    ],
)
def test_fault_26_damaged_index_is_refused(damage) -> None:
    text = damage(index().to_text())
    assert text != index().to_text()
    with pytest.raises(IntegrityError) as caught:
        parse_index(text, name="registry.json")
    assert caught.value.hint


def test_fault_26_index_cut_anywhere_is_refused() -> None:
    text = index().to_text().rstrip()
    for end in range(len(text)):
        with pytest.raises(IntegrityError):
            parse_index(text[:end], name="registry.json")


def test_commit_counts_and_names_each_write(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    first = file.commit(lambda index: index.with_version(version(1)), "add")
    second = file.commit(lambda index: index.with_version(version(2)), "add")
    assert (first.serial, second.serial) == (1, 2)
    assert first.write_id != second.write_id
    assert file.read() == second


def test_operation_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    file.commit(lambda index: index.with_version(version(1)), "add")
    before = file.path.stat().st_mtime_ns
    file.commit(lambda index: index, "add")
    assert file.path.stat().st_mtime_ns == before


def test_operation_that_fails_leaves_the_index(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    file.commit(lambda index: index.with_version(version(1)), "add")
    before = file.path.read_bytes()
    with pytest.raises(ValueError, match="the next number is 2"):
        file.commit(lambda index: index.with_version(version(5)), "add")
    assert file.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".ckpt", "registry.json"]


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from ckpt.registry.index_file import IndexFile
sys.path.insert(0, sys.argv[2])
from test_index import version

def add(index):
    return index.with_version(version(index.next_number("mnist-cnn")))

for _ in range(5):
    IndexFile(Path(sys.argv[1])).commit(add, "add")
"""


def test_fault_33_writers_at_the_same_time_all_get_a_number(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    writers = [subprocess.Popen(command) for _ in range(8)]
    assert [writer.wait() for writer in writers] == [0] * 8
    versions = IndexFile(tmp_path).read().models["mnist-cnn"].versions
    assert sorted(versions) == list(range(1, 41))


def test_registry_is_found_upwards_like_git(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_registry(inner) is None
    (tmp_path / "registry.json").write_text("{}")
    assert find_registry(inner) == tmp_path


def test_aliases_and_tags_read_back_and_leave_version_lines_alone() -> None:
    before = index()
    model = before.model(None).with_alias("prod", 2, protect=True).with_alias("old", 1)
    model = model.with_tag("golden", 2).with_tag("golden", 1).with_tag("x", 1)
    after = before.with_model(model)
    assert parse_index(after.to_text(), name="registry.json") == after
    assert model.tags == {"golden": (1, 2), "x": (1,)}
    lines = {line for line in before.to_text().splitlines() if '"created"' in line}
    assert lines <= set(after.to_text().splitlines())
    plain = model.without_alias("prod").without_alias("old")
    for name, number in (("golden", 1), ("golden", 2), ("x", 1)):
        plain = plain.with_tag(name, number, present=False)
    assert before.with_model(plain) == before


def test_index_is_read_anew_when_its_bytes_change(tmp_path: Path) -> None:
    file, other = IndexFile(tmp_path), IndexFile(tmp_path)
    assert file.read() == Index()
    other.commit(lambda index: index.with_version(version(1)), "add")
    assert len(file.read().models) == 1
    assert file.read() is file.read()
    other.commit(lambda index: index.with_version(version(2)), "add")
    assert len(file.read().model(None).versions) == 2
    file.path.write_bytes(b"")
    for reader in (file, IndexFile(tmp_path)):
        with pytest.raises(IntegrityError):
            reader.read()
