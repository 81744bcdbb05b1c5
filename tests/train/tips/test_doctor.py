"""`ckpt train --doctor`: its figures of memory beside ones that are known."""

import gc
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from ckpt.errors import OutOfMemoryError, UsageError
from ckpt.train.processes import ALONE
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.setup import Setup
from ckpt.train.tips.diagnosis import Spread, Verdict, spread
from ckpt.train.tips.doctor import doctor
from ckpt.train.tips.kept import Graphs, alive, collections_of
from ckpt.train.tips.measuring import (
    _verdict,
    accumulation,
    kept_graphs,
    largest_batch,
    sixteen_bits,
)
from ckpt.train.tips.patient import Patient, Turns

DEFINITIONS = """
import torch
from torch import nn

class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
        self.notes = [torch.zeros(1)]
    def forward(self, x):
        return self.body(x).log_softmax(1)

class Keeps(Good):
    def forward(self, x):
        out = super().forward(x)
        self.notes.append(out)
        return out

LAST = []

class Hides(Good):
    def forward(self, x):
        out = super().forward(x)
        LAST.append(out.exp())
        return out

class Nan(Good):
    def forward(self, x):
        return super().forward(x) * float("nan")

class Single(Good):
    def forward(self, x):
        return super().forward(x.float())

class Norm(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10), nn.LogSoftmax(1))
"""


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(DEFINITIONS)
    return tmp_path / "nets.py"


def patient_of(definitions: Path, name: str, **options: Any) -> Patient:
    recipe = Recipe(
        model=f"{definitions}:{name}", dataset="digits", precision="fp32", schedule="constant",
        device="cpu", lr=1e-9, **options,
    )  # fmt: skip
    setup = Setup(recipe, torch.device("cpu"), ALONE, lambda _: None, resumed=None, initial=None)
    return Patient(setup, setup.recipe)


def test_graphs_hold_what_torch_saves_and_views_count_once() -> None:
    model = nn.Linear(2, 2)
    graphs = Graphs(model)
    with graphs.watched():
        numbers = torch.ones(1000, requires_grad=True)
        result = numbers.sin()  # saves its input, 4,000 bytes
        assert graphs.now == 4000
        both = result * result.view(10, 100).flatten()  # saves one storage twice
        assert graphs.now == 8000
        both.sum().backward()
        assert graphs.now == 0
        kept = numbers.exp()  # saves its result
        assert (graphs.now, graphs.most) == (4000, 8000)
        del kept
        assert graphs.now == 0
        output = model(torch.ones(1, 2))
        assert output.requires_grad
        assert graphs.now == 8, "the input, not the weights"


def test_checkpointing_is_seen_to_hold_less() -> None:
    """The oracle is what gradient checkpointing is for."""
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(6)))
    inputs = torch.ones(50, 64, requires_grad=True)
    most = []
    for runs in (layers, lambda x: checkpoint(layers, x, use_reentrant=False)):
        graphs = Graphs(layers)
        with graphs.watched():
            runs(inputs).sum().backward()
        most.append(graphs.most)
    assert most[0] == 7 * 50 * 64 * 4, "the input, and what each Tanh returns"
    assert most[1] < most[0] or most[1] == 50 * 64 * 4


@pytest.mark.long
def test_tensors_without_bytes_are_not_counted() -> None:
    graphs = Graphs(nn.Linear(2, 2))
    before = alive(graphs)
    with FakeTensorMode():
        kept = torch.empty(1000)
    assert alive(graphs) == before
    del kept


@pytest.mark.long
def test_alive_grows_by_what_is_kept() -> None:
    graphs = Graphs(nn.Identity())
    before = alive(graphs)
    kept = [torch.ones(500), torch.ones(500).view(5, 100)]
    kept.append(kept[0][:10])
    assert alive(graphs) - before == 4000
    kept.clear()
    gc.collect()
    assert alive(graphs) == before


def test_containers_of_a_module_are_counted_and_torchs_are_not() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.seen = {"a": [torch.ones(1), (torch.ones(1),)]}

    assert collections_of(nn.Sequential(Net())) == {"0.seen": 2}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "helps", "why"),
    [
        ("Good", False, "the model keeps no tensor"),
        ("Keeps", True, r"2,560 bytes a step of training, in notes; .* of validation, in notes"),
        ("Hides", True, "2,560 bytes a step of training; "),
    ],
)
def test_a_model_that_keeps_tensors_is_found(
    definitions: Path, name: str, helps: bool, why: str
) -> None:
    """64 outputs of 10 float32; in an attribute, or anywhere."""
    rows, verdict = kept_graphs(patient_of(definitions, name))
    assert verdict.helps is helps
    assert re.search(why, verdict.why)
    # What backward needs of a validation loss: images, ReLU's and log_softmax's results, labels.
    least = 64 * (784 * 4 + 32 * 4 + 10 * 4 + 8)
    assert least <= (rows[2].bytes or 0) <= least + 64 * 10 * 4 + 64


def test_accumulation_holds_less_and_has_the_same_gradient(definitions: Path) -> None:
    rows, verdict = accumulation(patient_of(definitions, "Good"))
    assert [row.type for row in rows] == ["--batch-size 64", "--batch-size 16 --accumulate 4"]
    assert verdict.helps
    assert (rows[1].bytes or 0) < 0.3 * (rows[0].bytes or 0)
    error = float(verdict.why.rpartition(" ")[2])
    assert error < 1e-14


def test_accumulation_under_batch_norm_is_told(definitions: Path) -> None:
    _, verdict = accumulation(patient_of(definitions, "Norm"))
    assert verdict.why.endswith("because BatchNorm sees a part: --batch-norm frozen")


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("Single", 64, "raises RuntimeError: mat1 and mat2 must have the same dtype"),
        ("Norm", 4, "raises ValueError: Expected more than 1 value per channel"),
    ],
)
def test_a_model_that_fails_in_float64_has_no_gradient_compared(
    definitions: Path, name: str, size: int, why: str
) -> None:
    rows, verdict = accumulation(patient_of(definitions, name, batch_size=size))
    assert all(row.images_per_second for row in rows)
    assert f"its gradient was not compared in float64: {definitions}:{name}: {why}" in verdict.why


def test_scores_that_are_not_finite_are_measured_too(definitions: Path) -> None:
    rows, verdict = accumulation(patient_of(definitions, "Nan"))
    assert all(row.images_per_second for row in rows)
    assert verdict.why.endswith("its gradient differs by nan")


def test_bf16_holds_less(definitions: Path) -> None:
    rows, verdict = sixteen_bits(patient_of(definitions, "Good"))
    assert (rows[1].bytes or 0) < (rows[0].bytes or 0)
    assert "bf16 is" in verdict.why, "clear or not"


def test_batches_double_up_to_the_dataset(definitions: Path) -> None:
    rows, verdict = largest_batch(patient_of(definitions, "Good", batch_size=400))
    assert [row.name for row in rows] == ["batch 400", "batch 800"]
    assert (rows[1].bytes or 0) == pytest.approx(2 * (rows[0].bytes or 0), rel=0.01)
    assert verdict.why.endswith("the dataset has 1,437 images")
    assert all(row.images_per_second and row.ratio for row in rows)


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--doctor needs a single process"):
        doctor(Recipe(dataset="digits"))
    with pytest.raises(UsageError, match="--doctor needs a single process"):
        doctor("ckpt.models.mnist_cnn:Net", dataset="digits")


def test_a_ratio_is_of_the_same_turn() -> None:
    """A machine that becomes busy half way does not favour the way that was timed first."""
    turns = Turns([{"a": 100.0, "b": 150.0}, {"a": 10.0, "b": 15.0}, {"a": 20.0, "b": 40.0}])
    assert turns.ratio("b") == Spread(1.5, 1.5, 2.0)
    assert turns.ratio("a") == turns.ratio("b", "b") == Spread(1.0, 1.0, 1.0)
    assert (turns.images_per_second("a"), turns.images_per_second("b")) == (20.0, 30.0)


@given(
    st.lists(st.tuples(*[st.floats(1, 1e6)] * 3), min_size=1, max_size=9),
    st.sampled_from(["a", "b", "c"]),
)
def test_speeds_never_contradict_ratios(figures: list[tuple[float, ...]], name: str) -> None:
    turns = Turns([dict(zip("abc", turn, strict=True)) for turn in figures])
    speed, ratio = turns.images_per_second(name), turns.ratio(name)
    assert speed / turns.images_per_second("a") == pytest.approx(ratio.middle)
    assert ratio.low <= ratio.middle <= ratio.high


def test_a_spread_leaves_out_the_outermost_quarters() -> None:
    assert spread([9.0, 1.0, 1.2, 1.1, 1.3, 1.4, 0.1]) == Spread(1.0, 1.2, 1.4)
    assert spread([3.0, 1.0, 2.0]) == Spread(1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("turns", "helps", "why"),
    [
        ([2.0] * 7, True, "bf16 is 2.00 × fp32"),
        ([1.0] * 7, False, "bf16 is 1.00 × fp32"),
        ([2.0, 2.1, 2.2, 1.9, 2.0, 0.3, 9.0], True, "bf16 is 1.90 to 2.20 × fp32"),
        ([1.06, 1.07, 1.12, 1.08, 1.06, 1.07, 1.13], False, "bf16 is 1.07 × fp32"),
        (
            [0.5, 2.0, 0.7, 3.1, 1.4, 0.6, 2.9], None,
            "the turns disagree: bf16 is 0.60 to 2.90 × fp32; run it again on an idle machine",
        ),
    ],
    ids=["faster", "same", "two outliers", "quiet and near the limit", "busy"],
)  # fmt: skip
def test_turns_that_disagree_decide_nothing(
    turns: list[float], helps: bool | None, why: str
) -> None:
    assert _verdict("16 bits", spread(turns), "bf16", "fp32", more="it fits") == (
        Verdict("16 bits", helps, f"{why}; it fits")
    )


TENSOR = "x.new_empty(1 << 60)  # no system gives so much"
LARGE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(1))
    def forward(self, x):
        if len(x) > LIMIT:
            TAKE
        return super().forward(x)
"""


@pytest.mark.parametrize("take", [TENSOR, "bytearray(1 << 60)"], ids=["torch", "Python"])
def test_memory_that_runs_out_ends_the_doubling(tmp_path: Path, take: str) -> None:
    (tmp_path / "large.py").write_text(LARGE.replace("LIMIT", "200").replace("TAKE", take))
    patient = patient_of(tmp_path / "large.py", "Net", batch_size=64)
    rows, verdict = largest_batch(patient)
    assert [row.name for row in rows] == ["batch 64", "batch 128"]
    assert verdict.why.endswith("; 256 ran out of memory")


def test_a_batch_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(LARGE.replace("LIMIT", "32").replace("TAKE", TENSOR))
    patient = patient_of(tmp_path / "large.py", "Net", batch_size=64)
    with pytest.raises(OutOfMemoryError, match="out of memory with 64 images at once"):
        largest_batch(patient)
