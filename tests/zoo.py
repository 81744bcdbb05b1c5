"""One file of every kind that ckpt takes, made by those who write such files.

`KINDS` maps a name to a function that writes it into a folder, and answers the ref of a
state_dict in it and what torch has there.
"""

import io
import json
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Specimen:
    """A written file.

    Attributes:
        path: The file or folder that was written.
        inside: As after ``FILE::``.
        tensors: The state_dict, by the keys that ckpt shows.
    """

    path: Path
    inside: str | None
    tensors: Tensors

    @property
    def ref(self) -> str:
        return f"{self.path}::{self.inside}" if self.inside else str(self.path)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def odd() -> Tensors:
    """Views, ties, strides, and tensors of no element or of no dimension."""
    whole = torch.randn(6, 5)
    return {
        "whole": whole,
        "tied": whole,
        "turned": whole.t(),
        "rows": whole[1:4:2],
        "part": whole[2],
        "expanded": torch.ones(1).expand(3, 4),
        "scalar": torch.tensor(1.5),
        "nothing": torch.zeros(0, 7),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "after the bytes": torch.randn(3),
    }


def dtypes() -> Tensors:
    names = (
        *("float64", "float32", "float16", "bfloat16", "complex64", "complex128", "bool"),
        *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    )
    return {name: torch.arange(6).remainder(2).to(getattr(torch, name)) for name in names}


def flat(value: Any, prefix: str = "") -> Tensors:
    """The tensors in nested dicts and lists, by dotted paths."""
    if isinstance(value, torch.Tensor):
        return {prefix[:-1]: value}
    pairs = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list | tuple) else pairs
    found: Tensors = {}
    for key, each in pairs:
        found |= flat(each, f"{prefix}{key}.")
    return found


def _saved(value: Any, tensors: Tensors, inside: str | None = None, **options: Any) -> Any:
    def write(folder: Path) -> Specimen:
        torch.save(value, folder / "file.pt", **options)
        return Specimen(folder / "file.pt", inside, tensors)

    return write


def _state_dict(make: Callable[[], torch.nn.Module], **options: Any) -> Any:
    def write(folder: Path) -> Specimen:
        state = make().state_dict()
        return _saved(state, dict(state), **options)(folder)

    return write


def _compiled() -> torch.nn.Module:
    compiled = torch.compile(network(), backend="eager")
    assert isinstance(compiled, torch.nn.Module)
    return compiled


def _averaged() -> torch.nn.Module:
    averaged = torch.optim.swa_utils.AveragedModel(network())
    averaged.update_parameters(network())
    return averaged


def _parallel() -> torch.nn.Module:
    return torch.nn.DataParallel(network())  # DistributedDataParallel has the same prefix


def _training(legacy: bool = False) -> Any:
    def write(folder: Path) -> Specimen:
        model, optimizer = trained()
        value = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": torch.amp.GradScaler("cpu").state_dict(),
            "epoch": 3,
            "best": np.float64(0.99),
            "losses": [0.5, float("nan")],
            "rng": torch.get_rng_state(),
        }
        options = {"_use_new_zipfile_serialization": False} if legacy else {}
        return _saved(value, dict(model.state_dict()), "model", **options)(folder)

    return write


def _lightning(folder: Path) -> Specimen:
    """The keys that Lightning's `dump_checkpoint` has."""
    model, optimizer = trained()
    state = OrderedDict((f"net.{key}", each) for key, each in model.state_dict().items())
    value = {
        "epoch": 2,
        "global_step": 30,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1},
    }
    return _saved(value, dict(state), "state_dict")(folder)


def _optimizer(folder: Path) -> Specimen:
    state = trained()[1].state_dict()
    return _saved(state, flat(state))(folder)


def _parameters(folder: Path) -> Specimen:
    parameters = {"a": torch.nn.Parameter(torch.randn(2)), "b": torch.nn.Buffer(torch.ones(1))}
    return _saved(parameters, {key: each.detach() for key, each in parameters.items()})(folder)


def _typed_keys(folder: Path) -> Specimen:
    one = torch.randn(2)
    value = {0: one, "0": one + 1, (1, 2): one + 2, b"x": one + 3, None: one + 4}
    names = ("0 (int)", "0", "(1, 2) (tuple)", "b'x' (bytes)", "None (NoneType)")
    return _saved(value, dict(zip(names, value.values(), strict=True)))(folder)


def _deflated(folder: Path) -> Specimen:
    """What `zip -r` makes of an unpacked file."""
    state, out = odd(), io.BytesIO()
    torch.save(state, out)
    with (
        zipfile.ZipFile(out) as old,
        zipfile.ZipFile(folder / "file.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return Specimen(folder / "file.pt", None, state)


def _without_sums(folder: Path) -> Specimen:
    state = odd()
    torch.serialization.set_crc32_options(False)
    try:
        return _saved(state, state)(folder)
    finally:
        torch.serialization.set_crc32_options(True)


def _safetensors(folder: Path) -> Specimen:
    state = dtypes()
    state = {key: each for key, each in state.items() if key != "complex128"}
    save_file(state, folder / "file.safetensors", metadata={"format": "pt", "note": "a ü"})
    return Specimen(folder / "file.safetensors", None, state)


def _padded_safetensors(folder: Path) -> Specimen:
    """With spaces after the header, as the format allows, and elements at odd places."""
    header = b'{"b":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},'
    header += b'"a":{"shape":[],"dtype":"F64","data_offsets":[4,12]}}     '
    tensors = {"b": torch.tensor([1, -2], dtype=torch.int16), "a": torch.tensor(2.5).double()}
    data = b"".join(each.numpy().tobytes() for each in tensors.values())
    path = folder / "file.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return Specimen(path, None, tensors)


def _sharded(suffix: str) -> Any:
    def write(folder: Path) -> Specimen:
        tensors = {f"layers.{i}.weight": torch.randn(3, 2) for i in range(6)}
        path, weight_map = folder / "model", {}
        path.mkdir()
        for number in (1, 2):
            name = f"model-{number:05d}-of-00002.{suffix}"
            part = {key: tensors[key] for key in list(tensors)[3 * number - 3 : 3 * number]}
            weight_map |= dict.fromkeys(part, name)
            if suffix == "bin":
                torch.save(part, path / name)
            else:
                save_file(part, path / name, metadata={"format": "pt"})
        index = {"metadata": {"total_size": 144}, "weight_map": weight_map}
        (path / f"model.{suffix}.index.json").write_text(json.dumps(index, indent=2) + "\n")
        return Specimen(path, None, tensors)

    return write


def _distributed(inside: str | None) -> Any:
    def write(folder: Path) -> Specimen:
        model, optimizer = trained()
        value = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that nothing is distributed here
            dcp.save(value, checkpoint_id=folder / "step3")
        return Specimen(folder / "step3", inside, flat(value["model"] if inside else value))

    return write


_OLD = {"_use_new_zipfile_serialization": False}
_ODD, _DTYPES = odd(), dtypes()

KINDS: dict[str, Callable[[Path], Specimen]] = {
    **{f"protocol {n}": _saved(_ODD, _ODD, pickle_protocol=n) for n in (2, 3, 4, 5)},
    **{f"legacy protocol {n}": _saved(_ODD, _ODD, pickle_protocol=n, **_OLD) for n in (2, 4)},
    "dtypes": _saved(_DTYPES, _DTYPES),
    "module": _state_dict(network),
    "legacy module": _state_dict(network, **_OLD),
    "torch.compile": _state_dict(_compiled),
    "averaged": _state_dict(_averaged),
    "parallel": _state_dict(_parallel),
    "training checkpoint": _training(),
    "legacy training checkpoint": _training(legacy=True),
    "Lightning": _lightning,
    "optimizer": _optimizer,
    "parameters": _parameters,
    "typed keys": _typed_keys,
    "deflated": _deflated,
    "without checksums": _without_sums,
    "safetensors": _safetensors,
    "padded safetensors": _padded_safetensors,
    "sharded safetensors": _sharded("safetensors"),
    "sharded bin": _sharded("bin"),
    "distributed": _distributed(None),
    "distributed model": _distributed("model"),
}
