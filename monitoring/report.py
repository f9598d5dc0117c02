"""The pages that drift checks and performance checks write: one HTML file each that needs no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from monitoring import plots
from monitoring.finding import Finding
from monitoring.judged import Judged, Production
from monitoring.shift import Sample
from training.common import html
from training.common.intervals import wilson_corrected
from training.evaluation.metrics import calibration_error
from training.model.reference import Reference


def drift_page(finding: Finding, known: Reference, window: Sample) -> str:
    """What `python -m monitoring.drift check --report` writes."""
    return html.page("Drift report", drift_sections(finding, known, window))


def drift_sections(finding: Finding, known: Reference, window: Sample) -> Iterator[str]:
    model = finding.model
    hours = finding.window.total_seconds() / 3600
    yield (
        f"<p>{escape(model.name)}, version {escape(model.version)}, model <code>{model.folder.sha256[:16]}</code>; "
        f"checked {finding.time:%Y-%m-%d %H:%M} UTC: {finding.pictures} pictures of {finding.predictions} predictions "
        f"in {hours:g} hours against {len(known.labels)} of the validation split"
    )
    if finding.others:
        yield f"<p>{escape(finding.others_text())}."
    if not finding.tests:
        yield "<p><b>Too few pictures to tell whether they drifted.</b>"
        return
    verdict = f"Drift: {', '.join(finding.alarms)}" if finding.alarms else "No drift"
    yield f"<p><b>{verdict}.</b> Without drift, {finding.false_alarms:.1%} of such checks alarm."
    rows = (
        [
            test.name,
            f"{test.statistic:.3f}",
            f"{test.p_value:.4f}",
            f"{test.threshold:.4f}",
            "<b>drift</b>" if test.alarm else "",
        ]
        for test in finding.tests
    )
    yield html.table(["test", "distance", "p-value", "alarms up to", ""], rows)
    yield "<p>" + plots.shifts(Sample.of_reference(known), window, finding.tests, model.folder.classes)


def performance_page(judged: Judged, faults: Sequence[str], production: Production, drift: Sequence[str]) -> str:
    """What `python -m monitoring.performance --report` writes."""
    sections = [*_judged(judged, faults), *_production(production), "<h2>Drift</h2>", *drift]
    return html.page("Performance report", sections)


def _judged(judged: Judged, faults: Sequence[str]) -> Iterator[str]:
    model, metrics = judged.model, judged.model.folder.card["metrics"]
    yield "<p><b>" + ("; ".join(map(escape, faults)) or "As the model card says.") + "</b>"
    low, high = judged.interval
    card_low, card_high = metrics["accuracy_interval"]
    rows = [
        ["model", f"{escape(model.name)}, version {escape(model.version)}, <code>{model.folder.sha256[:16]}</code>"],
        ["answers of", escape(judged.source)],
        ["pictures of", escape(judged.folder)],
        ["pictures", f"{judged.pictures}, {escape(judged.refused)}"],
        ["accuracy", f"{judged.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"],
        ["of the model card", f"{metrics['accuracy']:.4f} ({card_low:.4f} to {card_high:.4f})"],
    ]
    if judged.skew is not None:
        rows.append(
            ["served otherwise than offline", f"{judged.skew.pictures} pictures; worst {judged.skew.worst:.2g}"]
        )
    yield html.table(["", ""], rows)
    classes = model.folder.classes
    truth, probabilities = judged.known()
    yield "<p>" + plots.confusion(truth, probabilities.argmax(1), classes)
    yield plots.reliability(probabilities, truth)
    yield f"<p>Calibration error {calibration_error(probabilities, truth):.4f}"
    yield "<h2>Latency</h2>" + (
        "<p>" + plots.latency(judged.milliseconds, "One picture, as this client saw it")
        if judged.milliseconds
        else "<p>No service was asked (--url)."
    )


def _production(production: Production) -> Iterator[str]:
    if production.hours:
        yield "<p>" + plots.latency(production.milliseconds, "In production, inside the service")
    yield "<h2>Live accuracy</h2>"
    if production.said:
        yield html.table(["version", "feedback", "accuracy", "95 % interval"], _accuracies(production.said))
        yield (
            f"<p>Each point is a group of answers that followed one another: up to {plots.GROUPS} groups for each "
            "version, the legend names how many answers are in one."
        )
        yield "<p>" + plots.accuracy(production.said)
    else:
        yield "<p>Nobody has sent feedback yet."
    yield "<h2>Label mix</h2>"
    yield (
        "<p>" + plots.labels(production.hours, production.classes)
        if production.hours
        else "<p>No predictions of this model in the window."
    )


def _accuracies(said: Mapping[str, Sequence[tuple[object, bool]]]) -> Iterator[list[str]]:
    for version, found in said.items():
        right = sum(correct for _, correct in found)
        low, high = wilson_corrected(right, len(found))
        yield [escape(version), str(len(found)), f"{right / len(found):.4f}", f"{low:.4f} to {high:.4f}"]
