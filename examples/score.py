"""Score weights on the test images that v1 was tested on.

    python score.py REF DEFINITION

REF is a version or a file; it is loaded strictly into a new module of DEFINITION.
"""

import sys

import torch
from torch.nn.functional import nll_loss
from torch.utils.data import DataLoader, TensorDataset

import ckpt
from ckpt.definitions import find_definition
from ckpt.train.data.dataset import load_dataset

ref, definition = sys.argv[1:]
model = find_definition(definition).build().eval()
model.load_state_dict(ckpt.load(ref))
name = ckpt.log("v1")[0].record["training"]["dataset"]["name"]
dataset = load_dataset(name)
mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (dataset.mean, dataset.std))
images, labels = dataset.test[:]
tests = TensorDataset(images, labels.long())
correct, loss_sum, samples = 0, 0.0, len(tests)
with torch.inference_mode():
    for images, labels in DataLoader(tests, batch_size=250):
        log_probs = model((images / 255 - mean) / std)  # (b, classes)
        correct += int((log_probs.argmax(dim=1) == labels).sum())
        loss_sum += float(nll_loss(log_probs, labels, reduction="sum"))
print(
    f"{correct:,} of {samples:,} right: accuracy {correct / samples!r}, loss {loss_sum / samples!r}"
)
