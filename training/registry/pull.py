"""Bring a registered model from the registry's artifacts into the BentoML store of this machine, verified."""

from __future__ import annotations

import tempfile
from pathlib import Path

from training.model import signing
from training.model.folder import ModelFolder, ModelFolderError
from training.registry import aliases, bento_store, promotion
from training.registry.mlflow_store import Registry, RegistryError, Version
from training.registry.packaging import bento_labels, bento_metadata, is_complete


def fetch(registry: Registry, version: Version) -> ModelFolder:
    """The model folder of `version` in the BentoML store, downloaded if it is not there whole.

    Nothing enters the store before checksums, identity and (if MODEL_PUBLIC_KEY is set) signature are right: then it
    enters at once. Raises ModelFolderError for what was changed, RegistryError for what is missing.
    """
    version.check_origin()
    if not is_complete(version, None):
        with tempfile.TemporaryDirectory(prefix="pull-") as workspace:
            folder = verified(registry.download_folder(version, Path(workspace)), version)
            if bento_store.is_of_another(version.bento_tag, folder.path, version.run_id):
                raise RegistryError(
                    f"the BentoML store has {version.bento_tag} from another project, with another card: name a store "
                    f"of its own in BENTOML_HOME, or `bentoml models delete {version.bento_tag}` if nobody needs that"
                )
            bento_store.put(version.bento_tag, folder.path, bento_labels(folder.card, version), bento_metadata(version))
    return verified(bento_store.path_of(version.bento_tag), version)


def verified(path: Path, version: Version) -> ModelFolder:
    """The folder at `path`, if it is whole, is the model that `version` names, and is signed where that is demanded."""
    folder = ModelFolder.open(path)
    if folder.sha256 != version.sha256:
        raise ModelFolderError(
            f"{path} holds the model {folder.sha256[:16]}, but version {version.number} is {version.sha256[:16]}: "
            "the registry's artifacts were replaced"
        )
    signing.verify_if_configured(path)
    return folder


def pull_champion(registry: Registry) -> Version:
    """Fetch the champion and pin it; RegistryError when the registry has no such model or alias, NotJudgedError
    when somebody moved the alias to a version that the gate did not let through."""
    if not registry.exists():
        raise RegistryError(
            f"{registry.where} has no registered model {registry.name}: check MLFLOW_TRACKING_URI and register.name"
        )
    version = registry.by_alias(aliases.CHAMPION)
    if version is None:
        raise RegistryError(
            f"{registry.name} in {registry.where} has no alias {aliases.CHAMPION}: "
            "`python -m training.promote` makes one, where the model was trained"
        )
    promotion.judgement(registry, version)
    fetch(registry, version)
    aliases.pin(registry)
    return version
