"""The versions that come with the clone work right after it."""

import os
from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.definitions import find_definition
from ckpt.registry.registry import Registry

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def shipped() -> Registry:
    return Registry(ROOT)


def test_shipped_registry_is_whole(shipped: Registry) -> None:
    verified = ckpt.verify(registry=shipped)
    assert verified.damages == ()
    assert verified.manifests == len(shipped.versions()) == 2


def test_v1_was_trained_by_the_default_recipe(shipped: Registry) -> None:
    version = shipped.version("mnist-cnn:v1")
    training = shipped.manifest(version).record["training"]
    assert version.metrics["accuracy"] >= 0.99
    assert training["dataset"]["name"] == "mnist"
    assert training["recipe"]["epochs"] == 14
    assert training["git"]["dirty"] is False


def test_v2_is_v1_renamed_at_no_cost(shipped: Registry) -> None:
    comparison = ckpt.diff("v1", "v2", registry=shipped)
    assert len(comparison.diff.renamed) == len(comparison.diff.same) == 4
    assert shipped.version("mnist-cnn:v2").new_bytes == 0
    model = find_definition("ckpt.models.mnist_embed:Net").build()
    model.load_state_dict(ckpt.load("mnist-cnn:v2", registry=shipped), strict=True)


@pytest.mark.long
@pytest.mark.skipif("CKPT_DATA" not in os.environ, reason="CKPT_DATA is not set: no real MNIST")
@pytest.mark.parametrize(
    ("ref", "definition"),
    [
        ("v1", "ckpt.models.mnist_cnn:Net"),
        ("v2", "ckpt.models.mnist_embed:Net"),
    ],
)
def test_shipped_weights_score_what_their_record_says(
    shipped: Registry, ref: str, definition: str
) -> None:
    from ckpt.train.batches import Batches
    from ckpt.train.data.dataset import load_dataset
    from ckpt.train.loop import evaluate
    from ckpt.train.recipes.recipe import Recipe

    model = find_definition(definition).build()
    model.load_state_dict(ckpt.load(ref, registry=shipped))
    batches = Batches(load_dataset("mnist"), Recipe(), torch.device("cpu"))
    score = evaluate(model, batches.test())
    # Another machine's arithmetic may turn a few of the images that are close to the border.
    recorded = shipped.version(ref).metrics["accuracy"]
    assert abs(score.accuracy - recorded) <= 0.0005
