"""The Grafana dashboards, as code: `python -m monitoring.dashboards` writes grafana/dashboards/*.json.

    service    what is promised, how much comes in, what goes wrong, how long it takes, how full it is
    model      which version answers, what it says, how sure it is, how right it is, whether the pictures change

Edit here, run the command, commit both. Grafana reads the JSON by the provisioning beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

from training.command import run_command

FOLDER = Path(__file__).parent / "grafana/dashboards"
SOURCE = DataSourceRef("prometheus", "${datasource}")
JOB = 'job="classifier"'
API = f'{JOB}, endpoint=~"/predict|/predict_batch|/explain|/feedback"'
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

Kind = TypeVar("Kind", timeseries.Panel, statetimeline.Panel)


def service() -> Dashboard:
    """Rate, errors, latency, batch size, saturation."""
    requests = "bentoml_service_request_total"
    seconds = "bentoml_service_request_duration_seconds"
    board = _dashboard("service", "Classifier: service")
    board.with_row(Row("What is promised"))
    board.with_panel(
        _lines(
            "Burn rate of the error budgets: above 1 the promise is broken",
            "short",
            {
                "classifier:slo_burn_rate:5m": "{{slo}}, 5 minutes",
                "classifier:slo_burn_rate:1h": "{{slo}}, 1 hour",
                "classifier:slo_burn_rate:6h": "{{slo}}, 6 hours",
            },
            12,
        )
    )
    board.with_panel(_lines("Replicas that can be scraped", "short", {f"sum(up{{{JOB}}})": "up"}, 12))
    board.with_row(Row("Rate and errors"))
    board.with_panel(_lines("Requests", "reqps", {_rate(f"{requests}{{{API}}}", "endpoint"): "{{endpoint}}"}))
    failed = f'{requests}{{{API}, http_response_code=~"4..|5.."}}'
    board.with_panel(
        _lines("Errors by status", "reqps", {_rate(failed, "http_response_code"): "{{http_response_code}}"})
    )
    board.with_panel(_lines("Refused, by code", "reqps", {_rate("classifier_rejections_total", "code"): "{{code}}"}))
    board.with_row(Row("Latency"))
    ok = f'{seconds}_bucket{{{JOB}, endpoint="/predict", http_response_code="200"}}'
    board.with_panel(
        _lines("/predict", "s", {_quantile(share, ok): f"p{100 * share:g}" for share in (0.5, 0.95, 0.99)}, 12)
    )
    parts = {part: _quantile(0.95, f"classifier_{part}_seconds_bucket") for part in ("decode", "queue", "inference")}
    board.with_panel(_lines("Where the time goes (p95)", "s", {query: part for part, query in parts.items()}, 12))
    board.with_row(Row("Batches and saturation"))
    board.with_panel(
        _lines(
            "Pictures in one run of the network",
            "short",
            {
                _mean("classifier_batch_pictures"): "mean",
                _quantile(0.95, "classifier_batch_pictures_bucket"): "p95",
            },
        )
    )
    board.with_panel(
        _lines(
            "Places taken in the queue",
            "percentunit",
            {f"classifier_waiting_pictures{{{JOB}}} / classifier_waiting_limit": "{{instance}}"},
        )
    )
    in_progress = f"sum by (instance) (bentoml_service_request_in_progress{{{API}}})"
    board.with_panel(_lines("Requests in progress", "short", {in_progress: "{{instance}}"}))
    return board


def model() -> Dashboard:
    """Label mix, confidence, abstention, live accuracy, drift, versions."""
    board = _dashboard("model", "Classifier: model")
    board.with_row(Row("Which model"))
    replicas = f"count by (version) (classifier_model_info{{{JOB}}})"
    board.with_panel(_panel(statetimeline.Panel(), "Replicas of each version", "short", {replicas: "{{version}}"}, 24))
    board.with_row(Row("What it says"))
    labels = _share("classifier_predictions_total", "label")
    board.with_panel(_lines("Label mix", "percentunit", {labels: "{{label}}"}, stacked=True))
    confidence = {_quantile(share, "classifier_confidence_bucket"): f"p{100 * share:g}" for share in (0.05, 0.25, 0.5)}
    board.with_panel(_lines("Confidence", "percentunit", confidence))
    abstained = (
        "sum by (reason) (rate(classifier_abstentions_total[$__rate_interval]))"
        " / on () group_left () sum(rate(classifier_predictions_total[$__rate_interval]))"
    )
    board.with_panel(_lines("Abstention by reason", "percentunit", {abstained: "{{reason}}"}))
    board.with_row(Row("How right it is"))
    accuracy = {
        "max by (version) (classifier_feedback_accuracy)": "live, version {{version}}",
        "max by (version) (classifier_feedback_accuracy_low)": "live, lower end, version {{version}}",
        "max by (version) (classifier_feedback_accuracy_high)": "live, upper end, version {{version}}",
        "max by (version) (classifier_card_accuracy)": "model card, version {{version}}",
        "max by (version) (classifier_card_accuracy_low)": "model card, lower end, version {{version}}",
    }
    board.with_panel(_lines("Live accuracy (95 % interval) and model card", "percentunit", accuracy, 12))
    said = "sum by (predicted, label) (classifier_feedback_total)"
    board.with_panel(_lines("Feedback", "short", {said: "{{predicted}} was said, {{label}} it is"}, 12))
    board.with_row(Row("Drift"))
    scores = "max by (version, property) (classifier_drift_score)"
    board.with_panel(
        _lines("Drift per feature (test statistic)", "short", {scores: "{{property}}, version {{version}}"}, 12)
    )
    alarm = "max by (version) (classifier_drift_alarm)"
    board.with_panel(_lines("Drift alarm", "bool", {alarm: "version {{version}}"}, 6))
    age = "time() - max by (version) (classifier_drift_checked_timestamp_seconds)"
    board.with_panel(_lines("Age of the last drift check", "s", {age: "version {{version}}"}, 6))
    board.with_row(Row("The pictures that come in"))
    for name, (title, unit) in PROPERTIES.items():
        bucket = f"classifier_picture_{name}_bucket"
        board.with_panel(
            _lines(title, unit, {_quantile(share, bucket): f"p{100 * share:g}" for share in (0.1, 0.5, 0.9)})
        )
    return board


def _dashboard(uid: str, title: str) -> Dashboard:
    deployments = (
        AnnotationQuery().name("Deployments").datasource(SOURCE).enable(True).icon_color("blue").expr(DEPLOYED)
    )
    return (
        Dashboard(title)
        .uid(f"classifier-{uid}")
        .tags(["picture-classifier"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .annotation(deployments)
    )


def _lines(title: str, unit: str, queries: dict[str, str], width: int = 8, stacked: bool = False) -> timeseries.Panel:
    panel = timeseries.Panel().fill_opacity(60 if stacked else 0)
    panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL if stacked else StackingMode.NONE))
    return _panel(panel, title, unit, queries, width)


def _panel(panel: Kind, title: str, unit: str, queries: dict[str, str], width: int) -> Kind:
    """`queries`: PromQL -> what the legend calls it."""
    legend = common.VizLegendOptions().show_legend(True)
    legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    for number, (expr, name) in enumerate(queries.items()):
        panel.with_target(prometheus.Dataquery().expr(expr).legend_format(name).range().ref_id(chr(ord("A") + number)))
    return panel.title(title).unit(unit).min(0).legend(legend).datasource(SOURCE).span(width).height(HEIGHT)


def _rate(series: str, by: str) -> str:
    return f"sum by ({by}) (rate({series}[$__rate_interval]))"


def _share(series: str, by: str) -> str:
    return f"{_rate(series, by)} / on () group_left () sum(rate({series}[$__rate_interval]))"


def _mean(histogram: str) -> str:
    return f"sum(rate({histogram}_sum[$__rate_interval])) / sum(rate({histogram}_count[$__rate_interval]))"


def _quantile(share: float, buckets: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({buckets}[$__rate_interval])))"


DASHBOARDS: dict[str, Callable[[], Dashboard]] = {"service": service, "model": model}


def render(name: str) -> str:
    """The JSON of one of DASHBOARDS, as it stands in the file."""
    board: dict[str, Any] = json.loads(json.dumps(DASHBOARDS[name]().build(), cls=JSONEncoder))
    for number, panel in enumerate(board["panels"], 1):
        panel["id"] = number
    board["annotations"]["list"][0] |= DEPLOYMENTS
    return json.dumps(board, indent=2) + "\n"


def main() -> None:
    argparse.ArgumentParser(description="Write the Grafana dashboards to monitoring/grafana/dashboards.").parse_args()
    for name in DASHBOARDS:
        path = FOLDER / f"{name}.json"
        path.write_text(render(name))
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    run_command(main, (OSError,))
