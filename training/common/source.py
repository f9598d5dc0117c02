"""The commit of this project's source, as git knows it.

    python -m training.common.source      says what is missing, before anything long begins

The Makefile runs this before it installs anything: only the standard library is imported, and an old Python will do.
"""

from __future__ import annotations

import os
import subprocess

from training.common.command import run_command
from training.common.errors import ExpectedError

# What the pipeline itself writes and git may track: a change there is a result, not a change of the source.
PIPELINE_FILES = (
    "dvc.lock",
    "model_performance.json",
    "data/manifest.csv",
    "data/report.json",
    "data/audit.json",
    "models",
)
COMMIT = "git add -A && git commit -m start"
START = f"git init && {COMMIT}"


class LineageError(ExpectedError):
    """The origin of a model cannot be recorded; the message says what is missing."""


def commit() -> str:
    """The 40 hex digits of HEAD; LineageError where git has none, or none of this project."""
    found = _git("rev-parse", "--verify", "HEAD").strip()
    if not _git("ls-tree", "--name-only", "HEAD", "params.yaml"):
        top = _git("rev-parse", "--show-toplevel").strip()
        raise LineageError(
            f"the git repository {top} has no commit of this project, and a model's lineage needs one: `{START}` here, "
            "or commit it there"
        )
    return found


def is_dirty() -> bool:
    """Whether tracked files differ from HEAD or new files are about, other than what the pipeline writes.

    The project may be a folder of a bigger repository: what is beside it there does not count.
    """
    excluded = [f":(exclude){path}" for path in PIPELINE_FILES]
    return bool(_git("status", "--porcelain", "--", ".", *excluded))


def _git(*arguments: str) -> str:
    environment = dict(os.environ, LC_ALL="C")  # its words are read below
    try:
        done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        raise LineageError(
            "git is not installed: a model's lineage needs the commit it was made at (`apt install git`, "
            "`brew install git`)"
        ) from None
    except subprocess.CalledProcessError as error:
        raise LineageError(_reason(error.stderr)) from None
    return done.stdout


def _reason(stderr: str) -> str:
    if "dubious ownership" in stderr:
        folder = stderr.partition("'")[2].partition("'")[0]
        return (
            f"git does not trust {folder}, which belongs to another user: "
            f"`git config --global --add safe.directory '{folder}'`"
        )
    if "not a git repository" in stderr:
        return (
            "this is not a git repository (a download has no .git), but a model's lineage needs a commit: "
            f"`{START}`, or clone the project"
        )
    if "Needed a single revision" in stderr:
        return f"this git repository has no commit yet, and a model's lineage needs one: `{COMMIT}`"
    return f"git failed: {stderr.strip().splitlines()[-1] if stderr.strip() else 'without a word'}"


if __name__ == "__main__":
    run_command(lambda: print(commit()))
