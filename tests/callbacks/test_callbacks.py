"""`best` among runs that end at the same time, and what is not a number."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.callbacks import Registering, settings
from ckpt.errors import UsageError
from ckpt.registry.registry import Registry
from tests.effort import PATIENCE, by_effort

RACER = """
import sys
from pathlib import Path
from ckpt.callbacks import Registering
value, direction = float(sys.argv[1]), sys.argv[2]
to = Registering("net", **{direction: "score"}, registry=".")
print("ready", flush=True)
sys.stdin.readline()
assert to.wants({"score": value})
to.add(lambda folder: Path(f"{value}.pt"), {"score": value}, made_by="race", training={})
assert "torch" not in sys.modules  # which takes seconds to import
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "registry").mkdir()
    return Registry(tmp_path / "registry")


def add(to: Registering, value: float) -> None:
    def save(folder: Path) -> Path:
        torch.save({"w": torch.tensor([value])}, folder / "net.pt")
        return folder / "net.pt"

    if to.wants({"score": value}):
        to.add(save, {"score": value}, made_by="test", training={})


def best_of(registry: Registry) -> float:
    return ckpt.load("net@best", registry=registry)["w"][0].item()


@pytest.mark.parametrize(
    ("direction", "best"),
    [("lowest", 1.0), pytest.param("highest", 6.0, marks=pytest.mark.long)],
)
def test_best_is_the_best_of_runs_that_end_together(
    registry: Registry, direction: str, best: float
) -> None:
    values = [4.0, 1.0, 6.0, 3.0, 5.0, 2.0][: by_effort(3, 6, 6)]
    for value in values:
        torch.save({"w": torch.tensor([value])}, registry.folder / f"{value}.pt")
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RACER, str(value), direction],
            cwd=registry.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for value in values
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=PATIENCE)
    assert [racer.returncode for racer in racers] == [0] * len(values)
    assert len(registry.index().model("net").versions) == len(values)
    assert best_of(registry) == best


def test_a_run_is_compared_with_the_runs_before(registry: Registry) -> None:
    for values, best in (((3.0, 2.0), 2.0), ((5.0, 4.0), 2.0), ((1.5,), 1.5)):
        to = Registering("net", lowest="score", registry=registry)
        for value in values:
            add(to, value)
        assert len(to.versions) == len(values), "improvements of its own run are registered"
        assert best_of(registry) == best


def test_equal_is_not_better(registry: Registry) -> None:
    for value in (2.0, 2.0):
        to = Registering("net", lowest="score", registry=registry)
        to.add(
            lambda folder: _written(folder / "net.pt"), {"score": value}, made_by="x", training={}
        )
    assert registry.version("net@best").label == "v1"


def _written(path: Path) -> Path:
    torch.save({"w": torch.rand(2)}, path)
    return path


def test_values_that_are_not_finite_are_never_the_best(registry: Registry) -> None:
    to = Registering("net", lowest="score", every_evaluation=True, registry=registry)
    for value in (float("nan"), 2.0, float("-inf")):
        add(to, value)
    assert len(to.versions) == 3
    assert best_of(registry) == 2.0


def test_a_protected_alias_stays_and_is_reported(registry: Registry) -> None:
    add(Registering("net", lowest="score", registry=registry), 2.0)
    ckpt.alias("net@best", protect=True, registry=registry)
    with pytest.warns(UserWarning, match="net@best was not moved to v2: .*protected"):
        add(Registering("net", lowest="score", registry=registry), 1.0)
    assert best_of(registry) == 2.0


def test_an_alias_without_the_metric_stays_and_is_reported(registry: Registry) -> None:
    to = Registering("net", registry=registry)
    to.add(lambda folder: _written(folder / "net.pt"), {}, made_by="x", training={})
    ckpt.alias("net@best", "v1", registry=registry)
    with pytest.warns(UserWarning, match="net@best has no score"):
        add(Registering("net", lowest="score", registry=registry), 1.0)
    assert registry.version("net@best").label == "v1"


@pytest.mark.parametrize("metric", ["val/loss", "loss", "version", "val loss", "val_loss.0", "f1"])
def test_metrics_of_any_name_decide(registry: Registry, metric: str) -> None:
    to = Registering("net", lowest=metric, registry=registry)
    for value in (2.0, 1.0):
        if to.wants({metric: value}):
            to.add(
                lambda folder: _written(folder / "n.pt"), {metric: value}, made_by="x", training={}
            )
    assert registry.version("net@best").label == "v2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": "loss", "highest": "accuracy"}, "expected lowest or highest, found both"),
        ({"lowest": "a < b"}, "is not a condition"),
        ({"best": "v3"}, "v3"),
    ],
)
def test_mistakes_are_refused_before_the_run(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Registering("net", **options)


def test_a_full_disk_is_a_warning(registry: Registry) -> None:
    to = Registering("net", registry=registry)

    def save(folder: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.warns(UserWarning, match="test: the weights were not registered: .*No space"):
        to.add(save, {}, made_by="test", training={})
    assert to.versions == []


def test_any_configuration_becomes_json() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd" * 100

    endless: dict[str, object] = {}
    endless["self"] = endless
    found = settings({"lr": 0.1, "sizes": (1, 2), "odd": Odd(), "endless": endless, 3: None})
    assert json.loads(json.dumps(found))["odd"] == ("odd" * 100)[:200]


@pytest.mark.parametrize("package", ["lightning", "transformers"])
def test_a_missing_package_is_named(package: str) -> None:
    program = (
        "import sys\n"
        "for name in ('lightning', 'pytorch_lightning', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "import ckpt\n"
        f"ckpt.{package}.Register\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 1
    said = f"ckpt.{package} needs {package}: pip install {package}"
    assert ran.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said}"
