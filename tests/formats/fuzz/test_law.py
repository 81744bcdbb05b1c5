"""The law of the differential fuzzer, over a fixed number of cases of a fixed seed."""

import json
import subprocess
import sys
from pathlib import Path

from tests.effort import PATIENCE, by_effort

SEED = 20261129
CASES = by_effort(100, 4_000, 100_000)


def test_every_file_is_refused_or_read_as_torch_reads_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.formats.fuzz", f"--cases={CASES}", f"--seed={SEED}"]
    ran = subprocess.run(
        [*command, f"--keep={tmp_path}"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    kept = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]
    assert not kept, kept[0]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{CASES:,} cases of seed {SEED}" in ran.stdout
    counts = {line.split(maxsplit=1)[1]: line.split()[0] for line in ran.stdout.splitlines()[-8:]}
    same = int(counts["same"].replace(",", ""))
    assert same > CASES // 8, "both must accept many, or nothing is compared"
