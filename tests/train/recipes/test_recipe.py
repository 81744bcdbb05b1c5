"""The recipe checks itself, and needs no torch."""

import subprocess
import sys

import pytest

from ckpt.errors import UsageError
from ckpt.train.recipes.recipe import Recipe, calls_of, is_path

WRONG = {
    "dataset": ({"dataset": "mnits"}, "dataset is mnits"),
    "no folder": (
        {"dataset": "pets"},
        "dataset is pets, expected one of auto, .*, digits, a folder of images or an .npz file",
    ),
    "nothing": ({"dataset": ""}, "dataset is , expected one of"),
    "image size": ({"image_size": -1}, "image-size is -1, expected from 0 to 4,096"),
    "precision": ({"precision": "fp8"}, "precision is fp8"),
    "epochs": ({"epochs": 0}, "epochs is 0, expected at least 1"),
    "batch size": ({"batch_size": 0}, "batch-size is 0"),
    "accumulate": ({"accumulate": -1}, "accumulate is -1"),
    "workers": ({"num_workers": -1}, "num-workers is -1"),
    "lr zero": ({"lr": 0.0}, "lr is 0.0"),
    "lr nan": ({"lr": float("nan")}, "lr is nan"),
    "decay": ({"lr_decay": 1.5}, "lr-decay is 1.5"),
    "seed": ({"seed": 2**63}, "seed is"),
    "warm-up of onecycle": (
        {"warmup": 5, "schedule": "onecycle"},
        "warmup is 5, expected 0 with --schedule onecycle",
    ),
    "smoothing of squares": (
        {"label_smoothing": 0.1, "loss": "mse"},
        "label-smoothing is 0.1, expected 0 with --loss mse",
    ),
    "smoothing": ({"label_smoothing": 1.0}, "label-smoothing is 1.0, expected from 0 to below 1"),
    "decay on": ({"decay_on": "biases"}, "decay-on is biases, expected one of all, matrices"),
    "device": ({"device": "gpu"}, "device is gpu, expected auto, cpu, cuda or cuda:N"),
}


@pytest.mark.parametrize(("settings", "message"), WRONG.values(), ids=WRONG)
def test_recipe_refuses_what_makes_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**settings)


def test_recipe_suggests_the_dataset_that_was_meant():
    with pytest.raises(UsageError) as caught:
        Recipe(dataset="mnits")
    assert caught.value.hint == "did you mean mnist"


def test_what_is_a_path_is_taken_for_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pets", "mnist"):
        (tmp_path / name).mkdir()
    for dataset in ("pets", "./mnist", "no/where", "a.npz", "B.NPZ"):
        assert is_path(Recipe(dataset=dataset).dataset)
    assert not is_path("mnist")


def test_effective_batch_is_the_product():
    assert Recipe(batch_size=64, accumulate=4).effective_batch == 256


def test_recipe_windows_and_watch_need_no_torch():
    code = (
        "import sys, ckpt.train, ckpt.train.recipes.recipe, ckpt.train.data.windows,"
        "ckpt.train.watch.events,"
        "ckpt.show.train; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "text",
    [
        "RandomRotation",
        "RandomRotation(x)",
        "RandomRotation(open('x'))",
        "RandomRotation(10) or RandomErasing()",
        "RandomRotation(10)), (RandomErasing()",
        "v2.RandomRotation(10)",
        "RandomRotation(**{'degrees': 10})",
        "*[RandomRotation(10)]",
        "__import__('os').abort()",
        "(lambda: 0)()",
        "RandomRotation(10",
        "(" * 2000,
    ],
)
def test_augmentation_is_names_and_literals_and_runs_nothing(text):
    with pytest.raises(UsageError, match=r"augment is .* expected transforms with literal"):
        Recipe(augment=text)


def test_augmentation_is_read_in_order():
    assert calls_of("RandomRotation(10), RandomAffine(0, translate=(0.1, -0.1), fill=None)") == [
        ("RandomRotation", [10], {}),
        ("RandomAffine", [0], {"translate": (0.1, -0.1), "fill": None}),
    ]
