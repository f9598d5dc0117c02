"""Run the pipeline, serve the champion and show a first prediction: what `make run` does."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from training.common import port as ports
from training.common import source
from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.port import HERE
from training.registry import bento_store, moved
from training.registry.mlflow_store import tracking_uri
from training.serving.settings import own_key

START_TIMEOUT = 60  # seconds


class RunError(ExpectedError):
    """The pipeline failed or the service did not become ready."""


def pipeline() -> None:
    """`dvc repro`: what changed is made again, the rest is kept."""
    if subprocess.run(["dvc", "repro"], check=False).returncode:
        raise RunError("the pipeline failed; the last lines above say where and why")


@contextlib.contextmanager
def service(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`bentoml serve` as a child; it is asked to finish and waited for when the block ends, however it ends."""
    command = ["bentoml", "serve", "--host", HERE, "--port", str(port)]
    # An own session: Ctrl-C reaches this process alone, which then stops the service once and in order.
    child = subprocess.Popen(command, start_new_session=True)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def wait_until_ready(port: int, child: subprocess.Popen[bytes]) -> None:
    """Return when /readyz of `child` says so; RunError when it ends or takes longer than a minute.

    It must be `child` that listens: another program may have taken the port meanwhile, and answer in its place.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RunError("the service did not start; the last lines above say why")
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"http://{HERE}:{port}/readyz", timeout=2).ok and ports.is_held_by(port, child.pid):
                return
        time.sleep(0.1)
    raise RunError(f"the service was not ready after {START_TIMEOUT} s")


def _first_prediction(url: str) -> tuple[Path, dict[str, Any]]:
    """Ask the service about one test picture; returns the picture and the answer."""
    picture = sorted(Path("models/model/self_check").iterdir())[0]
    with picture.open("rb") as file:
        files = {"image": file}
        response = requests.post(f"{url}/predict?abstain=false", files=files, headers=own_key(), timeout=30)
    if not response.ok:
        raise RunError(f"the first prediction failed with {response.status_code}: {response.text}")
    answer: dict[str, Any] = response.json()
    return picture, answer


def how(url: str) -> str:
    """How the champion computes, and why so, by its model card."""
    card = requests.get(f"{url}/model", headers=own_key(), timeout=30).json()
    why = {key: (card["metrics"].get(key) or {}).get("why", "not recorded") for key in ("precision", "glance")}
    look = "with a first look" if card.get("glance") else "without a first look"
    return f"in {card.get('precision', 'fp32')}: {why['precision']}\n{look}: {why['glance']}"


def show(url: str, picture: Path, answer: dict[str, Any]) -> None:
    key = '-H "X-API-Key: KEY" ' if own_key() else ""
    print(f"\nThe champion is served on {url}\n{how(url)}\n")
    print(f"First prediction, {picture}:")
    print(json.dumps(answer, indent=2))
    print(f"\n  try it        {url}/ui  (the model: {url}/ui/model, the API: {url}/docs)")
    print(f"  from a shell  curl {key}-F image=@{picture} {url}/predict")
    print("  runs, models  make ui      (MLflow on http://127.0.0.1:5000)")
    print("  the registry  make status\n  stop          Ctrl-C\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=ports.number, default=3000, help="port of the service (default 3000)")
    arguments = parser.parse_args()
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    url = f"http://{HERE}:{arguments.port}"
    own_key()  # keys that cannot be read stop the service: say so before the pipeline
    source.commit()
    bento_store.check()
    moved.tell(tracking_uri())
    ports.check(arguments.port)
    pipeline()
    ports.check(arguments.port)
    with service(arguments.port) as child:
        try:
            wait_until_ready(arguments.port, child)
            show(url, *_first_prediction(url))
            child.wait()
        except KeyboardInterrupt:
            print("\nstopping")
            return
        raise RunError("the service stopped unexpectedly; the last lines above say why")


if __name__ == "__main__":
    run_command(main)
