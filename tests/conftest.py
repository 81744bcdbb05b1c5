import gc
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any
from zlib import crc32

# Tests run side by side; torch's threads would take the cores from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from tests.effort import LEVEL, SHORT, examples

# A shell's background jobs ignore SIGINT, those of nohup SIGHUP, and so would all processes that
# tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Timing never fails a test: machines differ and are noisy. Nor does luck: only `make soak` and
# `make faults` draw other examples each time.
slow = [HealthCheck.too_slow]
usual = settings(deadline=None, suppress_health_check=slow, max_examples=examples(100))
settings.register_profile("same", usual, derandomize=True)
settings.register_profile("random", usual, print_blob=True)
settings.load_profile(os.environ.get("CKPT_EXAMPLES", "same"))

# In CI a skip fails the run, but for these: a part of its reason, and where it may be given.
ALLOWED_SKIPS = {
    "CKPT_DATA is not set": "CKPT_DATA" not in os.environ,
    "strace is not installed": sys.platform != "linux",
    "faketime is not installed": sys.platform != "linux",
    "chattr is not installed": sys.platform != "linux",
    "setpriv is not installed": sys.platform != "linux",
    "bindfs is not installed": True,
    "fusefat is not installed": not os.access("/dev/fuse", os.W_OK),
    "torchao is not installed": sys.platform != "linux",
    "lightning is not installed": True,
    "pre-commit is not installed": True,
    "shellcheck is not installed": True,
    "mlflow is not installed": True,
    "transformers is not installed": True,
    "timm is not installed": sys.platform != "linux",
    "zsh is not installed": sys.platform != "linux",
    "fish is not installed": sys.platform != "linux",
    "chromium is not installed": sys.platform != "linux",
    "git-lfs is not installed": sys.platform != "linux",
    "less is not installed": sys.platform != "linux",
    "groff is not installed": sys.platform != "linux",
    "man is not installed": True,
    "mandoc is not installed": True,
    "azurite is not installed": True,
    "docker-registry is not installed": sys.platform != "linux",
    "skopeo is not installed": sys.platform != "linux",
    "sshd is not installed": sys.platform != "linux",
    "sshd does not run here": os.geteuid() != 0,
    "a loop device": sys.platform != "linux",
    "no memory cgroup can be made": True,
    "not root": os.geteuid() != 0,
    "chattr +i": os.geteuid() != 0,
    "Linux": sys.platform != "linux",
}


BEGAN = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BEGAN] = time.monotonic()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Modules and tests stay until the end: looking for rubbish among them takes a fifth of it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Each of the workers begins elsewhere, and finds what the others have compiled meanwhile."""
    report = yield
    worker = getattr(collector.config, "workerinput", None)
    if worker and isinstance(collector, pytest.Directory):
        number = int(worker["workerid"].removeprefix("gw"))
        at = len(report.result) * number // worker["workercount"]
        report.result = [*report.result[at:], *report.result[:at]]
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for the disk a third of the time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """The short form leaves out what is marked ``long``, and all cases of a test but one.

    All forms else, and runs of named files or tests, begin with what is long, so that no long
    test runs alone at the end.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path)  # stable: all workers have one order
    yield
    if not SHORT or any(Path(word).name != "tests" for word in config.args):
        items.sort(key=lambda item: item.get_closest_marker("long") is None)
        return
    short = [item for item in items if not item.get_closest_marker("long")]
    kept = short if config.option.keyword else few_of_each(short)
    config.hook.pytest_deselected(items=[*({*items} - {*kept})])
    items[:] = kept


def few_of_each(items: list[pytest.Item]) -> list[pytest.Item]:
    """One case of each test, of some tests the first, of others a later one.

    A checksum of its name decides, so that all workers and all runs take the same.
    """
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {each[crc32(name.encode()) % len(each)] for name, each in cases.items()}
    return [item for item in items if item in kept]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured: `record_property("figure", text)`.

    And what several tests have counted together: `record_property("count: crash points", 45)`;
    what was skipped, and how long everything took beside the last time.
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
    write_skips(terminalreporter)
    write_duration(terminalreporter)


def write_skips(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = Counter(reason_of(report) for report in terminalreporter.stats.get("skipped", ()))
    if skipped:
        terminalreporter.section("skipped")
        for reason, count in sorted(skipped.items()):
            terminalreporter.write_line(f"{count} × {reason}")
    if refused := refused_skips(terminalreporter):
        terminalreporter.write_line(f"CI allows no skip for: {'; '.join(refused)}", red=True)


def refused_skips(terminalreporter: pytest.TerminalReporter) -> list[str]:
    """Reasons for which tests were skipped in CI and may not be."""
    if os.environ.get("CI") != "true":
        return []
    allowed = [part for part, holds in ALLOWED_SKIPS.items() if holds]
    reasons = {reason_of(report) for report in terminalreporter.stats.get("skipped", ())}
    return sorted(each for each in reasons if not any(part in each for part in allowed))


def reason_of(report: Any) -> str:
    """Its first line, without the paths that differ from test to test."""
    first = str(report.longrepr[2]).removeprefix("Skipped: ").splitlines()[0]
    return re.sub(r"/\S+/pytest-\S+", "…", first)


def write_duration(terminalreporter: pytest.TerminalReporter) -> None:
    """Compare with the last whole run of the same kind on this machine."""
    config, key = terminalreporter.config, f"ckpt/seconds of {LEVEL}"
    if hasattr(config, "workerinput"):  # xdist's workers have a reporter too
        return
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not is_whole or config.option.keyword or config.option.markexpr or config.option.collectonly:
        return
    seconds = time.monotonic() - config.stash[BEGAN]
    last = config.cache and config.cache.get(key, None)
    if last:
        change = f"{abs(seconds - last):.0f} s {'longer' if seconds > last else 'less'}"
        terminalreporter.write_line(f"{seconds:.0f} s, {change} than last time")
    if config.cache:
        config.cache.set(key, seconds)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skip that is not allowed fails a run in CI."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and session.exitstatus == 0 and refused_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _no_registry_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no registry but their own, and no author of the machine.

    The author is named, since every write would ask git for it. Python leaves no files beside
    those that a test makes, which are compared.
    """
    for name in ("CKPT_REGISTRY", "CKPT_SAFE_REGISTRIES", "CKPT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CKPT_AUTHOR", "Ann <ann@example.org>")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
