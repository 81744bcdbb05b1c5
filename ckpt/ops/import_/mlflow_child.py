"""The process in which MLflow runs: `python -P -m ckpt.ops.import_.mlflow_child`.

It reads requests from stdin and answers each on stdout, as JSON in a line; what MLflow prints goes
to stderr. Law: it lists and copies; no model is loaded, and nothing is written to the store.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

_PAGE = 200
_LISTED = 20  # names of models for people who typed another one


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.dup(1)
    os.dup2(2, 1)
    store = Store()
    asked: dict[str, Callable[..., object]] = {
        "models": store.models,
        "versions": store.versions,
        "files": store.files,
        "fetch": store.fetch,
    }
    with os.fdopen(answers, "w") as out:
        for line in sys.stdin:
            words = json.loads(line)
            try:
                answer: dict[str, object] = {"answer": asked[words.pop("ask")](**words)}
            except ModuleNotFoundError as error:
                answer = {"missing": error.name or str(error)}
            except Exception as error:  # noqa: BLE001 - of MLflow and its many stores
                code = str(getattr(error, "error_code", ""))
                answer = {"error": f"{error}" or type(error).__name__, "code": code}
            out.write(json.dumps(answer) + "\n")
            out.flush()


class Store:
    """The tracking store of the environment, read by MLflow's client."""

    def __init__(self) -> None:
        self._opened: Any = None

    @property
    def _client(self) -> Any:
        if self._opened is None:
            import mlflow

            self._opened = mlflow.MlflowClient()
        return self._opened

    def models(self) -> list[str]:
        """The names of registered models, some of them."""
        return [str(each.name) for each in self._client.search_registered_models(None, _LISTED)]

    def versions(self, name: str, known: list[list[int]]) -> dict[str, Any]:
        """The versions of a registered model, and its aliases.

        Args:
            name: The model.
            known: Number and time, in seconds since 1970, of versions whose runs are not looked up.
        """
        model = self._client.get_registered_model(name)
        found = [self._version(each, known) for each in self._found(name)]
        aliases = {str(alias): int(number) for alias, number in model.aliases.items()}
        return {"versions": found, "aliases": aliases}

    def _found(self, name: str) -> Iterator[Any]:
        mark = '"' if "'" in name else "'"
        token = None
        while True:
            page = self._client.search_model_versions(
                f"name={mark}{name}{mark}", max_results=_PAGE, page_token=token
            )
            yield from (each for each in page if each.name == name)
            token = page.token
            if not token:
                return

    def _version(self, found: Any, known: list[list[int]]) -> dict[str, Any]:
        number, made = int(found.version), int(found.creation_timestamp or 0)
        version = {
            "number": number,
            "made": made,  # in milliseconds since 1970
            "status": str(found.status),
            "stage": str(found.current_stage or "None"),
            "description": str(found.description or ""),
            "tags": {str(key): str(value) for key, value in (found.tags or {}).items()},
            "run": str(found.run_id or ""),
            "author": str(found.user_id or ""),
            "metrics": {},
            "params": {},
        }
        if found.run_id and [number, made // 1000] not in known:
            self._add_run(version)
        return version

    def _add_run(self, version: dict[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(version["run"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a run may be deleted for good
                raise
            return
        named = run.data.tags.get("mlflow.user") or run.info.user_id
        version["author"] = version["author"] or str(named or "")
        version["metrics"] = {str(key): repr(float(it)) for key, it in run.data.metrics.items()}
        version["params"] = {str(key): str(value) for key, value in run.data.params.items()}

    def files(self, name: str, number: int) -> list[str]:
        """The paths of the artifacts of a version."""
        artifacts, below = self._artifacts(name, number), [""]
        paths: list[str] = []
        while below:
            for each in artifacts.list_artifacts(below.pop() or None):
                (below if each.is_dir else paths).append(str(each.path))
        return sorted(paths)

    def fetch(self, name: str, number: int, path: str, to: str) -> str:
        """Copy one artifact into the folder `to`; its path there."""
        return str(self._artifacts(name, number).download_artifacts(path, to))

    def _artifacts(self, name: str, number: int) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._client.get_model_version_download_uri(name, number))


if __name__ == "__main__":
    main()
