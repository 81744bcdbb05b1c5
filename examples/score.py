"""Score weights on the test images that v1 was tested on.

    python score.py REF DEFINITION

REF is a version or a file; it is loaded strictly into a new module of DEFINITION.
"""

import sys

import torch

import ckpt
from ckpt.definitions import find_definition
from ckpt.train.dataset import load_dataset
from ckpt.train.loop import evaluate
from ckpt.train.pixels import Feed
from ckpt.train.recipe import Recipe

ref, definition = sys.argv[1:]
dataset = ckpt.log("v1")[0].record["training"]["dataset"]["name"]
model = find_definition(definition).build()
model.load_state_dict(ckpt.load(ref))
feed = Feed(load_dataset(dataset, data_dir=None, note=print), Recipe(), torch.device("cpu"))
score = evaluate(model, feed.test_batches())
print(
    f"{score.correct:,} of {score.samples:,} right: accuracy {score.correct / score.samples!r}, "
    f"loss {score.loss_sum / score.samples!r}"
)
