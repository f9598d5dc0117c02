"""The service's own Prometheus metrics, beside BentoML's. Their labels take few values: classes, codes, one version.

All are right with several workers. Counters and histograms are summed over the files of all workers, also of those that
died, so they never go backwards; the gauges of a worker count only while it lives. What is a fact of the whole service
and not of a worker is worked out at every scrape (facts.py).

Import it in workers only, after metric_files.install: prometheus_client opens files for the process that imports it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from prometheus_client import Counter, Histogram

NOT_SURE = "not_sure"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CONFIDENCES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 1.0)

PREDICTIONS = Counter("classifier_predictions", "Pictures answered, by class or not_sure", ["label", "version"])
CONFIDENCE = Histogram("classifier_confidence", "Confidence of the answers", ["version"], buckets=_CONFIDENCES)
ABSTENTIONS = Counter("classifier_abstentions", "Answers that were not_sure, by reason", ["reason", "version"])
REJECTIONS = Counter("classifier_rejections", "Requests and pictures not answered, by code of the error", ["code"])

BATCH = Histogram("classifier_batch_pictures", "Pictures in one run of the network", buckets=(1, 2, 4, 8, 16, 32, 64))
DECODE = Histogram("classifier_decode_seconds", "Time to check, decode and measure a picture", buckets=_SECONDS)
QUEUE = Histogram("classifier_queue_seconds", "Time a decoded picture waited for the network", buckets=_SECONDS)
INFERENCE = Histogram("classifier_inference_seconds", "Time of one run of the network", buckets=_SECONDS)

_LIGHT = tuple(range(10, 251, 20))
PROPERTIES = {  # of training.model.properties: name there -> metric
    "brightness": Histogram("classifier_picture_brightness", "Mean luma, 0 to 255", buckets=_LIGHT),
    "contrast": Histogram("classifier_picture_contrast", "Deviation of luma, 0 to 127.5", buckets=range(10, 121, 10)),
    "sharpness": Histogram(
        "classifier_picture_sharpness",
        "Deviation of the Laplacian of green, in levels of 255",
        buckets=(1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    ),
    "saturation": Histogram(
        "classifier_picture_saturation", "Mean saturation, 0 to 1", buckets=[step / 20 for step in range(1, 20)]
    ),
    "short_side": Histogram(
        "classifier_picture_short_side_pixels",
        "Short side of pictures as sent",
        buckets=(32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096),
    ),
    "aspect": Histogram(
        "classifier_picture_aspect",
        "Width to height of pictures as sent, upright",
        buckets=(0.33, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 2.0, 3.0),
    ),
}

FEEDBACK = Counter("classifier_feedback", "Labels people gave to predictions", ["version", "predicted", "label"])
LOG_ERRORS = Counter("classifier_request_log_errors", "Predictions that could not be written to the request log")
CAPTURES = Counter("classifier_captures", "Pictures that were to be kept, by outcome", ["outcome"])

CODES = (  # of the errors that requests and pictures are refused with, as training.serving.api.docs tells them
    *("ambiguous_request_id", "blank", "broken_json", "broken_multipart", "corrupt", "disconnected", "empty"),
    *("extreme_aspect", "internal"),
    *("invalid_http", "invalid_request", "long_head", "method_not_allowed", "not_allowed", "slow_head", "wrong_range"),
    *(
        "missing_field",
        "no_valid_key",
        "not_a_file",
        "not_an_image",
        "not_base64",
        "not_found",
        "not_ready",
        "not_recorded",
    ),
    *("overloaded", "repeated_field", "slow_upload", "timeout", "too_many_bytes", "too_many_fields"),
    *(
        "too_many_changes",
        "too_many_pictures",
        "too_many_pixels",
        "too_many_requests",
        "too_small",
        "unknown_label",
        "unknown_request",
    ),
    *("unsupported_format", "value_range", "wrong_content_type", "wrong_feedback", "wrong_parameter"),
)
FEW = 10  # classes of which every pair has a series of feedback; of more, only whether the prediction was right
ANOTHER = "another"


def begin_at_zero(version: str, classes: Sequence[str]) -> None:
    """Make the series that alerts look at: Prometheus does not see the first rise of one that begins at 1."""
    for code in CODES:
        REJECTIONS.labels(code)
    for predicted, label in itertools.product(classes, repeat=2) if len(classes) <= FEW else ():
        FEEDBACK.labels(version, predicted, label)
    for predicted in classes if len(classes) > FEW else ():
        FEEDBACK.labels(version, predicted, predicted)
        FEEDBACK.labels(version, predicted, ANOTHER)


def said(version: str, predicted: str, label: str, classes: Sequence[str]) -> None:
    """Count feedback. A pair of classes has a series where classes are few: with the square of many there is no end."""
    FEEDBACK.labels(version, predicted, label if label == predicted or len(classes) <= FEW else ANOTHER).inc()
