"""Two processes by torchrun and gloo: one run's gradients, weights and states."""

import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, get_ident
from time import sleep

import pytest
import torch
from ckpt.models.mnist_cnn import Net
from torch.nn.functional import nll_loss

from ckpt.errors import UsageError
from ckpt.train.loop import Trainer
from ckpt.train.processes import ALONE, Processes, started_by_torchrun
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.state import Keeper, read_state
from tests.effort import PATIENCE, by_effort
from tests.train.starting import held, python, torchrun
from tests.train.test_loop import TOLERANCE, worst
from tests.train.test_state import DEFINITION
from tests.train.two_processes import CASES, epoch, linear, samples

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `two_processes.py` has done what it does."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "dropout.py").write_text(DEFINITION)
    with torchrun(folder, str(SCRIPT), str(folder), f"{folder}/dropout.py:net") as started:
        _, errors = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, errors
    return folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.long
def test_two_processes_have_the_gradient_of_one_batch(
    ran: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    count, _ = CASES[name]
    both = [torch.load(ran / f"grads{rank}.pt") for rank in (0, 1)]
    model = Net().double().eval()
    model.load_state_dict(both[0]["state"])
    images, labels = samples(count)
    nll_loss(model(images), labels).backward()
    expected = [parameter.grad for parameter in model.parameters()]
    error = worst(both[0]["grads"][name], expected)
    record_property("figure", f"gradient in two processes, {name}: relative error {error:.1e}")
    assert error <= TOLERANCE
    pairs = zip(both[0]["grads"][name], both[1]["grads"][name], strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.long
def test_gradients_are_averaged_once_a_window(ran: Path) -> None:
    """Each bucket once, however many micro-batches a process has, and as many in both."""
    counts = [json.loads((ran / f"counts{rank}.json").read_text()) for rank in (0, 1)]
    assert counts[0] == counts[1]
    for reduced, buckets, *_ in counts[0].values():
        assert reduced == buckets > 0


@pytest.mark.long
def test_losses_and_hits_are_those_of_all(ran: Path) -> None:
    counts = json.loads((ran / "counts0.json").read_text())
    state = torch.load(ran / "grads0.pt")["state"]
    model = Net().double().eval()
    model.load_state_dict(state)
    for name, (count, _) in CASES.items():
        images, labels = samples(count)
        with torch.inference_mode():
            log_probs = model(images)
        loss_sum, correct = counts[name][2:]
        assert loss_sum == pytest.approx(nll_loss(log_probs, labels, reduction="sum").item())
        assert correct == (log_probs.argmax(dim=1) == labels).sum().item()


@pytest.mark.long
def test_figures_of_an_epoch_are_those_of_one_process(ran: Path) -> None:
    alone = epoch(Trainer(linear(), "fp32", Recipe(clip=0.1)))
    for rank in (0, 1):
        assert json.loads((ran / f"epoch{rank}.json").read_text()) == pytest.approx(alone)


@pytest.mark.long
def test_interrupted_anywhere_and_resumed_they_end_with_the_same_bytes(ran: Path) -> None:
    """First window, mid-epoch, an epoch's end, the one after it, the last; one has the signal."""
    resumed = sorted(ran.glob("resumed*.pt"))
    assert len(resumed) == 5
    assert {path.read_bytes() for path in resumed} == {(ran / "whole.pt").read_bytes()}
    assert not (ran / "x.pt").exists()


@pytest.mark.long
def test_a_state_of_two_is_not_for_one(ran: Path, tmp_path: Path) -> None:
    state = read_state(ran / "s")
    with pytest.raises(
        UsageError, match="resumed with 1 process, expected 2 as at the start"
    ) as caught:
        train(state.recipe, tmp_path / "w.pt", resumed=state)
    assert "torchrun --nproc-per-node 2 -m ckpt train --resume" in str(caught.value.hint)


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert started_by_torchrun() == ALONE
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert started_by_torchrun() == Processes(3, 4, 1)


TRAIN = ["train", "--dataset", "digits", "--precision", "fp32", "--epochs", "4"]
SENT = by_effort([signal.SIGKILL], [signal.SIGKILL], [signal.SIGINT, signal.SIGKILL])


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
@pytest.mark.long
@pytest.mark.parametrize("number", SENT, ids=lambda number: number.name)
def test_fault_39_signal_to_all_processes_loses_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    """To torchrun and to both: what torchrun sends besides is no second signal."""
    (tmp_path / "dropout.py").write_text(DEFINITION)
    words = [*TRAIN, "--model", "dropout.py:net", "--save-every", "0"]
    whole = torchrun(tmp_path, "-m", "ckpt", *words, "-o", "whole.pt")
    out, errors = whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0, errors
    assert out.count("wrote whole.pt") == 1, "the first process alone speaks"
    state = tmp_path / "dropout.state.pt"
    with held(torchrun, tmp_path, *words, "-o", "cut.pt") as cut:
        children = Path(f"/proc/{cut.pid}/task/{cut.pid}/children").read_text().split()
        for process in (*map(int, children), cut.pid):
            os.kill(process, number)
    _, errors = cut.communicate(timeout=PATIENCE)
    assert cut.returncode != 0
    assert not (tmp_path / "cut.pt").exists()
    if number == signal.SIGINT:
        hint = "torchrun --nproc-per-node 2 -m ckpt train --resume dropout.state.pt"
        assert errors.count("error: interrupted in epoch") == 1, errors
        assert hint in errors
    resumed = torchrun(tmp_path, "-m", "ckpt", "train", "--resume", state.name, "-o", "cut.pt")
    _, errors = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, errors
    assert (tmp_path / "cut.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()
    assert not state.exists()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the scheduler is Linux's")
def test_a_run_that_ended_well_is_not_aborted_by_gloo(tmp_path: Path) -> None:
    """A thread of gloo's that is late drops a tensor when Python is gone."""
    script = Path(__file__).with_name("slow_gloo.py")
    busy = [python(tmp_path, "-c", "while True: pass") for _ in range((os.cpu_count() or 1) + 1)]
    try:
        for _ in range(by_effort(1, 2, 3)):  # without the wait two of three are aborted
            _, errors = (ran := torchrun(tmp_path, str(script))).communicate(timeout=PATIENCE)
            assert ran.returncode == 0, errors
    finally:
        for process in busy:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class Meeting(Processes):
    """Two threads as processes: both have to come, and how often they did is counted."""

    barrier: Barrier = field(default_factory=lambda: Barrier(2, timeout=PATIENCE))
    numbers: dict[int, list[int]] = field(default_factory=dict)
    met: list[int] = field(default_factory=list)

    def largest(self, numbers: list[int]) -> list[int]:
        self.numbers[get_ident()] = numbers
        self.barrier.wait()
        found = [max(pair) for pair in zip(*self.numbers.values(), strict=True)]
        self.barrier.wait()
        self.met.append(1)
        return found


@pytest.mark.parametrize(("every", "windows"), [(1e9, 20_000), (0.0, 50)])
def test_processes_agree_now_and_then_and_on_the_same_windows(every: float, windows: int) -> None:
    """One of them is slower, and has the signal; both stop after the same window."""
    both = Meeting(count=2)

    def run(asks: bool) -> tuple[int, int]:
        keeper = Keeper(Path("never.pt"), every=every, processes=both)
        for window in range(windows):
            if asks and window % 1000 == 0:
                sleep(0.001)
            keeper.due  # noqa: B018
        keeper._asked = 15 if asks else 0
        return int(keeper.agree()), keeper._stop

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, (True, False))) == [(1, 15), (1, 15)]
    meetings = len(both.met) // 2
    assert meetings == windows + 1 if every == 0 else meetings < windows / 10
