"""A registry with every field that its documents can have, and changes of one field at a time."""

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

import ckpt
from ckpt.rules.document import read_rules

Path_ = tuple[str | int, ...]
SMALL = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3)}


def make_registry(folder: Path) -> None:
    """`net` with a trained version, a rename, a derived one, a removed one, an alias and a tag."""
    torch.save({"model": SMALL, "epoch": 1, "note": "text"}, folder / "net.pt")
    training = {"recipe": {"lr": 1.0, "name": "classic"}, "dataset": {"name": "digits"}}
    curves = {"loss": [0.5, 0.25], "accuracy": [0.5, 0.75]}
    record = {"training": training, "curves": curves, "fits": "net.py:Net", "more": [{"x": "y"}]}
    metrics = {"accuracy": 0.5, "loss": 1}
    (folder / "a.json").write_text("{}")
    more = {"record": record, "with_files": [folder / "a.json"]}
    ckpt.register("net.pt::model", message="first", metrics=metrics, **more)
    ckpt.rename("v1", ["a->b"])
    ckpt.rename("v2", read_rules([{"cast": "b", "dtype": "float16"}], name="a cast"))
    torch.save({"c": torch.ones(4)}, folder / "other.pt")
    ckpt.register("other.pt", name="net")
    ckpt.rm(["v4"])
    ckpt.alias("prod", "v1", protect=True)
    ckpt.tag("v1", ["golden"])
    ckpt.note("v1", "a note")
    ckpt.metric("v1", {"loss": 0.5}, message="again")


COMMANDS = [
    ["ls"],
    ["ls", "--json"],
    *([word, ref] for word in ("show", "log", "plot") for ref in ("v1", "v3")),
    ["show", "v3", "--json"],
    ["show", "v1", "--deep"],
    ["show", "v2", "--tree"],
    ["diff", "v1", "v3", "--records"],
    ["diff", "v1", "v2"],
    ["diff", "v1", "v2", "--format", "markdown", "--records"],
    ["diff", "v1", "v2", "--format", "html", "--records"],
    ["blame", "v3"],
    ["card", "v1"],
    ["rename", "v3", "--undo", "--dry-run"],
    ["rename", "v2", "--rule", "b=c", "--dry-run"],
    ["export", "v1", "-o", "new.pt", "--force"],
    ["du"],
    ["verify"],
    ["gc", "--dry-run"],
    ["undo", "--list"],
    ["fsck"],
    ["alias"],
    ["alias", "--log"],
    ["git-driver", "text", "registry.json"],
]


def places(document: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all values in a document, found by walking it."""
    pairs = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for step, value in pairs:
        yield (*path, step)
        yield from places(value, (*path, step))


def value_at(document: Any, path: Path_) -> Any:
    """The value at a path."""
    for step in path:
        document = document[step]
    return document


def changed(document: Any, path: Path_, value: Any) -> Any:
    """A copy with another value at a path."""
    copy = deepcopy(document)
    value_at(copy, path[:-1])[path[-1]] = value
    return copy


def renamed(document: Any, path: Path_, key: str) -> Any:
    """A copy with another key in place of the last step of a path, in its order."""
    copy = deepcopy(document)
    inner = value_at(copy, path[:-1])
    items = [(key if name == path[-1] else name, value) for name, value in inner.items()]
    inner.clear()
    inner.update(items)
    return copy


def manifests(folder: Path) -> dict[str, Any]:
    """The manifests of a registry, by digest."""
    files = sorted(folder.glob(".ckpt/manifests/??/*"))
    return {
        f"sha256:{file.parent.name}{file.name}": json.loads(file.read_bytes()) for file in files
    }


def replace_manifest(folder: Path, index: str, old: str, document: Any) -> None:
    """Store a manifest under its own digest, and let the index name it in place of another."""
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    name = hashlib.sha256(data).hexdigest()
    path = folder / ".ckpt" / "manifests" / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(data)
    (folder / "registry.json").write_text(index.replace(old, f"sha256:{name}"))
