"""The JSON Schemas in `docs/schemas` describe what the commands read and write.

The oracle is `jsonschema`, which shares no code with the readers of `ckpt`.
"""

import gzip
import json
import tomllib
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry as Schemas
from referencing import Resource

import ckpt
from ckpt.dtypes import DTYPES
from ckpt.errors import CkptError, RuleError
from ckpt.ops.rename.rule_files import read_rule_file
from ckpt.registry import manifest as manifest_module
from ckpt.registry.index_file import read_index
from ckpt.registry.manifest import Manifest
from ckpt.registry.merge import merged
from ckpt.rules.document import read_rules
from tests.cli.documents import changed
from tests.cli.support import weights
from tests.faults.checker import check
from tests.registry.test_merge import three
from tests.zoo import KINDS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "schemas"
SCHEMAS = {path.name: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
RULE_FILES = sorted((ROOT / "examples" / "rules").glob("*.toml"))


def validator(name: str, *, closed: bool = False) -> Draft202012Validator:
    """The validator of a schema; `closed` refuses fields that no schema lists."""
    schemas = {key: _closed(schema) if closed else schema for key, schema in SCHEMAS.items()}
    resources = [(key, Resource.from_contents(schema)) for key, schema in schemas.items()]
    return Draft202012Validator(schemas[name], registry=Schemas().with_resources(resources))


def _closed(schema: Any) -> Any:
    match schema:
        case dict():
            inner = {key: _closed(value) for key, value in schema.items()}
            # "properties" is a keyword where it holds schemas, not the name of a field.
            lists = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
            return {"additionalProperties": False, **inner} if lists else inner
        case list():
            return [_closed(value) for value in schema]
    return schema


INDEX = validator("registry.schema.json")
MANIFEST = validator("manifest.schema.json")
RULES = validator("rules.schema.json")
CLOSED_INDEX = validator("registry.schema.json", closed=True)
CLOSED_MANIFEST = validator("manifest.schema.json", closed=True)
COLUMNS = validator("manifest-columns.schema.json")
CLOSED_COLUMNS = validator("manifest-columns.schema.json", closed=True)


def expect_valid(folder: Path) -> None:
    """`registry.json` and all manifests of a registry are valid, without an unlisted field."""
    CLOSED_INDEX.validate(index_of(folder))
    manifests = list(folder.glob(".ckpt/manifests/??/*"))
    assert manifests
    for path in manifests:
        data = path.read_bytes()
        if data.startswith(b"{"):
            CLOSED_MANIFEST.validate(json.loads(data))
        else:
            CLOSED_COLUMNS.validate(json.loads(gzip.decompress(data)))


def index_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "registry.json").read_text())
    return document


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(weights(), "old.pt")
    ckpt.register("old.pt", metrics={"accuracy": 0.5}, message="the first")
    return tmp_path


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == name


def test_shipped_registry_is_valid() -> None:
    expect_valid(ROOT)


def test_what_the_commands_write_is_valid(registry: Path) -> None:
    ckpt.rename("v1", ["conv->embed"])
    ckpt.alias("prod", "v2", protect=True)
    ckpt.tag("v1", ["golden", "first"])
    ckpt.rename("v2", read_rules([{"cast": "fc2", "dtype": "float16"}], name="a cast"))
    ckpt.rename("v2", undo=True)
    other = weights(1)
    torch.save({"model": other, "ema": other, "epoch": 1}, "run.pt")
    ckpt.register("run.pt::model", name="old", parent="v1")
    ckpt.rm(["old:v3"])
    ckpt.rm(["old:v1"])
    ckpt.restore(["old:v1"])
    assert "removed" in index_of(registry)["models"]["old"]
    assert "restored" in index_of(registry)["models"]["old"]["versions"]["v1"]
    expect_valid(registry)


@pytest.mark.parametrize("plain_bytes", [1 << 16, 0], ids=["rows", "columns"])
@pytest.mark.parametrize("kind", KINDS)
def test_manifest_of_every_kind_of_file_is_valid(
    registry: Path, kind: str, plain_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "PLAIN_BYTES", plain_bytes)
    folder = registry / "files"
    folder.mkdir()
    ckpt.register(KINDS[kind](folder).ref, name="other")
    expect_valid(registry)
    check(registry)


@given(st.integers(0, 2**32))
def test_merged_index_is_valid(seed: int) -> None:
    CLOSED_INDEX.validate(json.loads(merged(*three(seed)).index.to_text()))


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.stem)
def test_example_is_valid(path: Path) -> None:
    RULES.validate(tomllib.loads(path.read_text(encoding="utf-8")))


def test_saved_rules_are_valid(registry: Path) -> None:
    rules: list[Any] = ["conv->embed", *read_rules([{"transpose": r"fc1\.weight"}], name="one")]
    ckpt.rename("old.pt", rules, save_rules="saved.toml")
    assert read_rule_file(Path("saved.toml")).source
    RULES.validate(tomllib.loads(Path("saved.toml").read_text()))


# Each verb with all its fields; then documents that neither the reader nor the schema takes.
GOOD: list[dict[str, Any]] = [
    {"slice": "a", "dim": -1, "start": 1, "stop": -1},
    {"pad": "a", "size": 8, "value": 0.5},
    {"pad": "a", "size": 8, "value": "mean", "dim": 1},
    {"resize": "a", "from": [2, 3], "to": [4, 6], "mode": "bicubic"},
    {"rename": "a->b", "word": True},
    {"rename": "a<->b"},
    {"at_once": ["a->b", "b->a"], "literal": True},
    {"map": {"a.b": "c"}},
    {"strip": "module."},
    {"add": "model."},
    {"unwrap": True},
    {"drop": "^fc"},
    {"keep": "^conv"},
    {"split": "qkv", "into": ["q", "k", "v"], "dim": 0, "sizes": [1, 2, 3]},
    {"concat": ["q", "k"], "into": "qk", "dim": 1},
    {"stack": r"(\d+)", "into": "all", "dim": 0},
    {"unstack": "all", "into": "{i}", "dim": 0},
    {"duplicate": "a", "into": ["a", "b"]},
    {"tie": "a", "into": ["a", "b"]},
    {"transpose": "a", "dims": [0, 1]},
    {"permute": "a", "dims": [1, 0]},
    {"reshape": "a", "shape": [2, -1]},
    {"squeeze": "a", "dim": 1},
    {"unsqueeze": "a", "dim": 1},
    {"cast": "a", "dtype": "float16"},
    {"fill": "b", "beside": "a", "value": 0.5, "shape": [1], "dtype": "float32"},
]
BAD: list[Any] = [
    "a->b",
    {},
    {"renamed": "a->b"},
    {"rename": "a->b", "drop": "c"},
    {"rename": "a->b", "dim": 0},
    {"rename": ""},
    {"rename": 1},
    {"rename": "a->b", "word": "yes"},
    {"at_once": "a->b"},
    {"map": {}},
    {"map": {"a": 1}},
    {"unwrap": False},
    {"split": "a"},
    {"concat": ["a"], "into": "b"},
    {"unstack": "a", "into": "b"},
    {"transpose": "a", "dims": [0]},
    {"permute": "a"},
    {"reshape": "a", "shape": 3},
    {"squeeze": "a", "dim": "0"},
    {"slice": "a", "stop": "5"},
    {"pad": "a", "size": 8},
    {"pad": "a", "value": 0},
    {"pad": "a", "size": 8, "value": "last"},
    {"resize": "a", "from": [2, 3], "to": [4, 6]},
    {"resize": "a", "from": [2, 3], "to": [4, 6], "mode": "nearest"},
    {"resize": "a", "from": [2, 0], "to": [4, 6], "mode": "bicubic"},
    {"resize": "a", "from": [2, 3], "to": [4], "mode": "bicubic"},
    {"resize": "a", "from": [2, 3], "to": [4, 6], "mode": "bicubic", "prefix": -1},
    {"fill": "a", "beside": "b"},
    {"fill": "a", "beside": "b", "value": "0"},
    {"fill": "a", "beside": "b", "value": 0, "dtype": "F32"},
]


@pytest.mark.parametrize("rule", GOOD, ids=str)
def test_schema_and_reader_take_a_rule(rule: dict[str, Any]) -> None:
    assert read_rules([rule], name="one")
    RULES.validate({"rules": [rule]})


@pytest.mark.parametrize("rule", BAD, ids=str)
def test_schema_and_reader_refuse_a_rule(rule: Any) -> None:
    with pytest.raises(RuleError):
        read_rules([rule], name="one")
    assert not RULES.is_valid({"rules": [rule]})


def test_schema_lists_every_verb() -> None:
    with pytest.raises(RuleError) as refused:
        read_rules([{}], name="one")
    verbs = str(refused.value.hint).partition("verbs are ")[2].split(", ")
    branches = SCHEMAS["rules.schema.json"]["$defs"]["rule"]["oneOf"]
    assert sorted(branch["required"][0] for branch in branches) == sorted(verbs)
    assert {next(iter(rule)) for rule in GOOD} == set(verbs)


def test_schemas_list_every_dtype() -> None:
    definitions = SCHEMAS["manifest.schema.json"]["$defs"]
    assert set(definitions["dtype"]["enum"]) == set(DTYPES)
    tensor = SCHEMAS["rules.schema.json"]["$defs"]["tensor"]
    assert set(tensor["prefixItems"][1]["enum"]) == set(DTYPES)


def fields(document: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of everything in a document."""
    found = [path] if path else []
    if isinstance(document, dict | list):
        pairs = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in pairs:
            found += fields(value, (*path, key))
    return found


def without(document: Any, path: tuple[str | int, ...]) -> Any:
    copy = deepcopy(document)
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return copy


def is_read(read: Callable[[bytes], object], document: Any) -> bool:
    try:
        read(json.dumps(document).encode())
    except CkptError:
        return False
    return True


def test_schema_requires_what_the_reader_of_the_index_requires() -> None:
    document, read = index_of(ROOT), partial(read_index, name="it")
    for path in fields(document):
        less = without(document, path)
        assert INDEX.is_valid(less) == is_read(read, less), path


def test_schema_requires_what_the_reader_of_manifests_requires() -> None:
    for file in ROOT.glob(".ckpt/manifests/??/*"):
        document = json.loads(file.read_bytes())
        paths = [path for path in fields(document) if path[0] != "record" and len(path) < 4]
        for path in paths:
            if path[:2] == ("skeleton", 2) and len(path) > 2:
                continue  # without a hole, the sizes do not add up, which no schema can say
            less = without(document, path)
            assert MANIFEST.is_valid(less) == is_read(Manifest.from_bytes, less), path


def test_schema_requires_what_the_reader_of_columns_requires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And both refuse wrong types."""
    monkeypatch.setattr(manifest_module, "PLAIN_BYTES", 0)
    file = next(ROOT.glob(".ckpt/manifests/??/*"))
    document = json.loads(gzip.decompress(Manifest.from_bytes(file.read_bytes()).to_bytes()))
    COLUMNS.validate(document)
    columns = {("entries", at) for at in range(4)} | {("skeleton", at) for at in (2, 3, 4)}
    columns.add(("inline", 0))
    for path in fields(document):
        if path[0] == "record" or len(path) > 3 or (path[:2] in columns and len(path) > 2):
            continue  # columns that are too short are refused by the reader alone
        less = without(document, path)
        assert COLUMNS.is_valid(less) == is_read(Manifest.from_bytes, less), path
    for path in [("digests",), *((*column, 0) for column in sorted(columns))]:
        for wrong in (None, 0.5, "x", {}):
            if path[:2] == ("entries", 0) and wrong == "x":
                continue  # another key
            more = changed(document, path, wrong)
            assert not COLUMNS.is_valid(more), (path, wrong)
            assert not is_read(Manifest.from_bytes, more), (path, wrong)


def test_field_that_no_schema_lists_is_found() -> None:
    more = {**index_of(ROOT), "colour": "blue"}
    assert INDEX.is_valid(more)  # ckpt keeps fields that it does not know
    assert not CLOSED_INDEX.is_valid(more)
