"""Every private name of a framework that is reached into, in one list, each with what is expected of it.

When a new release of BentoML, uvicorn or OpenTelemetry moves one of them, a test here names it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = ("training/serving/bento/", "training/serving/connections/", "training/registry/bento_store.py")
PRIVATE = (
    *("_bentoml_impl", "_bentoml_sdk", "bentoml._internal", "uvicorn", "opentelemetry.instrumentation"),
    *("prometheus_client.mmap_dict", "prometheus_client.values"),
)
SIGNATURES = {  # callable -> names of its parameters, without self
    "_bentoml_impl.server.app.ServiceAppFactory.__init__": (
        *("service", "is_main", "enable_metrics", "services", "enable_access_control", "access_control_options"),
    ),
    "_bentoml_impl.server.app.ServiceAppFactory.__call__": (),
    "_bentoml_impl.server.app.ServiceAppFactory.api_endpoint": ("name", "request"),
    "_bentoml_impl.server.app.log_exception": ("request", "exc_info"),
    "bentoml._internal.bento.BentoStore.__init__": ("base_path",),
    "bentoml._internal.log.configure_server_logging": (),
    "bentoml._internal.marshal.dispatcher.CorkDispatcher.__init__": (
        ("max_latency_in_ms", "max_batch_size", "shared_sema", "fallback", "get_batch_size", "batch_dim")
    ),
    "bentoml._internal.marshal.dispatcher.CorkDispatcher._get_inputs": ("num_batches",),
    "bentoml._internal.marshal.dispatcher.CorkDispatcher.controller": (),
    "bentoml._internal.marshal.dispatcher.CorkDispatcher.inbound_call": ("data",),
    "bentoml._internal.marshal.dispatcher.CorkDispatcher.outbound_call": ("inputs_info", "training"),
    "bentoml._internal.marshal.dispatcher.CorkDispatcher.split_job": ("job", "split_indexes"),
    "bentoml._internal.marshal.dispatcher.NonBlockSema.__init__": ("count",),
    "bentoml._internal.marshal.dispatcher.NonBlockSema.acquire": (),
    "bentoml._internal.models.ModelStore.__init__": ("base_path",),
    "bentoml._internal.models.ModelStore.delete": ("tag",),
    "bentoml._internal.resource.system_resources": (),
    "bentoml._internal.server.http.instruments.RunnerTrafficMetricsMiddleware.__init__": (
        ("app", "namespace", "skip_paths")
    ),
    "bentoml._internal.server.http.traffic.TimeoutMiddleware.__init__": ("app", "timeout"),
    "_bentoml_impl.server.app.ContextMiddleware.__init__": ("app", "context"),
    "prometheus_client.mmap_dict.MmapedDict.__init__": ("filename", "read_mode"),
    "prometheus_client.mmap_dict.MmapedDict._init_value": ("key",),
    "prometheus_client.mmap_dict.MmapedDict.read_value": ("key",),
    "prometheus_client.mmap_dict.MmapedDict.write_value": ("key", "value", "timestamp"),
    "prometheus_client.values.MultiProcessValue": ("process_identifier",),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol._start_asgi_task": ("cycle", "app"),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol._unset_keepalive_if_required": (),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.on_headers_complete": (),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.on_message_begin": (),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.on_message_complete": (),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.on_response_complete": (),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.send_400_response": ("msg",),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol.timeout_keep_alive_handler": (),
}
ATTRIBUTES = {  # object -> names that its source sets or has
    "_bentoml_impl.server.app.ServiceAppFactory": (
        *("_service_instance", "adaptive_batch_size_hist", "dispatchers", "enable_metrics", "middlewares", "timeout"),
    ),
    "_bentoml_sdk.io_models.IORootModel": ("to_http_response",),
    "bentoml._internal.configuration.containers.BentoMLContainer": ("config",),
    "bentoml._internal.context.server_context": (
        ("bento_name", "bento_version", "service_name", "service_routes", "worker_index")
    ),
    "bentoml._internal.log": ("SERVER_LOGGING_CONFIG",),
    "bentoml._internal.marshal.dispatcher.CorkDispatcher": ("_queue", "_sema", "_loop"),
    "bentoml._internal.marshal.dispatcher.Job": ("data", "future"),
    "bentoml._internal.marshal.dispatcher.NonBlockSema": ("sema",),
    "bentoml._internal.server.http.instruments.RunnerTrafficMetricsMiddleware": (
        *("_is_setup", "_setup", "skip_paths", "metrics_last_request_timestamp", "metrics_request_duration"),
        *("metrics_request_in_progress", "metrics_request_total"),
    ),
    "opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware": ("tracer_provider", "excluded_urls", "exclude_spans"),
    "prometheus_client.mmap_dict.MmapedDict": ("_capacity", "_f", "_used", "close", "read_all_values"),
    "prometheus_client.values": ("MmapedDict", "MultiProcessValue", "ValueClass"),
    "uvicorn._types.ASGI3Application": (),
    "uvicorn.config": ("HTTP_PROTOCOLS", "LOOP_FACTORIES", "WS_PROTOCOLS"),
    "uvicorn.config.HTTPProtocolType": (),
    "uvicorn.protocols.http.httptools_impl.STATUS_LINE": ("__getitem__",),
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol": (
        *("cycle", "flow", "loop", "pipeline", "timeout_keep_alive", "timeout_keep_alive_task", "transport"),
    ),
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle": (
        *("disconnected", "keep_alive", "message_event", "more_body", "response_complete", "scope"),
    ),
}


def found(name: str) -> object:
    """The object with a dotted name."""
    module, rest = name, list[str]()
    while True:
        try:
            here: object = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    for attribute in rest:
        here = getattr(here, attribute)
    return here


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_private_callable_takes_what_it_took(name: str) -> None:
    parameters = inspect.signature(found(name)).parameters  # type: ignore[arg-type]
    assert tuple(parameter for parameter in parameters if parameter != "self") == SIGNATURES[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_private_object_has_what_is_used_of_it(name: str) -> None:
    here = found(name)
    missing = [attribute for attribute in ATTRIBUTES[name] if not hasattr(here, attribute)]
    source = inspect.getsource(here) if missing else ""  # type: ignore[arg-type]
    assert [name for name in missing if name not in source] == []


def imported(path: Path) -> set[str]:
    """Names that a module imports from what is private of a framework."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PRIVATE):
            names |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names if name.name.startswith(PRIVATE)}
    return names


def test_private_names_are_used_in_their_rooms_alone_and_each_is_listed() -> None:
    listed = {*SIGNATURES, *ATTRIBUTES}
    modules = [
        ROOT / "service.py",
        *(path for top in ("data", "k8s", "training") for path in (ROOT / top).rglob("*.py")),
    ]
    used = {path.relative_to(ROOT).as_posix(): imported(path) for path in modules}
    elsewhere = {path: names for path, names in used.items() if names and not path.startswith(ROOMS)}
    assert elsewhere == {}
    every = set().union(*used.values())
    assert {name for name in every if not any(entry.startswith(name) for entry in listed)} == set()
    assert {entry for entry in listed if not any(entry.startswith(name) for name in every)} == set()
