"""What the service answers: models for the documentation, and the answer itself from what the network saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import bentoml
import orjson
from bentoml.validators import ContentType
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from training.model.folder import ModelFolder
from training.model.pin import Champion
from training.serving.bento.types import IORootModel
from training.serving.engine import Seen
from training.serving.uploads import Upload


class Model(BaseModel):
    """The model that answered, and where it comes from. The last four are null when MODEL_PATH is served."""

    name: str = Field(examples=["cats-vs-dogs"])
    data_hash: str = Field(description="SHA-256 of the manifest of the pictures it learnt from", examples=["d54e4482"])
    git_commit: str = Field(description="of the code that trained it", examples=["15cc4315"])
    version: str | None = Field(description="in MLflow", examples=["3"])
    bento_tag: str | None = Field(examples=["cats-vs-dogs:0123456789abcdef"])
    run_id: str | None = Field(description="in MLflow")


class Answer(bentoml.IODescriptor):
    """A classified picture, or, with label null, the reason why the model is not sure."""

    label: str | None = Field(examples=["cat"])
    confidence: float = Field(ge=0, le=1, description="calibrated: right this often", examples=[0.98])
    probabilities: dict[str, float] = Field(examples=[{"cat": 0.98, "dog": 0.02}])
    reason: Literal["low_confidence", "unfamiliar"] | None = Field(None, description="present if label is null")
    model: Model
    request_id: str = Field(examples=["5743f6a7baeb4c5097ab4bf2f122008e"])

    @classmethod
    async def to_http_response(cls, obj: Any, _serde: Any) -> Response:
        # BentoML's own way works out a JSON schema for every response
        return Response(orjson.dumps(obj[0]), media_type="application/json")


class ErrorDetail(BaseModel):
    code: str = Field(description="for programs", examples=["not_an_image"])
    message: str = Field(description="what is wrong", examples=["the file is not a picture"])
    hint: str = Field(description="what would be right", examples=["send a JPEG or PNG file"])


class Error(BaseModel):
    """Every error of the service."""

    error: ErrorDetail
    request_id: str


class Gate(BaseModel):
    """How the model was judged before it was served."""

    verdict: Literal["pass", "forced"] = Field(description="forced: it failed, and somebody overruled the gate")
    forced: str | None = Field(description="why the gate was overruled", examples=[None])
    judged: str = Field(examples=["2026-01-01T00:00:00+00:00"])


class Health(BaseModel):
    """What is served, and where it comes from."""

    status: Literal["ok", "draining"] = Field(examples=["ok"])
    source: Literal["champion", "MODEL_PATH"] = Field(examples=["champion"])
    gate: Gate | None = Field(description="null when MODEL_PATH is served: nobody judged that folder")
    model: Model


class Answers(IORootModel[list[Answer | Error]]):
    """One answer, or that picture's own error, for each picture in order."""

    @classmethod
    async def to_http_response(cls, obj: Any, _serde: Any) -> Response:
        return Response(orjson.dumps(obj), media_type="application/json")


class FeedbackRequest(BaseModel):
    """What a picture shows, by somebody who knows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: str = Field(
        min_length=1,
        max_length=140,
        description="of an answer of /predict; of a picture of /predict_batch, with its number",
        examples=["5743f6a7baeb4c5097ab4bf2f122008e", "order-17.0"],
    )
    label: str = Field(description="a class of the model", examples=["cat"])


class FeedbackResponse(BaseModel):
    """Feedback that is kept."""

    request_id: str = Field(examples=["5743f6a7baeb4c5097ab4bf2f122008e"])
    label: str = Field(examples=["cat"])
    predicted: str = Field(description="the class with the highest probability")
    correct: bool
    version: str = Field(description="of the model that predicted")


class Overlay(IORootModel[Annotated[Path, ContentType("image/png")]]):
    """A PNG; BentoML's client saves it to a file."""


class HeatMap(bentoml.IODescriptor):
    """The class-activation map of the likeliest class: rows of numbers, 0 where least spoke for it, 1 where most did.

    It lies over the middle square of the picture, which is all that the network sees.
    """

    explained: str = Field(description="the likeliest class, which the map is of", examples=["cat"])
    heat: list[list[Annotated[float, Field(ge=0, le=1)]]] = Field(examples=[[[0.0, 0.2], [0.4, 1.0]]])
    answer: Answer


class Answerer:
    """Turns what the network saw into answers of one model."""

    def __init__(self, folder: ModelFolder, pin: Champion | None) -> None:
        lineage = folder.card["lineage"]
        self.model = {
            "name": pin.name if pin else folder.card["name"],
            "version": pin.mlflow_version if pin else None,
            "bento_tag": pin.bento_tag if pin else None,
            "run_id": pin.run_id if pin else None,
            "data_hash": lineage["data_hash"],
            "git_commit": lineage["git_commit"],
        }
        self.classes = folder.classes
        self.min_confidence = float(folder.card["abstention"]["confidence_threshold"])
        self.max_novelty = float(folder.card["abstention"]["novelty_threshold"])

    def answer(self, picture: Upload, seen: Seen) -> dict[str, Any]:
        """The JSON of `Answer`."""
        best = int(seen.probabilities.argmax())
        confidence = float(seen.probabilities[best])
        reason = self._reason(confidence, seen.novelty) if picture.abstain else None
        return {
            "label": None if reason else self.classes[best],
            "confidence": confidence,
            "probabilities": dict(zip(self.classes, seen.probabilities.tolist(), strict=True)),
            **({"reason": reason} if reason else {}),
            "model": self.model,
            "request_id": picture.request_id,
        }

    def _reason(self, confidence: float, novelty: float) -> str | None:
        if novelty > self.max_novelty:
            return "unfamiliar"
        return "low_confidence" if confidence < self.min_confidence else None
