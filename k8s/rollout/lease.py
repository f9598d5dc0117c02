"""One roll-out at a time into a namespace, from whatever machine: a Lease that the deployer renews.

Clocks of machines differ, so a holder counts as dead when its Lease has not changed for its duration on our own clock,
as client-go's leader election has it.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Iterator

import yaml

from k8s.manifests import Object
from k8s.rollout.kubectl import MANAGER, Kubectl
from k8s.target import DeployError, moments

DURATION_S = 30
RENEW_S = 8.0
LOOK_S = 2.0


class Lease:
    """The Lease `NAME-deploy` of a namespace, held by one deployer."""

    def __init__(self, kubectl: Kubectl, name: str, holder: str) -> None:
        self.kubectl, self.name, self.holder = kubectl, f"{name}-deploy", holder
        self.lost = ""
        self._over = threading.Event()

    @contextlib.contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Wait for it, keep it meanwhile, and give it back; DeployError when another holds it for too long."""
        self._acquire(patience)
        keeper = threading.Thread(target=self._keep, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            self._over.set()
            keeper.join()
            if not self.lost:
                with contextlib.suppress(DeployError):  # it runs out by itself
                    self._take(self._read(), "")

    def require(self) -> None:
        """DeployError when another deployer has taken over: ours had not renewed in time."""
        if self.lost:
            raise DeployError(f"another deployer has taken over meanwhile: {self.lost}")

    def _acquire(self, patience: float) -> None:
        seen, since, told = "", time.monotonic(), ""
        for _ in moments(patience):
            lease = self._read()
            holder = lease.get("spec", {}).get("holderIdentity", "")
            version = lease.get("metadata", {}).get("resourceVersion", "")
            if version != seen:
                seen, since = version, time.monotonic()
            duration = lease.get("spec", {}).get("leaseDurationSeconds", DURATION_S)
            if not holder or time.monotonic() - since > duration:
                if holder:
                    print(f"{holder} has sent no sign of life for {duration} s: taking over", flush=True)
                with contextlib.suppress(DeployError):  # somebody else was quicker
                    self._take(lease, self.holder)
                    return
            elif holder != told:
                told = holder
                print(f"waiting for {holder}, which is rolling out in {self.kubectl.namespace}", flush=True)
            time.sleep(LOOK_S)
        raise DeployError(
            f"{told or 'another deployer'} is still rolling out in {self.kubectl.namespace}: try again later"
        )

    def _read(self) -> Object:
        return self.kubectl.json("get", "lease", self.name, "--ignore-not-found")

    def _take(self, lease: Object, holder: str) -> None:
        """Write the holder; DeployError when the Lease has changed since it was read."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"leaseDurationSeconds": DURATION_S, "renewTime": now} | ({"holderIdentity": holder} if holder else {})
        if not lease:
            metadata = {"name": self.name, "namespace": self.kubectl.namespace}
            made = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            self.kubectl("create", f"--field-manager={MANAGER}", "-f", "-", text=yaml.safe_dump(made))
            return
        same = {"op": "test", "path": "/metadata/resourceVersion", "value": lease["metadata"]["resourceVersion"]}
        self.kubectl.patch("lease", self.name, [same, {"op": "add", "path": "/spec", "value": spec}])

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S):
            with contextlib.suppress(DeployError):  # the next renewal may succeed
                lease = self._read()
                holder = lease.get("spec", {}).get("holderIdentity", "")
                if holder != self.holder:
                    self.lost = holder or "somebody"
                    return
                self._take(lease, self.holder)
