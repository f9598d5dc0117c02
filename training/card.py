"""Write the model card (models/model/model_card.json) as Markdown, after Mitchell et al. 2019.

python -m training.card                                       of the model the pipeline made last, to stdout
python -m training.card --out training/gate/MODEL_CARD.md     the one in the repository, of the embedded sample
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from training.common.command import run_command
from training.common.files import write_text
from training.common.table import plain
from training.model.folder import MODEL_FOLDER, ModelFolder
from training.register import flat, open_candidate

MARKUP = re.compile(r"[\\`*\[\]<>!#~&|]|(?<![^\W_])_|_(?![^\W_])")  # a _ inside a word is none
BAR = re.compile(r"(?<!\\)\|")  # that would end a cell
TOLD = {  # figures that have a place of their own in the document
    "pictures",
    "accuracy",
    "accuracy_interval",
    "log_loss",
    "roc_auc",
    "calibration_error",
    "calibration_error_before_temperature",
    "per_class",
    "confusion_matrix",
    "confused",
    "balanced_accuracy",
    "macro_f1",
    "top_5_accuracy",
    "weak_classes",
    "reliability",
    "reliability_before_temperature",
    "slices",
    "labels",
    "abstention",
    "other_things",
    "behaviour",
    "quantisation",
    "precision",
    "glance",
}


MEANING = {
    "balanced_accuracy": "mean recall of all classes",
    "macro_f1": "mean F1 of all classes",
    "top_5_accuracy": "the right class is among the five likeliest",
}
LISTED, WORST = 50, 20  # classes that are all listed, and how many of more


def document(card: dict[str, Any], sha256: str) -> str:
    """The whole document. Every figure is of the test split, which neither training nor calibration has seen."""
    parts = [_head(card, sha256), _use(card), _data(card), _figures(card["metrics"]), _others(card["metrics"])]
    parts += [_behaviour(card["metrics"]), _head_choice(card.get("head")), _limits(card)]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _head(card: dict[str, Any], sha256: str) -> str:
    lineage = card["lineage"]
    rows = [
        ("architecture", _words(card["architecture"])),
        ("classes", _words(", ".join(card["classes"]))),
        ("precision", _words(precision(card))),
        ("first look", _words(first_look(card))),
        ("input", f"RGB, {card['preprocessing']['size']} x {card['preprocessing']['size']} pixels, centre crop"),
        ("created", _words(lineage["created"])),
        ("code", f"{_code(lineage['git_commit'])}{' with uncommitted changes' if lineage['git_dirty'] else ''}"),
        ("parameters", f"{_code(lineage['params_hash'])}, seed {lineage['seed']}"),
        ("identity", f"SHA-256 of model.onnx: `{sha256}`"),
        ("licence", "MIT"),
    ]
    return f"# Model card: {_words(card['name'])}\n\n{_table(('', ''), rows)}"


def precision(card: dict[str, Any]) -> str:
    """The precision in which a model serves, and why if that was recorded."""
    why = (card["metrics"].get("precision") or {}).get("why")
    return f"{card.get('precision', 'fp32')}{f': {why}' if why else ''}"


def first_look(card: dict[str, Any]) -> str:
    """Whether easy pictures are answered at a glance (training.evaluation.shortcuts.glance), and why or why not."""
    found = card["metrics"].get("glance") or {}
    said = "yes" if card.get("glance") else "no"
    return f"{said}: {found['why']}" if found else said


def _use(card: dict[str, Any]) -> str:
    abstention = card["abstention"]
    return f"""## Use

Says which of its classes a photograph shows, or "not sure". It is not sure when the calibrated confidence is below
{abstention["confidence_threshold"]:.4f} (on the validation split, at most {abstention["risk"]:.0%} of the answers \
above it are wrong),
or when the picture is unlike its training pictures.

Not intended for pictures of anything else (how many are recognised as unfamiliar is measured below, without a
guarantee), several classes in one picture, decisions about people, or any use in which a wrong label does harm and
nobody checks.
"""


def _data(card: dict[str, Any]) -> str:
    lineage, data = card["lineage"], card["params"]["data"]
    rows = [
        ("source", _code(f"data.source: {data['source']}") if "source" in data else "not recorded"),
        ("pictures", f"manifest {_code(lineage['data_hash'])}"),
        ("test split", f"{card['metrics']['pictures']} pictures, {_code(lineage['test_hash'])}"),
    ]
    text = "The embedded sample has a data card, `data/sample/README.md`. Near duplicates never straddle splits."
    return f"## Data\n\n{_table(('', ''), rows)}\n{text}\n"


def _figures(metrics: dict[str, Any]) -> str:
    low, high = metrics["accuracy_interval"]
    given = metrics["abstention"]
    main = [
        ("accuracy", f"{metrics['accuracy']:.4f}", f"95 % interval (Wilson) {low:.4f} to {high:.4f}"),
        ("log-loss", f"{metrics['log_loss']:.4f}", "nats"),
        ("ROC-AUC", f"{metrics['roc_auc']:.4f}", "one class against the rest, averaged"),
        (
            "calibration error",
            f"{metrics['calibration_error']:.4f}",
            f"15 bins; {metrics['calibration_error_before_temperature']:.4f} before temperature scaling",
        ),
        ("answered", f"{given['answered']:.4f}", 'the others are "not sure"'),
        ("accuracy of the answers", f"{given['accuracy_of_answers']:.4f}", 'without "not sure"'),
    ]
    names = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "top_5_accuracy": "top-5 accuracy"}
    main[1:1] = [(name, f"{metrics[key]:.4f}", MEANING[key]) for key, name in names.items() if key in metrics]
    further = [
        (key, f"{value:.4g}")
        for key, value in flat({key: value for key, value in metrics.items() if key not in TOLD}).items()
        if isinstance(value, int | float)
    ]
    parts = [
        "## Metrics\n",
        _table(("measured on the test split", "", ""), [*main, *_audited(metrics.get("labels"))]),
        _classes(metrics["per_class"]),
        _weak(metrics.get("weak_classes", [])),
        _confusions(metrics),
        _slices(metrics.get("slices", {})),
    ]
    return "\n".join([*parts, _table(("other metrics", ""), further)] if further else parts)


def _audited(labels: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Accuracy on labels as given and as corrected, where people corrected any."""
    if not labels or not labels["relabelled"] + labels["dropped"]:
        return []
    said = f"{labels['relabelled']} labels corrected, {labels['dropped']} pictures dropped"
    return [
        (f"accuracy on labels {name}", f"{found['value']:.4f}", f"{found['pictures']} pictures; {said}")
        for name, found in (("as given", labels["as_given"]), ("as audited", labels["audited"]))
    ]


def _slices(found: dict[str, Any]) -> str:
    rows = [(_words(name), _interval(one), str(one["pictures"])) for name, one in found.items()]
    return _table(("slice", "accuracy", "pictures"), rows) if rows else ""


def _classes(figures: dict[str, Any]) -> str:
    """Every class, or of many those with the lowest recall."""
    shown = sorted(figures, key=lambda name: figures[name]["recall"])[:WORST] if len(figures) > LISTED else figures
    rows = [
        (
            _words(name),
            *(f"{figures[name][key]:.4f}" for key in ("precision", "recall", "f1")),
            str(figures[name]["pictures"]),
        )
        for name in shown
    ]
    text = _table(("class", "precision", "recall", "F1", "pictures"), rows)
    return f"The {WORST} of {len(figures)} classes with the lowest recall:\n\n{text}" if shown is not figures else text


def _confusions(metrics: dict[str, Any]) -> str:
    """The matrix, or of many classes the pairs that are confused most."""
    if "confusion_matrix" in metrics:
        names = [_words(name) for name in metrics["per_class"]]
        rows = zip(names, metrics["confusion_matrix"], strict=True)
        matrix = [(f"is {name}", *(str(value) for value in row)) for name, row in rows]
        return _table(("", *(f"says {name}" for name in names)), matrix)
    pairs = [
        (_words(one["is"]), _words(one["says"]), str(one["pictures"]), f"{one['share']:.1%}")
        for one in metrics["confused"]
    ]
    return _table(("true class", "mistaken for", "pictures", "share of the class"), pairs)


def _weak(classes: Sequence[dict[str, Any]]) -> str:
    """Those on which the model is surely worse than on the average class."""
    rows = [
        (
            _words(row["class"]),
            f"{row['recall']:.4f} [{row['interval'][0]:.4f}, {row['interval'][1]:.4f}]",
            str(row["pictures"]),
            f"{_words(row['mistaken_for'])} ({row['mistaken']})",
        )
        for row in classes
    ]
    head = ("significantly below average", "recall", "pictures", "most often mistaken for")
    return _table(head, rows) if rows else ""


def _others(metrics: dict[str, Any]) -> str:
    rows = [
        (
            kind,
            str(found["pictures"]),
            *(_interval(found[key]) for key in ("auroc_novelty", "auroc_confidence", "not_sure")),
        )
        for kind, found in metrics.get("other_things", {}).items()
    ]
    head = ("kind", "pictures", "AUROC of novelty", "AUROC of low confidence", 'answered "not sure"')
    text = (
        "How well they are told apart from the test pictures. Their data card: `training/evaluation/ood/README.md`.\n"
    )
    return f"## Out-of-distribution pictures\n\n{text}\n{_table(head, rows)}" if rows else ""


def _behaviour(metrics: dict[str, Any]) -> str:
    found = metrics.get("behaviour")
    if not found:
        return ""
    same = [
        (_demanded(name, found), _interval(one["same_answer"]), f"{one['mean_change']:.4f}")
        for name, one in found["invariance"].items()
    ]
    less = [
        (name, f"{one['confidence_before']:.4f}", f"{one['confidence_after']:.4f}", _interval(one["change"]))
        for name, one in found["direction"].items()
    ]
    minimum = found["minimum"]
    named = (
        f"Of {minimum['pictures']} test pictures that anyone recognises, {minimum['right']} are classified correctly.\n"
    )
    parts = [
        f"## Behaviour\n\nOn altered copies of {found['pictures']} test pictures.\n",
        _table(("must not matter", "same answer", "mean change of its probability"), same),
        _table(("must lower the confidence", "before", "after", "mean difference"), less),
    ]
    return "\n".join([*parts, named] if minimum["pictures"] else parts)


def _demanded(name: str, behaviour: dict[str, Any]) -> str:
    """The name of a change, and whether it may matter to this problem (`evaluate.harmless`)."""
    may_matter = name not in behaviour.get("harmless", [name])
    return f"{name.replace('_', ' ')}{' (may matter here)' if may_matter else ''}"


def _head_choice(head: dict[str, Any] | None) -> str:
    """What was tried for a solved head; figures of training pictures, cross-validated."""
    if not head:
        return ""
    rows = [
        (
            row["levels"],
            ", ".join(row["views"]),
            f"{row['strength']:.2g}",
            f"{row['log_loss']:.4f}",
            f"{row['changed_log_loss']:.4f}",
            f"{row['apart']:.4f}",
            f"{row['error']:.4f}",
            "chosen" if row["chosen"] else "",
        )
        for row in head["table"]
    ]
    names = ("levels", "views", "strength", "log-loss", "log-loss, altered", "AUROC, scrambled", "error", "")
    curve = ", ".join(f"{1 - point['accuracy']:.4f} of {point['pictures']}" for point in head["learning_curve"])
    tuning = f"Fine-tuning: {head['finetuning']['said']}.\n" if head.get("finetuning") else ""
    told = (
        "Cross-validated on the training split. Altered pictures: sharper, softer, darker, brighter, grainy, strongly\n"
        "compressed. Scrambled ones: the same pictures cut into pieces, which should get less confidence.\n"
    )
    return (
        f"## How the head was chosen\n\n{told}\n{_table(names, rows)}\nError by training pictures: {curve}.\n{tuning}"
    )


def _interval(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:.4f} [{low:.4f}, {high:.4f}]"


def _limits(card: dict[str, Any]) -> str:
    parity, change = card["parity"], card["metrics"].get("quantisation")
    change = change if card.get("precision") == "int8" else None
    look = card["metrics"].get("glance") if card.get("glance") else None
    agreement = f"differ by at most {parity['max_difference']:.1g} in probability on {parity['pictures']} pictures."
    if change:
        agreement = (
            f"agree, apart from rounding to int8: {change['label_changes']:.2%} of the answers differ, "
            f"accuracy in fp32 {change['accuracy_fp32']:.4f}."
        )
    if look:
        agreement = (
            f"agree, apart from easy pictures, {look['easy']:.1%}, which a first look answers"
            f"{' and rounding to int8' if change else ''}: {look['label_changes']:.2%} of the answers differ, "
            f"accuracy of the whole network in fp32 {look['accuracy_fp32']:.4f}."
        )
    return f"""## Limits

- The metrics hold for pictures like those of the test split. Live accuracy from feedback and drift checks show whether
  production's pictures are still like them (`monitoring/`).
- A heat map shows where the evidence was (class-activation map), not why it counts.
- ONNX Runtime and torch {agreement}
- {len(card["self_check"])} test pictures and {len(card.get("mistakes", []))} thumbnails of mistakes travel with the \
model; anyone who has the model can see them.
"""


def _words(text: object) -> str:
    """Text of others, a class's name or an architecture's, as words: no link, no picture, no HTML, no second line."""
    return MARKUP.sub(r"\\\g<0>", plain(text))


def _code(text: object) -> str:
    """The same as code."""
    return f"`{plain(text).replace('`', chr(39))}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(BAR.sub(r"\|", cell) for cell in line) + " |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=MODEL_FOLDER, help=f"model folder ({MODEL_FOLDER})")
    parser.add_argument("--out", type=Path, help="write there instead of to stdout")
    arguments = parser.parse_args()
    folder: ModelFolder = open_candidate(arguments.folder)
    text = document(folder.card, folder.sha256)
    if arguments.out is None:
        print(text, end="")
    else:
        write_text(arguments.out, text)
        print(f"{arguments.out}: {folder.card['name']}, accuracy {folder.card['metrics']['accuracy']:.4f}")


if __name__ == "__main__":
    run_command(main)
