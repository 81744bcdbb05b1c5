"""The opcode reader refuses all that no tensor needs, in bounded time and memory."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from pickle import dumps
from pickle import loads as pickle_loads

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._weights_only_unpickler import _get_allowed_globals

import ckpt
from ckpt.errors import FormatError, RefusedGlobalError
from ckpt.formats.opaque import (
    ForeignGlobal,
    expect_harmless,
    foreign_globals,
    without_opaque,
)
from ckpt.formats.pickle.globals import ALLOWED, UNOPENED, can_be_opaque, torch_refuses
from ckpt.formats.pickle.nodes import Call, DictNode
from ckpt.formats.pickle.reader import read_pickle
from tests.effort import PATIENCE, examples
from tests.formats import hostile
from tests.formats.support import contents, expected, loaded, opened, saved, torch_file

FLOATS = {"0": bytes(16)}


@pytest.mark.parametrize(
    ("module", "name"), hostile.GLOBALS, ids=[".".join(each) for each in hostile.GLOBALS]
)
def test_fault_01_foreign_global_is_named_with_its_offset(module: str, name: str) -> None:
    pickle = hostile.state_dict(hostile.call(module, name, hostile.text("touch canary")))
    offset = pickle.index(hostile.global_(module, name))
    shown = f"{module}.{name}".replace("__builtin__.", "builtins.")
    if module == "torch.storage" and name == "TypedStorage":
        with pytest.raises(RefusedGlobalError, match=f"refused global {shown} at offset"):
            opened(torch_file(pickle, FLOATS))
        return
    checkpoint = opened(torch_file(pickle, FLOATS))
    assert list(contents(checkpoint)) == ["good"]
    assert checkpoint.rest["value.0"] == f"{shown}(…)"
    assert ForeignGlobal(shown, offset, runs_code=True) in foreign_globals(checkpoint)
    with pytest.raises(RefusedGlobalError) as refused:
        expect_harmless(checkpoint, None)
    assert str(refused.value) == f"file: runs code when unpickled: {shown} at offset {offset:,}"
    assert refused.value.exit_code == 3
    assert {"--keep-opaque", "--drop-opaque"} <= set((refused.value.hint or "").split())
    plain, changed = without_opaque(checkpoint, None)
    assert changed == (f"value.0 ({shown})",)
    assert list(loaded(plain.source.read(0, plain.source.size))) == ["good"]


TENSOR_NEEDS = {
    "storage": hostile.tensor(of=hostile.call("os", "system", hostile.text("touch canary"))),
    "storage type": hostile.tensor(of=hostile.storage(module="os", kind="system")),
    "size": hostile.call(
        "torch._utils", "_rebuild_tensor_v2", hostile.storage(), hostile.number(0),
        hostile.call("os", "system"), hostile.tuple_of(hostile.number(1)), b"\x89", b"}",
    ),
    "hooks": hostile.call(
        "torch._utils", "_rebuild_tensor_v2", hostile.storage(), hostile.number(0),
        hostile.tuple_of(hostile.number(4)), hostile.tuple_of(hostile.number(1)), b"\x89",
        hostile.call("os", "system"),
    ),
    "class": hostile.call(
        "torch._tensor", "_rebuild_from_type_v2",
        hostile.global_("torch._utils", "_rebuild_tensor_v2"), hostile.global_("os", "system"),
        hostile.tuple_of(hostile.storage()), hostile.DICT,
    ),
    "around a tensor": hostile.call("os", "system", hostile.tensor()),
    "around a storage": hostile.call("os", "system", hostile.storage()),
    "around a tensor, and called again": (
        hostile.call("os", "system", hostile.tensor()) + hostile.tuple_of() + hostile.REDUCE
    ),
    "attribute of a class that is called": (
        hostile.global_("os", "system") + hostile.DICT + hostile.text("a") + hostile.tensor()
        + hostile.SETITEM + hostile.BUILD + hostile.tuple_of() + hostile.REDUCE
    ),
    "attributes that are set again": (
        hostile.call("os", "system") + hostile.DICT + hostile.text("a") + hostile.tensor()
        + hostile.SETITEM + hostile.BUILD + hostile.DICT + hostile.BUILD
    ),
    "keywords": (
        hostile.global_("os", "system") + hostile.tuple_of() + hostile.DICT + hostile.text("a")
        + hostile.tensor() + hostile.SETITEM + b"\x92"
    ),
    "arguments beside keywords": (
        hostile.global_("os", "system") + hostile.tuple_of(hostile.tensor()) + hostile.DICT
        + b"\x92"
    ),
    "appended": hostile.call("os", "system") + hostile.tensor() + hostile.APPEND,
    "added to a set": (
        hostile.call("os", "system") + hostile.MARK + hostile.tensor() + b"\x90"
    ),
    "item of a mapping": (
        hostile.call("os", "system") + hostile.text("a") + hostile.tensor() + hostile.SETITEM
    ),
    "rebuilt by another function": hostile.call("torch._utils", "_rebuild_new", hostile.storage()),
    "another class of tensor": hostile.call("torch", "FloatTensor", hostile.storage()),
    "dotted": hostile.call("torch", "nn.parameter.Parameter", hostile.tensor()),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSOR_NEEDS)
def test_fault_02_global_that_a_tensor_needs_is_refused(name: str) -> None:
    with pytest.raises(FormatError) as refused:
        opened(torch_file(hostile.state_dict(TENSOR_NEEDS[name]), FLOATS))
    assert refused.value.exit_code == 3


def test_name_of_python_2_is_read_as_torch_reads_it() -> None:
    ordered = hostile.call("UserList", "OrderedDict")
    pickle = hostile.PROTO2 + ordered + hostile.text("w") + hostile.tensor() + b"s."
    data = torch_file(pickle, FLOATS)
    assert contents(opened(data)) == expected(loaded(data))


# Reads every file of a folder and prints what happened besides the reading.
_WATCHED = """
import sys
from pathlib import Path
from ckpt.errors import CkptError
from ckpt.io.sources import FileSource
from ckpt.formats import open_checkpoint
from ckpt.formats.opaque import without_opaque

events = []
def hook(event, arguments):
    if event in ("os.system", "subprocess.Popen", "socket.connect", "os.exec", "import"):
        events.append((event, str(arguments[0])))
    if event == "open" and Path(str(arguments[0])).suffix not in (".pt", ".pyc"):
        events.append((event, str(arguments[0])))

def read(path):
    with FileSource(path) as source:
        plain, _ = without_opaque(open_checkpoint(source), None)
        plain.source.read(0, plain.source.size)

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
    refused = len(hostile.VARIANTS) - len(hostile.OPAQUE) + 1  # torch.storage.TypedStorage
    assert ran.stdout == f"{refused} {count} []\n"


def test_fault_02_there_is_no_fallback() -> None:
    sources = sorted(Path(ckpt.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    for path in sources:
        source = path.read_text()
        parsed = ast.parse(source if "weights_only" in source else "")
        calls = (node for node in ast.walk(parsed) if isinstance(node, ast.Call))
        words = [word for call in calls for word in call.keywords if word.arg == "weights_only"]
        assert all(ast.unparse(word.value) == "True" for word in words), path
        assert not re.search(r"\bpickle\.loads?\(", source), path
    for path in (each for each in sources if each.parent.name == "formats"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
        assert not names & {"pickle", "torch", "zipfile", "safetensors", "marshal"}, path


@pytest.mark.parametrize("name", sorted(hostile.VARIANTS.keys() - hostile.OPAQUE))
def test_fault_03_variants_are_refused(name: str) -> None:
    with pytest.raises(FormatError) as refused:
        opened(torch_file(hostile.VARIANTS[name], FLOATS))
    assert str(refused.value).startswith("file: data.pkl: ")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 3


OFFSETS = {
    "global": (hostile.text("os") + hostile.global_("os", "system"), b"c"),
    "global of the stack": (
        hostile.text("os") + hostile.text("system") + hostile.STACK_GLOBAL, hostile.STACK_GLOBAL
    ),
    "frame in a frame": (hostile.NONE + hostile.frame(hostile.frame(hostile.DICT), 30), b"\x95"),
    "unknown opcode": (hostile.NONE + b"~", b"~"),
}  # fmt: skip


@pytest.mark.parametrize("before", [b"", b"N\x850"], ids=["even", "odd"])
@pytest.mark.parametrize("name", OFFSETS)
def test_refusal_tells_the_offset_of_the_opcode(name: str, before: bytes) -> None:
    code, opcode = OFFSETS[name]
    data = hostile.PROTO4 + before + code + hostile.NONE * 30 + hostile.STOP
    with pytest.raises(FormatError) as refused:
        read_pickle(data, name="p", opcode_limit=100)
    assert f"at offset {data.rindex(opcode):,}" in str(refused.value)


def test_bytes_after_the_end_are_counted() -> None:
    data = hostile.PROTO2 + hostile.NONE + hostile.STOP
    with pytest.raises(FormatError, match=r"^p: 5 bytes after its end$"):
        read_pickle(data + b"abcde", name="p", opcode_limit=100)


def test_values_that_are_left_are_counted_with_their_marks() -> None:
    left = hostile.NONE * 2 + hostile.MARK + hostile.NONE + hostile.MARK
    with pytest.raises(FormatError, match="leaves 6 values, expected one"):
        read_pickle(hostile.PROTO2 + left + b"}.", name="p", opcode_limit=100)


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


@pytest.mark.long
def test_fault_04_and_05_bombs_are_refused_within_bounds(tmp_path: Path) -> None:
    bombs = {name.replace(" ", "-"): pickle for name, pickle in hostile.bombs().items()}
    for name, pickle in bombs.items():
        (tmp_path / f"{name}.pt").write_bytes(torch_file(pickle, FLOATS))
    ran = subprocess.run(
        [sys.executable, "-c", _BOUNDED, tmp_path], capture_output=True, text=True, timeout=PATIENCE
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [f"{name} 3 True True" for name in sorted(bombs)]


def test_allow_list_is_torchs_own_and_no_longer() -> None:
    theirs = set(_get_allowed_globals())
    assert not {name for name in theirs if can_be_opaque(name)}
    assert {name for name in ALLOWED if torch_refuses(name)} <= ALLOWED - theirs
    # What torch understands but does not list, or lists only in some versions, and what trainers
    # put beside the tensors; all of it data.
    ours_alone = UNOPENED | {
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
@settings(max_examples=examples(300))
def test_plain_values_are_read_as_they_were_pickled(value: object, protocol: int) -> None:
    allowed = ALLOWED | {"builtins.bytes"}
    read = read_pickle(dumps(value, protocol), name="p", opcode_limit=10_000, allowed=allowed)
    assert repr(value_of(read.root)) == repr(value)


def value_of(node: object) -> object:
    """The value that a node describes."""
    match node:
        case DictNode(items=items):
            return {value_of(key): value_of(value) for key, value in items}
        case tuple():
            return tuple(map(value_of, node))
        case list():
            return list(map(value_of, node))
        case Call(function="_codecs.encode", arguments=(str() as text, "latin1")):
            return text.encode("latin-1")  # bytes in protocol 2
        case Call(function="builtins.bytes", arguments=()):
            return b""
        case str():
            return str(node)
    return node


@given(st.lists(st.tuples(st.integers(min_value=0, max_value=300), st.integers(0, 255))))
def test_memo_remembers_whatever_the_order_of_its_slots(puts: list[tuple[int, int]]) -> None:
    """Python 2 numbered the slots from 1, and slots may be used again."""
    expected = dict(puts)
    body = b"".join(b"K" + bytes([value]) + hostile.put(slot) + b"0" for slot, value in puts)
    gets = b"".join(hostile.get(slot) for slot in expected)
    pickle = hostile.PROTO2 + body + hostile.tuple_of(gets) + hostile.STOP
    assert pickle_loads(pickle) == tuple(expected.values())  # noqa: S301 - made above
    read = read_pickle(pickle, name="p", opcode_limit=10_000)
    assert read.root == tuple(expected.values())
    missing = hostile.PROTO2 + body + hostile.get(max(expected, default=0) + 1) + hostile.STOP
    with pytest.raises(FormatError):
        read_pickle(missing, name="p", opcode_limit=10_000)


def test_dict_that_is_copied_often_is_refused() -> None:
    """Each OrderedDict of a list copies it; time and memory would grow with the square."""
    pair = hostile.tuple_of(hostile.text("k"), hostile.NONE)
    pairs = hostile.LIST + hostile.put(0) + hostile.MARK + pair * 1000 + hostile.APPENDS
    made = hostile.call("collections", "OrderedDict", hostile.get(0)) + hostile.POP
    read_pickle(hostile.PROTO2 + pairs + made + hostile.STOP, name="p", opcode_limit=100_000)
    with pytest.raises(FormatError, match="copies its own parts too often"):
        pickle = hostile.PROTO2 + pairs + made * 1000 + hostile.STOP
        read_pickle(pickle, name="p", opcode_limit=100_000)


def test_date_of_another_length_is_named_alone() -> None:
    when = [
        b"C" + bytes([size]) + b"\x07\xe8\x01\x02\x03\x04\x05" + bytes(size - 7) for size in (9, 10)
    ]
    values = [hostile.call("datetime", "datetime", data) for data in when]
    rest = opened(torch_file(hostile.state_dict(*values, proto=hostile.PROTO4), FLOATS)).rest
    assert rest["value.0"] == "datetime.datetime(9 bytes)"
    assert rest["value.1"] == "2024-01-02T03:04:05"


@pytest.mark.parametrize("kind", ["datetime", "date"])
def test_date_of_nothing_is_named_alone(kind: str) -> None:
    pickle = hostile.state_dict(hostile.call("datetime", kind))
    assert opened(torch_file(pickle, FLOATS)).rest == {"value.0": f"datetime.{kind}()"}


def test_key_that_is_opaque_elsewhere_hinders_nothing() -> None:
    """A tensor in an opaque object concerns the state_dict that holds the object."""
    other = hostile.DICT + hostile.text("config") + hostile.call("os", "system", hostile.tensor())
    model = hostile.DICT + hostile.MARK + hostile.text("config")
    model += hostile.call("os", "system", hostile.text("a")) + hostile.text("w") + hostile.tensor()
    items = hostile.text("a") + other + hostile.SETITEM
    items += hostile.text("model") + model + hostile.SETITEMS
    pickle = hostile.PROTO2 + hostile.DICT + hostile.MARK + items + hostile.SETITEMS + hostile.STOP
    assert list(contents(opened(torch_file(pickle, FLOATS)))) == ["w"]


def test_set_beside_other_values_is_filled() -> None:
    data = saved({"w": torch.ones(2), "v": (7, {1})}, pickle_protocol=4)
    assert opened(data).rest == {"v": [7, [1]]}


def test_many_harmful_globals_are_counted() -> None:
    calls = [hostile.call("os", f"f{number}") for number in range(7)]
    checkpoint = opened(torch_file(hostile.state_dict(*calls), FLOATS))
    with pytest.raises(RefusedGlobalError, match=r"os\.f4 at offset \d+ and 2 more"):
        expect_harmless(checkpoint, None)
