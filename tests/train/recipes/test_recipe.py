"""The recipe checks itself, and needs no torch."""

import subprocess
import sys

import pytest

from ckpt.errors import UsageError
from ckpt.train.recipes.recipe import Recipe, is_path

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
