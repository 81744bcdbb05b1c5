"""An MLflow tracking store, seen from outside the process that reads it.

MLflow imports numpy and pandas, and takes seconds to start; it sets up a store where there is none.
So it runs in a process of its own, after a look at whether the store is there.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from ckpt.errors import RefError, RemoteError, UsageError, excerpt
from ckpt.refs import path_of, without_secrets

URI = "MLFLOW_TRACKING_URI"
_MOST_SAID = 300  # characters of an error of MLflow
_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
_SETTINGS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # which newer MLflow only reads if it is asked to
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}


class RefusedError(RemoteError):
    """MLflow refused a request; `code` is its own."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Tracking:
    """A tracking store; used as a context, at whose end its process ends.

    Args:
        uri: ``sqlite:///mlflow.db``, ``http://host:5000``, or a folder; None takes that of
            `MLFLOW_TRACKING_URI`.

    Raises:
        UsageError: No store is named.
        RefError: There is none.
        ModuleNotFoundError: MLflow is not installed.
    """

    def __init__(self, uri: str | None) -> None:
        environment = {**_SETTINGS, **os.environ}
        if uri:
            environment.pop("MLFLOW_REGISTRY_URI", None)  # of another store
        uri = uri or environment.get(URI)
        if not uri:
            raise UsageError("no tracking store is named", hint=f"--from URI, or set {URI}")
        self.uri = uri
        self.name = without_secrets(uri)
        _expect_store(uri, self.name)
        if find_spec("mlflow") is None:
            raise ModuleNotFoundError(name="mlflow")
        said = None if os.environ.get("CKPT_DEBUG") else subprocess.DEVNULL
        self._process = subprocess.Popen(
            # -P: no module of this folder may hide one of MLflow's.
            [sys.executable, "-P", "-m", "ckpt.ops.import_.mlflow_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**environment, URI: uri},  # where no other user sees a password in it
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            self._process.communicate()

    def ask(self, what: str, **words: object) -> Any:
        """The answer to a request.

        Raises:
            RefError: It names a model that the store does not have.
            RefusedError: MLflow, or the server, refuses.
            ModuleNotFoundError: MLflow lacks a package.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"ask": what, **words}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RemoteError(
                f"{self.name}: the process that runs MLflow has ended",
                hint="CKPT_DEBUG=1  shows what it printed",
            )
        answer = json.loads(line)
        if "missing" in answer:
            raise ModuleNotFoundError(name=answer["missing"])
        if "error" in answer:
            said = excerpt(" ".join(without_secrets(answer["error"]).split()), _MOST_SAID)
            raise RefusedError(f"{self.name}: {said}", code=answer["code"])
        return answer["answer"]

    def versions(self, name: str, known: list[tuple[int, int]]) -> Any:
        """The versions and aliases of a registered model, as `mlflow_child` gives them."""
        try:
            return self.ask("versions", name=name, known=known)
        except RefusedError as error:
            if error.code != _NOT_THERE:
                raise
            names = self.ask("models")
            hint = f"it has {', '.join(names)}" if names else "it has none"
            raise RefError(f"{self.name}: no registered model {name!r}", hint=hint) from error


def _expect_store(uri: str, name: str) -> None:
    """Refuse a store on this machine that is not there: MLflow would create it."""
    if uri.startswith("sqlite:"):
        _expect_database(Path(uri.removeprefix("sqlite:///").partition("?")[0]), name)
        return
    if uri == "databricks" or ("://" in uri and not uri.startswith("file:")):
        return
    folder = path_of(uri) if uri.startswith("file:") else Path(uri)
    if not folder.is_dir():
        raise RefError(f"{name}: no tracking store here", hint=_hint(folder))
    if not any(folder.glob("*/meta.yaml")):
        raise RefError(f"{name}: not an MLflow tracking store", hint=_hint(folder))
    if not (folder / "models").is_dir():
        raise RefError(f"{name}: no registered models in this store")


def _expect_database(path: Path, name: str) -> None:
    if not path.is_file():
        raise RefError(f"{name}: no tracking store here", hint=_hint(path.parent))
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            database.execute("select 1 from registered_models limit 1")
    except sqlite3.Error as error:
        raise RefError(f"{name}: not an MLflow tracking store ({error})") from error


def _hint(folder: Path) -> str | None:
    """The URI of a database beside a folder of artifacts, where people look for the store."""
    near = [folder / "mlflow.db", folder.parent / "mlflow.db"]
    return next((f"--from sqlite:///{path}" for path in near if path.is_file()), None)
