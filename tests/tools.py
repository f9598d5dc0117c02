"""Install the real parts that some tests need: what `make tools` does.

The list is tests/parts.py; what is installed already stays as it is. Packages of Debian and Ubuntu need root or sudo.
On other systems the commands are printed instead.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence

from tests.parts import PARTS, Part, chromium


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tools", description="Install the parts that tests need.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all unless named; of {', '.join(PARTS)}")
    names = parser.parse_args().parts or list(PARTS)
    if unknown := set(names) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    wanted = [PARTS[name] for name in names if PARTS[name].missing()]
    ended = from_packages([part for part in wanted if part.packaged])
    ended += [with_pip(part) for part in wanted if part.python]
    ended += [run(part.program) for part in wanted if part.program and not part.packaged]
    tell(names)
    return 0 if all(ended) else 1


def from_packages(parts: Sequence[Part]) -> list[bool]:
    """Install Debian's packages, one part at a time: one that cannot be had keeps no other away."""
    if not parts:
        return []
    root = [] if os.geteuid() == 0 else ["sudo"]
    if root and shutil.which("sudo") is None:
        packages = " ".join(part.debian for part in parts)
        print(f"error: there is no sudo: as root, apt-get install {packages}", file=sys.stderr)
        return [False]
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    install = [*apt, "install", "--yes", "--quiet", "--no-install-recommends"]
    return [run([*apt, "update", "--quiet"]), *(run([*install, *part.debian.split()]) for part in parts)]


def with_pip(part: Part) -> bool:
    """Into the environment of the part, which is made if it is not there."""
    if not (part.environment / "bin/python").exists():
        venv.create(part.environment, with_pip=True)
    pip = [str(part.environment / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
    return run([*pip, part.python])


def run(command: Sequence[str]) -> bool:
    """Show a command and run it; whether it ended well."""
    print(f"+ {shlex.join(command)}", flush=True)
    if shutil.which(command[0]) is None:
        print(f"error: {command[0]} is not on PATH", file=sys.stderr)
        return False
    return subprocess.run(command, check=False).returncode == 0


def tell(names: Sequence[str]) -> None:
    """Which parts are here now, and what brings the others where this command cannot."""
    chromium.cache_clear()  # it was looked for before it was installed
    for name in names:
        part, why = PARTS[name], PARTS[name].missing()
        installs = part.python or part.program or part.packaged
        print(f"{name:13} {'here' if why is None else why if installs else f'{why}: {part.command}'}")


if __name__ == "__main__":
    sys.exit(main())
