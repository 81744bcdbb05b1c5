"""The opcode reader refuses all that no tensor needs, in bounded time and memory."""

import ast
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from pickle import dumps

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._weights_only_unpickler import _get_allowed_globals

import ckpt
from ckpt.errors import FormatError, RefusedGlobalError
from ckpt.formats.pickle import reader as pickle_reader
from ckpt.formats.pickle.fast import run_fast
from ckpt.formats.pickle.globals import ALLOWED, TRAINERS
from ckpt.formats.pickle.machine import MARK, Machine, Memo
from ckpt.formats.pickle.nodes import Call, DictNode, Global, ListNode, Persistent, Text
from ckpt.formats.pickle.reader import ParsedPickle, read_first_pickle, read_pickle
from tests.formats import hostile
from tests.formats.support import contents, expected, opened, saved, torch_file

FLOATS = {"0": bytes(16)}


@pytest.mark.parametrize(
    ("module", "name"), hostile.GLOBALS, ids=[".".join(each) for each in hostile.GLOBALS]
)
def test_fault_01_foreign_global_is_refused_with_its_offset(module: str, name: str) -> None:
    pickle = hostile.state_dict(hostile.call(module, name, hostile.text("touch canary")))
    offset = pickle.index(hostile.global_(module, name))
    shown = f"{module}.{name}".replace("__builtin__.", "builtins.")
    with pytest.raises(RefusedGlobalError) as refused:
        opened(torch_file(pickle, FLOATS))
    assert str(refused.value) == f"file: data.pkl: refused global {shown} at offset {offset:,}"
    assert refused.value.exit_code == 3
    assert refused.value.hint is not None


# Reads every file of a folder and prints what happened besides the reading.
_WATCHED = """
import sys
from pathlib import Path
from ckpt.errors import CkptError
from ckpt.io.sources import FileSource
from ckpt.formats import open_checkpoint

events = []
def hook(event, arguments):
    if event in ("os.system", "subprocess.Popen", "socket.connect", "os.exec", "import"):
        events.append((event, str(arguments[0])))
    if event == "open" and Path(str(arguments[0])).suffix not in (".pt", ".pyc"):
        events.append((event, str(arguments[0])))

def read(path):
    with FileSource(path) as source:
        open_checkpoint(source)

files = sorted(Path(sys.argv[1]).iterdir())
read(files.pop(0))  # imports what reading needs
sys.addaudithook(hook)
refused = 0
for path in files:
    try:
        read(path)
    except CkptError as error:
        refused += error.exit_code == 3
print(refused, len(files), events)
"""


def test_fault_01_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "0.pt").write_bytes(torch_file(hostile.state_dict(), FLOATS))
    pickles = [
        hostile.state_dict(hostile.call(module, name, hostile.text("touch canary")))
        for module, name in hostile.GLOBALS
    ]
    for index, pickle in enumerate([*pickles, *hostile.VARIANTS.values()], start=1):
        (tmp_path / f"{index}.pt").write_bytes(torch_file(pickle, FLOATS))
    count = len(pickles) + len(hostile.VARIANTS)
    ran = subprocess.run(
        [sys.executable, "-c", _WATCHED, tmp_path], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"{count} {count} []\n"


def test_fault_02_there_is_no_fallback() -> None:
    sources = sorted(Path(ckpt.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    for path in sources:
        source = path.read_text()
        assert "weights_only=False" not in source, path
        assert not re.search(r"\bpickle\.loads?\(", source), path
    for path in (each for each in sources if each.parent.name == "formats"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
        assert not names & {"pickle", "torch", "zipfile", "safetensors", "marshal"}, path


@pytest.mark.parametrize("name", hostile.VARIANTS)
def test_fault_03_variants_are_refused(name: str) -> None:
    with pytest.raises(FormatError) as refused:
        opened(torch_file(hostile.VARIANTS[name], FLOATS))
    assert str(refused.value).startswith("file: data.pkl: ")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 3


# Reads every file of a folder within the limits of the contract.
_BOUNDED = """
import resource, sys, time
from pathlib import Path
from ckpt.errors import CkptError
from ckpt.io.sources import FileSource
from ckpt.formats import open_checkpoint

resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
for path in sorted(Path(sys.argv[1]).iterdir()):
    begun = time.process_time()
    try:
        with FileSource(path) as source:
            open_checkpoint(source)
        print(path.stem, "read", end=" ")
    except CkptError as error:
        print(path.stem, error.exit_code, len(str(error)) < 300, end=" ")
    print(time.process_time() - begun < 10)
"""


def test_fault_04_and_05_bombs_are_refused_within_bounds(tmp_path: Path) -> None:
    bombs = {name.replace(" ", "-"): pickle for name, pickle in hostile.bombs().items()}
    for name, pickle in bombs.items():
        (tmp_path / f"{name}.pt").write_bytes(torch_file(pickle, FLOATS))
    ran = subprocess.run(
        [sys.executable, "-c", _BOUNDED, tmp_path], capture_output=True, text=True, timeout=100
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [f"{name} 3 True True" for name in sorted(bombs)]


def test_allow_list_is_torchs_own_and_no_longer() -> None:
    theirs = set(_get_allowed_globals())
    # What torch understands but does not list, or lists only in some versions, and what trainers
    # put beside the tensors; all of it data.
    ours_alone = TRAINERS | {
        "builtins.frozenset",
        "torch._utils._rebuild_tensor",
        "torch.float4_e2m1fn_x2",
        *(name for name in ALLOWED if name.startswith("torch.bits")),
        *(name for name in ALLOWED if name.startswith("torch._utils._rebuild_device_tensor")),
    }
    assert theirs >= ALLOWED - ours_alone


def test_text_knows_where_it_was_pushed() -> None:
    body = hostile.DICT + hostile.text("a") + hostile.put(0) + hostile.get(0) + hostile.SETITEM
    read = read_pickle(hostile.PROTO2 + body + hostile.STOP, name="p", opcode_limit=100)
    assert isinstance(read.root, DictNode)
    ((key, value),) = read.root.items
    assert (key, key.start, key.end, key.origin) == ("a", 3, 9, 3)
    assert (value, value.start, value.end, value.origin) == ("a", 14, 19, 3)
    assert read.looked_up == [value]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_fault_16_protocols(protocol: int) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "ü": torch.tensor(True)}
    checkpoint = opened(saved({"model": state, "epoch": 3}, pickle_protocol=protocol))
    assert contents(checkpoint) == expected(state)
    assert checkpoint.rest == {"epoch": 3}


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.text(min_size=250, max_size=300),
    st.binary(max_size=300),
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=5),
        inner.map(lambda value: [value, (value, value)]),  # looked up in the memo
    ),
)


@given(NESTED, st.integers(min_value=2, max_value=5))
@settings(max_examples=300)
def test_plain_values_are_read_as_they_were_pickled(value: object, protocol: int) -> None:
    allowed = ALLOWED | {"builtins.bytes"}
    read = read_pickle(dumps(value, protocol), name="p", opcode_limit=10_000, allowed=allowed)
    assert repr(value_of(read.root)) == repr(value)


def value_of(node: object) -> object:
    """The value that a node describes."""
    match node:
        case DictNode(items=items):
            return {value_of(key): value_of(value) for key, value in items}
        case ListNode(kind="tuple", items=items):
            return tuple(map(value_of, items))
        case ListNode(kind="list", items=items):
            return list(map(value_of, items))
        case Call(function="_codecs.encode", arguments=[str() as text, "latin1"]):
            return text.encode("latin-1")  # bytes in protocol 2
        case Call(function="builtins.bytes", arguments=[]):
            return b""
        case str():
            return str(node)
    return node


def torch_pickle(value: object, protocol: int) -> bytes:
    with zipfile.ZipFile(BytesIO(saved(value, pickle_protocol=protocol))) as archive:
        return archive.read("archive/data.pkl")


_TIED = torch.zeros(2, 3)
_STATE = {"a.weight": _TIED, "b.weight": _TIED, "ü": torch.zeros(1, 2, 3, 300), "n": torch.ones(())}
_SETTINGS = [True, False, None, 1, 70_000, -1, 2**70, (1,), (1, "n", 3), b"x", "ü" * 200]
_CHECKPOINT = {
    "model": OrderedDict(_STATE),
    "optimizer": {"state": {0: {"step": 7, "exp_avg": _TIED}}, "groups": [{"betas": (0.9, 0.999)}]},
    "settings": _SETTINGS,
}
SEEDS = [
    *(torch_pickle(_CHECKPOINT, protocol) for protocol in (2, 3, 4, 5)),
    *hostile.VARIANTS.values(),
]
OPCODES = st.sampled_from(sorted(pickle_reader._OPCODES))
POSITIONS = st.integers(min_value=0, max_value=2**16)
# Where a pickle is changed, how many bytes are dropped there, and what is put in their place.
CHANGES = st.lists(
    st.tuples(
        POSITIONS,
        st.integers(min_value=0, max_value=4),
        st.one_of(OPCODES.map(lambda code: bytes([code])), st.binary(max_size=3)),
    ),
    max_size=3,
)


@given(st.sampled_from(SEEDS), CHANGES, st.one_of(st.just(100_000), POSITIONS))
@settings(max_examples=1000)
def test_the_common_opcodes_do_what_the_table_does(
    pickle: bytes, changes: list[tuple[int, int, bytes]], opcode_limit: int
) -> None:
    for position, dropped, added in changes:
        at = position % (len(pickle) + 1)
        pickle = pickle[:at] + added + pickle[at + dropped :]
    quick = outcome(pickle, opcode_limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_reader, "run_fast", lambda machine, opcode_limit: None)
        assert outcome(pickle, opcode_limit) == quick


def outcome(pickle: bytes, opcode_limit: int) -> object:
    try:
        read = read_first_pickle(pickle, name="p", opcode_limit=opcode_limit)
    except FormatError as error:
        return type(error), str(error), error.hint
    looked_up = [place(text) for text in read.looked_up]
    return shape_of(read), looked_up, read.frames, read.opcodes, read.nbytes


def shape_of(read: ParsedPickle) -> list[object]:
    """All that a pickle describes, as values; a node that stands there again by its number."""
    numbers: dict[int, int] = {}
    shape: list[object] = []
    waiting = [read.root]
    while waiting:
        node = waiting.pop()
        if id(node) in numbers and isinstance(node, DictNode | ListNode | Call | Persistent):
            shape.append(numbers[id(node)])
            continue
        numbers[id(node)] = len(numbers)
        match node:
            case DictNode(items=items, state=state, ordered=ordered):
                shape.append(("mapping", len(items), ordered))
                waiting += [state, *(each for pair in items for each in pair)]
            case ListNode(kind=kind, items=items):
                shape.append((kind, len(items)))
                waiting += items
            case Call(function=function, arguments=arguments, state=state):
                shape.append((function, len(arguments)))
                waiting += [state, *arguments]
            case Persistent(id=identity):
                shape.append("persistent")
                waiting.append(identity)
            case Global(name=name):
                shape.append(("global", name))
            case Text():
                shape.append(place(node))
            case _:
                shape.append((type(node), repr(node)))
    return shape


def place(text: Text) -> tuple[str, int, int, int]:
    return str(text), text.start, text.end, text.origin


def test_common_opcodes_leave_few_of_a_state_dict_to_the_table() -> None:
    state = {f"layers.{number}.weight": torch.zeros(2, 3) for number in range(1000)}
    data = torch_pickle(state, 2)
    asked: list[int] = []

    def noted(machine: Machine, opcode_limit: int) -> None:
        run_fast(machine, opcode_limit)
        asked.append(machine.position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_reader, "run_fast", noted)
        read = read_pickle(data, name="p", opcode_limit=100_000)
    assert len(asked) < read.opcodes / 50


@given(st.lists(st.tuples(st.integers(min_value=0, max_value=6), st.integers())))
def test_memo_remembers_whatever_the_order_of_its_slots(puts: list[tuple[int, int]]) -> None:
    memo, expected = Memo(), dict[int, int]()
    for slot, value in puts:
        memo.put(slot, value)
        expected[slot] = value
        assert len(memo) == len(expected)
        assert [memo.get(each) for each in range(8)] == [expected.get(x, MARK) for x in range(8)]
