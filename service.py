"""The service: `bentoml serve` answers what is on a picture, with the model that the registry calls champion.

    POST /predict         one picture -> label, confidence, probabilities, and the model that says so
    POST /predict_batch   many pictures -> a list of answers, each its own
    POST /explain         one picture -> PNG of it under a heat map of what spoke for the class
    POST /heatmap         one picture -> the same map as numbers, with the answer
    GET  /ui /ui/model    the same for people: a page to try it, and the model card drawn
    POST /feedback        what a picture really showed -> live accuracy
    GET  /health /model /livez /readyz /metrics /docs

A request meets, in this order: accepting.py (which worker), edge.py (id, key, rate, known address), traffic.py
(BentoML's metrics), direct.py (time limit), requests.py (read, check and decode the picture, in threads), batching.py
(BentoML's adaptive batching), then `predict` below for the whole batch, engine.py (ONNX Runtime), answers.py, watch.py
(metrics, request log). What is wrong with a request is a `Fault` (errors.py). Settings: sections `serve` and `capture`
of params.yaml, SERVE_<KEY> and CAPTURE_<KEY> in the environment. Without a champion the service does not start.
"""

from __future__ import annotations

import contextlib
import gc
from typing import Any, ClassVar

import bentoml
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from training.common.command import spare_loopback
from training.serving import settings, startup
from training.serving.api import docs, explain
from training.serving.api.answers import Answer, Answerer, Answers, HeatMap, Overlay
from training.serving.api.requests import ManyPictures, OnePicture, Reader
from training.serving.bento import logs, tracing
from training.serving.connections.drain import Drain
from training.serving.engine import Engine, Seen
from training.serving.uploads import RejectedUpload, Upload

spare_loopback()
with startup.refusal_in_one_line():
    SETTINGS = settings.load(startup.ROOT)
    CAPTURE = settings.load_capture(startup.ROOT)
    API_KEYS = settings.api_keys()
    PIN = startup.pinned()  # None: MODEL_PATH is served
    tracing.exporter()
logs.configure(SETTINGS.log_format)
DRAIN = Drain(SETTINGS.drain)
BATCHING: dict[str, Any] = {
    "batchable": True,
    "max_batch_size": SETTINGS.max_batch,
    "max_latency_ms": int(SETTINGS.timeout * 1000),  # BentoML wants one; here nothing waits for a fuller batch
}


class Guarded(bentoml.Service[Any]):
    """BentoML's service with our edge around it and its batching tuned."""

    started: ClassVar[bool] = False

    def schema(self) -> dict[str, Any]:
        """`bentoml build` asks for it, long before any worker: what would not be served is not built."""
        if not self.started:
            startup.check(PIN)
        schema: dict[str, Any] = super().schema()
        return schema

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        from training.serving.connections import metric_files
        from training.serving.connections.shared_counters import shared_counters

        self.inject_config()
        counters = shared_counters()
        metric_files.install(counters.row)  # before those that make metrics are imported
        from training.serving.api.edge import Cors, Edge
        from training.serving.api.pages import Pages
        from training.serving.bento.batching import BatchingApp
        from training.serving.connections.accepting import SharingLoop
        from training.serving.connections.protocol import BoundedProtocol
        from training.serving.records import metrics

        type(self).started = True
        folder = startup.model_folder(PIN)
        version = startup.version(PIN, folder)
        SharingLoop.install(counters)
        BoundedProtocol.install(SETTINGS, version, counters, lambda code: metrics.REJECTIONS.labels(code).inc())
        factory = BatchingApp(self, SETTINGS, settings.threads(SETTINGS, counters.workers), is_main)
        theirs = factory()
        routes = [route for route in (*theirs.routes, *PAGES.routes) if isinstance(route, Route)]
        paths = {route.path for route in routes} | {f"/static_content/{name}" for name in docs.ASSETS}
        app = factory.wrapped(theirs, sorted(paths - {"/metrics"}))
        if SETTINGS.ui:
            app = Pages(app, folder)
            paths |= app.paths
        edge = Edge(app, SETTINGS, paths, API_KEYS, version, DRAIN)
        return Cors(edge, SETTINGS.cors_origins, version) if SETTINGS.cors_origins else edge


async def document(_: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(bentoml.get_current_service().document)


async def health(_: Request) -> Response:
    """What is served and from where; readiness is /readyz."""
    return JSONResponse(bentoml.get_current_service().health())


async def model_card(_: Request) -> Response:
    """The card that evaluation wrote, the names of the model in the registries, how it became champion, how it does."""
    service = bentoml.get_current_service()
    live = None
    with contextlib.suppress(OSError):  # feedback.jsonl cannot be read: facts.py tells it in the log
        live = (await to_thread.run_sync(service.feedback.accuracy)).get(service.facts.version)
    facts = {
        "model": service.answerer.model,
        "model_sha256": service.folder.sha256,
        "promotion": startup.promotion(PIN),
        "live": live and live._asdict(),
    }
    return JSONResponse(service.folder.card | facts)


async def feedback(request: Request) -> Response:
    """What somebody says a picture showed."""
    from training.serving.api.feedback import answer

    service = bentoml.get_current_service()
    return await answer(request, service.feedback, service.reader)


PAGES = Starlette(
    routes=[
        Route("/", docs.page),
        Route("/docs", docs.page),
        Route("/docs.json", document),
        Route("/health", health),
        Route("/model", model_card),
        Route("/feedback", feedback, methods=["POST"]),
    ]
)


@bentoml.asgi_app(PAGES, path="/")
@bentoml.service(
    name="picture-classifier",
    service_class=Guarded,
    labels=startup.labels(PIN),
    workers=SETTINGS.workers,
    traffic={"timeout": SETTINGS.timeout},
    logging={"access": {"enabled": False}},
    metrics={
        "duration": {"buckets": [0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]}
    },
    envs=[  # memory of large pictures goes back to the system
        {"name": "MALLOC_ARENA_MAX", "value": "2"},
        {"name": "MALLOC_MMAP_THRESHOLD_", "value": "1048576"},
        {"name": "MALLOC_TRIM_THRESHOLD_", "value": "33554432"},  # that of small ones stays: 180 page faults each
        *startup.image_labels(PIN),
    ],
)
class PictureClassifier:
    """Says what is on a picture."""

    if PIN is not None:
        model = bentoml.models.BentoModel(PIN.bento_tag)

    @bentoml.on_deployment
    @staticmethod
    def refuse_a_broken_model() -> None:
        from training.serving.bento import supervision

        startup.check(PIN)
        supervision.install()

    def __init__(self) -> None:
        from training.serving.connections.shared_counters import shared_counters
        from training.serving.records.facts import Facts  # these in workers only, because of metrics.py
        from training.serving.records.feedback_store import FeedbackStore
        from training.serving.records.watch import Watch
        from training.serving.threads import Threads

        self.folder = startup.model_folder(PIN)
        # One thread for each core, whether it decodes or runs the network: more keep one another, and the event loop,
        # from running. Only pictures that are slow to decode have others (requests.py).
        counters = shared_counters()
        self.threads = Threads(settings.threads(SETTINGS, counters.workers), "work")
        self.engine = Engine(self.folder, self.threads)
        self.answerer = Answerer(self.folder, PIN)
        self.gate = startup.gate(PIN)
        self.document = docs.document(SETTINGS, self.folder.classes, "1", bool(API_KEYS))
        version = startup.version(PIN, self.folder)
        self.watch = Watch(self.folder, self.answerer.model["name"], version, SETTINGS, CAPTURE)
        self.reader = Reader(SETTINGS, self.folder.preprocessing, self.watch, self.threads, counters)
        self.feedback = FeedbackStore(self.watch.folder, self.watch, self.folder.classes)
        model = self.answerer.model
        self.facts = Facts(self.folder, model, version, self.feedback, counters, SETTINGS.max_waiting)
        self.feedback.follow()
        gc.collect()
        gc.freeze()  # what is there now stays: collections need not look at it again

    @bentoml.on_startup
    async def watch_for_sigterm(self) -> None:
        DRAIN.install()

    @bentoml.on_shutdown
    def close(self) -> None:
        self.threads.close()
        self.reader.close()
        self.watch.close()
        self.feedback.close()

    def __metrics__(self, text: str) -> str:
        return text + self.facts.text()

    async def __is_ready__(self) -> bool:
        return not DRAIN.began and await self.engine.alive()

    @bentoml.api(input_spec=OnePicture, output_spec=Answer, **BATCHING)
    async def predict(self, image: list[Upload]) -> list[dict[str, Any]]:
        """Classify one picture. BentoML calls this once for the pictures of several requests."""
        return await self._answers(image)

    @bentoml.api(input_spec=ManyPictures, output_spec=Answers, **BATCHING)
    async def predict_batch(self, images: list[Upload | RejectedUpload]) -> list[dict[str, Any]]:
        """Classify many pictures: a list in their order, each an answer or that picture's own error."""
        answers = iter(await self._answers([image for image in images if isinstance(image, Upload)]))
        for image in images:
            if isinstance(image, RejectedUpload):
                self.watch.refused(image.fault.code)
        return [next(answers) if isinstance(image, Upload) else image.body() for image in images]

    @bentoml.api(input_spec=OnePicture, output_spec=Overlay)
    async def explain(self, image: list[Upload], ctx: bentoml.Context) -> Response:
        """The picture as the network sees it, under a heat map of what spoke for the class: PNG."""
        mapped = explain.mapped(ctx.request)
        [picture], [seen] = image, await self._see(image)
        warmth = explain.heat(seen.activation[int(seen.probabilities.argmax())]) if mapped else None
        return Response(await to_thread.run_sync(explain.drawn, picture.pixels, warmth), media_type="image/png")

    @bentoml.api(input_spec=OnePicture, output_spec=HeatMap)
    async def heatmap(self, image: list[Upload]) -> Response:
        """The heat map as rows of numbers, with the class that it is of and the answer."""
        [picture], [seen] = image, await self._see(image)
        best = int(seen.probabilities.argmax())
        answer = self.answerer.answer(picture, seen)
        heat = explain.heat(seen.activation[best]).tolist()
        return JSONResponse({"explained": self.folder.classes[best], "heat": heat, "answer": answer})

    async def _answers(self, pictures: list[Upload]) -> list[dict[str, Any]]:
        seen = await self._see(pictures)
        answers = [self.answerer.answer(*pair) for pair in zip(pictures, seen, strict=True)]
        for each in zip(pictures, seen, answers, strict=True):
            self.watch.predicted(*each)
        return answers

    async def _see(self, pictures: list[Upload]) -> list[Seen]:
        if not pictures:
            return []
        alone = self.reader.waiting == 1
        seen = await self.engine.run([picture.pixels for picture in pictures], alone)
        self.watch.ran(seen)
        for picture, each in zip(pictures, seen, strict=True):
            waited = each.begun - picture.ready
            picture.took(queue=waited, decode=picture.decoded.seconds, inference=each.seconds)
        return seen

    def health(self) -> dict[str, Any]:
        source = "champion" if PIN else "MODEL_PATH"
        status = "draining" if DRAIN.began else "ok"
        return {"status": status, "source": source, "gate": self.gate, "model": self.answerer.model}
