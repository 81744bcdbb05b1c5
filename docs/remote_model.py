"""A model of `ckpt push`: all orders of the steps of clients that crash and lose replies.

Each client pushes one version: it reads the index, sends the object, sends the manifest, and writes
the index if that has not changed. At any moment a client may crash, and begin again with no memory
or never; a reply may be lost, and the request may then happen at once, later, twice, or never.
All clients together have one crash and two lost replies.

Checked in every state: the index names no absent object; a number that it gave keeps its version;
no version is there twice; a push that was acknowledged is there. In every last state, all clients
that have not crashed for good are done. `python docs/remote_model.py` prints the result.

It has no code in common with `ckpt`. `BROKEN` are protocols that look alike, in which the checker
must find the fault.
"""

from collections.abc import Iterator
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
                sent = replace(state, objects=state.objects | {number})
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


def fault_of(before: State, state: State) -> str | None:
    """What is wrong with a state that came after another one."""
    versions = state.index[1]
    if not {*versions} <= state.objects & state.manifests:
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


def report() -> Iterator[str]:
    """The result for people."""
    for clients in (1, 2, 3):
        states, fault = check(clients)
        yield f"{clients} clients: {states:,} states, {fault or 'no fault'}"
    for name, protocol in BROKEN.items():
        _, fault = check(2, protocol)
        yield f"if {name}: {fault or 'no fault'}"


if __name__ == "__main__":
    print("\n".join(report()))
