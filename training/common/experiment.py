"""Experiments of DVC that run in a temporary copy of the project: `dvc exp run --temp`, `--queue`.

DVC brings metrics, parameters and cached files of the copy back, and throws the rest away: a registry and a pin there
would say "is the champion" to nobody. Such an experiment is registered once it is applied to the project itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def passed_over(step: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The line that says why the `step` (registered, promoted) is left out here, or None in the project itself.

    DVC names the experiment in DVC_EXP_NAME and the project, not its copy, in DVC_ROOT.
    """
    name, root = environ.get("DVC_EXP_NAME"), environ.get("DVC_ROOT")
    if not (name and root) or Path(root).resolve() == Path.cwd().resolve():
        return None
    return f"nothing is {step} from a temporary copy of the project: `dvc exp apply {name}`, then `dvc repro`, does it"
