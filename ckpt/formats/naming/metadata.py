"""Names of tensors in the ``__metadata__`` of a safetensors file, in the forms that are known.

torchao lists the tensors of the state_dict in `tensor_names` and describes each under its name.
One that it splits is stored in parts: ``fc.weight`` as ``fc._weight_qdata`` and
``fc._weight_scale``; its name follows if all parts move alike. Source: torchao 0.18,
`torchao.prototype.safetensors.safetensors_support`. torch.distributed notes for each key where its
part of the tensor begins. Source: torch 2.13, `torch/distributed/checkpoint/_hf_utils.py`.

Law: a text changes only if a name in it does.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ckpt.io.documents import strict_json

TORCHAO = "tensor_names"
DISTRIBUTED = "DCP_SHARDING_INFO"


def keys_in(metadata: Mapping[str, str]) -> set[str]:
    """The keys that the metadata names, those of the parts of split tensors too."""
    parts = (part for name in _torchao(metadata) for part in _parts(metadata[name], name))
    return {*parts, *_torchao(metadata), *_sharding(metadata)}


def parted(metadata: Mapping[str, str], new_keys: Mapping[str, str]) -> list[str]:
    """The keys of parts that a rename moves without the name of their tensor."""
    parts = {name: _parts(metadata[name], name) for name in _torchao(metadata)}
    return [
        part
        for name, of_it in parts.items()
        if _new_name(name, of_it, new_keys) == name
        for part in of_it
        if new_keys.get(part, part) != part
    ]


def with_new_names(metadata: Mapping[str, str], new_keys: Mapping[str, str]) -> dict[str, str]:
    """The metadata in which names follow a rename.

    Args:
        metadata: Its items keep their order.
        new_keys: Old key to new key; keys that are not in it keep their name.
    """
    described = _torchao(metadata)
    new = {name: _new_name(name, _parts(metadata[name], name), new_keys) for name in described}
    changed = dict(metadata)
    if any(old != name for old, name in new.items()):
        changed[TORCHAO] = json.dumps([new[name] for name in described])
    sharding = _sharding(metadata)
    moved = [new_keys.get(key, key) for key in sharding]
    if moved != [*sharding] and unique(moved):
        changed[DISTRIBUTED] = json.dumps(dict(zip(moved, sharding.values(), strict=True)))
    names = [new.get(name, name) for name in changed]
    return dict(zip(names, changed.values(), strict=True)) if unique(names) else dict(metadata)


def unique(names: Sequence[str]) -> bool:
    """Whether no two are equal."""
    return len(set(names)) == len(names)


def _torchao(metadata: Mapping[str, str]) -> Sequence[str]:
    names = _parsed(metadata.get(TORCHAO))
    if not isinstance(names, list):
        return ()
    described = all(isinstance(name, str) and name in metadata for name in names)
    return names if described and unique(names) else ()


def _sharding(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    info = _parsed(metadata.get(DISTRIBUTED))
    return info if isinstance(info, dict) else {}


def _parts(text: str, name: str) -> Mapping[str, str]:
    """The keys of the parts of a tensor, each with the last word of its key; or its own key."""
    described = _parsed(text)
    words = described.get("_tensor_data_names") if isinstance(described, dict) else None
    if not isinstance(words, list):
        return {name: ""}
    module, _, last = name.rpartition(".")
    return {f"{module}._{last}_{word}": f"_{word}" for word in map(str, words)}


def _new_name(name: str, parts: Mapping[str, str], new_keys: Mapping[str, str]) -> str:
    """The new name of a tensor; the old one if its parts do not move alike."""
    found = set()
    for part, end in parts.items():
        module, _, last = new_keys.get(part, part).rpartition(".")
        if not end:
            return new_keys.get(part, part)
        whole = last[1 : -len(end)] if last.startswith("_") and last.endswith(end) else ""
        found.add(f"{module}.{whole}" if whole else name)
    return found.pop() if len(found) == 1 else name


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else strict_json.parse(text)
    except ValueError:
        return None
