"""Errors are what Python itself would raise, where people catch that."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pickle import dumps, loads

import pytest
import torch

import ckpt
import ckpt.errors
from ckpt.errors import (
    AmbiguousStateError,
    CkptError,
    IndexDamageError,
    InterruptedTrainingError,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ckpt.register({"w": torch.ones(2)}, name="net", registry=tmp_path)
    return tmp_path


def test_missing_file_is_a_file_not_found_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file") as missing:
        ckpt.load(folder / "none.pt")
    assert isinstance(missing.value, CkptError)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ckpt.load("net:v1", registry=folder / "none")


def test_unknown_names_are_key_errors(folder: Path) -> None:
    for ref in ("other:v1", "net:v7", "net@prod"):
        with pytest.raises(KeyError) as unknown:
            ckpt.load(ref, registry=folder)
        assert isinstance(unknown.value, CkptError)
        assert "'" not in str(unknown.value).replace("'other'", "")  # as KeyError would quote it
    with pytest.raises(KeyError, match="has no x"):
        ckpt.load("net:v1", keys=["x"], registry=folder)


def test_invalid_arguments_are_value_errors(folder: Path) -> None:
    for rules in (["w-"], ["x->y"], [{"split": "w"}]):
        with pytest.raises(ValueError, match=r"rule|arrow") as invalid:
            ckpt.rename({"w": torch.ones(2)}, rules)
        assert isinstance(invalid.value, CkptError)
    with pytest.raises(ValueError, match="two keys"):
        ckpt.rename({"a": torch.ones(2), "b": torch.ones(2)}, ["a|b->c"])


def test_every_error_shows_its_message_alone() -> None:
    kinds = [CkptError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    plain = [kind for kind in kinds if kind.__init__ is CkptError.__init__]
    assert len(plain) > 10
    for kind in plain:
        error = kind("it's gone", hint="look")
        assert (str(error), error.hint) == ("it's gone", "look")


def test_a_traceback_shows_the_hint(folder: Path) -> None:
    ckpt.register({"w": torch.zeros(2)}, name="other", registry=folder)
    script = f"import ckpt; ckpt.load('v1', registry={str(folder)!r})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[-2:] == [
        "ckpt.errors.RefError: the registry holds 2 models",
        "hint: name one: net:v1, other:v1",
    ]


def test_the_command_line_shows_the_hint_once(folder: Path) -> None:
    ckpt.register({"w": torch.zeros(2)}, name="other", registry=folder)
    words = [sys.executable, "-m", "ckpt", "show", "v1", "--registry", str(folder)]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.stderr == ("error: the registry holds 2 models\nhint:  name one: net:v1, other:v1\n")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: loads(dumps(it))])  # noqa: S301
def test_errors_are_copied_and_pickled_whole(copied: Callable[[CkptError], CkptError]) -> None:
    kinds = [CkptError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    others: list[CkptError] = [
        AmbiguousStateError("m", hint="h", names=("a", "b")),
        IndexDamageError("m", hint="h", kind="newer", line=3),
        InterruptedTrainingError("m", hint="h", signal=15),
    ]
    plain = [kind("m", hint="h") for kind in kinds if kind.__init__ is CkptError.__init__]
    for error in [*plain, CkptError("m"), *others]:
        again = copied(error)
        assert (type(again), str(again), again.args) == (type(error), "m", ("m",))
        assert vars(again) == vars(error)
        assert again.exit_code == error.exit_code


def test_errors_are_imported_at_once_and_without_torch() -> None:
    code = "import ckpt.errors, sys; print('torch' in sys.modules, 'ckpt.opened' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"
