"""Versions in a real registry: Docker's, read by `oras` and copied by `skopeo`."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckpt as package
from tests.cli.support import Run, weights
from tests.remote.oci.conftest import NAME, PASSWORD
from tests.remote.oci.made import Made, archive

STATE = {"a.weight": torch.arange(60_000.0).reshape(200, 300), "b": torch.ones(3)}


@pytest.fixture
def net(ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`net` v1 with a message, a metric and a note; an empty folder `there`."""
    monkeypatch.setenv("CKPT_AUTHOR", "Ann")
    save_file(STATE, "net.safetensors")
    ran = ckpt("register", "net.safetensors", "-m", "as trained", "--metric", "accuracy=0.9")
    assert ran.code == 0
    assert ckpt("note", "v1", "-m", "as shipped").code == 0
    assert ckpt("metric", "v1", "robustness=0.7").code == 0
    (folder / "there").mkdir()
    return ckpt


def there(run: Run, *words: str) -> Run:
    return run(*words, "--registry", "there")


def test_what_is_printed(net: Run, repository: str) -> None:
    first = net("export", "v1", "-o", f"{repository}:v1")
    line, digest = first.out.splitlines()
    assert (first.code, first.err) == (0, "")
    assert line == f"wrote {repository}:v1  3 layers, 242.3 kB, all of them sent"
    again = net("export", "v1", "-o", f"{repository}:v1")
    assert (again.code, again.err) == (0, "")
    assert again.out == f"{repository}:v1 is this version already\n{digest}\n"
    imported = there(net, "import", f"{repository}:v1", "--name", "mine")
    made = package.Registry().version("v1").created[:10]
    assert imported.out == (
        "from    version    made\n"
        "------  ---------  ----------  ---\n"
        f"v1      v1         {made}  new\n"
        "\n"
        "added 1 version of mine\n"
    )
    assert imported.err.splitlines()[1:] == [f"{repository}:v1 is {digest}"]
    assert there(net, "import", f"{repository}@{digest}", "--name", "mine").out.endswith(
        "added 0 versions of mine, 1 known already\n"
    )


def test_tag_of_something_else_is_moved_only_by_force(net: Run, repository: str) -> None:
    assert net("rename", "v1", "--rule", "a=c").code == 0
    first = net("export", "v1", "-o", f"{repository}:prod", "--json").data
    refused = net("export", "v2", "-o", f"{repository}:prod")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        f"error: {repository}:prod already exists, and is something else: {first['digest'][:15]}\n"
        "hint:  name another tag; --force  moves this one\n"
    )
    assert net("export", "v1", "-o", f"{repository}:prod", "--json").data["was_there"]
    moved = net("export", "v2", "-o", f"{repository}:prod", "--force", "--json").data
    assert moved["digest"] != first["digest"]
    assert 0 < moved["sent"] <= moved["size"]
    by_digest = there(net, "import", f"{repository}@{first['digest']}")
    assert by_digest.code == 0
    assert there(net, "pin", "net:v1").out == net("pin", "v1").out


def test_blobs_that_are_there_are_not_sent_again(net: Run, repository: str) -> None:
    net("export", "v1", "-o", f"{repository}:v1")
    assert net("note", "v1", "-m", "another").code == 0
    second = net("export", "v1", "-o", f"{repository}:noted", "--json").data
    assert 0 < second["sent"] < 2000
    assert second["size"] > 240_000


def test_import_has_the_same_digest_record_and_words(net: Run, repository: str) -> None:
    digest = net("export", "v1", "-o", f"{repository}:v1", "--json").data["digest"]
    ran = there(net, "import", f"{repository}:v1", "--json")
    assert ran.code == 0
    assert ran.data["resolved"] == f"{repository}@{digest}"
    assert there(net, "verify").code == 0
    ours, theirs = (net("show", "v1", "--json").data, there(net, "show", "v1", "--json").data)
    assert theirs["record"] == ours["record"]
    assert theirs["record"]["message"] == "as trained"
    assert there(net, "ls", "--json").data[0]["metrics"] == {"accuracy": 0.9, "robustness": 0.7}
    note, metric, copied = theirs["history"]
    assert (note["message"], metric["metrics"]) == ("as shipped", {"robustness": 0.7})
    pinned = net("pin", "v1").out.strip()
    identity = json.loads(Path("registry.json").read_text())["id"]
    assert copied["origin"] == {"registry": identity, "version": "net:v1", "manifest": pinned}
    assert copied["message"] == f"{repository}@{digest}"
    assert there(net, "pin", "v1").out.strip() == pinned


def sharded(folder: Path) -> str:
    """Two shards with an index, a configuration, a licence, and a class."""
    place = folder / "big"
    place.mkdir()
    save_file({"a": torch.rand(50, 40)}, place / "model-00001-of-00002.safetensors")
    save_file({"b": torch.rand(60, 40)}, place / "model-00002-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"metadata": {"total_size": 17_600}, "weight_map": shards}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    (place / "config.json").write_text('{"hidden": 40}')
    (place / "LICENSE").write_text("as you like")
    (place / "tokenizer").mkdir()
    (place / "tokenizer" / "empty.txt").write_bytes(b"")
    return str(package.register(place, name="m").version.ref)


def training(folder: Path) -> str:
    """One state_dict of a training checkpoint, with tied and strided tensors."""
    shared = torch.rand(30, 50)
    state = {"w": shared, "tied": shared, "turned": torch.rand(40, 60).t(), "half": shared[:4]}
    torch.save({"model": state, "epoch": 3, "ema": {"w": torch.zeros(2)}}, folder / "run.pt")
    return str(package.register("run.pt::model", name="m").version.ref)


def renamed(folder: Path) -> str:
    torch.save(weights(), folder / "old.pt")
    package.register("old.pt", name="m", definition_source="# a class\n" * 1000)
    assert package.rename("m:v1", rules=["conv->embed"])
    return "m:v2"


def defined(folder: Path) -> str:
    torch.save(weights(), folder / "old.pt")
    source = "# a class\n" * 1000
    return str(package.register("old.pt", name="m", definition_source=source).version.ref)


def distributed(folder: Path) -> str:
    from torch.distributed.checkpoint import FileSystemWriter, save

    save({"w": torch.rand(50, 40)}, storage_writer=FileSystemWriter(folder / "dcp"), no_dist=True)
    return str(package.register(folder / "dcp", name="m").version.ref)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [sharded, training, renamed, defined, distributed])
def test_every_kind_of_version_comes_back_byte_for_byte(
    ckpt: Run, folder: Path, repository: str, make: Callable[[Path], str]
) -> None:
    ref = make(folder)
    (folder / "there").mkdir()
    assert ckpt("export", ref, "-o", f"{repository}:v1").code == 0
    ran = there(ckpt, "import", f"{repository}:v1", "--name", "m")
    assert (ran.code, ran.err.splitlines()[2:]) == (0, [])
    assert there(ckpt, "pin", "m:v1").out == ckpt("pin", ref).out
    assert there(ckpt, "verify").code == 0
    suffix = "" if make in (sharded, distributed) else ".pt"
    one, two = folder / f"one{suffix}", folder / f"two{suffix}"
    assert ckpt("export", ref, "-o", str(one)).code == 0
    assert there(ckpt, "export", "m:v1", "-o", str(two)).code == 0
    assert files_of(one) == files_of(two)


def files_of(path: Path) -> dict[str, bytes]:
    found = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return {str(each.relative_to(path)): each.read_bytes() for each in found if each.is_file()}


def test_oras_reads_what_ckpt_wrote(ckpt: Run, folder: Path, repository: str) -> None:
    from oras.client import OrasClient

    ref = sharded(folder)
    digest = ckpt("export", ref, "-o", f"{repository}:v1", "--json").data["digest"]
    place = repository.removeprefix("oci://")
    client = OrasClient(insecure=True)
    client.pull(target=f"{place}:v1", outdir=str(folder / "pulled"))
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        pulled, ours = load_file(folder / "pulled" / name), load_file(folder / "big" / name)
        assert pulled.keys() == ours.keys()
        assert all(torch.equal(pulled[key], ours[key]) for key in ours)
    assert (folder / "pulled" / "config.json").read_text() == '{"hidden": 40}'
    manifest = client.get_manifest(f"{place}@{digest}")
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    kinds = {
        each["annotations"]["org.cncf.model.filepath"]: each["mediaType"].split(".model.")[1]
        for each in manifest["layers"]
    }
    assert kinds["LICENSE"] == "doc.v1.raw"
    assert kinds["config.json"] == "weight.config.v1.raw"
    assert kinds["model-00001-of-00002.safetensors"] == "weight.v1.raw"
    config = client.get_blob(f"{place}", manifest["config"]["digest"]).json()
    assert config["modelfs"]["diffIds"] == [each["digest"] for each in manifest["layers"]]
    assert (config["descriptor"]["name"], config["descriptor"]["version"]) == ("m", "v1")


def test_copy_by_skopeo_is_the_same_version(net: Run, folder: Path, repository: str) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    net("export", "v1", "-o", f"{repository}:v1")
    first, image = repository.replace("oci://", "docker://"), f"oci:{folder}/image:v1"
    for words in (
        ("--src-tls-verify=false", f"{first}:v1", image),
        ("--dest-tls-verify=false", image, f"{first}-copied:v7"),
    ):
        done = subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests", *words],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    ran = there(net, "import", f"{repository}-copied:v7", "--name", "net")
    assert ran.code == 0, ran.err
    assert there(net, "pin", "v1").out == net("pin", "v1").out


def test_artifact_of_another_tool_is_imported(ckpt: Run, folder: Path, repository: str) -> None:
    """Several weights, as files and in an archive, as `modctl` packs them."""
    sharded(folder)
    big, made = folder / "big", Made()
    made.config["descriptor"] |= {
        "createdAt": "2025-01-02T03:04:05.123456789Z",
        "description": "a net",
        "authors": ["xyz@xyz.com"],
    }
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    made.add("weight.v1.raw", first, (big / first).read_bytes())
    made.add("weight.v1.tar", second, archive({second: (big / second).read_bytes()}))
    index = "model.safetensors.index.json"
    made.add("weight.config.v1.raw", index, (big / index).read_bytes())
    more = {"config.json": b'{"hidden": 40}', "tokenizer/merges.txt": b"a b"}
    made.add("weight.config.v1.tar", None, archive(more))
    made.add("doc.v1.raw", "README.md", b"# net")
    made.add("dataset.v1.tar", "data", archive({"x.csv": b"1"}))
    address = made.send(repository, "v1")
    assert there(ckpt, "import", address).code == 2  # there is no such folder yet
    (folder / "there").mkdir()
    ran = there(ckpt, "import", address, "--name", "net")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[-1] == "left out: data"
    assert there(ckpt, "export", "net:v1", "-o", "back").code == 0
    for name in (first, second, index):
        assert (folder / "back" / name).read_bytes() == (big / name).read_bytes()
    assert (folder / "back" / "tokenizer" / "merges.txt").read_bytes() == b"a b"
    assert (folder / "back" / "README.md").read_bytes() == b"# net"
    (version,) = there(ckpt, "ls", "--json").data
    assert (version["message"], version["created"]) == ("a net", "2025-01-02T03:04:05+00:00")
    record = there(ckpt, "show", "net:v1", "--json").data["record"]
    assert record["source"]["oci"] == ran_resolved(ckpt, address)
    assert record["by"]["author"] == "xyz@xyz.com"


def ran_resolved(ckpt: Run, address: str) -> str:
    again = there(ckpt, "import", address, "--name", "net", "--json").data
    assert again["items"][0]["did"] == "known"
    return str(again["resolved"])


def test_one_file_of_another_tool_is_imported(ckpt: Run, folder: Path, repository: str) -> None:
    torch.save(weights(), folder / "old.pt")
    made = Made().add("weight.v1.raw", "old.pt", (folder / "old.pt").read_bytes())
    ran = ckpt("import", made.send(repository, "v1"))
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "added 1 version of net")
    assert ckpt("export", "net:v1", "-o", "back.pt").code == 0
    assert (folder / "back.pt").read_bytes() == (folder / "old.pt").read_bytes()


def test_dry_run_writes_and_fetches_nothing(net: Run, folder: Path, repository: str) -> None:
    net("export", "v1", "-o", f"{repository}:v1")
    ran = there(net, "import", f"{repository}:v1", "--dry-run")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "would add 1 version of net")
    assert not any((folder / "there").iterdir())


def test_registry_that_wants_a_password(net: Run, locked: tuple[str, Path]) -> None:
    repository, settings = locked
    host = repository.removeprefix("oci://").partition("/")[0]
    refused = net("export", "v1", "-o", f"{repository}:v1")
    assert (refused.code, refused.out) == (7, "")
    assert refused.err == (
        f"error: {repository}: the server refuses it (401)\n"
        f"hint:  docker login {host}  keeps a password; ckpt uses it too\n"
    )
    for password, code in (("wrong", 7), (PASSWORD, 0)):
        log_in(settings, host, password)
        for ran in (
            net("export", "v1", "-o", f"{repository}:v1"),
            there(net, "import", f"{repository}:v1"),
        ):
            assert ran.code == code, ran.err
            assert PASSWORD not in ran.out + ran.err


def log_in(settings: Path, host: str, password: str) -> None:
    from oras.auth.utils import get_basic_auth

    auth = {"auths": {host: {"auth": get_basic_auth(NAME, password)}}}
    (settings / "config.json").write_text(json.dumps(auth))


def test_password_that_a_program_keeps(
    net: Run, locked: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, settings = locked
    host = repository.removeprefix("oci://").partition("/")[0]
    program = folder / "docker-credential-mine"
    kept = json.dumps({"ServerURL": host, "Username": NAME, "Secret": PASSWORD})
    program.write_text(f"#!/bin/sh\nread host\n[ \"$host $1\" = '{host} get' ] && echo '{kept}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    (settings / "config.json").write_text(json.dumps({"credHelpers": {host: "mine"}}))
    assert net("export", "v1", "-o", f"{repository}:v1").code == 0
    (settings / "config.json").write_text(json.dumps({"credsStore": "absent"}))
    ran = net("export", "v1", "-o", f"{repository}:v1")
    assert (ran.code, ran.err.splitlines()[0]) == (
        5,
        "error: docker-credential-absent: FileNotFoundError",
    )


ADDRESS = "oci://ghcr.io/team/net"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (f"push v1 {ADDRESS}:v1", 2, "to write one:  ckpt export REF -o oci://HOST/TEAM/MODEL:TAG"),
        (f"pull {ADDRESS}:v1", 2, "ckpt import oci://HOST/TEAM/MODEL:TAG  makes a version of it"),
        (f"show {ADDRESS}:v1", 2, "ckpt import oci://HOST/TEAM/MODEL:TAG  makes a version of it"),
        (
            f"register {ADDRESS}:v1",
            2,
            "ckpt import oci://HOST/TEAM/MODEL:TAG  makes a version of it",
        ),
        (f"export v1 -o {ADDRESS}", 2, f"no tag\nhint:  e.g. {ADDRESS}:v1"),
        (f"export v1 -o {ADDRESS}@sha256:{'0' * 64}", 2, f"hint:  -o {ADDRESS}:v1"),
        (f"export net.safetensors -o {ADDRESS}:v1", 2, "hint:  ckpt register FILE  makes one"),
        (f"export v1 -o {ADDRESS}:v1 --card", 2, "are for files, not for a URL"),
        (f"export v1 -o {ADDRESS}:v1 --meta a=b", 2, "are for files, not for a URL"),
        ("export v1 -o s3://bucket/net", 2, "expected a path or oci://HOST/TEAM/MODEL:TAG"),
        (f"import {ADDRESS}:v1 --by-name", 2, "--from and --by-name are not for oci://"),
        (f"import {ADDRESS}.pt:v1", 2, "refs would read it as a file"),
    ],
)
def test_mistakes_are_refused_with_what_to_type(net: Run, words: str, code: int, said: str) -> None:
    ran = net(*words.split())
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
