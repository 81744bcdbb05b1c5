"""The input of `--prove`: typed, read from a file, or derived from what the old class tells."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model

from tests.cli.support import Run

TWO = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.vision, self.text = nn.Conv2d(3, 4, 5), nn.Embedding(9, 4)
        self.kinds = nn.Embedding(2, 4)

    def forward(self, {image}, {tokens}, kinds=None, scale: float = 1.0):
        x = self.vision({image}).mean((2, 3)) * scale + self.text({tokens}).mean(1)
        return x if kinds is None else x + self.kinds(kinds).mean(1)
"""
FLAT = """
import torch
from torch import nn

class Net(nn.Module):
    dummy_inputs = {dummy}
    main_input_name = "{main}"

    def __init__(self):
        super().__init__()
        self.layer = nn.{layer}
        self.head = nn.Linear({width}, 2)

    def forward(self, {name}):
        return self.head({call})
"""
PROVE = ("rename", "net.pt", "--from", "net.py:Net", "--check", "new.py:Net", "--prove")


def write(folder: Path, text: str, new: str | None = None) -> dict[str, Any]:
    """The files of a class, of a new one, and of weights."""
    space: dict[str, Any] = {}
    (folder / "net.py").write_text(text)
    (folder / "new.py").write_text(new or text)
    exec(text, space)
    torch.manual_seed(2)
    state: dict[str, Any] = space["Net"]().state_dict()
    torch.save(state, folder / "net.pt")
    return state


@pytest.fixture
def two(folder: Path) -> None:
    write(
        folder,
        TWO.format(image="image", tokens="tokens"),
        TWO.format(image="pixel_values", tokens="input_ids"),
    )


def inputs_of(ran: Any) -> list[tuple[str | None, str, list[int]]]:
    assert ran.code == 0, ran
    found = ran.data["proof"]["inputs"]
    return [(it["name"], it["dtype"], it["shape"]) for it in found]


@pytest.mark.parametrize(
    ("words", "wanted", "kinds"),
    [
        ((), [(None, "float64", [2, 3, 64, 64]), (None, "int64", [2, 8])], False),
        (
            ("--input", "1x3x9x9", "--input", "1x5"),
            [(None, "float64", [1, 3, 9, 9]), (None, "int64", [1, 5])],
            False,
        ),
        (
            ("--input", "tokens=1x5:int32<4", "--input", "image=1x3x9x9"),
            [("tokens", "int32", [1, 5]), ("image", "float64", [1, 3, 9, 9])],
            False,
        ),
        (
            ("--input", "1x3x9x9:float32", "--input", "tokens=1x5", "--input", "kinds=1x5<2"),
            [
                (None, "float32", [1, 3, 9, 9]),
                ("tokens", "int64", [1, 5]),
                ("kinds", "int64", [1, 5]),
            ],
            True,
        ),
    ],
    ids=["derived", "by place", "by name", "both"],
)
def test_inputs_can_be_typed(
    words: tuple[str, ...], wanted: list[Any], kinds: bool, ckpt: Run, two: None, folder: Path
) -> None:
    ran = ckpt(*PROVE, *words, "--json", "--dry-run")
    assert inputs_of(ran) == wanted
    unproved = {it["key"] for it in ran.data["proof"]["unproved"]}
    assert unproved == (set() if kinds else {"kinds.weight"})


def test_limit_of_integers_is_kept(ckpt: Run, folder: Path) -> None:
    text = FLAT.format(dummy=None, main="x", layer="Linear(4, 4)", width=4, name="x", call="x")
    text = text.replace("self.head(x)", "{'given': x}")
    write(folder, text)
    (folder / "new.py").write_text(text.replace("{'given': x}", "{'given': (x.clamp(0, 6))}"))
    ran = ckpt(*PROVE, "--input", "200x4:int64<7")
    assert "no tensor influences them" in ran.err, "the outputs agree: all are in range"
    ran = ckpt(*PROVE, "--input", "200x4:int64<8")
    assert "give different outputs" in ran.err, "and some would be 7"


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("tensor", ".pt"), ("tuple", ".pt"), ("list", ".pt"), ("dict", ".pt"),
     ("dict", ".safetensors")],
)  # fmt: skip
def test_input_can_be_a_file(kind: str, suffix: str, ckpt: Run, folder: Path, two: None) -> None:
    image, tokens = torch.ones(1, 3, 7, 7), torch.tensor([[1, 2]])
    held = {"tuple": (image, tokens), "list": [image, tokens], "tensor": image}.get(
        kind, {"image": image, "tokens": tokens}
    )
    if suffix == ".pt":
        torch.save(held, folder / "batch.pt")
    else:
        save_file(held, folder / "batch.safetensors")
    if kind == "tensor":
        text = (folder / "net.py").read_text().replace("image, tokens,", "image, tokens=None,")
        text = text.replace("+ self.text(tokens).mean(1)", "")
        for name in ("net.py", "new.py"):
            (folder / name).write_text(text)
    ran = ckpt(*PROVE, "--input-file", f"batch{suffix}", "--json", "--dry-run")
    names = ["image", "tokens"] if kind == "dict" else [None, None]
    wanted = [(names[0], "float32", [1, 3, 7, 7]), (names[1], "int64", [1, 2])]
    found = inputs_of(ran)
    assert sorted(found, key=str) == sorted(wanted[: 1 if kind == "tensor" else 2], key=str)


def test_file_that_holds_something_else_is_refused(ckpt: Run, folder: Path, two: None) -> None:
    torch.save({"image": torch.ones(1, 3, 7, 7), "label": "cat"}, folder / "a.pt")
    torch.save({"image.x": torch.ones(1)}, folder / "b.pt")
    (folder / "c.pt").write_text("no")
    for name, code, text in (
        ("a.pt", 3, "label is not a tensor"),
        ("b.pt", 2, "'image.x' is not the name of an argument"),
        ("c.pt", 3, "c.pt"),
        ("d.pt", 2, "d.pt"),
    ):
        ran = ckpt(*PROVE, "--input-file", name)
        assert (ran.code, text in ran.err) == (code, True), ran


@pytest.mark.parametrize(
    "words",
    [
        ("--input", "1x"), ("--input", "x=1xfour"), ("--input", "0x3"), ("--input", "1x2:float99"),
        ("--input", "1x2:float32<7"), ("--input", "a=1", "--input", "a=2"),
        ("--input", "1", "--input-file", "net.pt"),
    ],
)  # fmt: skip
def test_invalid_inputs_are_refused(words: tuple[str, ...], ckpt: Run, two: None) -> None:
    assert ckpt(*PROVE, *words).code == 2


def test_dummy_inputs_are_taken(ckpt: Run, folder: Path) -> None:
    """As transformers has them: indices of the main input, or of another one."""
    ids = "{'ids': __import__('torch').tensor([[7, 1, 30]])}"
    for main, shape in (("ids", [1, 3]), ("pixels", [2, 8])):
        text = FLAT.format(
            dummy=ids, main=main, layer="Embedding(9, 4)", width=4, name="ids",
            call="self.layer(ids)",
        )  # fmt: skip
        write(folder, text)
        assert inputs_of(ckpt(*PROVE, "--json", "--dry-run"))[0][2] == shape


@pytest.mark.parametrize(
    ("layer", "width", "call", "shape"),
    [
        ("Linear(5, 4)", 4, "self.layer(x)", [2, 5]),
        ("Conv1d(5, 4, 3)", 4, "self.layer(x).mean(-1)", [2, 5, 64]),
        ("Conv2d(1, 4, 3)", 4 * 26 * 26, "self.layer(x).flatten(1)", [2, 1, 28, 28]),
        ("Conv2d(3, 2, 4, 4)", 2 * 56 * 56, "self.layer(x).flatten(1)", [2, 3, 224, 224]),
        ("LayerNorm((3, 4))", 4, "self.layer(x)", [2, 3, 4]),
        ("GRU(5, 4, batch_first=True)", 4, "self.layer(x)[0]", [2, 8, 5]),
        ("Linear(5, 4)", 4, "self.layer(x).transpose(1, 2).flatten(2).transpose(1, 2)", [2, 8, 5]),
    ],
)
def test_input_is_derived_from_the_first_layer(
    layer: str, width: int, call: str, shape: list[int], ckpt: Run, folder: Path
) -> None:
    """The shapes are tried until the old class runs."""
    write(folder, FLAT.format(dummy=None, main="x", layer=layer, width=width, name="x", call=call))
    found = inputs_of(ckpt(*PROVE, "--json", "--dry-run"))[0][2]
    if "GRU" in layer:  # takes a sequence without a batch as well
        assert found in ([2, 5], shape)
    else:
        assert found == shape


def test_input_that_nothing_tells_is_asked_for(ckpt: Run, folder: Path) -> None:
    text = FLAT.format(dummy=None, main="x", layer="Identity()", width=2, name="x", call="x[0, 0]")
    write(folder, text.replace("nn.Linear(2, 2)", "nn.BatchNorm1d(2)"))
    ran = ckpt(*PROVE)
    assert (ran.code, "--input NAME=SHAPE" in ran.err) == (2, True), ran


def test_tied_weights_are_drawn_as_one(ckpt: Run, folder: Path) -> None:
    """A safetensors file stores them once; the new class may tie them, or not."""
    text = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.{wte}, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.{wte}.weight

    def forward(self, ids):
        return self.head(self.{wte}(ids))
"""
    state = write(folder, text.format(wte="wte"), text.format(wte="embed"))
    space: dict[str, Any] = {}
    exec(text.format(wte="wte"), space)
    model = space["Net"]()
    model.load_state_dict(state)
    save_model(model, folder / "net.safetensors")
    for name in ("net.pt", "net.safetensors"):
        ran = ckpt("rename", name, "--rule", "wte=embed", *PROVE[2:], "--json", "--dry-run")
        assert ran.code == 0, ran
        assert (
            "embed.weight" in ran.data["proof"]["influential"]
            or "head.weight" in (ran.data["proof"]["influential"])
        )
        assert ran.data["proof"]["unproved"] == []
    untied = text.format(wte="wte").replace("self.head.weight = self.wte.weight", "pass")
    (folder / "new.py").write_text(untied)
    assert ckpt(*PROVE, "--dry-run").code == 0


def test_module_with_extra_state_is_proved(ckpt: Run, folder: Path) -> None:
    text = FLAT.format(
        dummy=None, main="x", layer="Linear(3, 4)", width=4, name="x", call="self.layer(x)"
    )
    text += """
    def get_extra_state(self):
        return {"step": 3}

    def set_extra_state(self, state):
        assert state == {"step": 3}
"""
    write(folder, text)
    ran = ckpt(*PROVE, "--json", "--dry-run")
    assert (ran.code, len(ran.data["proof"]["influential"])) == (0, 4), ran


def test_python_takes_the_same(ckpt: Run, folder: Path, two: None) -> None:
    import ckpt as api

    given: list[Any] = [
        ["1x3x9x9", "tokens=1x5"],
        (torch.ones(1, 3, 9, 9), torch.tensor([[1]])),
        {"image": torch.ones(1, 3, 9, 9), "tokens": torch.tensor([[1]])},
        folder / "batch.pt",
        None,
    ]
    torch.save(given[2], folder / "batch.pt")
    options: dict[str, Any] = {"check": "new.py:Net", "saved_from": "net.py:Net", "dry_run": True}
    for inputs in given:
        done = api.rename("net.pt", prove=True, prove_input=inputs, **options)
        proof = done.plan.proof
        assert proof is not None
        assert (proof.agrees, proof.inputs[0].shape[1]) == (True, 3)
        assert [it.key for it in proof.unproved] == ["kinds.weight"]
