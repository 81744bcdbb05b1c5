"""Models of a hub; `huggingface_hub` reads the same server."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, save_torch_state_dict
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors.torch import load_file, save_file

from tests.cli.support import Run
from tests.remote.elsewhere.hub_server import Hub
from tests.remote.elsewhere.test_http import tensors
from tests.remote.elsewhere.web_server import WebServer

REPO = "org/net"
TOKEN = "hf_s3cr3t"


@pytest.fixture
def files(folder: Path) -> dict[str, bytes]:
    """What `save_pretrained` writes: shards, and what belongs to them."""
    (folder / "here").mkdir()
    save_torch_state_dict(tensors(), folder / "here", max_shard_size=300_000)
    (folder / "here" / "config.json").write_text('{"hidden_size": 512}')
    found = {path.name: path.read_bytes() for path in (folder / "here").iterdir()}
    return found | {
        ".gitattributes": b"*.safetensors filter=lfs",
        "tokenizer/vocab.txt": b"a\nb\n",
        "old/pytorch_model.bin": b"x" * 20_000,
        "old/readme.txt": b"of other weights",
    }


@pytest.fixture
def hub(served: WebServer, other: WebServer, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    served.allowed = lambda asked: asked.headers.get("authorization") == f"Bearer {TOKEN}"
    return Hub(served, other)


def test_server_speaks_what_huggingface_hub_understands(
    hub: Hub, files: dict[str, bytes], folder: Path
) -> None:
    """The oracle of the other tests."""
    sha = hub.commit(REPO, files, "main", "v1.0")
    api = HfApi(endpoint=hub.web.url, token=TOKEN)
    info = api.model_info(REPO, revision="v1.0", files_metadata=True)
    assert info.sha == sha
    listed = {each.rfilename: (each.size, each.lfs) for each in info.siblings or ()}
    assert {name: size for name, (size, _) in listed.items()} == {
        name: len(data) for name, data in files.items()
    }
    assert all((lfs is not None) == (size > 10_000) for size, lfs in listed.values() if size)
    for name, data in files.items():
        got = hf_hub_download(
            REPO, name, revision="v1.0", endpoint=hub.web.url, token=TOKEN, cache_dir=folder / "hf"
        )
        assert Path(got).read_bytes() == data
        assert Path(got).is_relative_to(folder / "hf" / "models--org--net" / "snapshots" / sha)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "none", endpoint=hub.web.url, token=TOKEN, cache_dir=folder / "hf")


def test_repository_of_shards_is_one_checkpoint(
    ckpt: Run, hub: Hub, files: dict[str, bytes]
) -> None:
    sha = hub.commit(REPO, files, "main")
    ran = ckpt("show", f"hf://{REPO}", "--json")
    shown = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert (shown["keys"], shown["format"], shown["name"]) == (
        *(6, "safetensors-sharded"),
        f"hf://{REPO}",
    )
    assert [each["name"] for each in shown["side_files"]] == ["config.json", "tokenizer/vocab.txt"]
    assert shown["source"]["commit"] == sha
    stated = HfApi(endpoint=hub.web.url, token=TOKEN).model_info(REPO, files_metadata=True)
    oracle = {each.rfilename: each.lfs.sha256 for each in stated.siblings or () if each.lfs}
    assert shown["source"]["sha256"] == {n: d for n, d in oracle.items() if n.startswith("model-")}
    assert f"commit  {sha}" in ckpt("show", f"hf://{REPO}").out.replace("    ", "  ")


def test_revision_is_pinned(ckpt: Run, hub: Hub, folder: Path) -> None:
    for number, revision in ((2, "old"), (3, "refs/pr/7"), (6, "main")):
        save_file(tensors(number), folder / "x.safetensors")
        data = (folder / "x.safetensors").read_bytes()
        sha = hub.commit(REPO, {"sub/x.safetensors": data}, revision)
        at = "" if revision == "main" else f"@{revision}"
        for pinned in (f"hf://{REPO}{at}/sub/x.safetensors", f"hf://{REPO}@{sha}/sub"):
            shown = json.loads(ckpt("show", pinned, "--json").out)
            assert (shown["keys"], shown["source"]["commit"]) == (number, sha)
    # A branch that moves while a file is read: the files are of the commit.
    assert all("/resolve/main/" not in each.path for each in hub.web.asked)


def test_rename_streams_into_a_new_folder(ckpt: Run, hub: Hub, files: dict[str, bytes]) -> None:
    hub.commit(REPO, files, "main")
    ran = ckpt("rename", f"hf://{REPO}", "--rule", "layers=blocks")
    assert (ran.code, ran.err, "wrote net.renamed/" in ran.out) == (0, "", True)
    new = Path("net.renamed")
    assert (new / "config.json").read_bytes() == files["config.json"]
    assert (new / "tokenizer" / "vocab.txt").read_bytes() == b"a\nb\n"
    assert not (new / "old").exists()
    loaded = {k: v for path in new.glob("*.safetensors") for k, v in load_file(path).items()}
    assert {k: float(v[0, 0]) for k, v in loaded.items()} == {
        f"blocks.{i}.weight": float(i) for i in range(6)
    }


def test_version_has_its_origin_and_its_side_files(
    ckpt: Run, hub: Hub, files: dict[str, bytes]
) -> None:
    sha = hub.commit(REPO, files, "main")
    ran = ckpt("register", f"hf://{REPO}")
    assert (ran.code, "registered net:v1" in ran.out) == (0, True)
    shown = json.loads(ckpt("show", "net:v1", "--json").out)
    source = shown["record"]["source"]
    assert (source["url"], source["commit"]) == (f"hf://{REPO}", sha)
    assert ckpt("export", "net:v1", "-o", "back").code == 0
    for name in (*(n for n in files if "/" not in n and n[0] != "."), "tokenizer/vocab.txt"):
        assert Path("back", name).read_bytes() == files[name]


def test_fault_40_other_bytes_than_the_hub_states_are_refused(
    ckpt: Run, hub: Hub, files: dict[str, bytes]
) -> None:
    hub.commit(REPO, files, "main")
    name, data = next((n, d) for n, d in hub.cdn.files.items() if d[8:9] == b"{")
    hub.cdn.files[name] = data[:-1] + bytes([data[-1] ^ 1])
    ran = ckpt("register", f"hf://{REPO}")
    assert (ran.code, ran.out) == (4, "")
    assert f"its server states sha256:{name}" in ran.err
    assert json.loads(ckpt("ls", "--json").out or "[]") == []
    hub.cdn.files[name] = data + b"x"
    ran = ckpt("show", f"hf://{REPO}")
    assert (ran.code, "the hub's list says" in ran.err) == (7, True)


def test_fault_41_token_is_sent_to_the_endpoint_only(
    ckpt: Run, hub: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit(REPO, files, "main")
    for words in (("register", f"hf://{REPO}"), ("show", f"hf://{REPO}", "--json")):
        ran = ckpt(*words)
        assert (ran.code, TOKEN in ran.out + ran.err) == (0, False)
    assert hub.cdn.asked
    assert not any("authorization" in each.headers for each in hub.cdn.asked)
    assert not [p for p in Path().rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    monkeypatch.delenv("HF_TOKEN")
    ran = ckpt("show", f"hf://{REPO}")
    assert (ran.code, "the server refuses it (401)" in ran.err) == (7, True)


@pytest.mark.parametrize(
    "url", ["hf://net", "hf://datasets/org/net", "hf:///x", "hf://org/", "hf://org/net@/x"]
)
def test_what_is_no_model_of_a_hub(ckpt: Run, hub: Hub, url: str) -> None:
    ran = ckpt("show", url)
    assert (ran.code, "not a model of a hub" in ran.err, hub.web.asked) == (2, True, [])


def test_what_the_repository_does_not_have(ckpt: Run, hub: Hub, files: dict[str, bytes]) -> None:
    hub.commit(REPO, files, "main")
    ran = ckpt("show", f"hf://{REPO}/confg.json")
    assert (ran.code, "hint:  config.json?" in ran.err) == (2, True)
    assert ckpt("show", f"hf://{REPO}@none").code == 2
    ran = ckpt("show", f"hf://{REPO}/tokenizer")
    assert (ran.code, "a folder without a checkpoint" in ran.err) == (3, True)


@pytest.mark.parametrize(
    "document",
    [
        b"[]",
        b"{",
        b'{"sha": "../../x", "siblings": []}',
        b'{"sha": "%s", "siblings": [{"rfilename": 3}]}' % (b"a" * 40),
        b'{"sha": "%s", "siblings": [{"rfilename": "x.pt", "size": -1}]}' % (b"a" * 40),
    ],
)
def test_fault_41_bad_answer_of_the_hub_is_refused(ckpt: Run, hub: Hub, document: bytes) -> None:
    hub.web.answers[f"api/models/{REPO}/revision/main"] = lambda _: document
    ran = ckpt("show", f"hf://{REPO}")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (7, "", 1)


@pytest.mark.parametrize("name", ["../x.json", "/etc/x", "a\x1b[31m", "a/..", "a//b"])
def test_fault_41_bad_names_write_nothing_outside(
    ckpt: Run, hub: Hub, folder: Path, name: str
) -> None:
    save_file(tensors(), folder / "x.safetensors")
    data = (folder / "x.safetensors").read_bytes()
    hub.commit(REPO, {"x.safetensors": data, name: b"{}"}, "main")
    ran = ckpt("rename", f"hf://{REPO}", "--rule", "layers=blocks", "-o", "new")
    assert "\x1b" not in ran.out + ran.err
    if ran.code == 0:  # hidden files are left out
        assert [path.name for path in Path("new").rglob("*")] == ["x.safetensors"]
    else:
        assert not Path("new").exists()
    assert {path.name for path in folder.iterdir()} <= {"x.safetensors", "new"}
