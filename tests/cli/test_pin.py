"""A digest names the same version whatever git does to its number."""

import json
from hashlib import sha256
from pathlib import Path

from tests.cli.support import Git, Run, commit, register_seeds


def test_digest_is_that_of_the_manifest(shared: Run, folder: Path) -> None:
    name = shared("pin", "net@prod").out.strip()
    hexadecimal = name.removeprefix("sha256:")
    path = folder / ".ckpt" / "manifests" / hexadecimal[:2] / hexadecimal[2:]
    assert sha256(path.read_bytes()).hexdigest() == hexadecimal
    assert shared("pin", "net:v1", "--json").data == {"ref": name, "model": "net", "version": "v1"}
    ran = shared("pin", "net:v9")
    assert (ran.code, ran.out, "net has no v9" in ran.err) == (2, "", True)


def test_digest_names_the_version_after_a_merge_moved_its_number(
    shared: Run, git: Git, folder: Path
) -> None:
    register_seeds(shared, folder, 3, 4)
    mine = {seed: shared("pin", f"net:v{seed}").out.strip() for seed in (3, 4)}
    commit(git)
    git("checkout", "-q", "other")
    register_seeds(shared, folder, 5, 3)
    commit(git)
    git("update-ref", "refs/remotes/origin/other", "other")
    git("checkout", "-q", "main")
    git("merge", "-q", "other", "-m", "m")
    document = json.loads((folder / "registry.json").read_text())
    for seed, name in mine.items():
        row = shared("pin", name, "--json").data
        line = document["models"]["net"]["versions"][row["version"]]
        assert line["message"] == f"seed {seed}"
        assert row["version"] != f"v{seed}" or line["manifest"] == name
    assert shared("pin", "net:v3", "--json").data["ref"] not in mine.values()
