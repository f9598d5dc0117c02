"""kubectl in one context and one namespace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from k8s.manifests import Object
from k8s.target import call

MANAGER = "cats-vs-dogs-deploy"  # owner of the fields that deploy.py applies


class Kubectl:
    """Calls of kubectl; the context is fixed at the start, so that another shell's `use-context` redirects nothing."""

    def __init__(self, namespace: str, context: str) -> None:
        self.namespace, self.context = namespace, context

    def command(self, *words: str) -> list[str]:
        return ["kubectl", "--context", self.context, "--namespace", self.namespace, *words]

    def __call__(self, *words: str, text: str | None = None) -> str:
        """Standard output; DeployError with kubectl's own words when it fails."""
        return call(self.command(*words), text)

    def json(self, *words: str, text: str | None = None) -> dict[str, Any]:
        """The object, or {} when there is none."""
        answer = self(*words, "-o", "json", text=text)
        return dict(json.loads(answer)) if answer.strip() else {}

    def items(self, *words: str, text: str | None = None) -> list[Object]:
        """The objects of a list; a single object is a list of one."""
        found = self.json(*words, text=text)
        return list(found["items"]) if "items" in found else [found] if found else []

    def apply(self, objects: Sequence[Object], *options: str) -> str:
        """Server-side apply as MANAGER."""
        words = ("apply", "--server-side", f"--field-manager={MANAGER}", *options, "-f", "-")
        return self(*words, text=yaml.safe_dump_all(objects, sort_keys=False))

    def patch(self, kind: str, name: str, patch: list[Object], *options: str) -> str:
        """A JSON patch as MANAGER."""
        words = ("--type=json", f"--field-manager={MANAGER}", f"--patch={json.dumps(patch)}")
        return self("patch", kind, name, *words, *options)
