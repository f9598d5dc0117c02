"""The places pictures come from: one function for each value of `data.source`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data import cache
from data.errors import DataError
from data.files import fingerprint
from data.layout.scan import scan
from data.sources.archive import unpack
from data.sources.download import download
from data.tree import LAYOUT
from training.common.files import file_sha256, fresh
from training.params import Data

SAMPLE = Path(__file__).parents[1] / "sample" / "cats-and-dogs.zip"
DOWNLOADS = cache.CACHE_FOLDER / "downloads"


@dataclass(frozen=True)
class Source:
    """Where pictures come from; another `fingerprint` means other pictures.

    `open` gives the folder that holds the class folders, after unpacking into an empty folder if need be.
    """

    fingerprint: str
    open: Callable[[Path], Path]


def locate(section: Data, root: Path) -> Source:
    """The source that `section` names; DataError when it is not there. `root` is the project folder."""
    makers = {"sample": _sample, "folder": _folder, "archive": _archive, "url": _url, "kaggle": _kaggle}
    return makers[section.source](section, root)


def _unpacked(archive: Path, encoding: str | None = None) -> Callable[[Path], Path]:
    def into(work: Path) -> Path:
        unpack(archive, fresh(work), encoding)
        return work

    return into


def _looks(folder: Path, section: Data) -> str:
    """The fingerprint of what a folder holds, but what data.ignore leaves out."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: {LAYOUT}")
    return fingerprint((path.as_posix(), path) for path in scan(folder, section.ignore).files())


def _sample(_section: Data, _root: Path) -> Source:
    expected = SAMPLE.with_name("SHA256SUMS").read_text().split()[0]
    found = file_sha256(SAMPLE)
    if found != expected:
        raise DataError(f"{SAMPLE} has SHA-256 {found}, expected {expected}: restore it with git checkout")
    return Source(found, _unpacked(SAMPLE))


def _path(section: Data, root: Path, what: str) -> Path:
    if section.path is None:
        raise DataError(
            f"data.source is {section.source}, but data.path is null: set it in params.yaml (or --path) to {what}"
        )
    path = root / Path(section.path).expanduser()
    if not path.exists():
        raise DataError(f"data.path {path} does not exist: set it in params.yaml (or --path) to {what}")
    return path


def _folder(section: Data, root: Path) -> Source:
    path = _path(section, root, "a folder of pictures; " + LAYOUT)
    return Source(_looks(path, section), lambda _: path)


def _archive(section: Data, root: Path) -> Source:
    path = _path(section, root, "a zip or tar archive of pictures")
    if not path.is_file():
        raise DataError(f"data.path {path} is not an archive file: for a folder set data.source to folder")
    return Source(fingerprint([(str(path), path)]), _unpacked(path, section.archive_encoding))


def _url(section: Data, root: Path) -> Source:
    def into(work: Path) -> Path:
        archive = download(section.url, section.sha256, root / DOWNLOADS)
        cache.used(archive)
        cache.trim(root / cache.CACHE_FOLDER)
        return _unpacked(archive, section.archive_encoding)(work)

    return Source(section.sha256, into)


def _kaggle(section: Data, _root: Path) -> Source:
    path = _kaggle_folder(section.kaggle)
    return Source(_looks(path, section), lambda _: path)


def _kaggle_folder(handle: str) -> Path:
    import kagglehub  # slow to import, and needed by this source alone
    import requests
    from kagglehub import exceptions

    try:
        return Path(kagglehub.dataset_download(handle))
    except (exceptions.UnauthenticatedError, exceptions.CredentialError) as error:
        reason, mend = error, "set KAGGLE_API_TOKEN, or put kaggle.json into ~/.kaggle"
    except requests.HTTPError as error:
        reason, mend = error, "check data.kaggle, and set KAGGLE_API_TOKEN if the data set is not public"
    except (requests.RequestException, exceptions.BackendError, exceptions.DataCorruptionError) as error:
        reason, mend = error, "check the network, or use another data.source"
    except ValueError as error:
        reason, mend = error, "data.kaggle must be OWNER/NAME"
    text = str(reason).strip().splitlines()[0][:200]
    raise DataError(f"Kaggle data set {handle} cannot be downloaded ({type(reason).__name__}: {text}): {mend}")
