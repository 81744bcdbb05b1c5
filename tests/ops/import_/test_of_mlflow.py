"""`ckpt import mlflow:…`, beside what MLflow itself says of a store that it has filled."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import ckpt as package
from ckpt.errors import FormatError
from ckpt.ops.import_ import tracking
from ckpt.ops.import_.of_mlflow import chosen
from tests.cli.support import Run, tree

needed = pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
ROOT = Path(__file__).parents[3]
NOT_IMPORTED = {
    5: "a zip archive without the data.pkl of a torch file",
    6: "no checkpoint among its artifacts: MLmodel, model.pkl",
    7: "2 checkpoints among its artifacts: a.pt, b.pt",
    8: "data/model.pt2 is a torch.export archive, which contains a program; log the state_dict, "
    "or the model with serialization_format='pickle'",
    10: "runs code when unpickled: ",
}


@pytest.fixture(scope="module", params=["sqlite", "folder"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, whose URI is in `uri`, and what MLflow says of it."""
    where = tmp_path_factory.mktemp(request.param)
    uri = f"sqlite:///{where}/mlflow.db" if request.param == "sqlite" else f"file:{where}/store"
    (where / "uri").write_text(uri)
    subprocess.run(
        [sys.executable, "-m", "tests.ops.import_.mlflow_store", str(where)],
        cwd=where, check=True, capture_output=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return where


def uri_of(filled: Path) -> str:
    return (filled / "uri").read_text()


def imported(ckpt: Run, filled: Path, *words: str) -> Any:
    ran = ckpt("import", "mlflow:models/net", "--from", uri_of(filled), *words, "--json")
    assert ran.code == 3
    return ran.data


def labels(data: Any) -> dict[int, str]:
    """Our label of each of MLflow's versions."""
    return {int(it["name"].split()[1]): it["version"] for it in data["items"] if it["version"]}


@needed
def test_versions_are_what_mlflow_says(ckpt: Run, filled: Path) -> None:
    said = json.loads((filled / "said.json").read_text())
    before = tree(filled)
    data = imported(ckpt, filled)
    assert labels(data) == {1: "v1", 2: "v2", 3: "v2", 9: "v3"}
    for number, label in ((1, "v1"), (2, "v2")):
        theirs = torch.load(filled / f"{number}.pt", weights_only=True)
        ours = package.load(f"net:{label}")
        assert list(ours) == list(theirs)
        assert all(
            ours[key].numpy().tobytes() == it.numpy().tobytes() for key, it in theirs.items()
        )
    for number, label in ((1, "v1"), (2, "v2"), (9, "v3")):
        theirs, shown = said["versions"][str(number)], package.show(f"net:{label}")
        version, record = shown.version, shown.record
        assert version is not None
        assert record is not None
        assert dict(version.metrics) == theirs["metrics"]
        assert version.message == theirs["description"]
        made = datetime.fromtimestamp(theirs["made"] // 1000, UTC).isoformat(timespec="seconds")
        assert version.created == made
        assert record["by"] == {"author": theirs["user"], "host": ""}
        assert record.get("params", {}) == theirs["params"]
        assert record["source"]["version"] == number
        assert record["source"]["run"] == theirs["run"]
    aliases = {each.name: each.version for each in package.aliases()}
    assert aliases == {name: labels(data)[it] for name, it in said["aliases"].items() if it != 5}
    assert tree(filled) == before
    assert not Path("it-ran").exists()
    assert not Path("mlruns").exists()


@needed
@pytest.mark.long
def test_second_import_changes_nothing(ckpt: Run, filled: Path) -> None:
    first = imported(ckpt, filled)
    before = Path("registry.json").read_bytes()
    again = imported(ckpt, filled)
    assert Path("registry.json").read_bytes() == before
    assert labels(again) == labels(first)
    assert {it["did"] for it in again["items"]} == {"known", "left"}
    assert ckpt("rm", "net:v1", "--yes").code == 0
    assert imported(ckpt, filled)["items"][0]["did"] == "removed"


@needed
@pytest.mark.long
def test_import_goes_on_after_the_versions_that_are_here(ckpt: Run, filled: Path) -> None:
    """As one that was interrupted after its first version leaves the registry."""
    imported(ckpt, filled)
    document = json.loads(Path("registry.json").read_text())
    net = document["models"]["net"]
    kept = {"v1": net["versions"]["v1"]}
    whole = (labels(imported(ckpt, filled)), net["versions"].keys())
    document["models"]["net"] = {"next": 2, "aliases": {}, "versions": kept}
    Path("registry.json").write_text(json.dumps(document))
    rest = imported(ckpt, filled)
    assert rest["items"][0]["did"] == "known"
    assert (labels(rest), {each.label for each in package.Registry().versions()}) == whole


@needed
@pytest.mark.long
def test_what_people_see(ckpt: Run, filled: Path) -> None:
    words = ("import", "mlflow:models/net", "--from", uri_of(filled))
    planned = ckpt(*words, "--dry-run")
    assert planned.code == 3
    assert not Path("registry.json").exists()
    assert "nothing was downloaded; versions of the same bytes become one\n" in planned.err
    ran = ckpt(*words)
    for number, why in NOT_IMPORTED.items():
        assert f"not imported: version {number}: {why}" in ran.err
    assert "version 2: not metrics here: worst nan\n" in ran.err
    assert "version 2: kept in the record, and not tags here: said by\n" in ran.err
    assert "alias broken points to version 5, which is not here\n" in ran.err
    assert ran.out.endswith("added 3 versions of net, 1 of the same bytes, 5 not imported\n")
    shown = ckpt("show", "net:v2")
    assert "\x1b" not in shown.out + ran.out + ran.err
    assert r"message   \x1b[31mred\u202e and\x0aa second line" in shown.out
    assert "tags      Production, quality-good, reviewed\n" in shown.out
    assert "version 3 of " in shown.out  # the note about the same bytes
    record = package.show("net:v2").record
    assert record is not None
    said = json.loads((filled / "said.json").read_text())
    assert record["source"]["tags"]["said by"] == said["tag"]


@needed
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "no registered model 'nothing'\nhint:  it has empty, my net, net\n"),
        ("empty", "registered model 'empty' has no versions\n"),
    ],
)
def test_model_that_has_nothing(ckpt: Run, filled: Path, name: str, said: str) -> None:
    ran = ckpt("import", f"mlflow:models/{name}", "--from", uri_of(filled))
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {uri_of(filled)}: {said}")


@needed
@pytest.mark.long
def test_name_that_is_not_one_here_needs_another(ckpt: Run, filled: Path) -> None:
    ran = ckpt("import", "mlflow:models/my net", "--from", uri_of(filled))
    assert (ran.code, ran.err) == (
        2,
        "error: 'my net' is not a valid name\nhint:  --name MODEL  gives it another one here\n",
    )


@needed
@pytest.mark.long
@pytest.mark.parametrize("filled", ["sqlite"], indirect=True)
def test_artifacts_that_are_gone_are_a_line_each(ckpt: Run, filled: Path, tmp_path: Path) -> None:
    shutil.copy(filled / "mlflow.db", tmp_path / "mlflow.db")
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("update model_versions set storage_location=NULL, source='/nothing/here'")
    database.commit()
    database.close()
    ran = ckpt("import", "mlflow:models/net", "--from", f"sqlite:///{tmp_path}/mlflow.db")
    assert ran.code == 3
    assert ran.err.count("not imported: version ") == 9
    assert not Path("registry.json").exists()


@needed
@pytest.mark.long
def test_server_that_does_not_answer_is_one_line(
    ckpt: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ran = ckpt("import", "mlflow:models/net", "--from", "http://ann:secret@127.0.0.1:9")
    assert (ran.code, ran.out) == (7, "")
    assert ran.err.startswith("error: http://…@127.0.0.1:9: ")
    assert ran.err.count("\n") == 1
    assert "secret" not in ran.err


@pytest.mark.parametrize(
    ("files", "file"),
    [
        (["MLmodel", "data/model.pth", "data/pickle_module_info.txt"], "data/model.pth"),
        (["state_dict.pth"], "state_dict.pth"),
        (["data/model.pth", "extra/best.pt"], "data/model.pth"),
        (["model/model.safetensors", "model/config.json"], "model/model.safetensors"),
        (["net.pth.tar"], "net.pth.tar"),
    ],
)
def test_file_of_the_weights(files: list[str], file: str) -> None:
    assert chosen(files) == file


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no checkpoint among its artifacts, which are gone"),
        (["a.pkl", *"bcdef"], "no checkpoint among its artifacts: a.pkl, b, c, d, e and 1 more"),
        (["data/model.pth", "state_dict.pth"], "2 checkpoints among its artifacts"),
    ],
)
def test_no_file_of_the_weights(files: list[str], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        chosen(files)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///mlflow.db", "no tracking store here\n"),
        ("sqlite:///text.db", "not an MLflow tracking store (file is not a database)\n"),
        ("sqlite:///other.db", "not an MLflow tracking store (no such table: registered_models)\n"),
        ("mlruns", "no tracking store here\n"),
        ("empty", "not an MLflow tracking store\n"),
        ("beside/mlruns", "no tracking store here\n"
         "hint:  --from sqlite:///beside/mlflow.db\n"),
    ],
)  # fmt: skip
def test_store_that_is_not_there_is_not_created(
    ckpt: Run,
    folder: Path,
    uri: str,
    said: str,
) -> None:
    (folder / "text.db").write_text("no database, and longer than its header" * 9)
    database = sqlite3.connect(folder / "other.db")
    database.execute("create table a (b)")
    database.close()
    (folder / "empty").mkdir()
    (folder / "beside").mkdir()
    (folder / "beside/mlflow.db").touch()
    before = tree(folder)
    ran = ckpt("import", "mlflow:models/net", "--from", uri)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {uri}: {said}")
    assert tree(folder) == before


def test_no_store_is_named(ckpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.URI, raising=False)
    ran = ckpt("import", "mlflow:models/net")
    assert (ran.code, ran.err) == (
        2,
        "error: no tracking store is named\nhint:  --from URI, or set MLFLOW_TRACKING_URI\n",
    )


@pytest.mark.parametrize("source", ["mlflow:net", "mlflow:models:/net", "models:/net/"])
def test_other_spellings_get_the_one_to_type(ckpt: Run, source: str) -> None:
    ran = ckpt("import", source)
    assert ran.code == 2
    assert ran.err.endswith("hint:  ckpt import mlflow:models/net\n")


def test_options_of_the_other_source_are_refused(ckpt: Run) -> None:
    ran = ckpt("import", "mlflow:models/net", "--by-name")
    assert (ran.code, ran.err.startswith("error: --by-name is for folders")) == (2, True)
    ran = ckpt("import", "folder:.", "--from", "http://host")
    assert (ran.code, ran.err) == (2, "error: --from is for mlflow:models/NAME, not for a folder\n")
