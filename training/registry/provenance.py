"""Where a model comes from, in the formats that other people's tools read. Registration files them in the run.

mlbom.cdx.json       CycloneDX 1.6: model card, data set, packages that made it (an ML-BOM)
croissant.json       Croissant 1.0 (MLCommons): the prepared pictures, by their manifest
statement.json       in-toto statement with SLSA provenance 1: pictures, commit and parameters -> model
SHA256SUMS, model.sig    of the three, signed as the model folder is

python -m training.registry show champion --provenance FOLDER
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.model import signing
from training.model.folder import MODEL_FILE, SUMS_FILE, ModelFolder, verify_sums, write_sums
from training.registry.mlflow_store import MANIFEST_PATH, Registry, RegistryError, Version

FOLDER = "provenance"  # among the artifacts of the run
MLBOM_FILE, CROISSANT_FILE, STATEMENT_FILE = "mlbom.cdx.json", "croissant.json", "statement.json"
NAMESPACE = uuid.UUID("5a0e1d5e-7a0c-5c0b-9d0f-6f5d3a1c2b4e")  # serial numbers are made of it and the model's hash
NO_PACKAGES = ("python", "platform", "machine")  # of the lineage's environment
PICTURES = "pictures"
COLUMNS = {
    "path": "sc:Text",
    "class": "sc:Text",
    "split": "sc:Text",
    "sha256": "sc:Text",
    "width": "sc:Integer",
    "height": "sc:Integer",
    "source": "sc:Text",
}


def write(model: ModelFolder, run_id: str, folder: Path, signing_key: Path | None) -> None:
    """The documents about `model` and its run, with checksums and, if there is a key, a signature, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        MLBOM_FILE: mlbom(model.card, model.sha256),
        CROISSANT_FILE: croissant(model.card),
        STATEMENT_FILE: statement(model.card, model.sha256, run_id),
    }
    for name, values in documents.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")
    write_sums(folder)
    if signing_key is not None:
        signing.sign(folder, signing_key)


def mlbom(card: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    """CycloneDX 1.6. Licences are those that are known: the model's own; the pictures' their owner knows."""
    lineage = card["lineage"]
    data = f"data:{lineage['data_hash']}"
    model = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{sha256}",
        "name": card["name"],
        "version": sha256[:16],
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "licenses": [{"license": {"id": "MIT"}}],
        "modelCard": _model_card(card, data),
        "properties": [
            {"name": f"lineage:{key}", "value": str(value).lower() if isinstance(value, bool) else str(value)}
            for key, value in lineage.items()
            if key != "environment"
        ],
    }
    pictures = {
        "type": "data",
        "bom-ref": data,
        "name": f"{card['name']} pictures",
        "hashes": [{"alg": "SHA-256", "content": lineage["data_hash"]}],
        "data": [
            {"type": "dataset", "name": MANIFEST_PATH, "description": f"pictures of {', '.join(card['classes'])}"}
        ],
    }
    packages = [
        {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        for name, version in lineage["environment"].items()
        if name not in NO_PACKAGES
        for purl in [f"pkg:pypi/{name}@{version.replace('+', '%2B')}"]
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256)}",
        "version": 1,
        "metadata": {"timestamp": lineage["created"], "component": model},
        "components": [pictures, *packages],
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": [data, *(one["bom-ref"] for one in packages)]}],
    }


def _model_card(card: Mapping[str, Any], data: str) -> dict[str, Any]:
    metrics = card["metrics"]
    interval = metrics.get("accuracy_interval")
    bounds = {"lowerBound": f"{interval[0]:.6g}", "upperBound": f"{interval[1]:.6g}"} if interval else None
    figures: list[dict[str, Any]] = [
        {"type": key, "value": f"{value:.6g}", "slice": "test split"}
        for key, value in metrics.items()
        if isinstance(value, int | float)
    ]
    for one in figures:
        if one["type"] == "accuracy" and bounds:
            one["confidenceInterval"] = bounds
    figures += [
        {"type": key, "value": f"{value:.6g}", "slice": f"class {name}"}
        for name, found in metrics.get("per_class", {}).items()
        for key, value in found.items()
        if isinstance(value, int | float)
    ]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image classification",
            "modelArchitecture": str(card["architecture"]),
            "datasets": [{"ref": data}],
            "inputs": [{"format": "image"}],
            "outputs": [{"format": f"probability of {name}"} for name in card["classes"]],
        },
        "quantitativeAnalysis": {"performanceMetrics": figures},
        "considerations": {
            "useCases": ["says which of its classes a photograph shows, or that it is not sure"],
            "technicalLimitations": ["its figures hold for pictures like those of the test split"],
        },
    }


def croissant(card: Mapping[str, Any]) -> dict[str, Any]:
    """Croissant 1.0 of the prepared data: the manifest, whose rows name every picture by its hash."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{PICTURES}/{name}",
            "name": name,
            "dataType": kind,
            "source": {"fileObject": {"@id": "manifest.csv"}, "extract": {"column": name}},
        }
        for name, kind in COLUMNS.items()
    ]
    lineage, key = card["lineage"], {"@id": f"{PICTURES}/path"}
    return {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "dct": "http://purl.org/dc/terms/",
            "conformsTo": "dct:conformsTo",
            "column": "cr:column",
            "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
            "extract": "cr:extract",
            "field": "cr:field",
            "fileObject": "cr:fileObject",
            "recordSet": "cr:recordSet",
            "source": "cr:source",
            "key": "cr:key",
        },
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{card['name']}-pictures",
        "description": f"Prepared pictures of {', '.join(card['classes'])}, with their splits: rows of the manifest.",
        "version": f"1.0.0+{lineage['data_hash'][:16]}",
        "datePublished": lineage["created"],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "manifest.csv",
                "name": "manifest.csv",
                "description": f"The artifact {MANIFEST_PATH} of the model's run; data/manifest.csv of the project.",
                "contentUrl": MANIFEST_PATH,
                "encodingFormat": "text/csv",
                "sha256": lineage["data_hash"],
            }
        ],
        "recordSet": [{"@type": "cr:RecordSet", "@id": PICTURES, "name": PICTURES, "key": key, "field": fields}],
    }


def statement(card: Mapping[str, Any], sha256: str, run_id: str) -> dict[str, Any]:
    """An in-toto statement: this model was made from that commit, those pictures and these parameters."""
    lineage = card["lineage"]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": MODEL_FILE, "digest": {"sha256": sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://dvc.org/doc/user-guide/project-structure/dvcyaml-files",
                "externalParameters": card["params"],
                "internalParameters": {"environment": lineage["environment"], "gitDirty": lineage["git_dirty"]},
                "resolvedDependencies": [
                    {"name": "commit", "digest": {"gitCommit": lineage["git_commit"]}},
                    {"name": MANIFEST_PATH, "digest": {"sha256": lineage["data_hash"]}},
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:mlflow:training.register"},
                "metadata": {"invocationId": run_id, "finishedOn": lineage["created"].replace("+00:00", "Z")},
            },
        },
    }


def fetch(registry: Registry, version: Version, model: ModelFolder, target: Path) -> list[Path]:
    """The documents about `version`, verified, as files in the folder `target`; for a version that was registered
    before there were any, made now of its verified model folder, without a signature.

    Raises RegistryError when they are about another model, ModelFolderError for what was changed or,
    where MODEL_PUBLIC_KEY is set, not signed by that key.
    """
    if not any(path.startswith(f"{FOLDER}/") for path in registry.run(version.run_id)[1]):
        write(model, version.run_id, target, None)
        return sorted(target / name for name in (MLBOM_FILE, CROISSANT_FILE, STATEMENT_FILE, SUMS_FILE))
    with tempfile.TemporaryDirectory(prefix="provenance-") as workspace:
        folder = registry.download_artifacts(version, FOLDER, Path(workspace))
        verify_sums(folder)
        signing.verify_if_configured(folder)
        digests = [one["digest"] for one in json.loads((folder / STATEMENT_FILE).read_text())["subject"]]
        if digests != [{"sha256": version.sha256}]:
            raise RegistryError(f"the provenance of version {version.number} is about another model: do not trust it")
        target.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(path, target)) for path in sorted(folder.iterdir())]
