"""A model of `ckpt push`: all orders of the steps of clients that crash and lose replies.

Each client pushes one version: it reads the index, sends the object, sends the manifest, and writes
the index if that has not changed. The first two versions need the same object; a pack is an object
here, since it is named by what it holds, written whole, and never changed. At any moment a client
may crash, and begin again with no memory or never; a reply may be lost, and the request may then
happen at once, later, twice, or never. All clients together have one crash and two lost replies.

Checked in every state: the index names no absent object; a number that it gave keeps its version;
no version is there twice; a push that was acknowledged is there. In every last state, all clients
that have not crashed for good are done. `python docs/remote_model.py` prints the result.

It has no code in common with `ckpt`. `BROKEN` are protocols that look alike, in which the checker
must find the fault.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

READ, OBJECT, MANIFEST, WRITE, DONE, DEAD = range(6)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the clients do."""

    index_last: bool = True  # objects and manifests first
    conditional: bool = True  # the index is replaced only if it is unchanged
    believes_silence: bool = False  # a lost reply counts as success


BROKEN = {
    "the index is written before the object": Protocol(index_last=False),
    "the index is replaced whatever it is": Protocol(conditional=False),
    "a lost reply counts as success": Protocol(believes_silence=True),
}


def object_of(version: int) -> int:
    """The object that a version needs; two share one."""
    return version // 2


Index = tuple[int, tuple[int, ...]]  # its tag, and the versions in the order of their numbers


@dataclass(frozen=True, slots=True)
class Client:
    """One client: its next step, and the index that it read."""

    step: int = READ
    seen: Index = (0, ())


@dataclass(frozen=True, slots=True)
class State:
    """The bucket, the clients, the requests on their way, and the faults that may still come."""

    clients: tuple[Client, ...]
    index: Index = (0, ())
    objects: frozenset[int] = frozenset()
    manifests: frozenset[int] = frozenset()
    late: frozenset[tuple[int, Index]] = frozenset()  # whose write, and the index that it had read
    crashes: int = 1
    losses: int = 2


def _order(protocol: Protocol) -> tuple[int, ...]:
    steps = (READ, OBJECT, MANIFEST, WRITE)
    return steps if protocol.index_last else (READ, WRITE, OBJECT, MANIFEST)


def _with(state: State, number: int, client: Client) -> State:
    clients = list(state.clients)
    clients[number] = client
    return replace(state, clients=tuple(clients))


def _written(state: State, number: int, seen: Index, protocol: Protocol) -> tuple[State, bool]:
    """The state after a write of the index by a client, and whether it was accepted."""
    if protocol.conditional and state.index[0] != seen[0]:
        return state, False
    return replace(state, index=(state.index[0] + 1, (*seen[1], number))), True


def moves(state: State, protocol: Protocol) -> Iterator[State]:
    """Every state that may come next."""
    order = _order(protocol)
    for number, client in enumerate(state.clients):
        if client.step in (DONE, DEAD):
            continue
        place = order.index(client.step)
        after = order[place + 1] if place + 1 < len(order) else DONE
        if state.crashes:
            crashed = replace(state, crashes=state.crashes - 1)
            yield _with(crashed, number, Client())
            yield _with(crashed, number, Client(step=DEAD))
        match client.step:
            case 0:  # READ; a push that has happened is seen here
                is_there = number in state.index[1]
                step = DONE if is_there and protocol.index_last else after
                seen = replace(client, seen=state.index)
                yield _with(state, number, _next(seen, step))
            case 1:  # OBJECT; sent again if the reply is lost, which changes nothing
                sent = replace(state, objects=state.objects | {object_of(number)})
                yield _with(sent, number, _next(client, after))
            case 2:  # MANIFEST
                sent = replace(state, manifests=state.manifests | {number})
                yield _with(sent, number, _next(client, after))
            case _:
                yield from _writes(state, number, client, after, protocol)
    for number, seen in state.late:
        done, _ = _written(state, number, seen, protocol)
        yield replace(done, late=state.late - {(number, seen)})


def _writes(
    state: State, number: int, client: Client, after: int, protocol: Protocol
) -> Iterator[State]:
    done, accepted = _written(state, number, client.seen, protocol)
    yield _with(done, number, _next(client, after if accepted else READ))
    if not state.losses:
        return
    silent = _next(client, after if protocol.believes_silence else READ)
    state, done = (replace(each, losses=each.losses - 1) for each in (state, done))
    yield _with(done, number, silent)  # it happened
    yield _with(state, number, silent)  # it never happens
    request = (number, client.seen)
    yield _with(replace(state, late=state.late | {request}), number, silent)  # it happens later
    yield _with(replace(done, late=done.late | {request}), number, silent)  # and once more


def _next(client: Client, step: int) -> Client:
    """The client at another step; what it has read matters only until it is done."""
    return Client(step) if step in (READ, DONE) else replace(client, step=step)


def _has_all(versions: Iterable[int], objects: frozenset[int], manifests: frozenset[int]) -> bool:
    """Whether a bucket has what versions need."""
    return all(number in manifests and object_of(number) in objects for number in versions)


def fault_of(before: State, state: State) -> str | None:
    """What is wrong with a state that came after another one."""
    versions = state.index[1]
    if not _has_all(versions, state.objects, state.manifests):
        return "the index names an absent object"
    if versions[: len(before.index[1])] != before.index[1]:
        return "a number got another version"
    if len({*versions}) != len(versions):
        return "a version is there twice"
    if any(
        client.step == DONE and number not in versions
        for number, client in enumerate(state.clients)
    ):
        return "an acknowledged push is lost"
    return None


def check(clients: int, protocol: Protocol = Protocol()) -> tuple[int, str | None]:
    """The number of states, and the first fault."""
    first = State((Client(),) * clients)
    known, left = {first}, [first]
    while left:
        state = left.pop()
        is_last = True
        for after in moves(state, protocol):
            is_last = False
            if (fault := fault_of(state, after)) is not None:
                return len(known), fault
            if after not in known:
                known.add(after)
                left.append(after)
        if is_last and any(client.step not in (DONE, DEAD) for client in state.clients):
            return len(known), "clients wait for ever"
    return len(known), None


# A collection of garbage beside pushes: `python docs/remote_model.py` tries that, too.

LOOK, FENCE, LIST, DELETE_MANIFEST, DELETE_OBJECT, UNLOCK = range(10, 16)


@dataclass(frozen=True, slots=True)
class Care:
    """What pushes and the collection take care of; without any of it the checker finds a fault."""

    looks: bool = True  # a push looks for the lock after it has read the index
    fences: bool = True  # the collection rewrites the index before it lists what is there
    asks_again: bool = True  # a push does not believe a manifest whose objects it has not seen


CARELESS = {
    "a push does not look for the lock": Care(looks=False),
    "the collection does not write the index": Care(fences=False),
    "a push believes a manifest that is there": Care(asks_again=False),
}


@dataclass(frozen=True, slots=True)
class Pusher:
    """One push: its next step, and the tag of the index that it has read."""

    step: int = READ
    tag: int = 0


@dataclass(frozen=True, slots=True)
class Shared:
    """A bucket that pushes and one collection use; all that is unneeded is old enough to go."""

    pushers: tuple[Pusher, ...]
    collector: int = LOOK  # its step; DEAD once it has crashed or is done
    tag: int = 0
    index: frozenset[int] = frozenset()
    objects: frozenset[int] = frozenset()
    manifests: frozenset[int] = frozenset()
    locked: bool = False
    listed: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
    crashes: int = 1


def shared_moves(state: Shared, care: Care) -> Iterator[Shared]:
    """Every state that may come next."""
    for number, pusher in enumerate(state.pushers):
        if pusher.step not in (DONE, DEAD):
            yield from _pushed(state, number, pusher, care)
            if state.crashes:
                crashed = replace(state, crashes=state.crashes - 1)
                yield _at(crashed, number, Pusher())
    if state.collector != DEAD:
        yield from _collected(state, care)


def _at(state: Shared, number: int, pusher: Pusher) -> Shared:
    pushers = list(state.pushers)
    pushers[number] = pusher
    return replace(state, pushers=tuple(pushers))


def _pushed(state: Shared, number: int, pusher: Pusher, care: Care) -> Iterator[Shared]:
    if pusher.step == READ:
        step = DONE if number in state.index else LOOK if care.looks else OBJECT
        yield _at(state, number, Pusher(step, state.tag))
    elif pusher.step == LOOK and not state.locked:
        yield _at(state, number, replace(pusher, step=OBJECT))
    elif pusher.step == OBJECT:  # what is there is not sent again
        believes = not care.asks_again and number in state.manifests
        sent = state.objects if believes else state.objects | {object_of(number)}
        yield _at(replace(state, objects=sent), number, replace(pusher, step=MANIFEST))
    elif pusher.step == MANIFEST:
        sent = replace(state, manifests=state.manifests | {number})
        yield _at(sent, number, replace(pusher, step=WRITE))
    elif pusher.step == WRITE and pusher.tag != state.tag:
        yield _at(state, number, Pusher())
    elif pusher.step == WRITE:
        written = replace(state, tag=state.tag + 1, index=state.index | {number})
        yield _at(written, number, Pusher(DONE))


def _collected(state: Shared, care: Care) -> Iterator[Shared]:
    """The next step of the collection, or its crash, after which the lock goes once it is old."""
    if state.crashes:
        yield replace(state, crashes=state.crashes - 1, collector=DEAD, locked=False)
    manifests, objects = state.listed
    match state.collector:
        case 10:  # LOOK: the lock is free, as there is one collection
            yield replace(state, locked=True, collector=FENCE)
        case 11:  # FENCE
            yield replace(state, tag=state.tag + care.fences, collector=LIST)
        case 12:  # LIST
            objects = state.objects - {*map(object_of, state.index)}
            unneeded = state.manifests - state.index, objects
            yield replace(state, listed=unneeded, collector=DELETE_MANIFEST)
        case 13:  # DELETE_MANIFEST
            for one in manifests:
                left = replace(state, listed=(manifests - {one}, objects))
                yield replace(left, manifests=state.manifests - {one})
            if not manifests:
                yield replace(state, collector=DELETE_OBJECT)
        case 14:  # DELETE_OBJECT
            for one in objects:
                left = replace(state, listed=(manifests, objects - {one}))
                yield replace(left, objects=state.objects - {one})
            if not objects:
                yield replace(state, collector=UNLOCK)
        case _:
            yield replace(state, locked=False, collector=DEAD)


def check_collection(pushers: int, care: Care = Care()) -> tuple[int, str | None]:
    """The number of states, and the first fault.

    It begins with all that interrupted pushes of the same versions may have left.
    """
    manifests = frozenset(range(pushers))
    objects = frozenset(map(object_of, manifests))
    left_over = ((frozenset(), frozenset()), (objects, frozenset()), (objects, manifests))
    known = {
        Shared((Pusher(),) * pushers, objects=objects, manifests=manifests)
        for objects, manifests in left_over
    }
    left = [*known]
    while left:
        state = left.pop()
        following = [*shared_moves(state, care)]
        for after in following:
            if not _has_all(after.index, after.objects, after.manifests):
                return len(known), "the index names an absent object"
            if after not in known:
                known.add(after)
                left.append(after)
        if not following and any(each.step not in (DONE, DEAD) for each in state.pushers):
            return len(known), "pushes wait for ever"
    return len(known), None


def report() -> Iterator[str]:
    """The result for people."""
    for clients in (1, 2, 3):
        states, fault = check(clients)
        yield f"{clients} clients: {states:,} states, {fault or 'no fault'}"
    for name, protocol in BROKEN.items():
        _, fault = check(2, protocol)
        yield f"if {name}: {fault or 'no fault'}"
    for clients in (1, 2, 3):
        states, fault = check_collection(clients)
        yield f"{clients} clients and a collection: {states:,} states, {fault or 'no fault'}"
    for name, care in CARELESS.items():
        _, fault = check_collection(2, care)
        yield f"if {name}: {fault or 'no fault'}"


if __name__ == "__main__":
    print("\n".join(report()))
