import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ckpt.errors import (
    ConflictError,
    DiskError,
    IndexDamageError,
    IntegrityError,
    RefError,
    UsageError,
)
from ckpt.io import digest
from ckpt.refs import VersionRef
from ckpt.registry.index import Index
from ckpt.registry.index_file import IndexFile, parse_index
from ckpt.registry.places import find_registry
from ckpt.registry.version import Version, version_line


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
        lambda text: text.replace('"schema": 1', '"schema": 3'),
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


def line(**fields: object) -> Callable[[str], str]:
    """Damage to the line of v1."""

    def damage(text: str) -> str:
        document = json.loads(text)
        document["models"]["mnist-cnn"]["versions"]["v1"].update(fields)
        return json.dumps(document)

    return damage


def model(**fields: object) -> Callable[[str], str]:
    def damage(text: str) -> str:
        document = json.loads(text)
        document["models"]["mnist-cnn"].update(fields)
        return json.dumps(document)

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (line(size="8"), 'v1.size: expected an integer, found "8"'),
        (line(size=-1), "v1.size: expected an integer from 0 to 2^63 - 1, found -1"),
        (line(keys=None), "v1.keys: expected an integer, found null"),
        (line(new_bytes=[]), "v1.new_bytes: expected an integer, found a list"),
        (line(made_by=1), "v1.made_by: expected a string, found 1"),
        (line(created=1), "v1.created: expected a string, found 1"),
        (line(created="2026-11-24\x1b10:00:00+00:00"), "v1.created: expected a time, or nothing"),
        (line(metrics={"a": "1"}), 'models.mnist-cnn.versions.v1.metrics.a: expected a number, '
                                   'found "1"'),
        (line(metrics={"a b": True}), 'v1.metrics["a b"]: expected a number, found true'),
        (line(metrics={"a": 10**309}), "v1.metrics.a: expected a number, found 1000"),
        (line(removed="2026-11-25T09:00:00"), "v1.removed: expected a time like 2026-11-24T"),
        (line(removed="yesterday"), "yesterday"),
        (line(removed="0001-01-01T00:00:00+14:00"), "v1.removed: expected a time like"),
        (line(created="9999-12-31T23:59:59-14:00"), "v1.created: expected a time, or nothing"),
        (line(manifest="x" * 99), f'v1.manifest: expected a digest, found "{"x" * 79}…'),
        (line(file="sha256:0"), 'v1.file: expected a digest, found "sha256:0"'),
        (line(also=["x"]), 'v1.also[0]: expected a digest, found "x"'),
        (model(versions={"w1": {}}), 'expected a version like v3, found "w1"'),
        (model(versions={"v0": {}}), 'expected a version like v3, found "v0"'),
        (model(versions={"v1": {}}), "models.mnist-cnn.versions.v1.manifest: missing"),
        (model(aliases={"v1": "v1"}), 'aliases.v1: expected an alias, found "v1"'),
        (model(aliases={"latest": "v1"}), "aliases.latest: expected an alias"),
        (model(tags={"a/b": ["v1"]}), 'tags["a/b"]: expected a name'),
        (model(tags={"a": ["v1", "v1"]}), "tags.a: expected different items"),
        (model(aliases={"prod": "v3"}), "an alias points to a missing version"),
        (model(tags={"golden": ["v1", "v3"]}), "a tag is on a missing version"),
        (model(protected=["prod"]), "a protected alias does not exist"),
        (model(next=2), "a version's number is not below next, 2"),
        (lambda text: text.replace('"schema": 1', '"schema": 0'), "expected a positive integer"),
        (lambda text: text.replace('"schema": 1', '"schema": true'), "schema: expected an integer"),
        (lambda text: text.replace('"schema": 1', '"schema": "1"'), "schema: expected an integer"),
        (lambda text: text.replace('"schema": 1', '"schema": 3'),
         "r: schema 3, this ckpt reads up to 2"),
        (lambda text: text.replace('"mnist-cnn": {', '"../x": {'),
         'models["../x"]: expected a name, found "../x"'),
    ],
)  # fmt: skip
def test_fault_26_damage_is_named(damage: Callable[[str], str], says: str) -> None:
    text = index().to_text()
    assert damage(text) != text
    with pytest.raises(IndexDamageError) as caught:
        parse_index(damage(text), name="r")
    assert says in str(caught.value)
    assert caught.value.kind == ("newer" if "reads up to" in says else "damaged")


def test_fault_26_version_there_and_removed_is_refused() -> None:
    gone = index().with_model(index().model(None).without(2, at="2026-11-25T09:00:00+00:00"))
    document = json.loads(gone.to_text())
    fields = document["models"]["mnist-cnn"]
    fields["versions"]["v2"] = fields["removed"]["v2"]
    with pytest.raises(IndexDamageError, match="a version is both present and removed"):
        parse_index(json.dumps(document), name="r")
    fields["removed"] = {"v9": fields["removed"]["v2"]}
    del fields["versions"]["v2"]
    with pytest.raises(IndexDamageError, match="number is not below next"):
        parse_index(json.dumps(document), name="r")


@pytest.mark.parametrize("mark", ["<<<<<<< ours", "=======", ">>>>>>> theirs"])
def test_fault_26_place_of_the_damage_is_told(mark: str) -> None:
    lines = index().to_text().splitlines()
    marked = "\n".join([*lines[:2], mark, *lines[2:]])
    with pytest.raises(IndexDamageError, match=f"(?m)line 3 is a git conflict marker, {mark[:7]}$"):
        parse_index(marked, name="r")
    with pytest.raises(IndexDamageError) as caught:
        parse_index("\n".join([lines[0], *lines[2:], "x"]), name="r")
    assert (caught.value.kind, caught.value.line) == ("damaged", len(lines))
    for before in range(3):
        with pytest.raises(IndexDamageError) as caught:
            parse_index("\n" * before + f"{mark}\n", name="r")
        assert (caught.value.kind, caught.value.line) == ("conflict", before + 1)


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


@pytest.mark.long
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


def test_index_finds_versions_by_what_they_hold() -> None:
    grown = Index()
    for number, tensors in enumerate(("a", "b", "a"), start=1):
        grown = grown.with_version(replace(version(number), tensors=tensors))
    grown = grown.with_version(replace(version(1, "other"), tensors="c"))
    assert (
        grown.same_content("mnist-cnn", version(2).content) == grown.model("mnist-cnn").versions[2]
    )
    assert grown.same_content("mnist-cnn", "sha256:0") is None
    assert grown.same_content("none", version(2).content) is None
    same = grown.same_tensors("mnist-cnn", "a")
    assert same is not None
    assert same.number == 3
    assert grown.same_tensors("mnist-cnn", "c") is None
    assert grown.same_tensors("none", "a") is None
    assert grown.next_number("mnist-cnn") == 4
    assert grown.next_number("none") == 1


def test_version_before_is_the_next_lower_one_that_is_there() -> None:
    grown = index().with_version(version(3)).with_version(version(4))
    grown = grown.with_model(grown.model(None).without(3, at="2026-11-25T09:00:00+00:00"))
    before = {number: grown.before(each) for number, each in grown.model(None).versions.items()}
    assert {number: each and each.number for number, each in before.items()} == {
        1: None, 2: 1, 4: 2,
    }  # fmt: skip


def test_ref_that_finds_nothing_says_what_there_is() -> None:
    grown = Index()
    for number in range(1, 8):
        grown = grown.with_version(version(number))
    grown = grown.with_model(grown.model(None).with_alias("prod", 3).with_alias("best", 1))
    with pytest.raises(RefError) as caught:
        grown.version(VersionRef(None, "v9"))
    assert caught.value.hint == "it has v3, v4, v5, v6, v7, best, prod"
    assert grown.version(VersionRef(None, "prod")).number == 3
    gone = grown.with_model(grown.model(None).without(7, at="2026-11-25T09:00:00+00:00"))
    with pytest.raises(RefError, match="mnist-cnn:v7 was removed"):
        gone.version(VersionRef("mnist-cnn", "v7"))
    assert gone.version(VersionRef(None)).number == 6
    with pytest.raises(RefError, match="the registry holds 0 models") as caught:
        Index().model(None)
    assert "ckpt register FILE" in str(caught.value.hint)
    for name in "fedcba":
        grown = grown.with_version(version(1, name))
    with pytest.raises(RefError, match="the registry holds 7 models") as caught:
        grown.model(None)
    assert caught.value.hint == "name one: mnist-cnn:v7, f:v1, e:v1, d:v1, c:v1"
    with pytest.raises(RefError, match="no model 'mnist-cn'") as caught:
        grown.model("mnist-cn")
    assert caught.value.hint == "the registry holds mnist-cnn"
    with pytest.raises(RefError) as caught:
        grown.model("zzzz")
    assert caught.value.hint == "the registry holds mnist-cnn, f, e, d, c"
    only = grown.with_model(replace(grown.models["a"], versions={}))
    with pytest.raises(RefError, match="a has no versions"):
        only.version(VersionRef("a"))


def test_removed_version_keeps_its_number_and_leaves_its_tags() -> None:
    at = "2026-11-25T09:00:00+00:00"
    model = index().model(None).with_tag("golden", 1).with_tag("golden", 2).with_tag("x", 2)
    model = model.with_alias("prod", 1)
    with pytest.raises(
        ConflictError, match="mnist-cnn:v1 cannot be removed: mnist-cnn@prod points to it"
    ) as caught:
        model.without(1, at=at)
    assert "ckpt alias -d mnist-cnn@prod" in str(caught.value.hint)
    gone = model.without(2, at=at)
    assert (list(gone.versions), list(gone.removed)) == ([1], [2])
    assert (gone.removed[2].removed, gone.tags) == (at, {"golden": (1,)})
    assert gone.next_number == 3
    back = gone.restored(2)
    assert (list(back.versions), dict(back.removed)) == ([1, 2], {})
    assert back.versions == model.versions
    assert gone.forgotten(2).removed == {}
    assert gone.forgotten(1).removed == gone.removed
    other = model.without_alias("prod").without(1, at=at)
    assert list(other.restored(1).versions) == [1, 2]


def test_pointers_of_a_version_are_listed() -> None:
    model = index().model(None).with_alias("b", 1).with_alias("a", 1).with_alias("c", 2)
    model = model.with_tag("y", 1).with_tag("x", 1).with_tag("z", 2)
    one, two = model.versions[1], model.versions[2]
    assert (model.aliases_of(one), model.aliases_of(two)) == (["a", "b"], ["c"])
    assert (model.tags_of(one), model.tags_of(two)) == (["x", "y"], ["z"])
    protected = model.with_alias("a", 1, protect=True)
    assert protected.with_alias("a", 2).protected == {"a"}
    assert protected.with_alias("a", 2, protect=False).protected == frozenset()
    assert protected.with_alias("b", 2).protected == {"a"}
    assert protected.without_alias("a").protected == frozenset()
    assert protected.without_alias("b").protected == {"a"}


def test_rare_fields_are_left_out_where_there_is_nothing() -> None:
    plain = version_line(version(1))
    assert set(plain) == {
        "manifest", "content", "file", "size", "keys", "new_bytes", "made_by", "created",
        "metrics", "message",
    }  # fmt: skip
    full = replace(version(1), tensors="t", renumbered="v3", also=(version(2).manifest,))
    assert set(version_line(full)) - set(plain) == {"tensors", "renumbered", "also"}
    text = index().to_text()
    for word in ("protected", "tags", "removed"):
        assert f'"{word}"' not in text
    assert text.endswith("}\n")


def test_index_that_is_begun_is_not_begun_again(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    file.create()
    file.commit(lambda index: index.with_version(version(1)), "add")
    before = file.path.read_bytes()
    file.create()
    assert file.path.read_bytes() == before
    with pytest.raises(UsageError):
        IndexFile(tmp_path / "absent" / "folder").create()


def test_damaged_index_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    assert file.keep_damaged() is None
    for number in range(1, 4):
        file.path.write_text(str(number))
        kept = file.keep_damaged()
        assert kept == tmp_path / f"registry.json.damaged{f'.{number}' if number > 1 else ''}"
        assert kept.read_text() == str(number)
        assert file.path.read_text() == str(number)
        file.path.unlink()


def test_index_that_the_system_does_not_give_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.json").mkdir()
    with pytest.raises(DiskError, match=r"registry\.json: Is a directory"):
        IndexFile(tmp_path).read()


def test_commit_may_read_another_index_than_the_file(tmp_path: Path) -> None:
    file = IndexFile(tmp_path)
    file.commit(lambda index: index.with_version(version(1)), "add")
    file.path.write_text("damaged")
    with pytest.raises(IndexDamageError):
        file.commit(lambda index: index.with_version(version(2)), "add")
    known = replace(index(), serial=7, write_id="a")
    made = file.commit(lambda index: index.with_version(version(3)), "add", read=lambda: known)
    assert (made.serial, file.read()) == (8, made)
    assert len(made.write_id) == 16


def test_three_names_that_are_near_are_shown() -> None:
    grown = Index()
    for number in range(5):
        grown = grown.with_version(version(1, f"resnet-{number}"))
    with pytest.raises(RefError) as caught:
        grown.model("resnet-9")
    hint = str(caught.value.hint)
    assert hint.startswith("the registry holds resnet-")
    assert len(hint.split(", ")) == 3
