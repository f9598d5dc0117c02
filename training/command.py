"""How every command ends: 0, or one line on stderr that names the cause and the mend, and 1."""

from __future__ import annotations

import sys
from collections.abc import Callable

from training.errors import ExpectedError


def run_command(main: Callable[[], None]) -> None:
    """Call `main`; an error that a person can mend is told in one line instead of a traceback.

    Ctrl-C ends with 130, as a shell expects; what was written so far is whole, and a rerun continues.
    """
    try:
        main()
    except (ExpectedError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted; run the command again to continue", file=sys.stderr)
        sys.exit(130)
