"""Mixed traffic against a running service; errors or a slow 95th percentile make the exit code 1.

    make load                                       # 8 users for 30 s against http://127.0.0.1:3000 (URL=...)
    locust -f tests/load/locustfile.py --host http://127.0.0.1:3000      # the same with locust's page on port 8089

LOAD_P95_MS (default 500) is the limit of the 95th percentile of /predict in milliseconds. The pictures are those of the
model folder, and the feedback is what they really show: it counts in the live accuracy of the service.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from locust import FastHttpUser, constant, events, task
from locust.env import Environment

from training.serving.settings import own_key

FOLDER = Path("models/model")
PICTURES: list[tuple[bytes, str]] = [
    ((FOLDER / record["file"]).read_bytes(), record["label"])
    for record in json.loads((FOLDER / "model_card.json").read_text())["self_check"]
]
P95_MS = float(os.environ.get("LOAD_P95_MS", "500"))


class Visitor(FastHttpUser):
    """Mostly single pictures, now and then everything else; a visitor begins with one of each."""

    wait_time = constant(0)
    default_headers = own_key()
    client: Any  # locust's types forbid a body of bytes and several files, which it sends well

    def on_start(self) -> None:
        self.labelled = itertools.cycle(PICTURES)
        for each in dict.fromkeys(self.tasks):
            cast(Callable[[Visitor], None], each)(self)

    @property
    def picture(self) -> bytes:
        return next(self.labelled)[0]

    @task(16)
    def predict(self) -> None:
        self.client.post("/predict", files={"image": ("picture", self.picture)})

    @task(4)
    def predict_raw(self) -> None:
        self.client.post("/predict", data=self.picture, headers={"Content-Type": "image/png"})

    @task(1)
    def predict_batch(self) -> None:
        files = [("images", (f"picture{number}", self.picture)) for number in range(4)]
        self.client.post("/predict_batch", files=files)

    @task(1)
    def explain(self) -> None:
        self.client.post("/explain", files={"image": ("picture", self.picture)})

    @task(1)
    def heatmap(self) -> None:
        self.client.post("/heatmap", files={"image": ("picture", self.picture)})

    @task(1)
    def feedback(self) -> None:
        """Say what a picture showed that was just answered."""
        picture, label = next(self.labelled)
        answer = self.client.post("/predict", files={"image": ("picture", picture)})
        if answer.status_code == 200:
            self.client.post("/feedback", json={"request_id": answer.json()["request_id"], "label": label})

    @task(1)
    def broken(self) -> None:
        with self.client.post(
            "/predict", files={"image": ("x", b"no picture")}, catch_response=True, name="broken"
        ) as r:
            if r.status_code == 415:
                r.success()
            else:
                r.failure(f"a broken file got {r.status_code}, not 415")

    @task(1)
    def health(self) -> None:
        self.client.get("/health")


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Set the exit code from errors and the 95th percentile."""
    total = environment.stats.total
    slowest = environment.stats.get("/predict", "POST").get_response_time_percentile(0.95) or 0
    if total.num_requests == 0 or total.num_failures or slowest > P95_MS:
        print(
            f"failed: {total.num_failures} of {total.num_requests} requests, p95 {slowest:.0f} ms (limit {P95_MS:.0f})"
        )
        environment.process_exit_code = 1
