"""Build the champion's Bento and container image.

The tag is VERSION-MODEL-COMMIT: version in MLflow, start of the model's hash, commit of the code. The same three give
the same Bento, so an existing Bento is not built again. With uncommitted changes the tag ends in `-dirty`, and such a
Bento is replaced.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from training.common import source
from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.source import LineageError
from training.common.table import plain
from training.model import judged, lineage
from training.model import pin as pin_file
from training.model.folder import CARD_FILE
from training.model.pin import Champion
from training.registry import bento_store

DIRTY = "-dirty"
OCI = "org.opencontainers.image."


class ImageError(ExpectedError):
    """Bento or image cannot be made; the message says why."""


def revision() -> str:
    """The commit of the code, with `-dirty` after it when the work tree has changes; LineageError outside git."""
    return source.commit() + (DIRTY if source.is_dirty() else "")


def version(pin: Champion, commit: str) -> str:
    """The tag of Bento and image, such as 3-92d19775-15cc431512ab."""
    return f"{pin.mlflow_version}-{pin.model_sha256[:8]}-{commit[:12]}" + (DIRTY if commit.endswith(DIRTY) else "")


def labels(pin: Champion) -> dict[str, str]:
    """OCI labels of the image: what is in it and where it comes from; of the code nothing outside a git repository.

    The time is SOURCE_DATE_EPOCH, where it is set.
    """
    found = {
        f"{OCI}title": pin.name,
        f"{OCI}licenses": "MIT",
        f"{OCI}created": _created(),
        "model.name": pin.name,
        "model.version": pin.mlflow_version,
        "model.bento_tag": pin.bento_tag,
        "model.run_id": pin.run_id,
        "model.sha256": pin.model_sha256,
    }
    card = bento_store.path_of(pin.bento_tag) / CARD_FILE
    if card.is_file():  # if not, the check at start and build says so
        origin = json.loads(card.read_text())["lineage"]
        found |= {"model.data_hash": origin["data_hash"], "model.git_commit": origin["git_commit"]}
    try:
        commit = revision()
    except LineageError:
        return found
    return found | {f"{OCI}revision": commit, f"{OCI}version": version(pin, commit)}


def _created() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).isoformat() if epoch else lineage.now()


def build(pin: Champion) -> str:
    """Build the Bento of the pinned champion, unless it is there; its tag."""
    commit = revision()
    name, number = pin.name, version(pin, commit)
    path = bento_store.store_path().parent / "bentos" / name / number
    if path.is_dir() and commit.endswith(DIRTY):
        shutil.rmtree(path)
    if not path.is_dir():
        _run("bentoml", "build", "--name", name, "--version", number, "--output", "tag")
    return f"{name}:{number}"


def _containerize(bento: str, tags: Sequence[str], options: Sequence[str]) -> None:
    """Make the image of the Bento under `tags`; `options` go to the container builder, such as `label=KEY=VALUE`.

    BentoML since 1.4.36 finds its own copy of Dockerfile.j2, which lies in the folder for temporary files, only from
    within that folder (BentoML issue 5566).
    """
    command = ["bentoml", "containerize", bento]
    for tag in tags:
        command += ["--image-tag", tag]
    for option in options:
        command += ["--opt", option]
    _run(*command, folder=Path(tempfile.gettempdir()))


def _run(*command: str, folder: Path = Path()) -> None:
    home = str(bento_store.store_path().parent.absolute())
    try:
        code = subprocess.run(command, check=False, cwd=folder, env=os.environ | {"BENTOML_HOME": home}).returncode
    except FileNotFoundError:
        raise ImageError(f"{command[0]} is not installed: run `make install`") from None
    if code:
        raise ImageError(f"`{' '.join(command)}` failed with exit code {code}: the last lines above say why")


def size(image: str) -> int:
    """Bytes of the image, unpacked; ImageError when Docker does not have it."""
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", image]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ImageError("docker is not installed") from None
    except subprocess.CalledProcessError as error:
        raise ImageError(error.stderr.strip()) from None
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.image", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tag", action="append", help="reference of the image (default: the Bento's tag); repeatable")
    parser.add_argument("--opt", action="append", default=[], help="option of the builder: label=KEY=VALUE, no-cache")
    arguments = parser.parse_args()
    pin = pin_file.read()
    judgement = judged.confirm(pin)
    bento = build(pin)
    tags = arguments.tag or [bento]
    _containerize(bento, tags, arguments.opt)
    print(f"image {tags[0]}: version {pin.mlflow_version} of {pin.name}, {size(tags[0]) / 1e6:.0f} MB unpacked")
    print(f"the model {plain(judgement)}" if not judgement.forced else f"the model was {plain(judgement)}")
    print(f"run it: docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:3000:3000 {tags[0]}")


if __name__ == "__main__":
    run_command(main)
