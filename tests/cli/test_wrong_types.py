"""Fault 26: a field of a wrong type is named, whatever the field, and nothing crashes.

The oracle of what is accepted is `jsonschema` with the schemas in `docs/schemas`.
"""

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ckpt.errors import CkptError
from ckpt.registry.index_file import read_index
from ckpt.registry.manifest import Manifest
from tests.cli.documents import (
    COMMANDS,
    changed,
    make_registry,
    manifests,
    places,
    replace_manifest,
    value_at,
)
from tests.cli.support import Run
from tests.effort import by_effort, long_but
from tests.test_schemas import INDEX, MANIFEST

WRONG: list[Any] = [None, True, 3, -1, 1 << 64, 1.5, "x", "", [], {}, [1], {"x": 1}, [["x"]]]
# What the schemas cannot express; each has tests of its own.
_BEYOND = (
    *("an alias points to", "a tag is on", "a protected alias", "is not below next", "this ckpt"),
    *("is both present", "out of order", "a hole ends", "do not add up", "not a file of a"),
    *("is damaged", "its object", "too many elements", "base64", "padding", "decompress"),
    *("is not a name for a file", "would be"),
)


def mutants(document: Any, kept: int) -> list[tuple[tuple[str | int, ...], Any]]:
    """Some wrong values for every field, the same ones in each run."""
    chooser = random.Random(15)
    found = []
    for path in places(document):
        others = [wrong for wrong in WRONG if wrong != value_at(document, path)]
        found += [(path, wrong) for wrong in chooser.sample(others, kept)]
    return found


def error_of(read: Any, document: Any) -> str | None:
    try:
        read(json.dumps(document).encode())
    except CkptError as error:
        return str(error)
    return None


def expect_agreement(valid: bool, error: str | None, path: object, wrong: object) -> None:
    """The reader accepts what the schema accepts, but for what a schema cannot express."""
    if error is None:
        assert valid, (path, wrong, "accepted")
    elif valid:
        assert any(text in error for text in _BEYOND), (path, wrong, error)


def expect_no_fault(ckpt: Run, words: list[str], path: object, wrong: object) -> None:
    ran = ckpt(*words)
    assert ran.code in (0, 2, 3, 4), (words, path, wrong, ran.err)
    assert "internal error" not in ran.err, (words, path, wrong, ran.err)
    if "--json" in words and ran.code == 0:
        json.loads(ran.out, parse_constant=pytest.fail)


def test_fault_26_every_field_of_the_index(ckpt: Run, folder: Path) -> None:
    make_registry(folder)
    file = folder / "registry.json"
    document = json.loads(file.read_text())
    refused = 0
    for number, (path, wrong) in enumerate(mutants(document, by_effort(1, 4, len(WRONG) - 1))):
        mutant = changed(document, path, wrong)
        error = error_of(partial(read_index, name="it"), mutant)
        expect_agreement(INDEX.is_valid(mutant), error, path, wrong)
        file.write_text(json.dumps(mutant))
        if error is None:
            for words in COMMANDS if number % by_effort(4, 2, 1) == 0 else COMMANDS[:3]:
                expect_no_fault(ckpt, words, path, wrong)
        elif number % by_effort(9, 1, 1) == 0:
            refused += 1
            ran = ckpt("ls")
            assert (ran.code, "internal error" in ran.err) == (4, False), (path, wrong, ran.err)
    assert refused > 10


@pytest.mark.parametrize("label", long_but(["v2"], ["v1", "v2", "v3"]))
def test_fault_26_every_field_of_a_manifest(ckpt: Run, folder: Path, label: str) -> None:
    make_registry(folder)
    index = (folder / "registry.json").read_text()
    old = json.loads(index)["models"]["net"]["versions"][label]["manifest"]
    document = manifests(folder)[old]
    for number, (path, wrong) in enumerate(mutants(document, by_effort(2, 4, len(WRONG) - 1))):
        mutant = changed(document, path, wrong)
        error = error_of(Manifest.from_bytes, mutant)
        if path[:3] not in (("record", "plan", "document"), ("record", "plan", "source")):
            expect_agreement(MANIFEST.is_valid(mutant), error, path, wrong)
        replace_manifest(folder, index, old, mutant)
        if error is None:
            for words in COMMANDS if number % by_effort(6, 2, 1) == 0 else COMMANDS[:4]:
                expect_no_fault(ckpt, words, path, wrong)
        elif number % by_effort(20, 1, 1) == 0:
            ran = ckpt("show", label)
            assert (ran.code, "internal error" in ran.err) == (4, False), (path, wrong, ran.err)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" * 401, "1" * 310])
def test_number_that_no_metric_can_be(ckpt: Run, folder: Path, number: str) -> None:
    make_registry(folder)
    text = (folder / "registry.json").read_text()
    (folder / "registry.json").write_text(text.replace('"accuracy":0.5', f'"accuracy":{number}', 1))
    assert ckpt("ls").code == 4


def test_error_names_the_field(ckpt: Run, folder: Path) -> None:
    make_registry(folder)
    text = (folder / "registry.json").read_text()
    (folder / "registry.json").write_text(text.replace('"accuracy":0.5', '"accuracy":"x"', 1))
    ran = ckpt("ls")
    assert (ran.code, ran.out) == (4, "")
    assert 'models.net.versions.v1.metrics.accuracy: expected a number, found "x"' in ran.err
