"""The standard variables of OpenTelemetry decide whether and where to traces go."""

from __future__ import annotations

import pytest

from training.params import ParamsError
from training.serving.bento import tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda name: object())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (ENDPOINT, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_where_traces_go(environ: dict[str, str], expected: str | None) -> None:
    assert tracing.exporter(environ) == expected


def test_an_exporter_that_is_not_supported_is_refused() -> None:
    with pytest.raises(ParamsError, match="otlp, console or none"):
        tracing.exporter({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    with pytest.raises(ParamsError, match="opentelemetry-exporter-otlp-proto-http"):
        tracing.exporter(ENDPOINT)


BASE = "http://127.0.0.1:3000"


def test_scrapes_and_probes_have_no_spans_and_requests_do() -> None:
    excluded = tracing.excluded({})
    assert all(excluded.url_disabled(f"{BASE}/{path}") for path in ("metrics", "livez", "readyz", "health"))
    assert not any(excluded.url_disabled(f"{BASE}/{path}") for path in ("predict", "model", "ui/model", "feedback"))


@pytest.mark.parametrize(
    ("value", "without"), [("", set()), ("/predict$,/model$", {"/predict", "/model"})], ids=["nothing", "others"]
)
@pytest.mark.parametrize("name", ["OTEL_PYTHON_EXCLUDED_URLS", "OTEL_PYTHON_ASGI_EXCLUDED_URLS"])
def test_the_variables_of_the_library_say_what_has_no_span(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, without: set[str]
) -> None:
    monkeypatch.setenv(name, value)
    excluded = tracing.excluded()
    paths = ("/predict", "/model", "/metrics")
    assert {path for path in paths if excluded.url_disabled(BASE + path)} == without
