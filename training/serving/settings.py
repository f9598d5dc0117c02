"""The settings of the service: sections `serve` and `capture` of params.yaml, overridable by the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeVar

import fsspec
import yaml
from fsspec.core import split_protocol

from training import params
from training.common import yaml12
from training.common.cores import usable_cores
from training.model.picture.header import FORMATS, Limits
from training.params import Capture, ParamsError, Section, Serve
from training.serving.records.log_files import CAPTURED_FOLDER

MOST_WORKERS = 8  # unless told otherwise; each takes about 250 MB
SENDABLE = re.compile("[!-~]*")  # in a header
DEVICES = Path("/dev")
_Section = TypeVar("_Section", bound=Section)


def load(root: Path, environ: Mapping[str, str] = os.environ) -> Serve:
    """`serve` of params.yaml in `root`, overridden by SERVE_<KEY>; ParamsError names a wrong key or value."""
    merged = _override(params.load(root / params.PARAMS_FILE).serve, "SERVE_", environ)
    chosen = merged.model_copy(update={"workers": merged.workers or _workers(merged)})
    threads(chosen, chosen.workers)
    return chosen


def threads(settings: Serve, workers: int) -> int:
    """Threads of each of so many workers; ParamsError for what only one worker can keep."""
    if settings.rate_limit and workers > 1:
        raise ParamsError(
            f"serve.rate_limit is counted in one process, and there are {workers}: set serve.workers to 1"
        )
    return settings.threads or max(1, usable_cores() // workers)


def _workers(settings: Serve) -> int:
    """Processes side by side have no interpreter's lock in common; but each needs a copy of the model, and counts what
    clients ask for itself."""
    return 1 if settings.rate_limit or _has_gpu() else min(usable_cores(), MOST_WORKERS)


def _has_gpu() -> bool:
    """Whether the network will run on one: the package for it is installed, and a device is there."""
    try:
        distribution("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "dxg").exists()


def load_capture(root: Path, environ: Mapping[str, str] = os.environ, log_dir: Path | None = None) -> Capture:
    """`capture` of params.yaml in `root`, overridden by CAPTURE_<KEY>; ParamsError names a wrong key or value.

    Without a url it is a folder in `log_dir`, by default serve.log_dir; None is left only where nothing is kept.
    """
    capture = _override(params.load(root / params.PARAMS_FILE).capture, "CAPTURE_", environ)
    if capture.url is None:
        folder = log_dir or load(root, environ).log_dir
        if folder is None and capture.sample_rate:
            raise ParamsError("capture.sample_rate keeps pictures, but capture.url and serve.log_dir name no folder")
        return capture.model_copy(update={"url": folder and str(Path(folder) / CAPTURED_FOLDER)})
    try:
        fsspec.get_filesystem_class(split_protocol(capture.url)[0])
    except (ImportError, ValueError) as error:
        raise ParamsError(f"capture.url {capture.url} cannot be used: {error}") from None
    return capture


def _override(section: _Section, prefix: str, environ: Mapping[str, str]) -> _Section:
    given = {name.removeprefix(prefix).lower(): value for name, value in environ.items() if name.startswith(prefix)}
    values = section.model_dump() | {key: _value(text) for key, text in given.items()}
    return params.check(type(section), values, f"{prefix}... in the environment")


def _value(text: str) -> object:
    """By YAML; what is no YAML is text, as a path that begins with @ is."""
    try:
        return yaml12.load(text)
    except (yaml.YAMLError, ValueError):
        return text


def limits(settings: Serve) -> Limits:
    """What preprocess checks before it decodes a pixel."""
    formats = tuple(name for name in settings.formats if name in FORMATS)  # a build may leave some out
    return Limits(
        settings.max_pixels,
        settings.min_side,
        settings.max_aspect,
        formats,
        settings.max_pixels_whole,
        settings.max_pixels_heif,
    )


def api_keys(environ: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """Keys of which a client must send one: API_KEYS (comma between them) and the lines of the file API_KEYS_FILE."""
    found = environ.get("API_KEYS", "").split(",")
    path = environ.get("API_KEYS_FILE")
    if path:
        try:
            found += Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise ParamsError(f"API_KEYS_FILE={path} cannot be read: {error.strerror}") from None
    if not all(SENDABLE.fullmatch(key.strip()) for key in found):
        raise ParamsError("API_KEYS or API_KEYS_FILE holds a key that no header carries: take letters, digits and -._~")
    keys = tuple(key.strip().encode() for key in found if key.strip())
    if not keys and (path or "API_KEYS" in environ):
        raise ParamsError("API_KEYS or API_KEYS_FILE is set, but holds no key: unset it to serve everybody")
    return keys


def own_key(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The header that our own programs send to the service: the first of its keys; empty where it has none."""
    keys = api_keys(environ)
    return {"X-API-Key": keys[0].decode()} if keys else {}
