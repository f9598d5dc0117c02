"""Generate the Grafana dashboards: grafana/dashboards/*.json.

    service    objectives, traffic, errors, latency, saturation
    model      which version answers, with what, how confidently and how accurately; whether the pictures change

Edit this file, run the command and `make manifests`, and commit all of it. Grafana reads the JSON through the
provisioning beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

from training.common.command import run_command

FOLDER = Path(__file__).parent / "grafana/dashboards"
SOURCE = DataSourceRef("prometheus", "${datasource}")
JOB = 'job="classifier"'
API = f'{JOB}, endpoint=~"/predict|/predict_batch|/explain|/heatmap|/feedback"'
ACROSS, HEIGHT = 24, 8  # columns of Grafana's grid, rows of a panel
PROPERTIES = {  # metric of a picture's property: title, unit
    "brightness": ("Brightness", "short"),
    "contrast": ("Contrast", "short"),
    "sharpness": ("Sharpness", "short"),
    "saturation": ("Saturation", "percentunit"),
    "short_side_pixels": ("Short side in pixels", "short"),
    "aspect": ("Width to height", "short"),
}

# Deployments are seen where a version appears that was not there a minute before. The SDK does not know these keys.
DEPLOYMENTS = {
    "step": "15s",
    "titleFormat": "version {{version}}",
    "textFormat": "begins to answer",
    "tagKeys": "version",
}
DEPLOYED = (
    f"count by (version) (classifier_model_info{{{JOB}}}) "
    f"unless count by (version) (classifier_model_info{{{JOB}}} offset 1m)"
)

Panel = timeseries.Panel | statetimeline.Panel
Kind = TypeVar("Kind", timeseries.Panel, statetimeline.Panel)


def _promises() -> list[Panel]:
    burn = {f"classifier:slo_burn_rate:{window}": f"{{{{slo}}}}, {window}" for window in ("5m", "1h", "6h")}
    return [
        _lines("Burn rate of the error budgets: above 1 the promise is broken", "short", burn, 12),
        _lines("Replicas that can be scraped", "short", {f"sum(up{{{JOB}}})": "up"}, 12),
    ]


def _rate_and_errors() -> list[Panel]:
    total = "bentoml_service_request_total"
    failed = f'{total}{{{API}, http_response_code=~"4..|5.."}}'
    refused = f"{_rate('classifier_rejections_total', 'code')} > 0"  # every code has a series
    return [
        _lines("Requests", "reqps", {_rate(f"{total}{{{API}}}", "endpoint"): "{{endpoint}}"}),
        _lines("Errors by status", "reqps", {_rate(failed, "http_response_code"): "{{http_response_code}}"}),
        _lines("Refused, by code", "reqps", {refused: "{{code}}"}),
    ]


def latency() -> list[Panel]:
    answered = f'{JOB}, endpoint="/predict", http_response_code="200"'
    predict = f"bentoml_service_request_duration_seconds_bucket{{{answered}}}"
    parts = {_quantile(0.95, f"classifier_{part}_seconds_bucket"): part for part in ("decode", "queue", "inference")}
    return [
        _lines("Time of /predict", "s", _quantiles(predict, 0.5, 0.95, 0.99), 12),
        _lines("Where the time goes (p95)", "s", parts, 12),
    ]


def _batches_and_saturation() -> list[Panel]:
    mean = "sum(rate({0}_sum[$__rate_interval])) / sum(rate({0}_count[$__rate_interval]))"
    batch = {mean.format("classifier_batch_pictures"): "mean"} | _quantiles("classifier_batch_pictures_bucket", 0.95)
    places = f"classifier_waiting_pictures{{{JOB}}} / classifier_waiting_limit"
    in_progress = f"sum by (instance) (bentoml_service_request_in_progress{{{API}}})"
    return [
        _lines("Pictures in one run of the network", "short", batch),
        _lines("Places taken in the queue", "percentunit", {places: "{{instance}}"}),
        _lines("Requests in progress", "short", {in_progress: "{{instance}}"}),
    ]


def versions() -> list[Panel]:
    replicas = f"count by (version) (classifier_model_info{{{JOB}}})"
    return [_panel(statetimeline.Panel(), "Replicas of each version", "short", {replicas: "{{version}}"}, ACROSS)]


def answers() -> list[Panel]:
    predictions = "classifier_predictions_total"
    labels = _share(predictions, predictions, "label")
    abstained = _share("classifier_abstentions_total", predictions, "reason")
    confidence = _quantiles("classifier_confidence_bucket", 0.05, 0.25, 0.5)
    return [
        _lines("Label mix", "percentunit", {labels: "{{label}}"}, stacked=True),
        _lines("Confidence", "percentunit", confidence, from_zero=False),
        _lines("Abstention by reason", "percentunit", {abstained: "{{reason}}"}),
    ]


def accuracy() -> list[Panel]:
    names = {
        "feedback_accuracy": "live",
        "feedback_accuracy_low": "live, lower end",
        "feedback_accuracy_high": "live, upper end",
        "card_accuracy": "model card",
        "card_accuracy_low": "model card, lower end",
    }
    curves = {f"max by (version) (classifier_{key})": f"{name}, version {{{{version}}}}" for key, name in names.items()}
    said = {"sum by (predicted, label) (classifier_feedback_total)": "{{predicted}} was said, {{label}} it is"}
    return [
        _lines("Live accuracy (95 % interval) and model card", "percentunit", curves, 12, from_zero=False),
        _lines("Feedback", "short", said, 12),
    ]


def drift() -> list[Panel]:
    scores = "max by (version, property) (classifier_drift_score)"
    alarm = "max by (version) (classifier_drift_alarm)"
    age = "time() - max by (version) (classifier_drift_checked_timestamp_seconds)"
    return [
        _lines("Drift per feature (test statistic)", "short", {scores: "{{property}}, version {{version}}"}, 12),
        _lines("Drift alarm", "bool", {alarm: "version {{version}}"}, 6),
        _lines("Age of the last drift check", "s", {age: "version {{version}}"}, 6),
    ]


def pictures() -> list[Panel]:
    return [
        _lines(title, unit, _quantiles(f"classifier_picture_{name}_bucket", 0.1, 0.5, 0.9))
        for name, (title, unit) in PROPERTIES.items()
    ]


DASHBOARDS: dict[str, dict[str, Callable[[], list[Panel]]]] = {  # name -> title of a row -> its panels
    "service": {
        "What is promised": _promises,
        "Rate and errors": _rate_and_errors,
        "Latency": latency,
        "Batches and saturation": _batches_and_saturation,
    },
    "model": {
        "Which model": versions,
        "What it says": answers,
        "How right it is": accuracy,
        "Drift": drift,
        "The pictures that come in": pictures,
    },
}


def render(name: str) -> str:
    """The JSON of one of DASHBOARDS, as it stands in the file."""
    deployments = AnnotationQuery().name("Deployments").datasource(SOURCE).enable(True).icon_color("blue")
    builder = (
        Dashboard(f"Classifier: {name}")
        .uid(f"classifier-{name}")
        .tags(["picture-classifier"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .annotation(deployments.expr(DEPLOYED))
    )
    for title, panels in DASHBOARDS[name].items():
        builder.with_row(Row(title))
        for panel in panels():
            builder.with_panel(panel)
    board: dict[str, Any] = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    for number, each in enumerate(board["panels"], 1):
        each["id"] = number
    board["annotations"]["list"][0] |= DEPLOYMENTS
    return json.dumps(board, indent=2) + "\n"


def _lines(
    title: str, unit: str, queries: dict[str, str], width: int = 8, *, stacked: bool = False, from_zero: bool = True
) -> timeseries.Panel:
    panel = timeseries.Panel().fill_opacity(60 if stacked else 0)
    panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL if stacked else StackingMode.NONE))
    return _panel(panel.min(0) if from_zero else panel, title, unit, queries, width)


def _panel(panel: Kind, title: str, unit: str, queries: dict[str, str], width: int) -> Kind:
    """`queries`: PromQL -> what the legend calls it."""
    legend = common.VizLegendOptions().show_legend(True)
    legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    for letter, (expr, name) in zip(ascii_uppercase, queries.items(), strict=False):
        panel.with_target(prometheus.Dataquery().expr(expr).legend_format(name).range().ref_id(letter))
    return panel.title(title).unit(unit).legend(legend).datasource(SOURCE).span(width).height(HEIGHT)


def _rate(series: str, by: str) -> str:
    return f"sum by ({by}) (rate({series}[$__rate_interval]))"


def _share(part: str, whole: str, by: str) -> str:
    return f"{_rate(part, by)} / on () group_left () sum(rate({whole}[$__rate_interval]))"


def _quantile(share: float, buckets: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({buckets}[$__rate_interval])))"


def _quantiles(buckets: str, *shares: float) -> dict[str, str]:
    return {_quantile(share, buckets): f"p{100 * share:g}" for share in shares}


def main() -> None:
    text = "Write the Grafana dashboards to monitoring/grafana/dashboards."
    argparse.ArgumentParser("python -m monitoring.dashboards", description=text).parse_args()
    for name in DASHBOARDS:
        path = FOLDER / f"{name}.json"
        path.write_text(render(name))
        print(path)


if __name__ == "__main__":
    run_command(main)
