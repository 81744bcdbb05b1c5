import os
from collections import Counter

# Tests run side by side; torch's threads would take the cores from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Timing never fails a test: machines differ and are noisy.
settings.register_profile("ckpt", deadline=None)
settings.load_profile("ckpt")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured: `record_property("figure", text)`.

    And what several tests have counted together: `record_property("count: crash points", 45)`.
    """
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    properties = [pair for each in reports for pair in each.user_properties]
    figures = [value for name, value in properties if name == "figure"]
    counts: Counter[str] = Counter()
    for name, value in properties:
        if name.startswith("count: "):
            counts[name.removeprefix("count: ")] += int(value)
    figures += [f"{name}: {number:,}" for name, number in counts.items()]
    if figures:
        terminalreporter.section("measured")
        for figure in sorted(set(figures)):
            terminalreporter.write_line(figure)


@pytest.fixture(autouse=True)
def _no_registry_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no registry but their own."""
    for name in ("CKPT_REGISTRY", "CKPT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
