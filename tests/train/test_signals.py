"""FAULTS 39: a signal at any moment of a run leaves nothing half done, and it can go on."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.effort import by_effort
from tests.train.test_state import DEFINITION

SCRIPT = Path(__file__).with_name("signals_at_random.py")
COUNT = by_effort(3, 4, 100)  # of each seed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGTERM")
@pytest.mark.parametrize("seed", by_effort([39], [39, 40], [39, 40]))
@pytest.mark.long
def test_fault_39_signals_at_random_moments(seed: int, tmp_path: Path, record_property) -> None:
    (tmp_path / "net.py").write_text(DEFINITION)
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(COUNT), str(seed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(results) == COUNT
    for each in results:
        assert each["code"] in (0, 128 + each["signal"]), each
        assert each["resumed"] == 0, each
        assert each["same"], each
        if each["code"] and not each["twice"]:
            assert set(each["left"]) <= {"net.state.pt", "w.pt"}, each
    codes = Counter(each["code"] for each in results)
    assert codes[130] + codes[143] >= COUNT // 2  # one near the end changes nothing any more
    ended = ", ".join(f"{count} × {code}" for code, count in sorted(codes.items()))
    record_property("figure", f"signals at {COUNT} moments of seed {seed}, exit codes: {ended}")
