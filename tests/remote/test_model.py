"""The model of a push holds, and finds the faults of protocols that look alike."""

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
_BLOCK = re.compile(r"(?<=^```text model\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("remote_model", DOCS / "remote_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


def test_model_of_two_clients_has_no_fault(model: ModuleType) -> None:
    states, fault = model.check(2)
    assert (states > 1000, fault) == (True, None)


def test_model_finds_the_fault_of_every_broken_protocol(model: ModuleType) -> None:
    faults = {name: model.check(2, protocol)[1] for name, protocol in model.BROKEN.items()}
    assert len(faults) == 3
    assert None not in faults.values()


def test_collection_beside_pushes_has_no_fault(model: ModuleType) -> None:
    states, fault = model.check_collection(2)
    assert (states > 1000, fault) == (True, None)


def test_model_finds_the_fault_of_every_careless_collection(model: ModuleType) -> None:
    faults = {name: model.check_collection(2, care)[1] for name, care in model.CARELESS.items()}
    assert len(faults) == 3
    assert None not in faults.values()


@pytest.mark.long
def test_page_shows_the_result_of_the_model(model: ModuleType) -> None:
    page = DOCS / "remotes.md"
    text = page.read_text(encoding="utf-8")
    result = "".join(f"{line}\n" for line in model.report())
    if os.environ.get("CKPT_WRITE_README"):
        text = _BLOCK.sub(result, text)
        page.write_text(text, encoding="utf-8")
    assert _BLOCK.findall(text) == [result]
