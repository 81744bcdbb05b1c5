"""FSDP2 in two processes by torchrun and gloo, beside a plain loop, DDP and one process."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ckpt.errors import UsageError
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from tests.effort import PATIENCE
from tests.train.plain_loop import Loop
from tests.train.sharded import BESIDE, CASES, epochs, network
from tests.train.starting import torchrun

SCRIPT = Path(__file__).with_name("sharded.py")
DOUBLE, SINGLE, RUNS = 1e-11, 1e-5, 1e-4  # of steps in float64 and float32; of whole runs


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `sharded.py` has done what it does."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "smooth.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    norm, last = nn.BatchNorm1d(16), nn.Linear(16, 10)\n"
        "    first = nn.Flatten(), nn.Linear(784, 16), norm, nn.Tanh()\n"
        "    return nn.Sequential(*first, last, nn.LogSoftmax(dim=1))\n"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(SCRIPT.parents[2]))
        started = torchrun(folder, str(SCRIPT), str(folder), f"{folder}/smooth.py:net")
        _, errors = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, errors
    return folder


@pytest.fixture(scope="module")
def cases(ran: Path) -> list[dict[str, Any]]:
    return [torch.load(ran / f"cases{rank}.pt") for rank in (0, 1)]


def apart(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference, beside the largest number of its tensor."""
    assert found.keys() == expected.keys()
    assert all(found[key].shape == expected[key].shape for key in expected)
    return max(
        float((found[key].double() - expected[key].double()).abs().max())
        / max(1e-3, float(expected[key].double().abs().max()))
        for key in expected
    )


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_shards_train_to_the_weights_of_a_plain_loop(
    cases: list[dict[str, Any]], name: str
) -> None:
    """A loop of one process, each window one batch; it shares no code with the trainer."""
    network_name, settings = CASES[name]
    plain = network(network_name)
    windows = epochs(torch.float64)
    recipe = Recipe(epochs=2, **{"schedule": "constant", **settings})
    loop = Loop(
        plain, optimizer=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum,
        decay=recipe.weight_decay, schedule=recipe.schedule, gamma=recipe.lr_decay,
        clip=recipe.clip, ema=recipe.ema,
    )  # fmt: skip
    loop.run(windows)
    for rank in (0, 1):
        found = cases[rank][name]
        assert apart(found["weights"], loop.result) <= DOUBLE
        count = len(windows[0])
        means = [sum(loop.norms[at : at + count]) / count for at in (0, count)]
        assert found["norms"] == pytest.approx(means, rel=DOUBLE)


@pytest.mark.long
@pytest.mark.parametrize("name", BESIDE)
def test_shards_train_to_the_weights_of_ddp(cases: list[dict[str, Any]], name: str) -> None:
    """Running statistics and the masks of dropout included."""
    sharded, ddp = (cases[0][f"{name}, {parallel}"] for parallel in ("fsdp", "ddp"))
    tolerance = SINGLE if name in ("fp16", "bf16") else DOUBLE
    assert apart(sharded["weights"], ddp["weights"]) <= tolerance
    assert sharded["norms"] == pytest.approx(ddp["norms"], rel=tolerance)


@pytest.mark.long
@pytest.mark.parametrize("name", ["adadelta", "adam", "blocks"])
def test_each_process_keeps_about_half(cases: list[dict[str, Any]], name: str) -> None:
    """Of the parameters and of the optimizer's state, and both together all of it."""
    key = name if name in CASES else f"{name}, fsdp"
    kept = [case[key]["kept"] for case in cases]
    state = cases[0][key]["state"].values()
    values = [value for of_parameter in state for value in of_parameter.values()]
    factors = {"adadelta": 3, "adam": 3, "blocks": 2}  # of the parameters, by the state's tensors
    network_name = CASES[name][0] if name in CASES else name
    parameters = sum(each.numel() for each in network(network_name).parameters())
    assert sum(kept) == factors[name] * parameters
    assert max(kept) / sum(kept) < 0.6
    assert all(type(value) is torch.Tensor for value in values)


@pytest.mark.long
@pytest.mark.parametrize("name", ["fsdp.pt", "fsdp.last.pt"])
def test_a_run_writes_whole_state_dicts_as_ddp_does(ran: Path, name: str) -> None:
    """The best epoch's and the last, averaged; within the rounding of float32."""
    found = torch.load(ran / name)
    beside = torch.load(ran / name.replace("fsdp", "ddp"))
    assert [*found] == [*beside]
    assert all(type(each) is torch.Tensor for each in found.values())
    assert apart(found, beside) <= RUNS


@pytest.mark.long
@pytest.mark.parametrize("after", [1, 24])
def test_interrupted_and_resumed_they_end_with_the_same_bytes(ran: Path, after: int) -> None:
    assert (ran / f"resumed{after}.pt").read_bytes() == (ran / "fsdp.pt").read_bytes()
    assert not (ran / "never.pt").exists()


@pytest.mark.long
def test_rank_0_registers_one_version_as_one_process_trains_it(tmp_path: Path, linear: str) -> None:
    words = ["--model", linear, "--dataset", "digits", "--precision", "fp32", "--epochs", "2"]
    more = ["--parallel", "fsdp", "--accumulate", "3", "--clip", "1", "--register", "--name", "net"]
    started = torchrun(tmp_path, "-m", "ckpt", "train", *words, *more, "-o", "w.pt")
    out, errors = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, errors
    assert out.count("registered net:v1") == 1
    index = json.loads((tmp_path / "registry.json").read_text())
    assert len(index["models"]["net"]["versions"]) == 1
    asked = {"model": linear, "dataset": "digits", "precision": "fp32", "epochs": 2, "clip": 1.0}
    train(Recipe(**asked, accumulate=3), tmp_path / "one.pt")
    found, expected = torch.load(tmp_path / "w.pt"), torch.load(tmp_path / "one.pt")
    assert [*found] == [*expected]
    assert apart(found, expected) <= RUNS


def test_shards_need_two_processes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="parallel is fsdp, expected ddp in a single process"):
        train(Recipe(dataset="digits", parallel="fsdp"), tmp_path / "w.pt")
