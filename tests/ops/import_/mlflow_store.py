"""Fills an MLflow store by MLflow itself, and writes down what MLflow says of it.

`python -m tests.ops.import_.mlflow_store FOLDER`, with the store in `MLFLOW_TRACKING_URI`. The
weights of version N of `net`, as `mlflow.pytorch` loads them, are in FOLDER/N.pt, the rest in
FOLDER/said.json.
"""

import json
import os
import re
import sys
from pathlib import Path

import torch

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
import mlflow.pytorch

HOSTILE = "\x1b[31mred\u202e and\na second line"


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (Path("it-ran"),)


def main(folder: Path) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model("empty")
    client.create_registered_model("my net")
    client.create_registered_model("net")
    nets = {number: torch.nn.Linear(3, number + 1) for number in (1, 2, 9)}
    with mlflow.start_run():  # version 1: a whole module
        mlflow.log_params({"lr": 0.1, "optimizer": "adam"})
        mlflow.log_metrics({"loss": 0.5, "accuracy": 0.8}, step=0)
        mlflow.log_metrics({"loss": 0.25, "accuracy": 0.9}, step=1)
        mlflow.pytorch.log_model(
            nets[1], name="model", registered_model_name="net", pip_requirements=["torch"],
            serialization_format="pickle",
        )  # fmt: skip
    state = nets[2].state_dict()
    with mlflow.start_run() as run:  # version 2: a state_dict
        mlflow.log_metrics({"accuracy": 0.95, "worst": float("nan")})
        mlflow.pytorch.log_state_dict(state, artifact_path="weights")
    source = f"runs:/{run.info.run_id}/weights"
    client.create_model_version("net", source, run.info.run_id, description=HOSTILE)
    client.set_model_version_tag("net", "2", "quality", "good")
    client.set_model_version_tag("net", "2", "reviewed", "true")
    client.set_model_version_tag("net", "2", "said by", HOSTILE)
    client.transition_model_version_stage("net", "2", "Production")
    client.create_model_version("net", source, run.info.run_id, description="again")  # version 3
    client.create_model_version("net", source, run.info.run_id)
    client.delete_model_version("net", "4")
    for number, files in {
        5: {"model.pt": b"PK\x03\x04 truncated"},
        6: {"model.pkl": b"", "MLmodel": b""},
        7: {"a.pt": b"", "b.pt": b""},
        8: {"data/model.pt2": b""},
    }.items():
        assert int(version_of(client, files)) == number
    with mlflow.start_run() as run:  # version 9, whose run is deleted
        torch.save(nets[9].state_dict(), folder / "last.ckpt")
        mlflow.log_artifact(str(folder / "last.ckpt"), "data")
    client.create_model_version("net", f"runs:/{run.info.run_id}/data", run.info.run_id)
    client.delete_run(run.info.run_id)
    torch.save({"w": torch.ones(2), "evil": Evil(), "keys": re.compile("w")}, folder / "evil.pt")
    evil = (folder / "evil.pt").read_bytes()
    version_of(client, {"evil.pt": evil})  # version 10
    client.set_registered_model_alias("net", "champion", "2")
    client.set_registered_model_alias("net", "challenger", "3")
    client.set_registered_model_alias("net", "newest", "9")
    client.set_registered_model_alias("net", "broken", "5")
    said(client, folder)


def version_of(client: mlflow.MlflowClient, files: dict[str, bytes]) -> int:
    """A version with these artifacts; its number."""
    with mlflow.start_run() as run:
        for name, data in files.items():
            path = Path("artifact") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            mlflow.log_artifact(str(path), f"files/{Path(name).parent}".rstrip("/."))
    made = client.create_model_version("net", f"runs:/{run.info.run_id}/files", run.info.run_id)
    return int(made.version)


def said(client: mlflow.MlflowClient, folder: Path) -> None:
    """Write down what MLflow says."""
    versions = {}
    for each in client.search_model_versions("name='net'"):
        run = client.get_run(each.run_id)
        versions[int(each.version)] = {
            "made": each.creation_timestamp,
            "run": each.run_id,
            "user": run.data.tags["mlflow.user"],
            "metrics": {key: it for key, it in run.data.metrics.items() if it == it},
            "params": run.data.params,
            "description": each.description or "",
        }
    aliases = {name: int(it) for name, it in client.get_registered_model("net").aliases.items()}
    module = mlflow.pytorch.load_model("models:/net/1")
    torch.save(module.state_dict(), folder / "1.pt")
    state = mlflow.pytorch.load_state_dict(client.get_model_version_download_uri("net", "2"))
    torch.save(state, folder / "2.pt")
    text = json.dumps({"versions": versions, "aliases": aliases, "tag": HOSTILE})
    (folder / "said.json").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
