"""Register models/model: a version in MLflow, and the same bytes in the BentoML model store.

This stage runs every time, because DVC may restore a cached model without running the stages that made it. Every step
first checks whether it is done already, by the model's identity (the hash of model.onnx). So a model is registered
once, however often this runs and wherever a former run was killed. The steps are in the order in which readers rely on
them: the run with its artifacts, the version, the BentoML model, the alias `challenger`.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.manifest import MANIFEST_FILE
from training import params
from training.common import experiment
from training.common.command import run_command
from training.common.files import write_text
from training.evaluation.outputs import METRICS_FILE, PLOTS_FOLDER
from training.fit.outputs import HISTORY_FILE, SUMMARY_FILE
from training.model import signing, tracking
from training.model.folder import MODEL_FOLDER, SIGNATURE_FILE, ModelFolder
from training.model.pin import ChampionError
from training.model.tracking import SHA256_TAG
from training.registry import aliases, bento_store, provenance
from training.registry.mlflow_store import MODEL_PATH, Registry, RegistryError, Version, tracking_uri
from training.registry.packaging import bento_labels, bento_metadata, is_complete, save_mlflow_model

if TYPE_CHECKING:
    from mlflow.entities import Metric

RECORD_FILE = Path("models/registered.json")
METRIC_CLASSES = 100  # of which each has metrics of its own
METRIC_LENGTH = 250  # of MLflow's keys
LINEAGE_FILES = (Path("dvc.lock"), params.PARAMS_FILE, MANIFEST_FILE)


@dataclass(frozen=True)
class Record:
    """Where a model was registered: what models/registered.json holds, on which the stage promote depends."""

    bento_tag: str
    mlflow_version: str
    run_id: str
    model_sha256: str

    @classmethod
    def of(cls, version: Version) -> Record:
        return cls(version.bento_tag, version.number, version.run_id, version.sha256)

    def write(self) -> None:
        write_text(RECORD_FILE, json.dumps(asdict(self), indent=2) + "\n")


class NotReadyError(RegistryError):
    """The pipeline has not made what is to be registered."""


def open_candidate(path: Path = MODEL_FOLDER) -> ModelFolder:
    """The verified model folder that the pipeline made last."""
    if not path.is_dir():
        raise NotReadyError(f"{path} is missing: `dvc repro export` (or `make run`) makes it")
    return ModelFolder.open(path)


def registered(folder: ModelFolder, name: str, signing_key: str | None) -> Record | None:
    """Where MLflow and the BentoML store have this model, if both do.

    Asked without importing MLflow: this is what makes a rerun of the pipeline quick.
    """
    try:
        known = tracking.registered_version(name, folder.sha256, tracking_uri())
        unfinished = tracking.has_unfinished_move(name, tracking_uri())
    except ChampionError:
        return None
    if known is None or unfinished or not bento_store.is_whole(known.bento_tag):
        return None
    signed = signing_key is None or (bento_store.path_of(known.bento_tag) / SIGNATURE_FILE).is_file()
    recorded = bento_store.runs_of(known.bento_tag).get(known.run_id) == known.version
    return Record(known.bento_tag, known.version, known.run_id, folder.sha256) if signed and recorded else None


@dataclass
class Registration:
    """The steps that bring one model folder into both stores. Each may be repeated; `run` does all in order."""

    registry: Registry
    folder: ModelFolder
    signing_key: Path | None
    workspace: Path

    def run(self) -> Version:
        """Do every step; returns the version."""
        for step in self.steps():
            step()
        return self.version

    def steps(self) -> tuple[Callable[[], None], ...]:
        return (
            self.open_run,
            self.log_figures,
            self.log_files,
            self.log_model,
            self.finish_run,
            self.create_version,
            self.store_bento,
            self.call_challenger,
        )

    def open_run(self) -> None:
        """Find the run of this model, or start one."""
        client, name = self.registry.client, self.registry.name
        experiment = client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise RegistryError(
                f"the experiment {name} was deleted in MLflow: bring it back with "
                f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
            )
        self.experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        query = f"tags.{SHA256_TAG} = '{self.folder.sha256}'"
        found = client.search_runs([self.experiment_id], query, order_by=["attributes.start_time ASC"], max_results=1)
        run = found[0] if found else client.create_run(self.experiment_id, tags=self.run_tags(), run_name=self.run_name)
        self.run_id = run.info.run_id

    @property
    def run_name(self) -> str:
        return f"{self.folder.card['architecture']}-{self.folder.sha256[:8]}"

    @cached_property
    def lineage(self) -> dict[str, Any]:
        found: dict[str, Any] = self.folder.card["lineage"]
        return found

    def run_tags(self) -> dict[str, str]:
        return {
            SHA256_TAG: self.folder.sha256,
            "mlflow.source.name": "dvc.yaml",
            "mlflow.source.git.commit": self.lineage["git_commit"],
            "git_commit": self.lineage["git_commit"],
            "git_dirty": str(self.lineage["git_dirty"]).lower(),
            "data_hash": self.lineage["data_hash"],
            "test_hash": self.lineage["test_hash"],
            "params_hash": self.lineage["params_hash"],
        }

    def log_figures(self) -> None:
        """Params, metrics of every epoch, final metrics. One time stamp for all: MLflow drops exact repetitions."""
        from mlflow.entities import Param

        made = datetime.datetime.fromisoformat(self.lineage["created"])
        stamp = int(made.timestamp() * 1000)
        values = [Param(key, str(value)) for key, value in flat(self.folder.card["params"]).items()]
        metrics = [*_epoch_metrics(HISTORY_FILE, stamp), *_final_metrics(METRICS_FILE, stamp)]
        client = self.registry.client
        for start in range(0, len(values), 100):
            client.log_batch(self.run_id, params=values[start : start + 100])
        for start in range(0, len(metrics), 1000):
            client.log_batch(self.run_id, metrics=metrics[start : start + 1000])

    def log_files(self) -> None:
        """Plots, environment, provenance, and what restores the data: manifest, dvc.lock, params.yaml."""
        client = self.registry.client
        for path in LINEAGE_FILES:
            if not path.is_file():
                raise NotReadyError(
                    f"{path} is missing, and with it the model's lineage: `dvc repro` (or `make run`) makes it"
                )
            client.log_artifact(self.run_id, str(path), "lineage")
        for path in sorted(PLOTS_FOLDER.glob("*.png")):
            client.log_artifact(self.run_id, str(path), "plots")
        client.log_artifact(self.run_id, str(METRICS_FILE))
        if SUMMARY_FILE.is_file():
            client.log_artifact(self.run_id, str(SUMMARY_FILE))
        client.log_text(self.run_id, _installed_packages(), "environment/requirements.txt")
        client.log_dict(self.run_id, self.lineage["environment"], "environment/environment.json")
        documents = self.workspace / provenance.FOLDER
        provenance.write(self.folder, self.run_id, documents, self.signing_key)
        client.log_artifacts(self.run_id, str(documents), provenance.FOLDER)

    @cached_property
    def staged(self) -> Path:
        """A copy of the model folder, signed if a key is configured: what both stores get."""
        copy = self.workspace / "model"
        shutil.copytree(self.folder.path, copy)
        if self.signing_key is not None:
            signing.sign(copy, self.signing_key)
        return copy

    def log_model(self) -> None:
        """The MLflow model, into the artifacts of the run."""
        target = self.workspace / "mlflow"
        save_mlflow_model(self.staged, self.folder, target, self.workspace / "code")
        self.registry.client.log_artifacts(self.run_id, str(target), MODEL_PATH)

    def finish_run(self) -> None:
        self.registry.client.set_terminated(self.run_id, "FINISHED")

    def create_version(self) -> None:
        """The version, with all its tags in one call: it never exists without its lineage."""
        self.registry.create()
        version = self.registry.by_sha256(self.folder.sha256)
        if version is None:
            source = f"runs:/{self.run_id}/{MODEL_PATH}"
            made = self.registry.client.create_model_version(
                self.registry.name, source, self.run_id, self.version_tags()
            )
            version = self.registry.version(str(made.version))
        self.version = version

    def version_tags(self) -> dict[str, str]:
        metrics = self.folder.card["metrics"]
        return {
            SHA256_TAG: self.folder.sha256,
            "bento_tag": bento_store.tag_for(self.registry.name, self.folder, self.run_id),
            "git_commit": self.lineage["git_commit"],
            "git_dirty": str(self.lineage["git_dirty"]).lower(),
            "data_hash": self.lineage["data_hash"],
            "test_hash": self.lineage["test_hash"],
            "params_hash": self.lineage["params_hash"],
            "architecture": str(self.folder.card["architecture"]),
            **{key: f"{value:.6g}" for key, value in metrics.items() if isinstance(value, int | float)},
        }

    def store_bento(self) -> None:
        """The same bytes in the BentoML store, under the tag that the version names."""
        bento_store.put(
            self.version.bento_tag,
            self.staged,
            bento_labels(self.folder.card, self.version),
            bento_metadata(self.version),
        )

    def call_challenger(self) -> None:
        """A version that nobody calls champion or previous is the challenger until the gate has judged it."""
        if self.version.number not in self.registry.aliases().values():
            self.registry.set_alias(aliases.CHALLENGER, self.version.number)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _epoch_metrics(path: Path, stamp: int) -> list[Metric]:
    """Every numeric column of the training history, by epoch."""
    from mlflow.entities import Metric

    if not path.is_file():
        raise NotReadyError(f"{path} is missing: `dvc repro train` makes it")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Metric(column, float(value), stamp, int(row["epoch"]))
        for row in rows
        for column, value in row.items()
        if column != "epoch" and _is_number(value)
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _final_metrics(path: Path, stamp: int) -> list[Metric]:
    """Every number of model_performance.json, under its dotted name; without those of single classes, if many."""
    from mlflow.entities import Metric

    if not path.is_file():
        raise NotReadyError(f"{path} is missing: `dvc repro evaluate` makes it")
    found = json.loads(path.read_text())
    if len(found.get("per_class", ())) > METRIC_CLASSES:  # the file is an artifact of the run, and has them all
        del found["per_class"]
    values = flat(found)
    numbers = {metric_name(key): float(value) for key, value in values.items() if isinstance(value, int | float)}
    return [Metric(key, value, stamp, 0) for key, value in numbers.items()]


def metric_name(key: str) -> str:
    """`key` as MLflow takes it. A class may be called `R&D`, a metric may not: bytes stand in hexadecimal, and the
    start of the hash of `key` keeps the result apart from any other key's."""
    name = re.sub(r"[^/\w.\- ]", lambda found: found.group().encode().hex(), key)
    if name == key and len(key) <= METRIC_LENGTH and posixpath.normpath(key) == key and key[:1] not in "/.":
        return key
    mark = "-" + hashlib.sha256(key.encode()).hexdigest()[:8]
    return name.replace("/", "2f").strip(".")[: METRIC_LENGTH - len(mark)] + mark


def _installed_packages() -> str:
    """What `pip freeze` lists: every installed distribution with its version."""
    found = {(one.metadata["Name"], one.version) for one in metadata.distributions() if one.metadata["Name"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found))


def register(folder: ModelFolder, settings: params.Register) -> Version:
    """Bring `folder` into both stores, as far as it is not there yet; returns its version."""
    key = None if settings.signing_key is None else Path(settings.signing_key)
    registry = Registry(settings.name)
    aliases.repair(registry)
    with aliases.local_lock():
        version = registry.by_sha256(folder.sha256)
        if version is not None and is_complete(version, key):
            return version
        with tempfile.TemporaryDirectory(prefix="register-") as workspace:
            return Registration(registry, folder, key, Path(workspace)).run()


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.register", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    params.add_arguments(parser, params.Register)
    settings = params.override(params.load().register_, parser.parse_args())
    folder = open_candidate()
    if message := experiment.passed_over("registered"):
        write_text(RECORD_FILE, "{}\n")  # DVC wants the file
        print(message)
        return
    known = registered(folder, settings.name, settings.signing_key)
    made = known or Record.of(register(folder, settings))
    made.write()
    state = "is registered already" if known else "is registered"
    print(f"{made.bento_tag} {state}: MLflow version {made.mlflow_version}, run {made.run_id}")


if __name__ == "__main__":
    run_command(main)
