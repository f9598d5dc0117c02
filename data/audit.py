"""Find labels that are probably wrong, with a model that was not trained on them.

python -m data.audit                      after training: data/audit.html and data/audit.json
python -m data.audit --add FILE           add the answers given on that page to data/corrections.csv
python -m data.audit --add FILE --test    the same, including the test split; each line needs a reason
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.manifest import Manifest
from training import params
from training.common.command import run_command
from training.common.files import write_text
from training.labels import corrections

AUDIT_JSON = Path("data/audit.json")
AUDIT_HTML = Path("data/audit.html")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m data.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--add", type=Path, metavar="FILE", help="add these lines to data/corrections.csv")
    parser.add_argument("--test", action="store_true", help="--add may correct test pictures")
    arguments = parser.parse_args()
    manifest = Manifest.read()
    if arguments.add:
        print(add(arguments.add, manifest, arguments.test))
        return
    found = audit(params.load().train, manifest)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print(told(found))


def audit(settings: params.Train, manifest: Manifest) -> dict[str, Any]:
    """Write the page and the metrics; returns the metrics."""
    from training.labels import audit, findings, page  # torch: --add and --help do without

    splits, judge = audit.audit(settings, manifest)
    found = findings.describe(splits, judge)
    write_text(AUDIT_HTML, page.page(splits, found))
    write_text(AUDIT_JSON, json.dumps(found, indent=2) + "\n")
    return found


def told(found: dict[str, Any]) -> str:
    """What was found, for the terminal."""
    from training.labels import findings

    return "\n".join([*findings.told(found), f"{AUDIT_HTML} shows the pictures"])


def add(file: Path, manifest: Manifest, test: bool) -> str:
    """Check the lines in `file` and add them to data/corrections.csv; says how many are new."""
    if not file.is_file():
        raise DataError(f"{file} is missing: it is what the page {AUDIT_HTML} lets you download")
    lines = corrections.read(file)
    known = {picture.sha256: picture for picture in manifest.pictures}
    corrections.check(lines.values(), manifest.classes, known)
    measuring = [sha256 for sha256 in lines if known[sha256].split in ("test", "dropped")]
    corrections.check_test(lines.values(), measuring)
    if measuring and not test:
        raise DataError(
            f"{len(measuring)} of {len(lines)} lines correct the test split, by which every model is measured: "
            "if that is meant, add --test"
        )
    changed = corrections.add(lines)
    return f"{corrections.CORRECTIONS_FILE}: {changed} lines new or changed; commit it, then run dvc repro"


if __name__ == "__main__":
    run_command(main)
