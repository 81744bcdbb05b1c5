"""The scores that a model returns, and the loss of them.

A classifier returns log-probabilities or logits: a tensor ``(batch, classes)``, or a dict, tuple
or object that holds one, as torchvision's and transformers' models do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ckpt.errors import FitError

IGNORED = -100  # a label that gives no loss and no gradient: nll_loss's ignore_index


def scores_of(output: Any) -> Tensor:
    """The tensor of scores in a model's output.

    It is the output itself, its ``logits`` (or ``out``), or the first tensor of a tuple.

    Raises:
        FitError: None of these, or it holds no real numbers.
    """
    scores = _found(output)
    if scores is None:
        raise FitError(f"the model returns {type(output).__name__}, expected a tensor of scores")
    if scores.layout != torch.strided or not scores.is_floating_point():
        kind = scores.dtype if scores.layout == torch.strided else scores.layout
        raise FitError(
            f"the model's scores are {str(kind).removeprefix('torch.')}, expected dense and "
            "floating-point"
        )
    return scores


def _found(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def loss_sum(name: str, scores: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """The sum ``()`` of the losses of samples, in float32 at the least.

    Args:
        name: ``nll`` for log-probabilities, in nats; ``cross-entropy`` for logits, in nats;
            ``bce``, a sigmoid for each class; ``mse``, squares to a 1 for the right class.
        scores: ``(batch, classes)``.
        labels: ``(batch,)`` int64; `IGNORED` ones count nothing.
        smoothing: The part of a label's probability that all classes share, for ``nll`` and
            ``cross-entropy``.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    losses = _LOSSES[name](scores, labels)
    if not smoothing:
        return losses
    log_probs = scores if name == "nll" else functional.log_softmax(scores, dim=1)
    spread = -log_probs[labels != IGNORED].mean(dim=1).sum()
    return (1 - smoothing) * losses + smoothing * spread


def chosen_loss(scores: Tensor) -> str:
    """``nll`` if scores ``(batch, classes)`` are log-probabilities, else ``cross-entropy``."""
    sums = scores.double().exp().sum(dim=1)  # (batch,)
    return "nll" if torch.allclose(sums, torch.ones_like(sums), atol=1e-3) else "cross-entropy"


def _nll(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.nll_loss(scores, labels, reduction="sum")


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores, labels, reduction="sum")


def _bce(scores: Tensor, labels: Tensor) -> Tensor:
    counted = labels != IGNORED
    wanted = _one_hot(scores[counted], labels[counted])
    return functional.binary_cross_entropy_with_logits(scores[counted], wanted, reduction="sum")


def _mse(scores: Tensor, labels: Tensor) -> Tensor:
    counted = labels != IGNORED
    wanted = _one_hot(scores[counted], labels[counted])
    return functional.mse_loss(scores[counted], wanted, reduction="sum")


def _one_hot(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.one_hot(labels, scores.shape[1]).to(scores.dtype)


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nll": _nll,
    "cross-entropy": _cross_entropy,
    "bce": _bce,
    "mse": _mse,
}
