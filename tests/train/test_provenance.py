"""What is asked of the machine; what it does not know is None."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ckpt.train.provenance import environment, git_state, process_age


def test_environment_names_the_cpu_and_no_gpu_that_was_not_used() -> None:
    found = environment(torch.device("cpu"))
    assert found["torch"] == torch.__version__
    assert found["cpu"]
    assert found["gpu"] is None


def test_environment_names_the_gpu_and_how_many_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU at {device}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    found = environment(torch.device("cuda:1"), devices=2)["gpu"]
    assert found == {
        "name": "GPU at cuda:1",
        "count": 2,
        "capability": "9.0",
        "cuda": "13.0",
        "cudnn": 91002,
    }


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_process_age_counts_from_the_start_of_the_interpreter() -> None:
    before, age, after = time.monotonic(), process_age(), time.monotonic()
    time.sleep(0.05)
    least, later, most = time.monotonic() - after, process_age(), time.monotonic() - before
    assert age is not None
    assert later is not None
    tick = 0.02  # the kernel's clock of processes counts hundredths of a second
    assert least - tick <= later - age <= most + tick
    code = "import torch; from ckpt.train.provenance import process_age; print(process_age())"
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.1 < float(done.stdout) <= time.monotonic() - begun + 0.02


def test_process_age_is_not_known_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", absent)
    assert process_age() is None


def test_git_state_has_the_commit_and_whether_tracked_files_differ(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example")
    (tmp_path / "f").write_text("1")
    for words in (["init", "-q"], ["add", "f"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = git_state(tmp_path)
    assert clean is not None
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "untracked").write_text("1")
    assert git_state(tmp_path) == clean
    (tmp_path / "f").write_text("2")
    assert git_state(tmp_path) == {**clean, "dirty": True}
