"""The documentation the service gives of itself: OpenAPI, and Swagger UI that contacts no outside host."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from training.common import units
from training.params import Serve
from training.serving.api import examples
from training.serving.api.answers import Answer, Answers, Error, FeedbackRequest, FeedbackResponse, Health, HeatMap
from training.serving.errors import Fault

START = 'SwaggerUIBundle({url: "docs.json", dom_id: "#swagger-ui", validatorUrl: null, deepLinking: true})'
PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Picture classifier</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="static_content/favicon-light-32x32.png">
<link rel="stylesheet" href="static_content/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="static_content/swagger-ui-bundle.js"></script>
<script>{START}</script></body></html>
"""
ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-light-32x32.png")
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    f"script-src 'self' 'sha256-{base64.b64encode(hashlib.sha256(START.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

TAGS = {
    "predict": "What is on a picture, and what on it spoke for that.",
    "feedback": "What a picture really showed: live accuracy is counted from it.",
    "model": "The model card: what was measured, and where the model comes from.",
    "health": "For probes and load balancers.",
    "metrics": "For Prometheus.",
}

PROBLEMS = {
    400: "form or request cannot be read, or the connection ended (broken_multipart, invalid_request, invalid_http, "
    "disconnected, broken_json), or a web page may not call (not_allowed)",
    401: "an API key is needed (no_valid_key)",
    404: "no such address, or no such prediction (not_found, unknown_request)",
    405: "not with that method (method_not_allowed)",
    408: "the body or the head came too slowly (slow_upload, slow_head)",
    409: "different pictures came with one X-Request-ID (ambiguous_request_id); label changed often (too_many_changes)",
    413: "too much (too_many_bytes, too_many_pixels)",
    415: "not a picture that is accepted (wrong_content_type, not_an_image, unsupported_format)",
    416: "a file of a page has no such bytes (wrong_range)",
    422: "a picture or field is missing or unusable (missing_field, repeated_field, not_a_file, not_base64, empty, "
    "corrupt, blank, value_range, too_small, extreme_aspect, too_many_pictures, too_many_fields, wrong_parameter, "
    "wrong_feedback, unknown_label)",
    429: "too many requests (too_many_requests); Retry-After says when",
    431: "the head of the request is too long (long_head)",
    500: "the service failed (internal)",
    503: "too much is waiting, the model does not answer, or the disk is full or the request log cannot be used "
    "(overloaded, not_ready, not_recorded); Retry-After says when",
    504: "no answer in time (timeout)",
}
_GET_PROBLEMS = (400, 405, 408, 431, 500, 504)
_POST_PROBLEMS = (*_GET_PROBLEMS, 401, 413, 415, 422, 429, 503)
_PICTURE_FILE = {"type": "string", "format": "binary"}
_PICTURE_TEXT = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "a picture file in base64, or as a data URL; an address is never fetched",
    "examples": ["data:image/jpeg;base64,/9j/4AAQSkZJRg=="],
}
_HEAT = {
    "name": "heat",
    "in": "query",
    "description": "false: the picture alone, as the network sees it",
    "schema": {"type": "boolean", "default": True},
}
_ABSTAIN = {
    "name": "abstain",
    "in": "query",
    "description": 'false: always name a class, never answer "not sure"',
    "schema": {"type": "boolean", "default": True},
}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "An id of your own, unique per request. It comes back with the answer. The service makes one where "
    "it is missing, or is not 1 to 128 of `A-Z a-z 0-9 . _ : -`. Feedback on an id that was sent with different "
    "pictures is refused.",
    "schema": {"type": "string"},
    "example": "order-17",
}


def document(settings: Serve, classes: Sequence[str], version: str, keyed: bool) -> dict[str, Any]:
    """The OpenAPI document of the service with a model of these classes."""
    kinds = (Answer, HeatMap, Health, Error, FeedbackRequest, FeedbackResponse)
    models = [(model, "serialization") for model in kinds]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas["$defs"]["FeedbackRequest"]["properties"]["label"]["enum"] = list(classes)
    components: dict[str, Any] = {"schemas": schemas["$defs"] | {"Answers": _ANSWERS, "ModelCard": _MODEL_CARD}}
    components["responses"] = {str(status): _problem(status, text) for status, text in PROBLEMS.items()}
    security: list[dict[str, list[str]]] = []
    if keyed:
        security = [{"header": []}, {"bearer": []}]
        components["securitySchemes"] = {
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
    shown = examples.answers(classes)
    paths = _pictures(settings, shown) | _feedback(shown) | _facts(shown)
    for operation in (item["post"] for item in paths.values() if "post" in item):
        operation["security"] = security
    return {
        "openapi": "3.1.0",
        "info": {"title": "Picture classifier", "version": version, "description": _about(settings)},
        "servers": [{"url": "."}],  # where this document lies: a proxy may have cut a prefix off
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": components,
    }


def _about(settings: Serve) -> str:
    formats = ", ".join(settings.formats)
    page = "Try it in the browser at [/ui](ui). " if settings.ui else ""
    size, batch = units.size(settings.max_bytes), units.size(settings.max_batch_bytes)
    most = (settings.max_pixels_whole, settings.max_pixels_heif, settings.max_pixels)
    whole, heif, jpeg = (units.pixels(count) for count in most)
    return (
        f"{page}\n\n"
        f"- **Formats**: {formats}.\n"
        f"- **One picture**: at most {size}, and at least {settings.min_side} pixels on the short side.\n"
        f"- **Pixels**: at most {jpeg} in a JPEG (eight times as many in a single scan, as cameras write it), "
        f"{heif} in HEIC or AVIF, {whole} in any other format.\n"
        f"- **One batch**: at most {settings.max_pictures} pictures and {batch}.\n"
        f"- **Time**: a client has {settings.upload_timeout:g} s to send its pictures, and gets an answer within "
        f"{settings.timeout:g} s.\n"
        "- **Headers**: every answer carries `X-Request-ID`, `X-Model-Version` and `Server-Timing`.\n"
        "- **Errors**: all have one JSON shape, with a `code` for programs and a `hint` for people."
    )


def _pictures(settings: Serve, shown: dict[str, Any]) -> dict[str, Any]:
    one = {
        "multipart/form-data": {"schema": _form("image", _PICTURE_FILE)},
        "application/json": {"schema": _form("image", _PICTURE_TEXT)},
        "application/octet-stream": {"schema": _PICTURE_FILE},
        **{f"image/{name.lower()}": {"schema": _PICTURE_FILE} for name in settings.formats},
    }
    files = {"type": "array", "items": _PICTURE_FILE, "minItems": 1, "maxItems": settings.max_pictures}
    many = {
        "multipart/form-data": {"schema": _form("images", files)},
        "application/json": {"schema": _form("images", files | {"items": _PICTURE_TEXT})},
    }
    most = f"at most {settings.max_pictures} pictures and {units.size(settings.max_batch_bytes)}"
    return {
        "/predict": _post(
            ("predict", "predict", "Classify one picture"),
            "The likeliest class with its calibrated confidence. `label` is null, and `reason` says why, when the "
            "model is not sure.",
            one,
            _json("Answer", shown["predict"]),
            [_ABSTAIN],
        ),
        "/predict_batch": _post(
            ("predict", "predict_batch", "Classify several pictures"),
            f"A list in the order of the pictures: an answer each, or that picture's own error. A batch has {most}.",
            many,
            _json("Answers", shown["predict_batch"]),
            [_ABSTAIN],
        ),
        "/explain": _post(
            ("predict", "explain", "Draw a heat map of what spoke for the class"),
            "A PNG of the middle square of the picture, which is what the network sees, under its class-activation "
            "map. `heat=false` leaves the map out: a preview of formats that a browser cannot show.",
            one,
            {"image/png": {"schema": _PICTURE_FILE}},
            [_HEAT],
        ),
        "/heatmap": _post(
            ("predict", "heatmap", "Get the heat map as numbers"),
            "The class-activation map of the likeliest class in rows of numbers between 0 and 1, with the answer.",
            one,
            _json("HeatMap", shown["heatmap"]),
            [_ABSTAIN],
        ),
    }


def _feedback(shown: dict[str, Any]) -> dict[str, Any]:
    said = _post(
        ("feedback", "give_feedback", "Say what a picture really showed"),
        "Live accuracy is counted from it. A later label replaces an earlier one.",
        _json("FeedbackRequest"),
        _json("FeedbackResponse", shown["feedback"]),
        [],
    )
    said["post"]["responses"] |= {status: {"$ref": f"#/components/responses/{status}"} for status in ("404", "409")}
    return {"/feedback": said}


def _facts(shown: dict[str, Any]) -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}, "example": "\n"}}
    scrape = {"text/plain": {"schema": {"type": "string"}, "example": examples.METRICS}}
    return {
        "/model": _get(("model", "get_model", "Read the model card"), _json("ModelCard", shown["model"])),
        "/health": _get(("health", "health", "See what is served"), _json("Health", shown["health"])),
        "/livez": _get(("health", "livez", "Check that the process runs"), text),
        "/readyz": _get(("health", "readyz", "Check that the model answers"), text, 503),
        "/metrics": _get(("metrics", "metrics", "Scrape the Prometheus metrics"), scrape),
    }


def _post(
    names: tuple[str, str, str],
    description: str,
    body: dict[str, Any],
    answer: dict[str, Any],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """`names`: tag, operation id and summary."""
    operation = _operation(names, answer, _POST_PROBLEMS, parameters)
    return {"post": operation | {"description": description, "requestBody": {"required": True, "content": body}}}


def _get(names: tuple[str, str, str], answer: dict[str, Any], *problems: int) -> dict[str, Any]:
    return {"get": _operation(names, answer, (*_GET_PROBLEMS, *problems), [])}


def _operation(
    names: tuple[str, str, str], answer: dict[str, Any], problems: Sequence[int], parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    tag, operation_id, summary = names
    responses: dict[str, Any] = {"200": {"description": "the answer", "headers": _HEADERS, "content": answer}}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(problems)}
    return {
        "tags": [tag],
        "operationId": operation_id,
        "summary": summary,
        "parameters": [*parameters, _REQUEST_ID],
        "responses": responses,
    }


def _form(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _json(model: str, shown: dict[str, Any] | None = None) -> dict[str, Any]:
    """`shown`: examples by what they show."""
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model}"}}
    if shown:
        content["examples"] = {name.replace(" ", "_"): {"summary": name, "value": each} for name, each in shown.items()}
    return {"application/json": content}


_HEADERS = {
    "X-Request-ID": {"schema": {"type": "string"}},
    "X-Model-Version": {"schema": {"type": "string"}},
    "Server-Timing": {"schema": {"type": "string"}, "description": "milliseconds: queue, decode, inference, total"},
}


_MORE_HEADERS = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After", 504: "Retry-After"}


def _problem(status: int, text: str) -> dict[str, Any]:
    more = {_MORE_HEADERS[status]: {"schema": {"type": "string"}}} if status in _MORE_HEADERS else {}
    content = _json("Error")
    content["application/json"]["example"] = _EXAMPLES[status].body("5743f6a7baeb4c5097ab4bf2f122008e")
    return {"description": text, "headers": _HEADERS | more, "content": content}


_EXAMPLES = {status: Fault.of_status(status, 30) for status in (400, 404, 405, 415, 416, 500, 503, 504)} | {
    401: Fault(401, "no_valid_key", "this address needs an API key", "send a key as X-API-Key"),
    408: Fault(408, "slow_upload", "the body did not arrive within 10 s", "send less, or faster"),
    409: Fault(
        409, "ambiguous_request_id", "different pictures were sent with the request id 'order-17'", "send others"
    ),
    413: Fault(413, "too_many_bytes", "more than 10 MB", "send less"),
    422: Fault(422, "missing_field", "the form has no field 'image', but 'file'", "name the field 'image'"),
    429: Fault(429, "too_many_requests", "more than 5 requests a second", "send fewer"),
    431: Fault(431, "long_head", "the headers exceed 65536 bytes", "send fewer headers"),
}


_ANSWERS = {
    "description": Answers.__doc__,
    "type": "array",
    "items": {"anyOf": [{"$ref": "#/components/schemas/Answer"}, {"$ref": "#/components/schemas/Error"}]},
}


_MODEL_CARD = {
    "description": "What evaluation measured, the thresholds, where the model comes from, how it became champion, and "
    "how it does. More keys may come.",
    "type": "object",
    "required": ["name", "classes", "metrics", "model", "model_sha256", "promotion", "live"],
    "properties": {
        "name": {"type": "string"},
        "classes": {"type": "array", "items": {"type": "string"}},
        "metrics": {"type": "object", "description": "measured on the test split"},
        "model": {"$ref": "#/components/schemas/Model"},
        "model_sha256": {"type": "string", "description": "of model.onnx"},
        "promotion": {
            "anyOf": [{"type": "object"}, {"type": "null"}],
            "description": "the gate's verdict, and the former champions; null when MODEL_PATH is served",
        },
        "live": {"anyOf": [{"type": "object"}, {"type": "null"}], "description": "accuracy by feedback; null without"},
    },
    "additionalProperties": True,
}


async def page(_: Request) -> Response:
    """Swagger UI out of BentoML's package; BentoML's own page loads a tag manager."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})
