"""What may run code, which globals torch may be told of, and files without some objects."""

import itertools

import pytest
import torch

from ckpt.errors import FormatError, PlanError, RefusedGlobalError, UsageError
from ckpt.formats.opaque import (
    LaidOut,
    expect_harmless,
    foreign_among,
    safe_globals,
    without_opaque,
    without_optimizer,
    without_tensors,
)
from ckpt.io.sources import Part
from ckpt.tensors import Span, Summed, TensorEntry
from tests.formats import hostile
from tests.formats.support import Memory, loaded, opened, saved, torch_file


def test_layout_over_a_source_is_read_at_any_range() -> None:
    """Whatever pieces it has, of no bytes as well."""
    data = bytes(range(50))
    layout = [Span(5, 0), b"", b"abc", Span(10, 4), b"", Span(30, 0), Span(2, 3), b"z", b""]
    source = Memory(data)
    laid_out = LaidOut(source, layout)
    whole = b"abc" + data[10:14] + data[2:5] + b"z"
    assert laid_out.size == len(whole)
    for begin, end in itertools.combinations_with_replacement(range(len(whole) + 1), 2):
        assert laid_out.read(begin, end - begin) == whole[begin:end]
    assert all(nbytes for _, nbytes in source.reads)
    assert laid_out.parts == (Part("file", 0, 11),)
    assert laid_out.rights == source.rights


def test_layout_whose_sums_are_unknown_is_not_read() -> None:
    entry = TensorEntry("a", "uint8", (1,), 0)
    for piece in (Summed(entry), entry):
        with pytest.raises(FormatError, match=r"^file: a record without a checksum"):
            LaidOut(Memory(b"a"), [piece])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("omegaconf.dictconfig.DictConfig", True),
        ("argparse.Namespace", True),
        ("builtins.dict", True),
        ("builtins.frozenset", True),
        ("uuid.UUID", True),
        ("collections.deque", False),
        ("collections.defaultdict", False),
        ("lightning.fabric.utilities.data.AttributeDict", False),
        ("os.System", False),
        ("package.function", False),
        ("package.sub.Class-1", False),
        ("package.Class", True),
    ],
)
def test_global_that_torch_may_be_told_to_accept(name: str, told: bool) -> None:
    line = f"torch.serialization.add_safe_globals([{name.removeprefix('builtins.')}])"
    assert safe_globals([name]) == (line if told else None)


def test_foreign_globals_keep_their_order_and_places() -> None:
    named = {"os.system": 7, "torch.FloatStorage": 3, "argparse.Namespace": 12}
    assert [(it.name, it.offset, it.runs_code) for it in foreign_among(named)] == [
        *(("os.system", 7, True), ("argparse.Namespace", 12, False)),
    ]


LONG = "x" * 200
SHOWN = f"os.{'x' * 97}…"
CALL = hostile.call("os", LONG)


@pytest.mark.parametrize(
    ("pickle", "says"),
    [
        (hostile.state_dict(CALL), f"runs code when unpickled: {SHOWN} at offset"),
        (hostile.state_dict(hostile.tensor(of=CALL)), f"the tensor needs {SHOWN}, refused at"),
        (hostile.PROTO2 + CALL + hostile.STOP, f"refused global {SHOWN} at offset 2: "),
    ],
    ids=["harmful", "around a storage", "nothing else"],
)
def test_hundred_characters_of_a_global_are_shown(pickle: bytes, says: str) -> None:
    with pytest.raises(RefusedGlobalError, match=says):
        expect_harmless(opened(torch_file(pickle, {"0": bytes(16)})), None)


class Config:
    """An object that torch refuses with weights_only."""


TENSOR = torch.ones(2)
GROUP = {"lr": 0.1, "params": [0]}
OPTIMIZER = {"state": {0: {"exp_avg": TENSOR}}, "param_groups": [GROUP]}
NAME = f"{Config.__module__}.Config"


def test_optimizer_is_left_out_of_a_file_of_plain_values() -> None:
    value = {"model": {"w": TENSOR}, "optimizer": OPTIMIZER, "epoch": 3}
    plain, gone = without_optimizer(opened(saved(value), "model"), "model")
    assert list(gone) == ["optimizer"]
    assert set(loaded(plain.source.read(0, plain.source.size))) == {"model", "epoch"}
    alone = opened(saved({"model": {"w": TENSOR}}), "model")
    assert without_optimizer(alone, "model") == (alone, ())


@pytest.mark.parametrize("beside", [[Config()], [Config(), Config()]], ids=["one", "two"])
def test_objects_that_cannot_be_written_again_are_named(beside: list[Config]) -> None:
    value = {"model": {"w": TENSOR, "v": TENSOR}, "optimizer": OPTIMIZER, "config": beside}
    checkpoint = opened(saved(value), "model")
    says = f"^file: cannot be written without its optimizer and with config.0 .{NAME}.\n"
    with pytest.raises(UsageError, match=says):
        without_optimizer(checkpoint, "model")
    says = f"^file: tensors cannot be dropped beside config.0 .{NAME}.\n"
    with pytest.raises(PlanError, match=says):
        without_tensors(checkpoint, "model", {"v"}, {})


def test_tensors_are_left_out_of_a_file_of_plain_values() -> None:
    value = {"model": {"w": TENSOR, "v": TENSOR}, "epoch": 3}
    plain = without_tensors(opened(saved(value), "model"), "model", {"v"}, {})
    new = loaded(plain.source.read(0, plain.source.size))
    assert (list(new["model"]), new["epoch"]) == (["w"], 3)


@pytest.mark.parametrize(("root", "inner"), [("x", "y"), ("y", "x")])
def test_objects_whose_loss_makes_another_state_dict_the_only_one_stay(
    root: str, inner: str
) -> None:
    """A mapping counts as a state_dict if half of it are tensors."""
    value = {root: TENSOR, "a": Config(), "b": Config(), "model": {inner: TENSOR}}
    checkpoint = opened(saved(value))
    assert [entry.key for entry in checkpoint.entries] == [inner]
    with pytest.raises(FormatError, match="its keys would change without these objects"):
        without_opaque(checkpoint, None)
