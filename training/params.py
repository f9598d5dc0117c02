"""Typed, frozen view of params.yaml: one section for each stage, an unknown key or a wrong type is an error."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import json
import math
import re
import types
import typing
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from training.common import yaml12
from training.common.errors import ExpectedError

PARAMS_FILE = Path("params.yaml")
SAID = 100  # letters of a wrong value, in the message
NAME_LENGTH = 63  # of BentoML's tags and of labels in Kubernetes

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Processes = Annotated[int, Field(ge=0, le=1024)]
SWITCH = {"yes": True, "on": True, "no": False, "off": False}  # to YAML 1.1, and so to files written for it


def _switch(value: object) -> object:
    return SWITCH.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_switch)]


def _form_c(name: str) -> str:
    return unicodedata.normalize("NFC", name)


class ParamsError(ExpectedError):
    """params.yaml, or an override of it, is not valid; the message names the key and the mend."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    source: Literal["sample", "folder", "archive", "url", "kaggle"]
    path: str | None
    url: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    kaggle: str
    labels: str | None
    ignore: list[str]
    archive_encoding: str | None
    rename: dict[str, str]

    @field_validator("archive_encoding")
    @classmethod
    def is_known(cls, encoding: str | None) -> str | None:
        """Python knows an encoding of text by this name."""
        try:
            "".encode(encoding or "utf-8")
        except LookupError:
            raise ValueError("no encoding of text is called so: gbk, cp866, shift_jis and cp850 are some") from None
        return encoding

    @field_validator("rename")
    @classmethod
    def in_form_c(cls, rename: dict[str, str]) -> dict[str, str]:
        """Unicode's form C, as all names of classes."""
        return {_form_c(name): _form_c(label) for name, label in rename.items()}


class Prepare(Section):
    min_side: Count
    max_short_side: Count
    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    seed: NotNegative
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    near_duplicate_distance: Annotated[int, Field(ge=0, le=16)]
    workers: NotNegative

    @field_validator("value_range")
    @classmethod
    def rises(cls, value_range: list[float] | None) -> list[float] | None:
        """Black has the lower value: what is white at 0 says so in the file."""
        if value_range and not value_range[0] < value_range[1]:
            raise ValueError("the value of black must be lower than that of white")
        return value_range

    @property
    def values_from_to(self) -> tuple[float, float] | None:
        return (self.value_range[0], self.value_range[1]) if self.value_range else None


class Train(Section):
    """None stands for the value in the recipe of the architecture, see training.fit.architectures.recipe."""

    architecture: str
    weights: str | None
    image_size: Annotated[int, Field(ge=16, le=1024)] | None
    search: Literal["quick", "thorough"]
    minutes: Annotated[float, Field(ge=0)]
    finetune_above: Share
    finetune_blocks: NotNegative
    epochs: Count | None
    batch_size: Count | None
    lr: Positive | None
    weight_decay: Annotated[float, Field(ge=0)] | None
    label_smoothing: Share
    patience: Count
    seed: NotNegative


Harmless = Literal[  # the changes of training.evaluation.behaviour that may leave an answer as it is
    "mirrored", "brighter", "darker", "more_contrast", "less_contrast", "encoded_again", "exif_rotated", "cropped"
]


class Evaluate(Section):
    risk: Annotated[float, Field(gt=0, lt=1)]
    novelty_quantile: Annotated[float, Field(gt=0, lt=1)]
    novelty_catch: Annotated[float, Field(gt=0, lt=1)]
    worst: Count
    behaviour_pictures: Annotated[int, Field(ge=2)]
    harmless: list[Harmless] | None


class Export(Section):
    precision: Literal["auto", "fp32", "int8"]
    glance: Switch
    parity_pictures: Count
    parity_tolerance: Positive
    self_check_pictures: Count
    mistakes: NotNegative


class Register(Section):
    name: str
    signing_key: str | None

    @field_validator("name")
    @classmethod
    def fits_everywhere(cls, name: str) -> str:
        """MLflow, BentoML's tags, image references and Kubernetes' labels all carry the name."""
        if not re.fullmatch("[a-z0-9]+([._-][a-z0-9]+)*", name) or len(name) > NAME_LENGTH:
            raise ValueError(
                f"a name has at most {NAME_LENGTH} lower-case letters and digits, separated by single . _ or -"
            )
        return name


class Promote(Section):
    min_test_pictures: Count
    min_accuracy: Share | None
    min_class_accuracy: Share | None
    min_slice_accuracy: Share | None
    min_slice_pictures: Count
    non_inferiority_margin: Share
    min_log_loss_gain: Share
    accept_new_data: Switch
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap_samples: Count
    max_recorded_difference: Share
    max_int8_accuracy_loss: Share
    max_int8_label_changes: Share
    min_int8_speedup: Positive
    min_invariance: Share
    max_confidence_gain: Share
    min_named: Share
    max_calibration_error: Share
    max_latency_ratio: Positive
    latency_floor_ms: Annotated[float, Field(ge=0)]
    max_size_mb: Positive
    seed: NotNegative


class Drift(Section):
    false_alarms: Annotated[float, Field(gt=0, lt=0.5)]
    permutations: Count
    min_pictures: Annotated[int, Field(ge=10)]
    max_pictures: Annotated[int, Field(ge=10, le=10_000)]
    seed: NotNegative

    @field_validator("permutations")
    @classmethod
    def can_alarm(cls, permutations: int, others: ValidationInfo) -> int:
        """Fewer could not tell apart the small p-values among which the threshold lies."""
        least = math.ceil(20 / others.data["false_alarms"]) if "false_alarms" in others.data else 1
        if permutations + 1 < least:
            raise ValueError(f"at least {least - 1} are needed for this share of false_alarms")
        return permutations


class Serve(Section):
    max_bytes: Count
    max_batch_bytes: Count
    max_pictures: Count
    max_pixels: Count
    max_pixels_whole: Count
    max_pixels_heif: Count
    min_side: Count
    max_aspect: Annotated[float, Field(ge=1)]
    formats: Annotated[list[Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF"]], Field(min_length=1)]
    max_waiting: Count
    max_batch: Annotated[int, Field(ge=2, le=10_000)]
    workers: Processes
    threads: Processes
    timeout: Seconds
    upload_timeout: Seconds
    keep_alive: Seconds
    drain: Annotated[float, Field(ge=0, le=86_400)]
    rate_limit: Annotated[float, Field(ge=0, le=1e9)]
    cors_origins: list[str]
    ui: Switch
    log_dir: str | None
    log_max_bytes: Count
    log_files: Annotated[int, Field(ge=2, le=10_000)]
    log_format: Literal["text", "json"]


class Capture(Section):
    sample_rate: Share
    url: str | None
    retention_days: Annotated[float, Field(gt=0, le=36_500)]
    max_bytes: Count


class Params(Section):
    data: Data
    prepare: Prepare
    train: Train
    evaluate: Evaluate
    export: Export
    register_: Register = Field(alias="register")
    promote: Promote
    drift: Drift
    serve: Serve
    capture: Capture

    def sha256(self) -> str:
        """Hash of all values that shape a model (not how it is served) in canonical JSON, whatever their order."""
        text = json.dumps(
            self.model_dump(mode="json", by_alias=True, exclude={"drift", "serve", "capture"}),
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(text.encode()).hexdigest()


AnySection = TypeVar("AnySection", bound=Section)


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check params.yaml.

    Raises ParamsError when the file is missing, is not YAML, or holds a key or a value that does not belong there.
    """
    try:
        values = yaml12.load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the project folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not YAML: {error}") from None
    return check(Params, values, str(path))


def check(section: type[AnySection], values: object, where: str) -> AnySection:
    """Validate `values` as a `section`; a ParamsError lists every fault with its key."""
    if not isinstance(values, Mapping):
        raise ParamsError(f"{where}: expected keys and values, found {type(values).__name__}")
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        faults = [
            _fault(section, fault["loc"], fault["type"], fault["msg"], fault["input"]) for fault in error.errors()
        ]
        raise ParamsError(f"{where}: " + "; ".join(faults)) from None


def _fault(section: type[Section], loc: Sequence[int | str], kind: str, message: str, value: object) -> str:
    key = ".".join(str(part) for part in loc)
    if kind == "missing":
        return f"{key} is missing"
    if kind == "extra_forbidden":
        valid = _keys(section)
        sections = [] if "." in key else sorted({name.split(".")[0] for name in valid})
        near = difflib.get_close_matches(key, [*sections, *valid], n=1, cutoff=0.0)
        return f"unknown key {key!r}, nearest valid key: {near[0]!r}"
    found = repr(value)
    return f"{key}: {message[0].lower()}{message[1:]}, found {found if len(found) <= SAID else found[:SAID] + '...'}"


def _keys(section: type[Section], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            keys += _keys(inner, key + ".")
        else:
            keys.append(key)
    return keys


def add_arguments(parser: argparse.ArgumentParser, section: type[Section]) -> None:
    """Add one option for each scalar key of `section`: `--epochs 50` overrides train.epochs for this run."""
    group = parser.add_argument_group("overrides of params.yaml")
    for name, field in section.model_fields.items():
        kinds = _scalar_kinds(field.annotation)
        if kinds:
            group.add_argument(
                "--" + name.replace("_", "-"), dest=name, default=None, metavar=kinds[0].__name__.upper(), type=str
            )


def override(section: AnySection, arguments: argparse.Namespace) -> AnySection:
    """`section` with the options that were given on the command line; `null` is none where a key may be none."""
    words = vars(arguments)
    given = {
        name: _value(words[name], _scalar_kinds(field.annotation))
        for name, field in type(section).model_fields.items()
        if words.get(name) is not None
    }
    return check(type(section), section.model_dump() | given, "command line")


def _value(word: str, kinds: Sequence[type]) -> object:
    if word == "null":
        return None
    if bool in kinds and word in ("true", "false"):
        return word == "true"
    for kind in (int, float):
        if str not in kinds:
            with contextlib.suppress(ValueError):
                return kind(word)
    return word  # text, or no number: check says so


def _scalar_kinds(annotation: Any) -> list[type]:
    if typing.get_origin(annotation) is Literal:
        return [str]
    if typing.get_origin(annotation) is Annotated:
        return _scalar_kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(annotation) for kind in _scalar_kinds(part)]
    return [annotation] if annotation in (int, float, str, bool) else []
