"""Which objects of a version travel together, and where in a bucket they are.

A large object is a parcel of its own, ``objects/ab/cdef…``. Small ones that follow each other in a
manifest are joined into a pack, ``packs/ab/cdef…``: their bytes one after the other and nothing
else. The name of a pack is the SHA-256 of the digests of its objects, a line each, so whoever has
the manifest knows every pack, and where in it each object begins, without asking the bucket.

A pack ends after an object whose digest says so. So versions that share most of their small
objects share most of their packs.

Laws: every object is in exactly one parcel; equal objects in equal order give equal parcels; the
content of a path never changes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckpt.io import digest

SMALL = 1 << 16  # bytes; a larger object is a parcel of its own
MEAN = 4 << 20  # bytes of a pack, if there are enough small objects
MOST = 8 << 20  # bytes of a pack; an object that changes brings all others of its pack along

KINDS = "manifests", "packs", "objects"  # the folders of a remote

Objects = Mapping[str, tuple[int, str]]  # digest to bytes and name in messages


def path_of(name: str, kind: str = "objects") -> str:
    """The path of what has a digest: ``objects/ab/cdef…``."""
    hexadecimal = name.removeprefix("sha256:")
    return f"{kind}/{hexadecimal[:2]}/{hexadecimal[2:]}"


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is under one path of a bucket: one object, or the small ones of a pack.

    Attributes:
        name: The digest of the object, or that of the digests of all, a line each.
        objects: The objects in their order.
    """

    name: str
    objects: Objects

    @property
    def is_pack(self) -> bool:
        """Whether it holds several objects."""
        return len(self.objects) > 1

    @property
    def path(self) -> str:
        """Where it is in a bucket."""
        return path_of(self.name, "packs" if self.is_pack else "objects")

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return sum(nbytes for nbytes, _ in self.objects.values())

    def spans(self) -> Iterator[tuple[str, int, int]]:
        """The digest, offset and bytes of each object."""
        offset = 0
        for name, (nbytes, _) in self.objects.items():
            yield name, offset, nbytes
            offset += nbytes


def alone(name: str, nbytes: int, what: str) -> Parcel:
    """The parcel of one object, whatever its size."""
    return Parcel(name, {name: (nbytes, what)})


def parcels_of(objects: Objects) -> list[Parcel]:
    """The parcels of the objects of one manifest, which are in its order."""
    parcels = [alone(name, *each) for name, each in objects.items() if each[0] > SMALL]
    small = {name: each for name, each in objects.items() if each[0] <= SMALL}
    return [*parcels, *map(_joined, _runs(small))]


def _joined(objects: Objects) -> Parcel:
    name, *others = objects
    if others:
        name = digest.of_bytes("".join(f"{each}\n" for each in objects).encode("ascii"))
    return Parcel(name, objects)


def _runs(objects: Objects) -> Iterable[Objects]:
    """The objects of each pack."""
    run: dict[str, tuple[int, str]] = {}
    held = 0
    for name, (nbytes, what) in objects.items():
        if held + nbytes > MOST:
            yield run
            run, held = {}, 0
        run[name] = nbytes, what
        held += nbytes
        if _ends_pack(name, nbytes):
            yield run
            run, held = {}, 0
    if run:
        yield run


def _ends_pack(name: str, nbytes: int) -> bool:
    """Whether a pack ends after an object: once in `MEAN` bytes, by its digest alone."""
    drawn = int(name.removeprefix("sha256:")[:8], 16)  # of 2**32 numbers
    return drawn * MEAN < nbytes << 32
