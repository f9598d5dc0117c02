"""OpenTelemetry traces, switched on by the standard environment variables alone.

OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) names a collector that takes OTLP over HTTP; OTEL_TRACES_EXPORTER
is otlp, console or none. OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and the others are read by
the SDK. BentoML's own configuration of tracing goes on to work where none of these is set. Scrapes and probes have no
spans, unless OTEL_PYTHON_EXCLUDED_URLS or OTEL_PYTHON_ASGI_EXCLUDED_URLS (regular expressions) says what has none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, cast

from training.params import ParamsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.http import ExcludeList

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
NAME = "picture-classifier"  # unless OTEL_SERVICE_NAME says otherwise
EXCLUDED = "/(health|livez|readyz|metrics)$"  # asked every few seconds, by probes and Prometheus
Exporter = Literal["otlp", "console"]


def exporter(environ: Mapping[str, str] = os.environ) -> Exporter | None:
    """Where traces go by the environment, None: nowhere; ParamsError for what is not supported or not installed."""
    default = "otlp" if any(environ.get(name) for name in ENDPOINTS) else "none"
    name = environ.get("OTEL_TRACES_EXPORTER") or default
    if name not in ("otlp", "console", "none"):
        raise ParamsError(f"OTEL_TRACES_EXPORTER is {name!r}: set it to otlp, console or none")
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or name == "none":
        return None
    if name == "otlp" and find_spec("opentelemetry.exporter") is None:
        raise ParamsError("traces by OTLP need the package opentelemetry-exporter-otlp-proto-http: install it")
    return cast(Exporter, name)


def excluded(environ: Mapping[str, str] = os.environ) -> ExcludeList:
    """Addresses whose requests have no span."""
    from opentelemetry.util.http import get_excluded_urls, parse_excluded_urls

    chosen = {"OTEL_PYTHON_EXCLUDED_URLS", "OTEL_PYTHON_ASGI_EXCLUDED_URLS"} & environ.keys()
    return get_excluded_urls("ASGI") if chosen else parse_excluded_urls(EXCLUDED)


def provider(kind: Exporter) -> TracerProvider:
    """A provider that sends its spans there, by a thread of its own."""
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    target: SpanExporter
    if kind == "console":
        target = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        target = OTLPSpanExporter()
    resource = Resource.create({SERVICE_NAME: NAME}).merge(OTELResourceDetector().detect())
    made = TracerProvider(resource=resource)
    made.add_span_processor(BatchSpanProcessor(target))
    return made
