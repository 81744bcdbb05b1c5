"""Both sides in the one form in which they are compared: dotted keys, and shapes as in torch.

Law: every tensor of a side is in one view of it, and the readings of a side are unique.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ckpt.infer.reading.experts import stacked
from ckpt.infer.reading.layouts import flattened, kernels
from ckpt.infer.reading.spelling import read_keys
from ckpt.infer.reading.view import View, Views
from ckpt.tensors import TensorEntry

Entries = Sequence[TensorEntry]


def read(source: Entries, target: Entries) -> tuple[Views, Views]:
    """The views of both sides, by their readings."""
    names = read_keys([e.key for e in source], [e.key for e in target])
    mine, theirs = (
        {
            name: View(entry if entry.key == name else replace(entry, key=name), (entry.key,))
            for name, entry in zip(side, entries, strict=True)
        }
        for side, entries in zip(names, (source, target), strict=True)
    )
    for change in (kernels, stacked):
        mine, theirs = (
            _with(mine, change(_entries(mine), _entries(theirs))),
            _with(theirs, change(_entries(theirs), _entries(mine))),
        )
    return _with(mine, flattened(_entries(mine), _entries(theirs))), theirs


def _entries(views: Views) -> list[TensorEntry]:
    return [view.entry for view in views.values()]


def _with(views: Views, changed: Iterable[View]) -> Views:
    """The views, with some of them in another form, at the place of the first tensor of each."""
    first: dict[str, View] = {}
    gone = set[str]()
    for view in changed:
        if any(name in gone or views[name].verb for name in view.keys):
            continue
        if view.entry.key in views and view.entry.key not in view.keys:
            continue
        gone.update(view.keys)
        keys = tuple(views[name].keys[0] for name in view.keys)
        first[view.keys[0]] = replace(view, keys=keys)
    if not first:
        return views
    made: Views = {}
    for name, view in views.items():
        if name in first:
            made[first[name].entry.key] = first[name]
        elif name not in gone:
            made[name] = view
    return made
