"""What two commands at once decide, and what no index may hold.

The index is read here by the standard library alone.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ckpt
from ckpt.errors import CkptError, ConflictError, IndexDamageError, UsageError
from ckpt.registry.index import Index, Model
from ckpt.registry.index_file import IndexFile, parse_index
from ckpt.registry.registry import Registry

Act = Callable[[Registry], object]


class Late(IndexFile):
    """Another process is faster: it acts after the command has begun, before it has the lock."""

    def __init__(self, folder: Path, faster: Act) -> None:
        super().__init__(folder)
        self._faster = faster

    def commit(self, *arguments: Any, **named: Any) -> Index:
        self._faster(Registry(self.path.parent))
        return super().commit(*arguments, **named)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`net` v1 to v3, with the alias `old` on v1."""
    for seed in range(3):
        torch.save({"w": torch.full((9,), float(seed))}, tmp_path / "net.pt")
        ckpt.register(tmp_path / "net.pt", registry=Registry(tmp_path))
    ckpt.alias("old", "v1", registry=Registry(tmp_path))
    return tmp_path


def dangling(folder: Path) -> list[str]:
    """The aliases and tags that point to no version."""
    net = json.loads((folder / "registry.json").read_bytes())["models"]["net"]
    tags = {f"tag {name}": labels for name, labels in net.get("tags", {}).items()}
    pointed = {**{name: [label] for name, label in net["aliases"].items()}, **tags}
    return [name for name, labels in pointed.items() if not {*labels} <= {*net["versions"]}]


def remove(ref: str) -> Act:
    return lambda registry: ckpt.rm([ref], registry=registry)


def point(name: str, ref: str) -> Act:
    return lambda registry: ckpt.alias(name, ref, registry=registry)


def unpointed(registry: Registry) -> None:
    ckpt.alias("old", delete=True, registry=registry)
    ckpt.rm(["v1"], registry=registry)


CASES: Mapping[str, tuple[Act, Act, str]] = {
    "alias beside rm": (point("prod", "v2"), remove("v2"), "net:v2 was removed"),
    "tag beside rm": (lambda r: ckpt.tag("v2", ["x"], registry=r), remove("v2"), "was removed"),
    "rm beside alias": (remove("v2"), point("prod", "v2"), "net@prod points to it"),
    "rm beside rm": (remove("v2"), remove("v2"), "net:v2 was removed"),
    "undo beside rm": (lambda r: ckpt.undo(registry=r), unpointed, ""),
    "restore beside rm": (lambda r: ckpt.restore(["v2"], registry=r), remove("v2"), ""),
    "alias beside undo of restore": (
        point("prod", "v3"),
        lambda r: (ckpt.rm(["v3"], registry=r), ckpt.restore(["v3"], registry=r),
                   ckpt.undo(registry=r)),
        "net:v3 was removed"),
    "protect beside -d": (
        lambda r: ckpt.alias("old", protect=True, registry=r), unpointed, "net has no old"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_command_is_decided_under_the_lock(case: str, folder: Path) -> None:
    command, faster, message = CASES[case]
    registry = Registry(folder)
    vars(registry)["index_file"] = Late(folder, faster)
    if message:
        with pytest.raises(CkptError, match=message):
            command(registry)
    else:
        command(registry)
    assert not dangling(folder)
    assert ckpt.fsck(registry=Registry(folder)).kind == "fine"


def test_undo_beside_another_change_undoes_that(folder: Path) -> None:
    registry = Registry(folder)
    vars(registry)["index_file"] = Late(folder, remove("v3"))
    assert ckpt.undo(registry=registry).entry.what == "rm net:v3"
    assert [version.label for version in Registry(folder).versions()] == ["v3", "v2", "v1"]


def test_latest_is_the_latest_under_the_lock(folder: Path) -> None:
    registry = Registry(folder)
    vars(registry)["index_file"] = Late(folder, remove("v3"))
    assert ckpt.alias("best", "net", registry=registry).version == "v2"


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "no message": ({"message": None}, r"^message: expected a string, found null"),
    "a flag": ({"metrics": {"ok": True}}, r"^metrics\.ok: expected a number, found true"),
    "a text": ({"metrics": {"n": "x"}}, r'^metrics\.n: expected a number, found "x"'),
    "a number as author": ({"made_by": 7}, r"^made_by: expected a string, found 7"),
    "400 digits": ({"metrics": {"n": 10**399}}, r"^metrics\.n: expected a number, found 1000"),
    "401 digits": ({"record": {"a": [10**400]}}, r"^a\.0: a number of 401 digits"),
    "5000 digits": ({"record": {"a": 10**5000}}, r"^a: Exceeds the limit"),
    "NaN": ({"metrics": {"n": float("nan")}}, r"^metrics\.n: Out of range"),
    "a tensor": ({"record": {"a": {"b": torch.ones(1)}}}, r"^a\.b: Object of type Tensor"),
    "two keys in JSON": ({"record": {"a": {"1": 0, 1: 0}}}, r"^a: "),
    "a parent of no form": ({"record": {"parent": "v1"}}, r"^parent: expected an object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_argument_that_no_reader_accepts_is_refused(case: str, folder: Path) -> None:
    arguments, message = WRONG[case]
    torch.save({"w": torch.ones(5000)}, folder / "net.pt")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=message):
        ckpt.register(folder / "net.pt", registry=Registry(folder), **arguments)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_record_is_not_nested_deeper_than_readers_can_follow(folder: Path) -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    torch.save({"w": torch.ones(5000)}, folder / "net.pt")
    with pytest.raises(UsageError, match="nested deeper than 100"):
        ckpt.register(folder / "net.pt", registry=Registry(folder), record={"a": deep})


@pytest.mark.parametrize("number", [9, 0])
def test_index_that_its_reader_refuses_is_not_written(number: int, folder: Path) -> None:
    registry = Registry(folder)
    before = registry.index_file.path.read_bytes()
    reflog = (folder / ".ckpt/reflog").read_bytes()

    def wrong(index: Index) -> Index:
        return index.with_model(index.model("net").with_alias("prod", number))

    with pytest.raises(UsageError, match=r"registry\.json: not changed, .*"):
        registry.index_file.commit(wrong, "a wrong change")
    assert registry.index_file.path.read_bytes() == before
    assert (folder / ".ckpt/reflog").read_bytes() == reflog
    with pytest.raises(ConflictError):
        ckpt.alias("old", "v2", expect="v3", registry=registry)


def both(model: Model) -> Model:
    return replace(model, removed={1: model.versions[1]})


def no_next(model: Model) -> Model:
    return replace(model, next_number=2)


def negative(model: Model) -> Model:
    return replace(model, versions={**model.versions, 2: replace(model.versions[2], size=-1)})


def tagged_with_nothing(model: Model) -> Model:
    return replace(model, tags={"x": ()})


def removed_at_no_time(model: Model) -> Model:
    return model.without(2, at="yesterday")


def protected_without_alias(model: Model) -> Model:
    return replace(model, protected=frozenset({"absent"}))


def with_a_wrong_name(model: Model) -> Model:
    return model.with_alias("v7", 1)


@pytest.mark.parametrize(
    "spoil",
    [both, no_next, negative, tagged_with_nothing, removed_at_no_time, protected_without_alias,
     with_a_wrong_name],
)  # fmt: skip
def test_commit_refuses_every_index_that_the_reader_refuses(
    spoil: Callable[[Model], Model], folder: Path
) -> None:
    file = Registry(folder).index_file
    before = file.path.read_bytes()
    with pytest.raises(UsageError, match="not changed"):
        file.commit(lambda index: index.with_model(spoil(index.model("net"))), "spoil")
    assert file.path.read_bytes() == before
    spoilt = file.read().with_model(spoil(file.read().model("net")))
    with pytest.raises(IndexDamageError):
        parse_index(spoilt.to_text(), name="registry.json")
