"""Write the files that `wheel.sh` renames where no torch is: `old.pt` and `old.safetensors`."""

import sys
from pathlib import Path

import safetensors.torch
import torch
from ckpt.models.mnist_cnn import Net

folder = Path(sys.argv[1])
state = Net().state_dict()
torch.save(state, folder / "old.pt")
safetensors.torch.save_file(state, folder / "old.safetensors")
