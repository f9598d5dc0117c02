"""How every command ends: 0, or one line on stderr that names the cause and the mend, and 1."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, MutableMapping

from training.common import disk
from training.common.errors import ExpectedError
from training.common.table import plain

PROXIES = {"http_proxy", "https_proxy", "all_proxy"}
JSON_HELP = "print JSON instead of text"  # of --json, which every command with a table has
LINES = "\n\t"  # of an error of several lines
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def run_command(main: Callable[[], None]) -> None:
    """Call `main`; an error that a person can mend is told in one line instead of a traceback.

    Ctrl-C ends with 130, as a shell expects; what was written so far is whole, and a rerun continues.
    """
    spare_loopback()
    try:
        main()
    except ExpectedError as error:
        sys.exit(f"error: {plain(error, keep=LINES)}")
    except KeyboardInterrupt:
        print("\ninterrupted; run the command again to continue", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # of any library: MLflow, torch and others have their own for a full disk
        if disk.is_full(error):
            sys.exit(f"error: {disk.what_is_full()}")
        if isinstance(error, OSError):
            sys.exit(f"error: {plain(error, keep=LINES)}")
        raise


def spare_loopback(environ: MutableMapping[str, str] = os.environ) -> None:
    """Where the environment names a proxy, except this machine itself from it: no proxy reaches our own loopback.

    Both spellings of NO_PROXY are set, because clients differ in which one they prefer. Children inherit them.
    """
    if not PROXIES & {name.lower() for name, value in environ.items() if value}:
        return
    given = f"{environ.get('no_proxy', '')},{environ.get('NO_PROXY', '')}"
    names = [name for name in re.split(r"[,\s]+", given) if name]
    environ["no_proxy"] = environ["NO_PROXY"] = "*" if "*" in names else ",".join(dict.fromkeys([*names, *LOOPBACK]))
