"""Pickles that want what no checkpoint needs, assembled opcode by opcode.

Nothing here is ever unpickled by Python's own pickle. Opcodes: CPython's `Lib/pickletools.py`.
"""

import struct
from collections.abc import Sequence

PROTO2, PROTO4 = b"\x80\x02", b"\x80\x04"
MARK, STOP, REDUCE, TUPLE, DICT, LIST = b"(", b".", b"R", b"t", b"}", b"]"
SETITEM, SETITEMS, APPEND, APPENDS = b"s", b"u", b"a", b"e"
NONE, BUILD, BINPERSID, POP = b"N", b"b", b"Q", b"0"
STACK_GLOBAL, MEMOIZE = b"\x93", b"\x94"


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return global_(module, name) + tuple_of(*arguments) + REDUCE


def put(slot: int) -> bytes:
    return b"r" + struct.pack("<I", slot)


def get(slot: int) -> bytes:
    return b"j" + struct.pack("<I", slot)


def frame(body: bytes, nbytes: int | None = None) -> bytes:
    return b"\x95" + struct.pack("<Q", len(body) if nbytes is None else nbytes) + body


def storage(
    key: str = "0", numel: int = 4, kind: str = "FloatStorage", module: str = "torch"
) -> bytes:
    """A reference to a storage, as `torch.save` writes it."""
    return (
        tuple_of(text("storage"), global_(module, kind), text(key), text("cpu"), number(numel))
        + BINPERSID
    )


def tensor(
    shape: Sequence[int] = (4,),
    stride: Sequence[int] = (1,),
    offset: int = 0,
    of: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """A float32 tensor of four elements, or one that lies about it."""
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage() if of is None else of,
        number(offset),
        tuple_of(*map(number, shape)),
        tuple_of(*map(number, stride)),
        b"\x89",
        call("collections", "OrderedDict"),
        more,
    )


def state_dict(*values: bytes, proto: bytes = PROTO2) -> bytes:
    """A pickle of a dict with a good tensor and these values."""
    items = [text("good"), tensor()]
    for index, value in enumerate(values):
        items += [text(f"value.{index}"), value]
    return proto + DICT + MARK + b"".join(items) + SETITEMS + STOP


# What exploits in the wild have named; the arguments would do harm if anything were called.
_WANTED = {
    "os": ("system", "popen", "execv", "remove"),
    "posix": ("system",),
    "nt": ("system",),
    "builtins": ("eval", "exec", "getattr", "open", "__import__", "compile", "breakpoint"),
    "__builtin__": ("eval", "apply"),
    "subprocess": ("Popen", "check_output", "run"),
    "runpy": ("_run_code", "run_path"),
    "pip": ("main",),
    "pip._internal": ("main",),
    "pickle": ("loads", "Unpickler"),
    "torch": ("load", "save", "Tensor.__init__", "_C", "hub"),
    "torch.hub": ("load",),
    "torch.storage": ("_load_from_bytes", "TypedStorage"),
    "torch.serialization": ("load",),
    "torch._utils": ("_import_dotted_name",),
    "torch.utils.data.datapipes.utils.decoder": ("basichandlers",),
    "numpy": ("load", "fromfile"),
    "numpy.core.multiarray": ("frombuffer",),
    "functools": ("partial", "reduce"),
    "operator": ("attrgetter", "methodcaller"),
    "types": ("CodeType", "FunctionType"),
    "marshal": ("loads",),
    "importlib": ("import_module",),
    "timeit": ("timeit",),
    "cProfile": ("run",),
    "pdb": ("run",),
    "code": ("InteractiveInterpreter.runcode",),
    "shutil": ("rmtree",),
    "socket": ("create_connection",),
    "webbrowser": ("open",),
    "asyncio.unix_events": ("_UnixSubprocessTransport._start",),
    "ctypes": ("CDLL",),
    "argparse": ("FileType",),
    "pathlib": ("Path.unlink",),
    "collections": ("ChainMap", "OrderedDict.fromkeys"),
    "__main__": ("Model",),
}
GLOBALS = [(module, name) for module, names in _WANTED.items() for name in names]

_HARMLESS = global_("collections", "ChainMap")

# Ways to name or make something without a plain GLOBAL, each around a harmless one.
VARIANTS: dict[str, bytes] = {
    "global": state_dict(_HARMLESS),
    "global that is dropped": state_dict(_HARMLESS + POP + NONE),
    "reduce": state_dict(_HARMLESS + tuple_of() + REDUCE),
    "stack global": state_dict(text("collections") + text("ChainMap") + STACK_GLOBAL),
    "stack global from memo": state_dict(
        text("collections") + put(0) + POP + text("ChainMap") + put(1) + POP
        + get(0) + get(1) + STACK_GLOBAL
    ),
    "stack global of numbers": state_dict(number(1) + number(2) + STACK_GLOBAL),
    "dotted name": state_dict(global_("collections", "OrderedDict.fromkeys")),
    "dotted module": state_dict(global_("collections.OrderedDict", "fromkeys")),
    "dotted across an allowed name": state_dict(global_("torch", "nn.parameter.Parameter")),
    "carriage return": state_dict(global_("collections\r", "OrderedDict")),
    "blank": state_dict(global_(" collections", "OrderedDict")),
    "look-alike letter": state_dict(global_("c\u043ellections", "OrderedDict")),
    "empty module": state_dict(global_("", "collections.OrderedDict")),
    "inst": state_dict(MARK + b"icollections\nChainMap\n"),
    "inst of an allowed class": state_dict(MARK + b"icollections\nOrderedDict\n"),
    "obj": state_dict(MARK + global_("collections", "OrderedDict") + b"o"),
    "newobj": state_dict(_HARMLESS + tuple_of() + b"\x81"),
    "newobj_ex": state_dict(
        global_("collections", "OrderedDict") + tuple_of() + DICT + b"\x92"
    ),
    "ext1": state_dict(b"\x82\x01"),
    "ext2": state_dict(b"\x83\x01\x00"),
    "ext4": state_dict(b"\x84\x01\x00\x00\x00"),
    "persid": state_dict(b"Pstorage\n"),
    "reduce of text": state_dict(text("os.system") + tuple_of() + REDUCE),
    "reduce of a call": state_dict(call("collections", "OrderedDict") + tuple_of() + REDUCE),
    "reduce without a tuple": state_dict(global_("collections", "OrderedDict") + NONE + REDUCE),
    "build on a list": state_dict(LIST + DICT + BUILD),
    "build on a plain dict": state_dict(DICT + DICT + BUILD),
    "build on a global": state_dict(global_("torch", "Size") + DICT + BUILD),
    "build twice": state_dict(call("collections", "OrderedDict") + 2 * (DICT + BUILD)),
    "dup": state_dict(LIST + b"2" + APPEND),
    "out-of-band buffer": state_dict(b"\x97", proto=b"\x80\x05"),
    "protocol 0": b"(dp0\n.",
    "protocol 1": b"\x80\x01}.",
    "protocol 6": b"\x80\x06}.",
    "protocol twice": PROTO2 + PROTO2 + DICT + STOP,
    "frame over the end": PROTO4 + frame(DICT + STOP, 1000),
    "frame that cuts an opcode": PROTO4 + frame(text("abcdef") + POP + DICT + STOP, 7),
    "frame that cuts an argument off": PROTO4 + frame(b"K" + b"\x01" + POP + DICT + STOP, 1),
    "frame in a frame": PROTO4 + frame(frame(DICT + STOP), 20) + DICT * 20,
    "after the end": state_dict() + b"cos\nsystem\n",
    "two values at the end": PROTO2 + DICT + DICT + STOP,
    "mark at the end": PROTO2 + MARK + STOP,
    "no stop": state_dict()[:-1],
    "empty": b"",
    "empty stack": PROTO2 + STOP,
    "memo that is empty": PROTO2 + get(7) + STOP,
    "tuple without mark": PROTO2 + TUPLE + STOP,
    "odd items": PROTO2 + DICT + MARK + NONE + SETITEMS + STOP,
    "items of a list": PROTO2 + LIST + NONE + NONE + SETITEM + STOP,
    "append to a tuple": PROTO2 + b")" + NONE + APPEND + STOP,
    "text cut short": PROTO2 + b"X\xff\xff\xff\x7f",
    "text that is no utf-8": PROTO2 + b"X\x01\x00\x00\x00\xff" + STOP,
    "long of negative length": PROTO2 + b"\x8b\xff\xff\xff\xff" + STOP,
    "long of many digits": PROTO2 + b"\x8b\x00\x10\x00\x00" + bytes(4096) + STOP,
}  # fmt: skip


# Those that only name a foreign global, or call it: opaque, since no tensor needs them.
OPAQUE = {
    *("global", "global that is dropped", "reduce", "stack global", "stack global from memo"),
    *("dotted name", "dotted module", "carriage return", "blank", "look-alike letter"),
    *("empty module", "newobj"),
}


def laughs(levels: int = 40) -> bytes:
    """Lists of two, each twice the one before: 2^40 leaves in some hundred bytes."""
    body = LIST + put(0) + POP
    for level in range(1, levels):
        body += LIST + put(level) + MARK + 2 * get(level - 1) + APPENDS + POP
    return state_dict(body + get(levels - 1))


def bombs() -> dict[str, bytes]:
    """Small files that want much time or memory, or a deep stack."""
    million = 1_000_000
    self_list = LIST + put(0) + MARK + get(0)
    nothing = {"nesting": LIST * 100_000 + APPEND * 99_999}
    return {
        "billion laughs": laughs(),
        "ten million opcodes": PROTO2 + b"N0" * (5 * million) + NONE + STOP,
        "million memo entries": PROTO2 + LIST + b"".join(map(put, range(1_100_000))) + STOP,
        "list in itself": state_dict(self_list + APPENDS),
        "wide list in itself": state_dict(self_list + NONE * 500_000 + APPENDS),
        "dict in itself": state_dict(DICT + put(0) + text("x") + get(0) + SETITEM),
        "deep lists": state_dict(nothing["nesting"]),
        "deep tuples": state_dict(b")" + b"\x85" * 100_000),
        "deep dicts": state_dict((DICT + text("x")) * 50_000 + NONE + SETITEM * 50_000),
        "deep calls": state_dict(global_("torch", "Size") * 50_000 + b")" + b"R\x85" * 49_999
                                 + b"R"),
        "deep key": state_dict(DICT + b")" + b"\x85" * 100_000 + NONE + SETITEM),
        "million marks": PROTO2 + MARK * 900_000 + STOP,
        "long text looked up often": PROTO2 + LIST + text("x" * 10_000_000) + put(0)
        + (POP + get(0)) * 10_000 + APPEND + STOP,
        "dimensions without end": state_dict(
            tensor(shape=[2**62] * 100_000, stride=[0] * 100_000)
        ),
    }  # fmt: skip
