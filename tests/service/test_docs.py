"""The service describes itself truly, and the page that shows it contacts no outside host."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.parts import schemathesis
from tests.service.server import Server
from training.serving.api.docs import PROBLEMS
from training.serving.errors import PICTURE_STATUS


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/docs.json").raise_for_status().json()
    return found


def test_swagger_is_at_the_root_and_at_docs_and_needs_no_outside_host(client: httpx.Client) -> None:
    page = client.get("/").raise_for_status()
    assert page.text == client.get("/docs").text
    assert not re.findall(r"(?:https?:)?//[a-z]", page.text)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 3
    for asset in (*assets, "docs.json"):  # relative: a proxy may have cut a prefix off
        assert not asset.startswith("/")
        assert client.get(f"/{asset}").status_code == 200
    assert '"docs.json"' in page.text
    assert client.get("/docs.json").json()["servers"] == [{"url": "."}]


def test_every_reference_in_the_document_is_defined(client: httpx.Client) -> None:
    text = client.get("/docs.json").text
    document = client.get("/docs.json").json()
    references = set(re.findall(r'"#/components/(\w+)/(\w+)"', text))
    assert len(references) > 10
    assert all(name in document["components"][kind] for kind, name in references)


def test_every_address_of_the_document_exists_with_that_method(client: httpx.Client, document: dict[str, Any]) -> None:
    pictures = {"/predict", "/predict_batch", "/explain", "/heatmap"}
    facts = {"/health", "/livez", "/readyz", "/metrics", "/model"}
    assert set(document["paths"]) == pictures | facts | {"/feedback"}
    for path, item in document["paths"].items():
        method = next(iter(item))
        assert len(item) == 1
        assert client.request(method, path).status_code in (200, 415)
        assert client.request("GET" if method == "post" else "POST", path).status_code == 405


def test_answers_and_errors_have_the_documented_keys(client: httpx.Client, cat: bytes) -> None:
    schemas = client.get("/docs.json").json()["components"]["schemas"]
    answer = client.post("/predict", files={"image": cat}).json()
    assert set(answer) | {"reason"} == set(schemas["Answer"]["properties"])
    assert set(answer["model"]) == set(schemas["Model"]["properties"])
    error = client.post("/predict").json()
    assert set(error) == set(schemas["Error"]["properties"])
    assert set(error["error"]) == set(schemas["ErrorDetail"]["properties"])


def examples(node: Any, pointer: str = "#") -> Iterator[tuple[str, Any]]:
    """The JSON pointer to the schema of each example below `node`, and the example."""
    if isinstance(node, dict):
        schema = f"{pointer}/schema" if "schema" in node else pointer
        named = node.get("examples", ())
        given = [each["value"] for each in named.values()] if isinstance(named, dict) else [*named]
        given += [node["example"]] if "example" in node else []
        yield from ((schema, each) for each in given)
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        escaped = str(key).replace("~", "~0").replace("/", "~1")
        yield from examples(child, f"{pointer}/{escaped}")


def test_every_example_is_what_its_schema_says(document: dict[str, Any]) -> None:
    found = list(examples(document))
    places = {pointer.rpartition("/")[2] for pointer, _ in found}
    assert {"label", "confidence", "probabilities", "request_id", "code", "schema"} <= places
    for pointer, example in found:
        Draft202012Validator(document | {"$ref": pointer}).validate(example)


def test_every_operation_has_a_tag_an_id_a_summary_and_examples_of_its_answers(document: dict[str, Any]) -> None:
    tags = [tag["name"] for tag in document["tags"]]
    assert tags == ["predict", "feedback", "model", "health", "metrics"]
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert [name for name in tags if name not in {tag for each in operations for tag in each["tags"]}] == []
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        [(media, answer)] = operation["responses"]["200"]["content"].items()  # one type: generators make one of it
        assert media == "image/png" or {"example", "examples"} & answer.keys()
    for problem in document["components"]["responses"].values():
        assert "example" in problem["content"]["application/json"]


def test_limits_are_told_in_units_of_people(client: httpx.Client) -> None:
    about = client.get("/docs.json").json()["info"]["description"]
    assert "at most 2 MB, and at least 8 pixels" in about
    assert re.search(
        r"at most 50 megapixels in a JPEG .* [\d.]+ megapixels in HEIC or AVIF, 16 megapixels in any other", about
    )
    refused = client.post("/predict", content=b"\0" * 2_000_001, headers={"Content-Type": "image/png"}).json()
    assert refused["error"]["message"] == "more than 2 MB"


def codes(pattern: str, *names: str) -> set[str]:
    """What `pattern` finds in modules of training/."""
    folder = Path(__file__).parent.parent.parent / "training"
    return set(re.findall(pattern, "".join((folder / f"{name}.py").read_text() for name in names)))


def test_every_error_code_of_the_source_is_documented() -> None:
    names = ("api/requests", "api/contents", "api/multipart", "api/edge", "api/feedback", "records/feedback_store")
    modules = [f"serving/{name}" for name in ("errors", *names, "connections/protocol")]
    found = codes(r'Fault\(\s*\d+, "(\w+)"', *modules) | codes(r'\d+: \("(\w+)"', *modules)
    assert len(found) > 15
    assert all(any(re.search(rf"\b{code}\b", text) for text in PROBLEMS.values()) for code in found)


def test_every_error_code_of_a_picture_is_documented_with_its_status() -> None:
    found = codes(r'PictureError\(\s*"(\w+)"', "model/picture/header", "model/picture/values")
    assert len(found) >= 9
    assert found >= set(PICTURE_STATUS)
    for code in found:
        assert re.search(rf"\b{code}\b", PROBLEMS[PICTURE_STATUS.get(code, 422)]), code


@pytest.mark.needs("schemathesis")
def test_schemathesis_finds_no_answer_that_the_document_does_not_tell_of(server: Server, tmp_path: Path) -> None:
    """Only that whatever fits the schema is accepted cannot be asked: no schema tells a picture from other bytes."""
    command = [str(schemathesis()), "run", f"{server.url}/docs.json", "--max-examples", "20"]
    command += ["--exclude-checks", "positive_data_acceptance", "--continue-on-failure", "--generation-deterministic"]
    command += ["--suppress-health-check", "filter_too_much"]  # of its generator: most of what it makes is no picture
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d\d generated, ", done.stdout), done.stdout[-2000:]
