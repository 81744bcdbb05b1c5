"""Tied tensors in a new file: a pickle holds them by all their names, a safetensors file by one.

A safetensors file notes the other names in ``__metadata__``, each with the name that it stores, as
`safetensors.torch.save_model` does; `load_model` then accepts the file, and refuses one with the
same tensor under two names. Tensors that are equal but stored twice are not tied.
"""

from collections.abc import Container, Mapping, Sequence

from ckpt.rules.expressions import whole_source
from ckpt.rules.planned import Planned
from ckpt.tensors import TensorEntry


def tied_names(entries: Sequence[TensorEntry], apart: Container[str] = ()) -> dict[str, str]:
    """Every key whose tensor has an earlier key, with that key.

    They share place, dtype, shape and strides; parts and other views of one storage do not count.

    Args:
        entries: With their offsets.
        apart: Keys that are stored in any case.
    """
    first: dict[object, str] = {}
    tied = {}
    for entry in entries:
        if entry.nbytes and entry.key not in apart:
            place = (entry.offset, entry.dtype, entry.shape, entry.stride)
            kept = first.setdefault(place, entry.key)
            if kept != entry.key:
                tied[entry.key] = kept
    return tied


def restored(
    tensors: Sequence[Planned], noted: Mapping[str, str], names: Mapping[str, str]
) -> list[Planned]:
    """The tensors under their noted names, for a container that holds tied ones by all names.

    Args:
        tensors: The tensors of the new file.
        noted: Name to the key of its tensor, in the source.
        names: Old name to new.
    """
    known = {tensor.key for tensor in tensors}
    whole = {whole_source(tensor.made_of): tensor.made_of for tensor in reversed(tensors)}
    return [
        Planned(names[name], whole[key])
        for name, key in noted.items()
        # A name without a dot is more likely other text, such as the name of the best layer.
        if key in whole and names[name] not in known and "." in name
    ]
