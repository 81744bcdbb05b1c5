"""`ckpt sign` and `ckpt verify --signed`; case 42 of docs/faults.md: signatures of another one."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckpt as package
from ckpt.errors import ConflictError, UsageError
from ckpt.io import digest
from ckpt.ops import sign as ops_sign
from tests.cli.support import Git, Ran, Run, commit, register_seeds, save
from tests.signing.keys import write_pair


@pytest.fixture
def net(ckpt: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`net` v1 and v2, of which v2 is signed with `private.pem`."""
    monkeypatch.setenv("CKPT_AUTHOR", "Ann")
    monkeypatch.delenv("CKPT_KEY_PASSPHRASE", raising=False)
    write_pair(folder)
    register_seeds(ckpt, folder, 1, 2)
    assert ckpt("sign", "v2", "--key", "private.pem").code == 0
    return ckpt


def verdicts(run: Run, *refs: str, key: Path | str = "public.pem") -> dict[str, str]:
    """The verdict on each version, with the reason if there is one."""
    ran = run("verify", "--signed", "--key", str(key), "--json", *refs)
    found = {
        f"{each['model']}:{each['version']}": ": ".join(
            filter(None, [each["verdict"], each["why"]])
        )
        for each in ran.data
    }
    assert (ran.code, ran.err) == (0 if {*found.values()} == {"signed"} else 4, "")
    return found


def document(folder: Path) -> Any:
    return json.loads((folder / "registry.json").read_text())


def write(folder: Path, index: object) -> None:
    (folder / "registry.json").write_text(json.dumps(index))


def signature_of(index: Any, model: str = "net") -> Any:
    (event,) = (each for each in index["models"][model]["log"] if each["did"] == "sign")
    return event


def test_signed_version_is_told_from_an_unsigned_one(net: Run, folder: Path) -> None:
    manifest, key = package.pin("v2").manifest, package.sign("v2", "private.pem").key
    ran = net("verify", "--signed", "--key", "public.pem")
    assert (ran.code, ran.err) == (4, "")
    assert ran.out == (
        "version    signature\n"
        "---------  -----------  -----------------------------\n"
        f"net:v2     signed       with public.pem, key {key[:8]}\n"
        "net:v1     unsigned\n"
        "\n"
        "1 of 2 versions signed\n"
    )
    ran = net("verify", "--signed", "--key", "public.pem", "v2", "net:v2", "net")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "1 of 1 version signed")
    ran = net("sign", "v1", "--key", "private.pem")
    short = digest.short(package.pin("v1").manifest)
    assert ran.out == f"signed net:v1  {short}  with the key {key[:8]}\n"
    assert verdicts(net) == {"net:v2": "signed", "net:v1": "signed"}
    bundle = document(folder)["models"]["net"]["log"][0]["bundle"]
    assert net("sign", "v2", "--key", "private.pem", "--json").data == {
        "model": "net",
        "version": "v2",
        "manifest": manifest,
        "key": key,
        "new": False,
        "bundle": bundle,
    }


def test_step_that_runs_twice_signs_once(net: Run, folder: Path) -> None:
    before = (folder / "registry.json").read_bytes()
    ran = net("sign", "v2", "--key", "private.pem")
    assert (ran.code, ran.out.endswith(" already\n")) == (0, True)
    assert (folder / "registry.json").read_bytes() == before
    write_pair(folder, "bob-")
    assert verdicts(net, "v2", key="bob-public.pem")["net:v2"].startswith("other key: signed with")
    assert net("sign", "v2", "--key", "bob-private.pem").out.startswith("signed net:v2")
    assert verdicts(net, "v2", key="bob-public.pem") == {"net:v2": "signed"}
    assert verdicts(net, "v2") == {"net:v2": "signed"}
    ran = net("verify", "--signed", "--key", "bob-public.pem", "--key", "public.pem", "net:v2")
    assert (ran.code, "with bob-public.pem" in ran.out) == (0, True)


def test_signature_is_shown_as_something_that_was_not_checked(net: Run) -> None:
    key = package.sign("v2", "private.pem").key[:8]
    for command in ("show", "log"):
        assert f"by Ann: key {key}, not checked here\n" in net(command, "v2").out
    assert f"net:v2  sign  Ann  key {key}\n" in net("git-driver", "text", "registry.json").out
    history = net("show", "v2", "--json").data["history"]
    assert history[0]["bundle"] == package.sign("v2", "private.pem").bundle


def move_to_v1(index: Any) -> str:
    event, line = signature_of(index), index["models"]["net"]["versions"]["v1"]
    event.update(version="v1", manifest=line["manifest"])
    return "net:v1"


def exchange_numbers(index: Any) -> str:
    lines = index["models"]["net"]["versions"]
    lines["v1"], lines["v2"] = lines["v2"], lines["v1"]
    return "net:v1"


def exchange_manifest(index: Any) -> str:
    lines = index["models"]["net"]["versions"]
    lines["v2"] = lines.pop("v1")
    signature_of(index)["manifest"] = lines["v2"]["manifest"]
    return "net:v2"


def claim_another_manifest(index: Any) -> str:
    """The unsigned manifest with the signed one as another of the same bytes."""
    lines = index["models"]["net"]["versions"]
    signed = lines.pop("v2")["manifest"]
    lines["v2"] = {**lines.pop("v1"), "also": [signed]}
    return "net:v2"


def rename_model(index: Any) -> str:
    index["models"]["digits"] = index["models"].pop("net")
    return "digits:v2"


def move_to_a_higher_number(index: Any) -> str:
    model = index["models"]["net"]
    model["versions"]["v3"] = model["versions"].pop("v2")
    model["next"] = 4
    return "net:v3"


FORGERIES: list[tuple[Callable[[Any], str], str]] = [
    (move_to_v1, "wrong: the signature is for net:v2"),
    (exchange_numbers, "wrong: the signature is for net:v2"),
    (exchange_manifest, "wrong: the signature is for another manifest, "),
    (claim_another_manifest, "wrong: the signature is for another manifest, "),
    (rename_model, "wrong: the signature is for net:v2"),
    (move_to_a_higher_number, "wrong: the signature is for net:v2"),
]


@pytest.mark.parametrize(("forge", "says"), FORGERIES, ids=lambda it: getattr(it, "__name__", ""))
def test_fault_42_valid_signature_of_something_else_is_refused(
    net: Run, folder: Path, forge: Callable[[Any], str], says: str
) -> None:
    index = document(folder)
    ref = forge(index)
    write(folder, index)
    assert net("show", ref).code == 0, "without signatures nobody would notice"
    assert verdicts(net, ref)[ref].startswith(says)
    ran = net("verify", "--signed", "--key", "public.pem", ref)
    assert (ran.code, ran.err) == (4, "")
    (line,) = (line for line in ran.out.splitlines() if line.startswith(ref))
    assert says.removeprefix("wrong: ") in line


def test_fault_42_signature_of_another_registry_of_the_same_names_is_refused(
    net: Run, folder: Path
) -> None:
    """The same model, number and key, other bytes: an older state of the registry, say."""
    bundle = signature_of(document(folder))["bundle"]
    (folder / "other").mkdir()
    register = ("register", "net.pt", "--registry", "other")
    for seed in (4, 5):
        save(folder / "net.pt", seed)
        assert net(*register).code == 0
    assert net("sign", "v2", "--key", "private.pem", "--registry", "other").code == 0
    index = document(folder / "other")
    signature_of(index)["bundle"] = bundle
    write(folder / "other", index)
    there = verdicts(lambda *words: net(*words, "--registry", "other"), "net:v2")
    assert there["net:v2"].startswith("wrong: the signature is for another manifest, ")


def test_fault_42_changed_bytes_of_the_manifest_are_refused(net: Run, folder: Path) -> None:
    name = package.pin("v2").manifest.removeprefix("sha256:")
    path = folder / ".ckpt" / "manifests" / name[:2] / name[2:]
    good = path.read_bytes()
    path.chmod(0o644)
    for at in range(0, len(good), max(len(good) // 16, 1)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert verdicts(net, "v2")["net:v2"].startswith("wrong: net:v2: "), at
    path.unlink()
    assert verdicts(net, "v2")["net:v2"].startswith("wrong: net:v2: ")
    path.write_bytes(good)
    assert verdicts(net, "v2") == {"net:v2": "signed"}


def test_one_good_signature_is_enough_and_others_do_not_matter(net: Run, folder: Path) -> None:
    index = document(folder)
    log = index["models"]["net"]["log"]
    for at in ("2000-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"):
        broken = copy.deepcopy(log[0])
        broken["at"] = at
        broken["bundle"]["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
        log.append(broken)
    write(folder, index)
    assert verdicts(net, "v2") == {"net:v2": "signed"}
    del log[0]
    write(folder, index)
    assert verdicts(net, "v2")["net:v2"].startswith("wrong: what is signed, or the signature, has")
    for bundle in ({}, {"a": [{}]}, {"dsseEnvelope": None}):
        log[:] = [{**log[0], "bundle": bundle}]
        write(folder, index)
        assert verdicts(net, "v2") == {"net:v2": "wrong: not a signature as ckpt writes it"}


def test_signature_stays_through_everything_that_keeps_its_version(net: Run, folder: Path) -> None:
    def is_signed() -> bool:
        return verdicts(net, "v2") == {"net:v2": "signed"}

    assert net("verify").code == net("fsck").code == net("du").code == 0
    assert net("gc", "--yes", "--grace", "0s").out.startswith("nothing to remove"), (
        "it is no object"
    )
    assert net("rm", "v2", "--yes").code == 0
    ran = net("verify", "--signed", "--key", "public.pem", "v2")
    assert (ran.code, "net:v2 was removed" in ran.err) == (2, True)
    assert net("restore", "v2").code == 0
    assert is_signed()
    assert net("alias", "prod", "v2").code == net("undo").code == 0
    assert is_signed()
    writes = net("undo", "--list", "--json").data
    (name,) = (each["write_id"] for each in writes if each["what"] == "sign net:v2")
    ran = net("undo", name)
    assert (ran.code, "changed no version, alias or tag" in ran.err) == (2, True)
    (folder / "registry.json").unlink()
    assert net("fsck", "--rebuild-index", "--yes").code == 0
    assert is_signed()


def test_history_that_is_full_of_changes_keeps_signatures(net: Run, folder: Path) -> None:
    index = document(folder)
    log = index["models"]["net"]["log"]
    change = {"at": "2100-01-01T00:00:00+00:00", "by": log[0]["by"], "did": "untag"}
    log += [{**change, "name": f"t{number}"} for number in range(1001)]
    write(folder, index)
    assert net("alias", "prod", "v1").code == 0
    assert len(document(folder)["models"]["net"]["log"]) == 1001
    assert verdicts(net, "v2") == {"net:v2": "signed"}


def test_signatures_go_with_a_push_a_pull_and_a_clone(
    net: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = folder / "public.pem"
    url = (folder / "remote").as_uri()
    assert net("remote", "add", "origin", url).code == 0
    assert net("push").code == 0
    assert net("clone", url, "bob").code == 0
    monkeypatch.chdir(folder / "bob")
    assert verdicts(net, "v2", key=key) == {"net:v2": "signed"}, "without tensors"
    assert net("sign", "v1", "--key", str(folder / "private.pem")).code == 0
    assert net("push").code == 0
    monkeypatch.chdir(folder)
    assert net("pull").code == 0
    assert verdicts(net) == {"net:v2": "signed", "net:v1": "signed"}
    assert net("evict", "v2").code == 0
    assert verdicts(net, "v2") == {"net:v2": "signed"}


def test_merge_keeps_signatures_and_a_new_number_needs_a_new_one(
    shared: Run, git: Git, folder: Path
) -> None:
    write_pair(folder)
    (folder / ".gitignore").write_text("*.pt\n*.pem\n")
    for branch, seed, signed in (("main", 3, "net:v1"), ("other", 4, "net:v2")):
        git("checkout", "-q", branch)
        register_seeds(shared, folder, seed)
        for ref in (signed, "net:v3"):
            assert shared("sign", ref, "--key", "private.pem").code == 0
        commit(git)
    git("merge", "-q", "--no-edit", "main")
    shared("ls")  # the first command says which number has moved, if it is one of this branch
    found = verdicts(shared)
    moved = "wrong: the signature is for net:v3"
    assert found.pop("net:v4") == moved
    assert found == dict.fromkeys(["net:v1", "net:v2", "net:v3"], "signed")
    assert shared("sign", "net:v4", "--key", "private.pem").code == 0
    assert {*verdicts(shared).values()} == {"signed"}


def test_copy_has_no_signature_since_its_name_and_number_are_others(net: Run, folder: Path) -> None:
    assert net("note", "v2", "-m", "shipped").code == 0
    (folder / "other").mkdir()
    assert net("copy", "v2", "other").code == 0
    said = net("show", "v1", "--json", "--registry", "other").data["history"]
    assert [each["did"] for each in said] == ["note", "copy"]


def test_passphrase_comes_from_the_environment(
    net: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(folder, passphrase="secret")
    words = ("sign", "v1", "--key", "private.pem")
    assert net(*words).err == (
        "error: private.pem: the key has a passphrase\nhint:  set CKPT_KEY_PASSPHRASE to it\n"
    )
    for passphrase, code in (("wrong", 2), ("", 2), ("secret", 0)):
        monkeypatch.setenv("CKPT_KEY_PASSPHRASE", passphrase)
        ran = net(*words)
        assert (ran.code, "secret" in ran.out + ran.err) == (code, False), passphrase
    assert verdicts(net, "v1") == {"net:v1": "signed"}


BAD = [
    (("sign", "v9", "--key", "private.pem"), "net has no v9"),
    (("sign", "v1", "--key", "none.pem"), "none.pem"),
    (("sign", "v1", "--key", "public.pem"), "a public key, expected a private one"),
    (("sign", "v1"), "--key"),
    (("verify", "--signed"), "--signed needs a public key"),
    (("verify", "--key", "public.pem"), "--key goes with --signed"),
    (("verify", "v1"), "versions can be named only with --signed"),
    (("verify", "--signed", "--key", "private.pem"), "a private key, expected a public one"),
    (("verify", "--signed", "--key", "public.pem", "v9"), "net has no v9"),
    (("verify", "--signed", "--key", "public.pem", "--repair", "."), "exclude each other"),
]


@pytest.mark.parametrize(("line", "says"), BAD, ids=[says for _, says in BAD])
def test_mistakes_are_one_line_and_change_nothing(
    net: Run, folder: Path, line: tuple[str, ...], says: str
) -> None:
    before = (folder / "registry.json").read_bytes()
    ran = net(*line)
    assert (ran.code, ran.out, says in ran.err) == (2, "", True), ran.err
    assert (folder / "registry.json").read_bytes() == before


def test_no_versions_and_no_registry_are_not_signed(net: Run, folder: Path) -> None:
    words = ("verify", "--signed", "--key", "public.pem", "--registry", "other")
    (folder / "other").mkdir()
    assert net(*words).code == 2
    assert net("registry", "init", "--registry", "other").code == 0
    ran: Ran = net(*words)
    assert (ran.code, "the registry has no versions" in ran.err) == (2, True)
    with pytest.raises(UsageError, match="no key"):
        package.verify_signatures([])


def test_alias_that_moves_while_it_is_signed_signs_nothing(
    net: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.alias("prod", "net:v1")
    make = ops_sign.make_bundle

    def slowly(*arguments: Any) -> Any:
        package.alias("prod", "net:v2")
        return make(*arguments)

    monkeypatch.setattr(ops_sign, "make_bundle", slowly)
    with pytest.raises(ConflictError, match="net@prod was net:v1 and is net:v2 now"):
        package.sign("net@prod", "private.pem")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert verdicts(net, "v1") == {"net:v1": "unsigned"}
