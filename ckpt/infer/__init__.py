"""The mapping between two state_dicts, found from names, shapes and, where known, digests."""

from ckpt.infer.engine import infer
from ckpt.infer.result import Confidence, Inference, Match, Operation

__all__ = ["Confidence", "Inference", "Match", "Operation", "infer"]
