"""Slices, padding and resized position tables have the bits that torch's own functions give."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import ckpt
from ckpt.errors import CkptError, PlanError, RuleError
from ckpt.ops.rename.rule_files import read_rule_file
from ckpt.rules.document import read_rules
from tests.formats.support import expected

GENERATOR = torch.Generator().manual_seed(0)
TABLE = torch.randn((7, 6), generator=GENERATOR)
VIT = torch.randn((1, 1 + 4 * 6, 8), generator=GENERATOR)
PADDED = {"dim": 0, "size": 9}


def made(state: dict[str, Tensor], rule: dict[str, Any], suffix: str = ".pt") -> dict[str, Tensor]:
    """The tensors after one rule, loaded by their own library."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"out{suffix}"
        torch.save(state, Path(folder) / "in.pt")
        ckpt.rename(Path(folder) / "in.pt", read_rules([rule], name="rules"), out=out)
        if suffix == ".safetensors":
            return dict(load_file(out))
        return dict(torch.load(out, weights_only=True))


def mean_padded(table: Tensor, size: int) -> Tensor:
    mean = table.contiguous().mean(0, keepdim=True)  # torch adds up a view in another order
    return torch.cat([table, mean.expand(size - len(table), -1)])


@pytest.mark.parametrize(
    ("state", "rule", "wanted"),
    [
        (TABLE, {"slice": "w", "stop": 5}, lambda w: w[:5]),
        (TABLE, {"slice": "w", "start": -4, "stop": -1}, lambda w: w[-4:-1]),
        (TABLE, {"slice": "w", "dim": 1, "start": 2, "stop": 3}, lambda w: w[:, 2:3]),
        (TABLE.t(), {"slice": "w", "dim": -1, "start": 2}, lambda w: w[:, 2:]),
        (TABLE, {"pad": "w", "size": 9, "value": 0}, lambda w: functional.pad(w, (0, 0, 0, 2))),
        (TABLE, {"pad": "w", "size": 7, "value": 0}, lambda w: w),
        (
            TABLE.long(),
            {"pad": "w", "dim": -1, "size": 8, "value": -3},
            lambda w: functional.pad(w, (0, 2), value=-3),
        ),
        (TABLE, {"pad": "w", "size": 9, "value": "mean"}, lambda w: mean_padded(w, 9)),
        (TABLE.half(), {"pad": "w", "size": 8, "value": "mean"}, lambda w: mean_padded(w, 8)),
        (TABLE.bfloat16(), {"pad": "w", "size": 20, "value": "mean"}, lambda w: mean_padded(w, 20)),
        (
            TABLE.double().t(),
            {"pad": "w", "dim": 1, "size": 8, "value": "mean"},
            lambda w: torch.cat([w, w.contiguous().mean(1, keepdim=True)], 1),
        ),
        (TABLE[:, :0], {"pad": "w", "size": 9, "value": "mean"}, lambda w: mean_padded(w, 9)),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_slice_and_pad_are_those_of_torch(
    state: Tensor, rule: dict[str, Any], wanted: Callable[[Tensor], Tensor], suffix: str
) -> None:
    found = made({"w": state, "other": TABLE[0]}, rule, suffix)
    assert expected(found) == expected({"w": wanted(state).contiguous(), "other": TABLE[0]})


def interpolated(table: Tensor, rule: dict[str, Any]) -> Tensor:
    """As timm's `resample_abs_pos_embed` does it, which keeps float64 no more than float32."""
    prefix = rule.get("prefix", 0)
    height, width = rule["from"]
    rows = table[..., prefix:, :].to(torch.promote_types(table.dtype, torch.float32))
    grid = rows.reshape(-1, height, width, table.shape[-1]).permute(0, 3, 1, 2)
    grid = functional.interpolate(
        grid, size=rule["to"], mode=rule["mode"], antialias=rule.get("antialias", False)
    )
    rows = grid.permute(0, 2, 3, 1).reshape(*table.shape[:-2], -1, table.shape[-1])
    return torch.cat([table[..., :prefix, :], rows.to(table.dtype)], -2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("to", [[5, 9], [2, 3]], ids=["larger", "smaller"])
def test_resize_is_that_of_torch(
    dtype: torch.dtype, mode: str, antialias: bool, to: list[int]
) -> None:
    rule = {"resize": "pos", "from": [4, 6], "to": to, "mode": mode, "antialias": antialias}
    tables = {"pos": VIT.to(dtype), "wide": VIT.to(dtype)}
    found = made(tables, {**rule, "prefix": 1})
    wanted = interpolated(tables["pos"], {**rule, "prefix": 1})
    assert found["pos"].shape == (1, 1 + to[0] * to[1], 8)
    assert expected(found) == expected({**tables, "pos": wanted})
    # Two dimensions, as Swin's tables of relative positions; several tables at once; a view.
    more = {"pos.a": VIT[0, 1:].to(dtype), "pos.b": VIT.to(dtype).expand(3, -1, -1)[..., 1:, :]}
    found = made(more, rule)
    assert expected(found) == expected({key: interpolated(more[key], rule) for key in more})


def test_tied_tables_stay_tied() -> None:
    state = {"embed.w": TABLE, "head.w": TABLE}
    for value in (0, "mean"):
        found = made(state, {"pad": "w$", "size": 9, "value": value})
        assert found["embed.w"].data_ptr() == found["head.w"].data_ptr()
    found = made({"a.pos": VIT, "b.pos": VIT},
                 {"resize": "pos", "from": [5, 5], "to": [6, 6], "mode": "bicubic"})  # fmt: skip
    assert found["a.pos"].data_ptr() == found["b.pos"].data_ptr()


def test_two_operations_on_one_tensor_do_not_share_a_result() -> None:
    """A mean of a square, repeated as often as it has columns, is not the square."""
    square = TABLE[:6].t()
    rules = read_rules(
        [
            {"duplicate": "w", "into": ["a", "b"]},
            {"pad": "^a$", "size": 12, "value": "mean"},
            {"concat": ["^b$", "^v$"], "into": "b"},
        ],
        name="rules",
    )
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"w": square, "v": square}, Path(folder) / "in.pt")
        ckpt.rename(Path(folder) / "in.pt", rules, out=Path(folder) / "out.pt")
        found = torch.load(Path(folder) / "out.pt", weights_only=True)
    assert torch.equal(found["a"], mean_padded(square, 12))
    assert torch.equal(found["b"], torch.cat([square, square]))


GRIDS = {"from": [2, 3], "to": [3, 3], "mode": "bicubic"}


@pytest.mark.parametrize(
    ("rule", "error", "says"),
    [
        ({"slice": "w", "start": 7}, PlanError, "w: dimension 0 of shape [7, 6] has no elements"),
        ({"slice": "w", "stop": 8}, PlanError, "has no elements 0 to 8"),
        ({"slice": "w", "start": 3, "stop": 3}, PlanError, "has no elements 3 to 3"),
        ({"slice": "w", "start": -8}, PlanError, "has no elements -8 to 7"),
        ({"slice": "w", "dim": 2}, PlanError, "has no dimension 2"),
        ({"slice": "w", "stop": "5"}, RuleError, "stop is '5', expected a whole number"),
        ({"pad": "w", "size": 6, "value": 0}, PlanError, "cannot pad dimension 0 of shape [7, 6]"),
        ({"pad": "w", "size": 8, "value": "last"}, RuleError, "expected a number or 'mean'"),
        ({"pad": "w", "size": 8}, RuleError, "value is None, expected a number or 'mean'"),
        ({"pad": "w", "value": 0}, RuleError, "size is None, expected a whole number"),
        ({"pad": "n", "size": 8, "value": "mean"}, PlanError, "n: int64 cannot be averaged"),
        ({"pad": "n", "size": 8, "value": 0.5}, PlanError, "n: int64 cannot hold 0.5"),
        ({"pad": "e", "size": 8, "value": "mean"}, PlanError, "[0, 6] has no mean"),
        ({"pad": "w", "size": 1 << 62, "value": 0}, PlanError, "cannot pad"),
        ({"resize": "w", **GRIDS}, PlanError, "w: shape [7, 6] is not a table of 0 + 2 × 3 rows"),
        ({"resize": "e", **GRIDS}, PlanError, "[0, 6] is not a table"),
        ({"resize": "n", **GRIDS}, PlanError, "n: shape [6] is not a table"),
        ({"resize": "i", **GRIDS}, PlanError, "i: int64 cannot be interpolated"),
        ({"resize": "w", **GRIDS, "mode": "nearest"}, RuleError, "expected bicubic or bilinear"),
        ({"resize": "w", **GRIDS, "prefix": -1}, RuleError, "prefix is -1"),
        ({"resize": "w", **GRIDS, "from": [7]}, RuleError, "expected a height and a width"),
        ({"resize": "w", **GRIDS, "to": [0, 9]}, RuleError, "expected a height and a width"),
    ],
)  # fmt: skip
def test_size_that_cannot_be_is_refused(
    rule: dict[str, Any], error: type[CkptError], says: str
) -> None:
    whole = torch.arange(6)
    with pytest.raises(error) as refused:
        made({"w": TABLE, "n": whole, "i": whole.expand(6, -1), "e": TABLE[:0]}, rule)
    assert says in str(refused.value)


def test_table_with_rows_before_its_grid_is_told_apart() -> None:
    with pytest.raises(PlanError) as refused:
        made({"w": VIT}, {"resize": "w", **GRIDS, "from": [4, 6]})
    assert refused.value.hint == "prefix = 1  keeps the rows before the grid"


def test_pad_is_undone_and_what_has_no_inverse_says_so(tmp_path: Path) -> None:
    torch.save({"w": TABLE, "pos": VIT}, tmp_path / "in.pt")
    rules: dict[str, tuple[dict[str, Any], str | None]] = {
        "zero": ({"pad": "w", "size": 9, "value": 0}, None),
        "mean": ({"pad": "w", "size": 9, "value": "mean"}, None),
        "slice": ({"slice": "w", "stop": 5}, "w: is only partly in the result"),
        "resize": (
            {"resize": "pos", "from": [5, 5], "to": [5, 5], "mode": "bilinear"},
            "pos: was cast or resized, which rounds",
        ),
    }
    for name, (rule, says) in rules.items():
        saved, new, back = (tmp_path / f"{name}{end}" for end in (".toml", ".pt", ".back.pt"))
        rule_list = read_rules([rule], name="rules")
        ckpt.rename(tmp_path / "in.pt", rule_list, out=new, save_rules=saved)
        if says is None:
            ckpt.rename(new, read_rule_file(saved), undo=True, out=back)
            assert expected(torch.load(back)) == expected({"w": TABLE, "pos": VIT})
        else:
            with pytest.raises(PlanError) as refused:
                ckpt.rename(new, read_rule_file(saved), undo=True, out=back)
            assert says in str(refused.value)
            assert not back.exists()


def test_optimizer_of_other_sizes_is_refused(tmp_path: Path) -> None:
    net = nn.Embedding(7, 6)
    optimizer = torch.optim.SGD(net.parameters(), momentum=0.9)
    net(torch.tensor([1])).sum().backward()
    optimizer.step()
    run = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(run, tmp_path / "run.pt")
    rules = read_rules([{"pad": "weight", "size": 8, "value": 0}], name="rules")
    with pytest.raises(PlanError, match="optimizer cannot follow: weight gets new elements"):
        ckpt.rename(tmp_path / "run.pt", rules, out=tmp_path / "new.pt")


@pytest.mark.parametrize(
    "rule",
    [
        {"pad": "w", "size": (1 << 33) + 1, "value": "mean"},
        {"resize": "w", "from": [1 << 33, 1], "to": [2, 2], "mode": "bilinear"},
    ],
)
def test_tensor_on_the_way_to_a_small_one_is_not_held_in_memory_whatever_its_size(
    rule: dict[str, Any], tmp_path: Path
) -> None:
    torch.save({"w": torch.ones(1, 1)}, tmp_path / "a.pt")
    large = {"pad": "w", "size": 1 << 33, "value": 0}
    rules = read_rules([large, rule, {"slice": "w", "stop": 1}], name="rules")
    with pytest.raises(PlanError, match=r"the rules make tensors of 34,359,738,\d+ bytes"):
        ckpt.rename(tmp_path / "a.pt", rules, out=tmp_path / "b.pt")


NET = """
import torch
from torch import nn

class LM(nn.Module):
    def __init__(self, vocab=7, grid=5):
        super().__init__()
        self.embed = nn.Embedding(vocab, 6)
        self.pos = nn.Parameter(torch.zeros(1, 1 + grid * grid, 6))
        self.head = nn.Linear(6, vocab, bias=False)
"""


def test_model_of_another_vocabulary_and_image_size_fits_after_it(tmp_path: Path) -> None:
    space: dict[str, Any] = {}
    exec(NET, space)
    (tmp_path / "net.py").write_text(NET)
    torch.save(space["LM"]().state_dict(), tmp_path / "base.pt")
    (tmp_path / "r.toml").write_text(
        "[[rules]]\npad = '^(embed|head)\\.weight$'\nsize = 16\nvalue = 'mean'\n"
        "[[rules]]\nresize = '^pos$'\nfrom = [5, 5]\nto = [8, 8]\nmode = 'bicubic'\nprefix = 1\n"
    )
    renamed = ckpt.rename(
        tmp_path / "base.pt",
        read_rule_file(tmp_path / "r.toml"),
        check=f"{tmp_path}/net.py:LM",
        arguments={"vocab": 16, "grid": 8},
        out=tmp_path / "new.pt",
    )
    assert renamed.plan.fitting is not None
    assert renamed.plan.fitting.fit.fits
    state = torch.load(tmp_path / "new.pt", weights_only=True)
    space["LM"](vocab=16, grid=8).load_state_dict(state, strict=True)
