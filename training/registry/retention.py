"""Old versions: which may go, and how they go from both stores together."""

from __future__ import annotations

from training.registry import aliases, bento_store, deployments
from training.registry.mlflow_store import Registry, Version


def deletable(registry: Registry, keep: int) -> list[Version]:
    """Versions that nothing names: no alias, no deployment, no Bento, and not among the `keep` newest."""
    needed = set(registry.aliases().values())
    used = bento_store.bentos().keys() | _in_use(registry)
    return [
        version
        for version in registry.versions()[keep:]
        if version.number not in needed and version.bento_tag not in used
    ]


def _in_use(registry: Registry) -> set[str]:
    """Tags of models that are deployed, by this machine's record or the registry's: targets may share a name."""
    deployed = deployments.read(), deployments.shared(registry.tags())
    return set().union(*map(deployments.tags_in_use, deployed))


def delete(registry: Registry, version: Version) -> bool:
    """Remove the model from the BentoML store, then from MLflow; whether it was removed.

    Cut off at any point, the version is still listed and the next gc goes on. The aliases are looked at again under
    the lock: a version that got one meanwhile is kept.
    """
    with aliases.lock(registry):
        if version.number in registry.aliases().values():
            return False
        if version.bento_tag != "-":
            bento_store.release(version.bento_tag, version.run_id)
        registry.delete_version(version)
        return True
