"""A port of this machine that leads to a pod."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator

from k8s.rollout.kubectl import Kubectl
from k8s.target import DeployError

FORWARD_S = 20.0


@contextlib.contextmanager
def forwarded(kubectl: Kubectl, pod: str, port: int) -> Iterator[str]:
    """The URL of a pod's port, through `kubectl port-forward`; NetworkPolicies do not concern it."""
    command = kubectl.command("port-forward", f"pod/{pod}", f":{port}")
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )  # a process group of its own: Ctrl-C is for deploy.py
    try:
        yield f"http://127.0.0.1:{_local_port(child)}"
    finally:
        child.terminate()
        child.wait()


def _local_port(child: subprocess.Popen[str]) -> str:
    """The one that kubectl names in its first line."""
    assert child.stdout is not None
    impatience = threading.Timer(FORWARD_S, child.terminate)
    impatience.start()
    line = child.stdout.readline()
    impatience.cancel()
    if "Forwarding from" not in line:
        raise DeployError(f"kubectl port-forward does not work: {line.strip() or f'no answer in {FORWARD_S:g} s'}")
    return line.split(" -> ")[0].rsplit(":", 1)[1]
