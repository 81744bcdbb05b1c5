"""Which objects travel together: pure functions over digests and sizes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.remote.objects import parcels
from ckpt.remote.objects.parcels import MOST, SMALL, Parcel, parcels_of
from tests.remote import plain_checker


def objects_of(sizes: list[int], seed: int = 0) -> dict[str, tuple[int, str]]:
    names = (hashlib.sha256(f"{seed} {at}".encode()).hexdigest() for at in range(len(sizes)))
    return {f"sha256:{name}": (nbytes, "w") for name, nbytes in zip(names, sizes, strict=True)}


SIZES = st.lists(st.integers(0, 2 * SMALL) | st.sampled_from([SMALL, SMALL + 1]), max_size=300)


@given(SIZES, st.integers(0, 1000))
def test_every_object_is_in_one_parcel_at_its_place(sizes: list[int], seed: int) -> None:
    objects = objects_of(sizes, seed)
    found = [
        (name, each) for parcel in parcels_of(objects) for name, each in parcel.objects.items()
    ]
    assert len(found) == len(objects)
    assert dict(found) == objects
    for parcel in parcels_of(objects):
        assert parcel.nbytes <= MOST or not parcel.is_pack
        assert not parcel.is_pack or all(nbytes <= SMALL for nbytes, _ in parcel.objects.values())
        ends = [at + nbytes for _, at, nbytes in parcel.spans()]
        assert [at for _, at, _ in parcel.spans()] == [0, *ends[:-1]]
        assert ends[-1] == parcel.nbytes


def packs(objects: dict[str, tuple[int, str]]) -> list[Parcel]:
    return [each for each in parcels_of(objects) if each.is_pack]


@given(SIZES, st.integers(0, 1000))
def test_packs_are_those_of_the_description(sizes: list[int], seed: int) -> None:
    """As another implementation of docs/remotes.md has them."""
    objects = objects_of(sizes, seed)
    described = plain_checker.packs_of({name: each[0] for name, each in objects.items()})
    assert [plain_checker.path_of_pack(each) for each in described] == [
        each.path for each in packs(objects)
    ]


def test_constants_are_those_of_the_description() -> None:
    described = plain_checker.SMALL, plain_checker.MEAN, plain_checker.MOST
    assert described == (parcels.SMALL, parcels.MEAN, parcels.MOST)


@pytest.mark.parametrize("at", [0, 5000, 9999])
def test_one_object_more_or_less_changes_one_or_two_packs(at: int) -> None:
    """10,000 objects of 8 KiB are some twenty packs."""
    names = [*objects_of([8192] * 10_000)]
    before = {each.path for each in packs(dict.fromkeys(names, (8192, "w")))}
    assert 12 < len(before) < 40
    changed = [*names[:at], f"sha256:{'f' * 64}", *names[at + 1 :]]
    for others in (names[:at] + names[at + 1 :], changed):
        after = {each.path for each in packs(dict.fromkeys(others, (8192, "w")))}
        assert len(before - after) <= 2
        assert len(after - before) <= 2
