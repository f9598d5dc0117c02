"""Each document by the schema of its own format."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format  # type: ignore[import-untyped]
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from tests.tiny import tiny_data, tiny_model_folder
from tests.unit.model.test_signing import key_pair
from training.common.files import file_sha256
from training.model import signing
from training.model.folder import ModelFolder, ModelFolderError, verify_sums
from training.registry import provenance
from training.registry.mlflow_store import MANIFEST_PATH

RUN = "0" * 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model_folder(tmp_path_factory.mktemp("model") / "model", classes=("cat", "dög & <b>", "x"))


@pytest.fixture
def written(model: ModelFolder, tmp_path: Path) -> Path:
    provenance.write(model, RUN, tmp_path / "provenance", None)
    return tmp_path / "provenance"


def test_the_ml_bom_is_cyclonedx(written: Path, model: ModelFolder) -> None:
    text = (written / provenance.MLBOM_FILE).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    component = found["metadata"]["component"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": model.sha256}]
    assert {one["type"] for one in found["components"]} == {"data", "library"}
    figures = {one["type"]: one for one in component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    assert float(figures["accuracy"]["value"]) == pytest.approx(model.card["metrics"]["accuracy"], rel=1e-5)
    references = {one["bom-ref"] for one in found["components"]}
    assert component["modelCard"]["modelParameters"]["datasets"][0]["ref"] in references


def test_the_statement_is_in_toto_with_slsa_provenance(written: Path, model: ModelFolder) -> None:
    found = json.loads((written / provenance.STATEMENT_FILE).read_text())
    Statement.copy_from_pb(json_format.ParseDict(found, statement_pb2.Statement())).validate()
    made = json_format.ParseDict(found["predicate"], provenance_pb2.Provenance())
    assert made.run_details.metadata.invocation_id == RUN
    assert found["subject"] == [{"name": "model.onnx", "digest": {"sha256": model.sha256}}]
    digests = [one["digest"] for one in found["predicate"]["buildDefinition"]["resolvedDependencies"]]
    lineage = model.card["lineage"]
    assert digests == [{"gitCommit": lineage["git_commit"]}, {"sha256": lineage["data_hash"]}]


@pytest.mark.needs("mlcroissant")
def test_croissant_reads_the_manifest(written: Path, tmp_path: Path) -> None:
    """MLCommons' own library takes the document, checks the hash and gives the rows. In a process of its own: its log
    handler closes standard error, which is pytest's here."""
    manifest = tiny_data(tmp_path)
    (written / "lineage").mkdir()
    shutil.copy(manifest, written / MANIFEST_PATH)
    path = written / provenance.CROISSANT_FILE
    document = json.loads(path.read_text())
    document["distribution"][0]["sha256"] = file_sha256(manifest)
    path.write_text(json.dumps(document))
    code = (
        "import json, sys, mlcroissant; rows = list(mlcroissant.Dataset(jsonld=sys.argv[1]).records(sys.argv[2])); "
        "print(json.dumps([len(rows), sorted(rows[0])]))"
    )
    command = [sys.executable, "-c", code, str(path), provenance.PICTURES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, names = json.loads(done.stdout)
    assert count == 200
    assert set(names) == {f"{provenance.PICTURES}/{name}" for name in provenance.COLUMNS}


def test_the_same_model_has_the_same_documents(written: Path, model: ModelFolder, tmp_path: Path) -> None:
    provenance.write(model, RUN, tmp_path / "again", None)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


@pytest.mark.slow
def test_they_are_signed_as_the_model_is(model: ModelFolder, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "key")
    provenance.write(model, RUN, tmp_path / "provenance", private)
    signing.verify(tmp_path / "provenance", public)
    path = tmp_path / "provenance" / provenance.STATEMENT_FILE
    path.write_text(path.read_text().replace(model.sha256, "0" * 64))
    with pytest.raises(ModelFolderError, match=r"statement\.json was changed"):
        verify_sums(tmp_path / "provenance")
