"""Clients that generators make of the service's own OpenAPI document: each operation is called through them.

A document may be valid and still be of no use: generators stumble over what validators let pass.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.parts import NODE_TOOLS
from tests.service.server import Server

GENERATOR = str(Path(sys.executable).parent / "openapi-python-client")
CONFIG = """
post_hooks: []
content_type_overrides: {image/png: application/octet-stream} # of pictures it knows no type
"""
TYPESCRIPT = """
import * as api from "./generated";
import { createClient, createConfig } from "./generated/client";
declare const process: { argv: string[] };

const client = createClient(createConfig({ baseUrl: process.argv[2] }));
const text = process.argv[3]!;
const picture = PICTURE;
const broken = BROKEN;

async function main() {
  const one = { client, body: { image: picture }, throwOnError: true } as const;
  const { data: answer } = await api.predict(one);
  const { data: batch } = await api.predictBatch({ ...one, body: { images: [picture, picture] } });
  const { data: png } = await api.explain({ ...one, query: { heat: false } });
  const { data: map } = await api.heatmap(one);
  const dog = { request_id: answer.request_id, label: "dog" } as const;
  const said = await api.giveFeedback({ client, body: dog, throwOnError: true });
  const { data: card } = await api.getModel({ client, throwOnError: true });
  const { data: health } = await api.health({ client, throwOnError: true });
  const texts = [await api.livez({ client }), await api.readyz({ client }), await api.metrics({ client })];
  const { error } = await api.predict({ client, body: { image: broken } });
  console.log(JSON.stringify({
    operations: Object.keys(api).sort(),
    predict: answer.label,
    predict_batch: batch.map((each) => ("label" in each ? each.label : each.error.code)),
    explain: (png as Blob).size > 0,
    heatmap: [map.explained, map.heat.length, map.answer.label],
    give_feedback: said.data.correct,
    get_model: card.classes,
    health: health.model.version,
    texts: texts.map((each) => [each.response.status, typeof each.data]),
    error: error?.error.code,
  }));
}
main();
"""
PICTURES = {  # by the content type that the generator prefers
    True: ("text", 'btoa("no picture")'),
    False: ("new Blob([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))])", 'new Blob(["no picture"])'),
}
TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "target": "ES2022",
        "lib": ["ES2023", "DOM", "DOM.Iterable"],
        "module": "CommonJS",
        "moduleResolution": "Node10",
        "types": [],
        "skipLibCheck": True,
        "outDir": "compiled",
    },
    "files": ["call.ts"],
}


@pytest.fixture
def document(client: httpx.Client, tmp_path: Path) -> Path:
    path = tmp_path / "docs.json"
    path.write_bytes(client.get("/docs.json").raise_for_status().content)
    return path


def operations(document: Path) -> set[str]:
    """The ids of all."""
    paths = json.loads(document.read_text())["paths"]
    return {operation["operationId"] for item in paths.values() for operation in item.values()}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def generated(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package that openapi-python-client makes, and its operations by their id."""
    (tmp_path / "config.yml").write_text(CONFIG)
    how = ("--meta", "none", "--output-path", "generated_client", "--config", "config.yml")
    run(GENERATOR, "generate", "--path", document, *how, cwd=tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def module(name: str) -> Any:
        return importlib.import_module(f"generated_client.{name}")

    found = SimpleNamespace(models=module("models"), types=module("types"), client=module("client").Client)
    for path in (tmp_path / "generated_client/api").glob("*/[a-z]*.py"):
        setattr(found, path.stem, module(f"api.{path.parent.name}.{path.stem}").sync)
    yield found
    for name in [name for name in sys.modules if name.startswith("generated_client")]:
        del sys.modules[name]


def test_python(generated: Any, document: Path, server: Server, cat: bytes) -> None:
    """openapi-python-client."""
    called = set()
    client = generated.client(base_url=server.url, raise_on_unexpected_status=True)

    def call(name: str, **how: Any) -> Any:
        called.add(name)
        return getattr(generated, name)(client=client, **how)

    def form(operation: str, **fields: Any) -> Any:
        """Its body; the name tells whether there are others."""
        name = operation.title().replace("_", "")
        kinds = [getattr(generated.models, name + kind, None) for kind in ("FilesBody", "Body")]
        return next(filter(None, kinds))(**fields)

    def file(data: bytes = cat) -> Any:
        return generated.types.File(payload=io.BytesIO(data), file_name="cat.png", mime_type="image/png")

    models = generated.models
    answer = call("predict", body=form("predict", image=file()))
    assert (answer.label, answer.model.version) == ("cat", "3")
    assert answer.probabilities.additional_properties["cat"] == answer.confidence
    broken = file(b"no picture")
    many = call("predict_batch", body=form("predict_batch", images=[file(), broken]))
    assert (many[0].label, many[1].error.code) == ("cat", "not_an_image")
    assert call("predict", body=form("predict", image=file(b"no picture"))).error.code == "not_an_image"
    png = call("explain", body=form("explain", image=file()), heat=False)
    assert png.payload.read(8) == b"\x89PNG\r\n\x1a\n"
    found = call("heatmap", body=form("heatmap", image=file()))
    assert (found.explained, found.answer.label, len(found.heat)) == ("cat", "cat", 4)
    said = models.FeedbackRequest(request_id=answer.request_id, label=models.FeedbackRequestLabel("dog"))
    assert call("give_feedback", body=said).correct is False
    assert call("get_model").classes == ["cat", "dog"]
    assert call("health").model.version == "3"
    assert "classifier_predictions_total" in call("metrics")
    assert call("livez") == call("readyz") == "\n"
    assert called == operations(document)


@pytest.mark.needs("openapi-ts")
def test_typescript(document: Path, server: Server, cat: bytes, tmp_path: Path) -> None:
    """@hey-api/openapi-ts; what it makes and how it is called here pass the compiler's strict mode."""
    programs = NODE_TOOLS / "node_modules/.bin"
    run(
        programs / "openapi-ts",
        "--input",
        document,
        "--output",
        "generated",
        "--client",
        "@hey-api/client-fetch",
        cwd=tmp_path,
    )
    bodies = json.loads(document.read_text())["paths"]["/predict"]["post"]["requestBody"]["content"]
    whole, broken = PICTURES["application/json" in bodies]
    (tmp_path / "call.ts").write_text(TYPESCRIPT.replace("PICTURE", whole).replace("BROKEN", broken))
    (tmp_path / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    run(programs / "tsc", cwd=tmp_path)
    found = json.loads(run("node", "compiled/call.js", server.url, base64.b64encode(cat).decode(), cwd=tmp_path))
    assert len(found.pop("operations")) == len(operations(document))
    assert found == {
        "predict": "cat",
        "predict_batch": ["cat", "cat"],
        "explain": True,
        "heatmap": ["cat", 4, "cat"],
        "give_feedback": False,
        "get_model": ["cat", "dog"],
        "health": "3",
        "texts": [[200, "string"]] * 3,
        "error": "not_an_image",
    }
