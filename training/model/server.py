"""An MLflow server asked without MLflow: address, login and TLS from the variables that MLflow's own client reads.

    MLFLOW_TRACKING_URI                 may hold user and password, percent-encoded, and a path prefix
    MLFLOW_TRACKING_USERNAME, _PASSWORD or the section [mlflow] of ~/.mlflow/credentials, or ~/.netrc
    MLFLOW_TRACKING_TOKEN               a bearer token
    MLFLOW_TRACKING_SERVER_CERT_PATH    certificates of a private authority; REQUESTS_CA_BUNDLE works too
    MLFLOW_TRACKING_INSECURE_TLS        true: trust any certificate
    MLFLOW_TRACKING_CLIENT_CERT_PATH    certificate and key of this client, in one PEM file
    MLFLOW_HTTP_REQUEST_TIMEOUT         seconds; here 2 unless it is set

Only the standard library is imported: this module travels into the Bento.
"""

from __future__ import annotations

import base64
import configparser
import http.client
import json
import netrc
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from training.model.pin import ChampionError

TIMEOUT_S = 2.0
LONGEST_ANSWER = 16 * 2**20  # bytes; MLflow's own are a thousandth of it
SECRET_WORDS = re.compile(r"pass|pwd|token|secret", re.IGNORECASE)  # in the name of an option after the ? of an address
USER_PART = re.compile(r"(?<=\w://)[^\s'\"/]*@")
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what MLflow answers for an alias that is not there
PLUGINS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")


class RegistryUnreachableError(ChampionError):
    """The registry cannot be asked, for a reason of the network: it may be back in a minute."""


class RegistryRefusedError(ChampionError):
    """The registry does not let us in, or we do not trust it: login, permission or certificate must be mended."""


@dataclass(frozen=True)
class Login:
    """User and password, or a token, or nothing."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def headers(self) -> dict[str, str]:
        """The header `Authorization`, where there is something to say in it."""
        if self.user or self.password:
            basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {basic}"}
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def is_server(uri: str) -> bool:
    """Whether `uri` is the address of an MLflow server, not of a database or a file."""
    return uri.startswith(("http://", "https://"))


def without_password(uri: str) -> str:
    """`uri` without user, password and final slash: fit for a file or a message. ChampionError when it is none."""
    try:
        parts = urllib.parse.urlsplit(uri)
        user = parts.netloc.rpartition("@")[0]
        _ = parts.port
    except ValueError:
        # A password with a / or # in it that is not percent-encoded ends the host too early.
        shown = f"{uri.partition('://')[0]}://{uri.rpartition('@')[2]}" if "@" in uri else uri
        raise ChampionError(
            f"MLFLOW_TRACKING_URI is not an address: {shown}: percent-encode user and password in it"
        ) from None
    if user:
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    options = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    if any(SECRET_WORDS.search(name) for name, _ in options):
        parts = parts._replace(
            query=urllib.parse.urlencode([one for one in options if not SECRET_WORDS.search(one[0])])
        )
        user = user or "?"
    shown = parts.geturl() if user else uri
    return shown.rstrip("/") if is_server(shown) else shown


def scrubbed(text: str, uri: str) -> str:
    """`text`, as some library wrote it, without the user and password of `uri` and of any other address."""
    clean = USER_PART.sub("", text)
    parts = urllib.parse.urlsplit(uri)
    for secret in {parts.password or "", urllib.parse.unquote(parts.password or "")} - {""}:
        clean = clean.replace(secret, "***")
    return clean


def login(uri: str) -> Login:
    """What to log in with, in the order in which MLflow looks: address, ~/.netrc, user and password, token.

    RegistryRefusedError when ~/.mlflow/credentials cannot be read.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.username or parts.password:
        return Login(urllib.parse.unquote(parts.username or ""), urllib.parse.unquote(parts.password or ""))
    if found := _of_netrc(parts.hostname or ""):
        return found
    saved = _of_file(Path(os.path.expanduser("~/.mlflow/credentials")))  # noqa: PTH111 - raises nothing without a home
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or saved.user
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or saved.password
    if user and password:
        return Login(user, password)
    return Login(token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""))


def _of_netrc(host: str) -> Login | None:
    path = Path(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))  # noqa: PTH111
    try:
        found = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None  # as requests does
    return Login(found[0], found[2] or "") if found else None


def _of_file(path: Path) -> Login:
    config = configparser.ConfigParser()
    try:
        config.read(path)
        names = ("mlflow_tracking_username", "mlflow_tracking_password")
        return Login(*(config.get("mlflow", name, fallback="") for name in names))
    except (configparser.Error, UnicodeDecodeError) as error:
        kind = type(error).__name__  # its text repeats the line, and with it the password
        raise RegistryRefusedError(f"{path} cannot be read ({kind}): a % in a password is written %% there") from None


def tls() -> ssl.SSLContext:
    """Whom to trust, and who we are; RegistryRefusedError names the variable that is wrong."""
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    own = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    if insecure and own:
        raise RegistryRefusedError(
            "MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH are both set: unset one of them"
        )
    names = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    authority = next((name for name in names if os.environ.get(name)), None)
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        path = Path(os.environ[authority])
        _load(authority, lambda: context.load_verify_locations(**{"capath" if path.is_dir() else "cafile": str(path)}))
    if certificate := os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        _load("MLFLOW_TRACKING_CLIENT_CERT_PATH", lambda: context.load_cert_chain(certificate))
    return context


def _load(name: str, load: Any) -> None:
    try:
        load()
    except OSError as error:  # an ssl.SSLError is one
        reason = error.strerror or type(error).__name__
        raise RegistryRefusedError(f"{name}={os.environ[name]} cannot be used: {reason}") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A redirect to another host, port or scheme is followed without the login."""

    def redirect_request(  # the names are those of the standard library
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and _origin(newurl) != _origin(req.full_url):
            new.remove_header("Authorization")
        return new


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def timeout_s(otherwise: float = TIMEOUT_S) -> float:
    """MLFLOW_HTTP_REQUEST_TIMEOUT, or else `otherwise`, in seconds."""
    try:
        return float(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
    except (KeyError, ValueError):
        return otherwise


def call(uri: str, method: str, data: bytes | None = None, **query: str) -> dict[str, Any] | None:
    """One call of MLflow's REST API, a POST of the JSON `data` if there is any; None when MLflow says that what it is
    about does not exist. RegistryUnreachableError and RegistryRefusedError as they say."""
    where = without_password(uri)
    if not is_server(uri) or any(os.environ.get(name) for name in PLUGINS):
        raise RegistryUnreachableError(f"a registry at {where} with this login cannot be asked without MLflow")
    url = f"{where}/api/2.0/mlflow/{method}?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(url, data, login(uri).headers() | {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(_Redirects, urllib.request.HTTPSHandler(context=tls()))
    try:
        with opener.open(request, timeout=timeout_s()) as answer:
            found = json.loads(answer.read(LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        if _says_missing(error):
            return None
        raise refusal(where, error.code) or RegistryUnreachableError(
            f"{where} answers {error.code} {error.reason}"
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise of_network(where, error) from None
    if not isinstance(found, dict):
        raise RegistryUnreachableError(f"{where} does not answer as MLflow does")
    return found


def refusal(where: str, code: int) -> RegistryRefusedError | None:
    """What the status `code` of an answer means, if it means that we may not come in."""
    if code == 401:
        return RegistryRefusedError(
            f"{where} asks for a login (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, or correct them"
        )
    if code == 403:
        return RegistryRefusedError(f"{where} does not let this user do it (403): ask its keeper for the permission")
    return None


def of_network(where: str, error: BaseException) -> ChampionError:
    """The error to raise in place of one of a library's: refused for TLS, unreachable for all else."""
    cause = tls_error(error)
    if cause is not None:
        return RegistryRefusedError(
            f"no trusted connection to {where} ({cause}): MLFLOW_TRACKING_SERVER_CERT_PATH names the certificates of a "
            "private authority, MLFLOW_TRACKING_CLIENT_CERT_PATH the client's own"
        )
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return RegistryUnreachableError(
            f"{where} cannot be asked: no answer in {timeout_s():g} s (MLFLOW_HTTP_REQUEST_TIMEOUT)"
        )
    return RegistryUnreachableError(f"{where} cannot be asked: {getattr(error, 'reason', error)!r}")


def tls_error(error: BaseException | None) -> str | None:
    """In words, the failure of TLS that is `error` or is wrapped in it; None when there is none."""
    while error is not None:
        reason = getattr(error, "reason", None)
        for one in (error, reason):
            if isinstance(one, ssl.SSLError) and not isinstance(one, ssl.SSLEOFError):
                return getattr(one, "verify_message", "") or one.reason or str(one)
        error = error.__cause__ or error.__context__
    return None


def _says_missing(error: urllib.error.HTTPError) -> bool:
    """Whether MLflow itself (not some other server's 404) says that the model or its alias does not exist."""
    try:
        code = json.loads(error.read(LONGEST_ANSWER)).get("error_code")
    except (OSError, ValueError, AttributeError):
        return False
    return code in MISSING
