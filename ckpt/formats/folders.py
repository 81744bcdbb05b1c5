"""Folders: which checkpoint a folder holds, by the names in it, and what other folders are.

Sources: `_add_variant` of diffusers and transformers, `DiffusionPipeline.save_pretrained`, PEFT's
`save_pretrained`, transformers' `Trainer._save_checkpoint`; TensorFlow's SavedModel and checkpoint
formats; Orbax's `CheckpointManager`; DeepSpeed's `save_checkpoint` and `_get_zero_ckpt_name`;
`_gen_file_name` of `torch/distributed/checkpoint/_hf_utils.py`. Nothing in a folder is run.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ckpt.errors import CkptError, FormatError
from ckpt.io.documents import strict_json
from ckpt.io.files import is_base_name
from ckpt.io.small_file import read_small
from ckpt.refs import SUFFIXES, without_index

_LISTED = 5  # files in a hint
_OURS = "ckpt reads PyTorch and safetensors files"
_PIPELINE = "model_index.json"
# What trainers save beside the weights.
_OF_TRAINERS = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state|random_states|sampler)(_\d+)?"
    r"\.(pt|pth|bin)"
)
_OPTIMIZER = "optimizer"  # what the names of those begin with that number the parameters
# The names of shards: of transformers; of DeepSpeed's optimizers; and numbered from `first` on, of
# torch.distributed.checkpoint, DeepSpeed and Llama.
_COUNTED = re.compile(r"-(\d{5})-of-(\d{5})\.")
_OF_ZERO = re.compile(r"(bf16_)?zero_pp_rank_\d+_mp_rank_\d+_(optim|model)_states\.")
_SERIES = (
    (re.compile(r"(shard-)(\d{5})(?=-model-\d{5}-of-\d{5}\.)"), 1),
    (re.compile(r"(mp_rank_)(\d+)(?=_model_states\.)"), 0),
    (re.compile(r"(consolidated\.)(\d\d)(?=\.)"), 0),
)
# (a name in the folder, kind of folder, hint)
_KNOWN = (
    (
        "saved_model.pb",
        "a TensorFlow SavedModel",
        "load it in TensorFlow, and write the arrays:  safetensors.numpy.save_file(arrays, NEW)",
    ),
    (
        "_CHECKPOINT_METADATA",
        "an Orbax checkpoint of JAX",
        "restore it with orbax, and write the arrays:  safetensors.numpy.save_file(arrays, NEW)",
    ),
    (
        "manifest.ocdbt",
        "an Orbax checkpoint of JAX",
        "restore it with orbax, and write the arrays:  safetensors.numpy.save_file(arrays, NEW)",
    ),
    (
        "zero_to_fp32.py",
        "a DeepSpeed checkpoint in parts",
        "join them, if you trust the script:  python zero_to_fp32.py . NEW  in that folder",
    ),
    ("Manifest.json", "a Core ML package", _OURS),
    ("MLmodel", "an MLflow model", "name the file of its weights:  data/model.pth"),
)


def shard_of(path: Path) -> str | None:
    """``shard 1 of 3`` for a file that is one part of a distributed save, by its name.

    A first part that may be the only one is one if the next part is beside it.
    """
    counted = _COUNTED.search(path.name)
    if counted and int(counted[2]) > 1:
        return f"shard {int(counted[1]):,} of {int(counted[2]):,}"
    if _OF_ZERO.match(path.name):
        return "a shard"
    for series, first in _SERIES:
        if found := series.match(path.name):
            before, digits = found.groups()
            following = f"{int(digits) + 1:0{len(digits)}}"
            beside = path.with_name(before + following + path.name[found.end() :])
            return "a shard" if int(digits) > first or beside.exists() else None
    return None


def checkpoint_in(folder: Path, names: Sequence[str]) -> str:
    """The index or file that holds the checkpoint of a folder.

    Args:
        folder: The folder, for messages.
        names: All names in it.

    Raises:
        FormatError: It holds none or more than one, or is a folder of another kind.
    """
    if found := checkpoint_among(str(folder), names):
        return found
    if parts := components(folder):
        shown = "  or  ".join(f"{folder}::{part}" for part in parts[:_LISTED])
        raise FormatError(f"{folder}: a pipeline of several models", hint=f"name one: {shown}")
    for name, what, hint in _KNOWN:
        if name in names:
            raise FormatError(f"{folder}: {what}", hint=hint)
    if "checkpoint" in names and any(name.endswith(".index") for name in names):
        raise FormatError(f"{folder}: a TensorFlow checkpoint", hint=_OURS)
    raise FormatError(f"{folder}: a folder without a checkpoint", hint=_inner(folder, names))


def checkpoint_among(folder: str, names: Sequence[str]) -> str | None:
    """The index or file that holds the checkpoint of a folder with these names; None if none does.

    Raises:
        FormatError: There is more than one.
    """
    indexes = [name for name in names if without_index(name) is not None]
    files = [
        name
        for name in names
        if name.lower().endswith(tuple(SUFFIXES)) and not is_of_trainers(name)
    ]
    safe = [name for name in files if name.lower().endswith(".safetensors")]
    ways = (indexes, "indexes of shards"), (safe, "checkpoints"), (files, "checkpoints")
    for found, kind in ways:
        match found:
            case [name]:
                return name
            case [_, *_]:
                raise _several(folder, found, kind)
    return None


def optimizers_in(folder: Path) -> tuple[str, ...]:
    """The files of a folder in which a trainer keeps its optimizer, beside the weights."""
    return tuple(name for name in trainer_files_in(folder) if name.startswith(_OPTIMIZER))


def trainer_files_in(folder: Path) -> tuple[str, ...]:
    """The files of a folder that a trainer keeps beside the weights."""
    return tuple(sorted(it.name for it in folder.iterdir() if is_of_trainers(it.name)))


def is_of_trainers(name: str) -> bool:
    """Whether a file of this name is one that a trainer keeps beside the weights."""
    return _OF_TRAINERS.fullmatch(name) is not None


def components(folder: Path) -> tuple[str, ...]:
    """The models of a diffusers pipeline that are sub-folders; none for any other path."""
    try:
        document = strict_json.parse(read_small(folder / _PIPELINE).decode("utf-8"))
    except (CkptError, ValueError):
        return ()
    names = document if isinstance(document, dict) else {}
    return tuple(name for name in names if is_base_name(name) and _has_checkpoint(folder / name))


def _has_checkpoint(folder: Path) -> bool:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:  # not a folder, or another user's
        return False
    return any(
        name.lower().endswith(tuple(SUFFIXES)) or without_index(name) is not None for name in names
    )


def _several(folder: str, found: Sequence[str], kind: str) -> FormatError:
    prefix = f"{folder.rstrip('/')}/".removeprefix("./")
    shown = "  or  ".join(prefix + name for name in found[:_LISTED])
    return FormatError(f"{folder}: a folder with {len(found)} {kind}", hint=f"name a file: {shown}")


def _inner(folder: Path, names: Sequence[str]) -> str | None:
    """The sub-folders that hold a checkpoint, for people who named the folder above."""
    inner = [name for name in names if _has_checkpoint(folder / name)]
    shown = "  or  ".join(str(folder / name) for name in inner[:_LISTED])
    return f"name a folder: {shown}" if inner else None
