"""How many samples a batch has. No torch."""

from collections.abc import Iterator, Mapping

from ckpt.errors import UsageError


def length_of(batch: object) -> int:
    """The samples of a batch: the length that all its tensors and arrays have in common.

    Raises:
        UsageError: They have none, or not all the same.
    """
    found = set(_lengths(batch))
    if len(found) != 1:
        lengths = (
            f"tensors of length {', '.join(map(str, sorted(found)))}" if found else "no tensor"
        )
        raise UsageError(
            f"cannot count the samples of a batch: {type(batch).__name__} with {lengths}",
            hint="accumulate(…, count=lambda batch: …)  counts them",
        )
    return found.pop()


def _lengths(value: object) -> Iterator[int]:
    shape = getattr(value, "shape", None)
    if shape is not None:
        yield from shape[:1]
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _lengths(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _lengths(each)
