"""The MLflow side of the registry: runs, versions, tags and aliases of one registered model.

Importing this module is quick; MLflow itself (about 2 s) is imported when a Registry is opened.
"""

from __future__ import annotations

import os
import re
import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.errors import ExpectedError
from training.model import server
from training.model.pin import DEFAULT_TRACKING_URI, ChampionError
from training.model.server import is_server, scrubbed, timeout_s, tls_error, without_password
from training.model.tracking import SHA256_TAG, SQLITE
from training.registry import moved
from training.registry.bento_store import PREFIX

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MODEL_PATH = "model"  # of the MLflow model among the artifacts of its run
FOLDER_IN_MODEL = "artifacts/model"  # of the model folder inside the MLflow model
VERDICT_PATH = "gate/verdict.json"  # of the gate's last verdict among the artifacts of the run
ADMITTED_PATH = "gate/admitted.json"  # of the last verdict that let it through: a champion that loses later stays one
MANIFEST_PATH = "lineage/manifest.csv"
LOCK_PATH = "lineage/dvc.lock"
PARAMS_PATH = "lineage/params.yaml"
SHA256 = re.compile("[0-9a-f]{64}")
TAG_LENGTH = 4000  # characters, of the value of a tag
REQUEST_S = 20  # until a server counts as gone, unless MLFLOW_HTTP_REQUEST_TIMEOUT says otherwise


class RegistryError(ExpectedError):
    """The registry cannot be asked or does not hold what was asked for; the message says what to do."""


@dataclass(frozen=True)
class Version:
    """One version of the registered model. `tags` carry its lineage, see register.py; one made by hand has none."""

    number: str
    run_id: str
    created_ms: int
    tags: dict[str, str]
    name: str = ""

    @property
    def bento_tag(self) -> str:
        """The tag of its model in the BentoML store; "-" unless it is made of the model's own name and hash.

        Anybody who may write to the registry could otherwise let it name another model, or a path.
        """
        tag = self.tags.get("bento_tag", "-")
        own = f"{re.escape(self.name)}:{re.escape(self.sha256[:PREFIX])}(-[0-9a-f]{{8}})?"
        return tag if SHA256.fullmatch(self.sha256) and re.fullmatch(own, tag) else "-"

    @property
    def sha256(self) -> str:
        return self.tags.get(SHA256_TAG, "-")

    def check_origin(self) -> None:
        """RegistryError when this version was made by hand: it says nothing of its model then."""
        if not {SHA256_TAG, "bento_tag", "git_commit", "data_hash"} <= self.tags.keys():
            raise RegistryError(
                f"version {self.number} was not made by training.register and has no lineage: "
                "point its alias to one that was"
            )
        if self.bento_tag == "-":
            raise RegistryError(
                f"version {self.number} names the Bento model {self.tags['bento_tag']!r}, which is not made of its "
                f"name and of its hash {self.sha256!r}: its tags were altered, point its alias to another version"
            )


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or else mlflow.db in the project folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


class Registry:
    """The registered model `name` at MLFLOW_TRACKING_URI. Every method raises RegistryError for what goes wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.where = without_password(tracking_uri())
        self.uri = _without_login(tracking_uri())
        self.client = _client(self.uri)

    def exists(self) -> bool:
        return self._model() is not None

    def create(self) -> None:
        """Make the registered model if it is not there."""
        if self._model() is not None:
            return
        with _told(self.where):
            self.client.create_registered_model(
                self.name, description="Written by training/register.py; see its README"
            )

    def aliases(self) -> dict[str, str]:
        """Alias -> version number."""
        model = self._model()
        return {} if model is None else {alias: str(number) for alias, number in model.aliases.items()}

    def tags(self) -> dict[str, str]:
        """The tags of the registered model itself: journal, locks, deployments."""
        model = self._model()
        return {} if model is None else dict(model.tags)

    def _model(self) -> Any | None:
        with _told(self.where, missing=True):
            return self.client.get_registered_model(self.name)
        return None

    def set_tag(self, key: str, value: str) -> None:
        with _told(self.where):
            self.client.set_registered_model_tag(self.name, key, value)

    def delete_tag(self, key: str) -> None:
        with _told(self.where, missing=True):
            self.client.delete_registered_model_tag(self.name, key)

    def set_alias(self, alias: str, number: str) -> None:
        with _told(self.where):
            self.client.set_registered_model_alias(self.name, alias, number)

    def delete_alias(self, alias: str) -> None:
        with _told(self.where, missing=True):
            self.client.delete_registered_model_alias(self.name, alias)

    def tag_version(self, number: str, tags: dict[str, str]) -> None:
        with _told(self.where):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, number, key, value)

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        if not self.exists():
            return []
        with _told(self.where):
            found, token = [], None
            while True:
                page = self.client.search_model_versions(f"name = '{self.name}'", max_results=200, page_token=token)
                found += [_version(one) for one in page]
                token = page.token
                if not token:
                    break
        return sorted(found, key=lambda version: -int(version.number))

    def version(self, number: str) -> Version:
        """One version by its number; RegistryError when there is none."""
        with _told(self.where, missing=True):
            return _version(self.client.get_model_version(self.name, number))
        raise RegistryError(f"{self.name} has no version {number} in {self.where}: `python -m training.registry list`")

    def by_alias(self, alias: str) -> Version | None:
        number = self.aliases().get(alias)
        return None if number is None else self.version(number)

    def by_sha256(self, sha256: str) -> Version | None:
        """The version of the model with this identity, if it was registered."""
        return next((version for version in self.versions() if version.tags.get(SHA256_TAG) == sha256), None)

    def run(self, run_id: str) -> tuple[Run, list[str]]:
        """A run and the paths of its artifacts, without those of the model; RegistryError when there is none."""
        with _told(self.where):
            files: list[str] = []
            folders = [""]
            while folders:
                for one in self.client.list_artifacts(run_id, folders.pop() or None):
                    (folders if one.is_dir else files).append(one.path)
                folders = [folder for folder in folders if folder != MODEL_PATH]
            return self.client.get_run(run_id), sorted(files)

    def verdict(self, version: Version) -> dict[str, Any] | None:
        """The gate's verdict among the artifacts of the version's run: the last that let it through, or else the last;
        None when there is none. It is unverified: see training.model.judged."""
        from mlflow.artifacts import load_dict
        from mlflow.exceptions import MlflowException

        for path in (ADMITTED_PATH, VERDICT_PATH):
            try:
                found: dict[str, Any] = load_dict(f"runs:/{version.run_id}/{path}")
            except (OSError, MlflowException):
                continue
            except ValueError:  # it is no JSON
                return {}
            return found
        return None

    def delete_version(self, version: Version) -> None:
        """Delete the MLflow model among the artifacts of its run, then the version; the run stays as a record."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with _told(self.where):
            source = self.client.get_model_version_download_uri(self.name, version.number)
            repository: Any = get_artifact_repository(source, tracking_uri=self.uri)
            repository.delete_artifacts()
            self.client.delete_model_version(self.name, version.number)

    def download_folder(self, version: Version, target: Path) -> Path:
        """The model folder of `version`, downloaded under `target`; nothing about it is verified yet."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        with _told(self.where):
            source = self.client.get_model_version_download_uri(self.name, version.number)
        uri = f"{source}/{FOLDER_IN_MODEL}"
        try:
            return Path(download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=self.uri))
        except (OSError, MlflowException) as error:
            reason = str(error).splitlines()[0]
            raise RegistryError(f"the artifacts of version {version.number} are not at {uri}: {reason}") from None

    def download_artifacts(self, version: Version, path: str, target: Path) -> Path:
        """What lies at `path` among the artifacts of the version's run, under `target`; RegistryError for nothing."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            found = download_artifacts(run_id=version.run_id, artifact_path=path, dst_path=str(target))
        except (OSError, MlflowException) as error:
            reason = scrubbed(str(error).splitlines()[0], tracking_uri())
            raise RegistryError(f"the run of version {version.number} has no {path}: {reason}") from None
        return Path(found)


def _version(found: Any) -> Version:
    return Version(str(found.version), str(found.run_id), int(found.creation_timestamp), dict(found.tags), found.name)


def _without_login(uri: str) -> str:
    """`uri` without user and password, which go into MLflow's variables for them: MLflow repeats addresses in its
    messages, and writes them into its database."""
    parts = urllib.parse.urlsplit(uri)
    if not (is_server(uri) and parts.username and parts.password):
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = urllib.parse.unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = urllib.parse.unquote(parts.password)
    return without_password(uri)


def _client(uri: str) -> MlflowClient:
    # A server that went away is told in seconds; MLflow's own defaults retry for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{REQUEST_S}")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own imports
        import mlflow

    database = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not database.absolute().parent.is_dir():
        raise RegistryError(f"the folder of {uri} does not exist: correct MLFLOW_TRACKING_URI or make it")
    moved.tell(uri)
    if is_server(uri):
        _probe(uri)
    with _told(without_password(uri)):
        if uri.startswith(SQLITE) and not database.exists():
            _make(database)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        return mlflow.MlflowClient(uri, uri)


def _make(database: Path) -> None:
    """Have MLflow make its tables under another name: from half of them (a kill, a full disk) it never goes on."""
    import mlflow

    with tempfile.TemporaryDirectory(prefix=f"{database.name}.", suffix=".part", dir=database.parent) as folder:
        part = Path(folder, database.name)
        mlflow.MlflowClient(f"{SQLITE}{part}").search_experiments()
        try:
            os.link(part, database)
        except FileExistsError:
            pass  # another command was quicker
        except OSError:  # a file system without links
            part.replace(database)


def _probe(uri: str) -> None:
    """RegistryError unless an MLflow server answers at `uri`, and lets us in. It is asked by MLflow's own client, with
    all its ways to log in."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    where = without_password(uri)
    with _told(where):
        server.login(uri)  # MLflow itself ends in a traceback over a file of credentials that it cannot read
        creds = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
        answer = http_request(creds, "/version", "GET", max_retries=0, raise_on_status=False)  # type: ignore[no-untyped-call]
    if refused := server.refusal(where, answer.status_code):
        raise RegistryError(str(refused))
    if answer.status_code != 200:
        raise RegistryError(
            f"{where} is not an MLflow server: it answers {answer.status_code} to /version; check MLFLOW_TRACKING_URI"
        )
    if not re.match(r"\d+\.\d+", answer.text[:64]):
        raise RegistryError(f"{where} is not an MLflow server: /version returns no version; check MLFLOW_TRACKING_URI")


@contextmanager
def _told(where: str, missing: bool = False) -> Iterator[None]:
    """Turn MLflow's and its database's errors into a RegistryError; with `missing`, pass over what does not exist."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if not (missing and error.error_code == "RESOURCE_DOES_NOT_EXIST"):
            raise RegistryError(_reason(where, error)) from None
    except ChampionError as error:
        raise RegistryError(str(error)) from None
    except ImportError as error:
        raise RegistryError(f"the MLflow database {where} needs a driver: pip install {error.name}") from None
    except SQLAlchemyError as error:
        first = scrubbed(str(error).splitlines()[0], tracking_uri())
        raise RegistryError(f"the MLflow database {where} cannot be used: {first}") from None


def _reason(where: str, error: Exception) -> str:
    """What an error of MLflow's client means, in one line and without a password."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout
    from urllib3.exceptions import ReadTimeoutError

    if tls_error(error) is not None:
        return str(server.of_network(where, error))
    cause = error.__cause__ or error.__context__
    inner = getattr(cause.args[0] if cause and cause.args else None, "reason", None)
    if isinstance(cause, Timeout) or isinstance(inner, ReadTimeoutError):
        return f"the MLflow server {where} does not answer in {timeout_s():g} s: MLFLOW_HTTP_REQUEST_TIMEOUT sets more"
    first = scrubbed(str(error).splitlines()[0], tracking_uri())
    if isinstance(cause, NoConnection):
        inner = re.sub(r"^.*\): |[()'\"]+$", "", str(cause))
        return f"the MLflow server {where} cannot be reached ({inner}): is it up, is MLFLOW_TRACKING_URI right?"
    if found := re.search(r"error code (40[13])\b", first):
        return f"{server.refusal(where, int(found[1]))}"
    return f"MLflow at {where}: {first}"
