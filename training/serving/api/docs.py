"""The documentation the service gives of itself: OpenAPI, and Swagger UI that contacts no outside host."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from training.params import Serve
from training.serving.api.answers import Answer, Answers, Error, FeedbackRequest, FeedbackResponse, Health
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

PROBLEMS = {
    400: "form or request cannot be read, or the connection ended (broken_multipart, invalid_request, invalid_http, "
    "disconnected), or a web page may not call (not_allowed)",
    401: "an API key is needed (no_valid_key)",
    404: "no such address, or no such prediction (not_found, unknown_request)",
    405: "not with that method (method_not_allowed)",
    408: "the body or the head came too slowly (slow_upload, slow_head)",
    409: "different pictures came with one X-Request-ID (ambiguous_request_id); label changed often (too_many_changes)",
    413: "too much (too_many_bytes, too_many_pixels)",
    415: "not a picture that is accepted (wrong_content_type, not_an_image, unsupported_format)",
    416: "a file of a page has no such bytes (wrong_range)",
    422: "a picture or field is missing or unusable (missing_field, repeated_field, not_a_file, empty, corrupt, "
    "too_small, extreme_aspect, too_many_pictures, too_many_fields, wrong_parameter, wrong_feedback, unknown_label)",
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
_ABSTAIN = {
    "name": "abstain",
    "in": "query",
    "description": 'false: always name a class, never answer "not sure"',
    "schema": {"type": "boolean", "default": True},
}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "the id of the request, another for each: it comes back with the answer, and feedback on an id that "
    "was sent with different pictures is refused; made when missing, or when it is not 1 to 128 of A-Z a-z 0-9 . _ : -",
    "schema": {"type": "string"},
    "example": "order-17",
}


def document(settings: Serve, classes: Sequence[str], version: str, keyed: bool) -> dict[str, Any]:
    """The OpenAPI document of the service with a model of these classes."""
    models = [(model, "serialization") for model in (Answer, Health, Error, FeedbackRequest, FeedbackResponse)]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas["$defs"]["FeedbackRequest"]["properties"]["label"]["enum"] = list(classes)
    components: dict[str, Any] = {"schemas": schemas["$defs"] | {"Answers": _ANSWERS}}
    components["responses"] = {str(status): _problem(status, text) for status, text in PROBLEMS.items()}
    security: list[dict[str, list[str]]] = []
    if keyed:
        security = [{"header": []}, {"bearer": []}]
        components["securitySchemes"] = {
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
    paths = _pictures(settings, classes) | _feedback() | _facts()
    for path in ("/predict", "/predict_batch", "/explain", "/feedback"):
        paths[path]["post"]["security"] = security
    return {
        "openapi": "3.1.0",
        "info": {"title": "Picture classifier", "version": version, "description": _about(settings)},
        "servers": [{"url": "."}],  # where this document lies: a proxy may have cut a prefix off
        "paths": paths,
        "components": components,
    }


def _about(settings: Serve) -> str:
    formats = ", ".join(settings.formats)
    page = "A page to try it is at [/ui](ui). " if settings.ui else ""
    return (
        f"{page}Formats: {formats}. A picture has at most {settings.max_bytes} bytes and, as a JPEG, "
        f"{settings.max_pixels} pixels, otherwise {settings.max_pixels_whole}. "
        "Every answer carries `X-Request-ID` and `X-Model-Version`; every error is JSON of one shape."
    )


def _pictures(settings: Serve, classes: Sequence[str]) -> dict[str, Any]:
    one = {
        "multipart/form-data": {"schema": _form("image", _PICTURE_FILE)},
        **{f"image/{name.lower()}": {"schema": _PICTURE_FILE} for name in settings.formats},
    }
    files = {"type": "array", "items": _PICTURE_FILE, "minItems": 1, "maxItems": settings.max_pictures}
    many = {"multipart/form-data": {"schema": _form("images", files)}}
    png = {"schema": _PICTURE_FILE}
    kind = {
        "name": "format",
        "in": "query",
        "schema": {"type": "string", "enum": ["png", "json"], "default": "png"},
    }
    heat = {
        "description": "json: the class-activation map, rows of numbers between 0 and 1, and the answer",
        "type": "object",
        "required": ["explained", "heat", "answer"],
        "properties": {
            "explained": {"type": "string", "description": "the class the map is of", "examples": [classes[0]]},
            "heat": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
                "examples": [[[0.0, 0.2], [0.4, 1.0]]],
            },
            "answer": {"$ref": "#/components/schemas/Answer"},
        },
    }
    return {
        "/predict": _post("Classify one picture", one, _json("Answer"), [_ABSTAIN]),
        "/predict_batch": _post("Classify many pictures", many, _json("Answers"), [_ABSTAIN]),
        "/explain": _post(
            "The picture under a heat map of what spoke for the class",
            one,
            {"image/png": png, "application/json": {"schema": heat}},
            [_ABSTAIN, kind],
        ),
    }


def _feedback() -> dict[str, Any]:
    said = _post("Say what a picture really showed", _json("FeedbackRequest"), _json("FeedbackResponse"), [])
    said["post"]["responses"] |= {status: {"$ref": f"#/components/responses/{status}"} for status in ("404", "409")}
    return {"/feedback": said}


def _facts() -> dict[str, Any]:
    card = {"classes": ["cat", "dog"], "metrics": {"accuracy": 0.98}, "model": {"name": "cats-vs-dogs", "version": "3"}}
    anything = {"application/json": {"schema": {"type": "object"}, "example": card}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    scrape = {"text/plain": {"schema": {"type": "string"}, "example": 'classifier_predictions_total{label="cat"} 17.0'}}
    return {
        "/health": _get("What is served", _json("Health")),
        "/model": _get("The model card: metrics, thresholds, lineage, the gate's verdict, live accuracy", anything),
        "/livez": _get("Whether the process runs", text),
        "/readyz": _get("Whether the model answers", text, 503),
        "/metrics": _get("Prometheus metrics", scrape),
    }


def _post(
    summary: str, body: dict[str, Any], answer: dict[str, Any], parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    problems = {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(_POST_PROBLEMS)}
    return {
        "post": {
            "summary": summary,
            "operationId": summary.lower().replace(" ", "_"),
            "parameters": [*parameters, _REQUEST_ID],
            "requestBody": {"required": True, "content": body},
            "responses": {"200": {"description": "the answer", "headers": _HEADERS, "content": answer}, **problems},
        }
    }


def _get(summary: str, content: dict[str, Any], *problems: int) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": summary, "headers": _HEADERS, "content": content}}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in (*_GET_PROBLEMS, *problems)}
    return {"get": {"summary": summary, "parameters": [_REQUEST_ID], "responses": responses}}


def _form(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _json(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}


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
    413: Fault(413, "too_many_bytes", "more than 10485760 bytes", "send less"),
    422: Fault(422, "missing_field", "the form has no field 'image', but 'file'", "name the field 'image'"),
    429: Fault(429, "too_many_requests", "more than 5 requests a second", "send fewer"),
    431: Fault(431, "long_head", "the headers exceed 65536 bytes", "send fewer headers"),
}


_ANSWERS = {
    "description": Answers.__doc__,
    "type": "array",
    "items": {"anyOf": [{"$ref": "#/components/schemas/Answer"}, {"$ref": "#/components/schemas/Error"}]},
}


async def page(_: Request) -> Response:
    """Swagger UI out of BentoML's package; BentoML's own page loads a tag manager."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})
