"""Run a command as on a machine with nothing but Python, make and git.

`python -m tests.bare make test`. The project as it is here, uncommitted changes too, is copied into a folder without
neighbours. PATH holds nothing but links to what Debian's smallest system has beside python3-venv, make and git. HOME
cannot exist, so no user's configuration helps. The dependencies are those of this environment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from training import install

ROOT = Path(__file__).parent.parent
VENV = Path(sys.prefix)
PROGRAMS = (
    *("awk", "basename", "bash", "cat", "chmod", "chown", "cksum", "comm", "cp", "cut", "date", "dd", "df", "diff"),
    *("dirname", "du", "echo", "env", "expr", "false", "find", "getconf", "git", "grep", "gunzip", "gzip", "head"),
    *("hostname", "id", "install", "kill", "ldconfig", "ln", "locale", "ls", "make", "mkdir", "mkfifo", "mktemp"),
    *("mv", "nice", "nohup", "nproc", "od", "openssl", "paste", "perl", "printf", "pwd", "python3", "readlink"),
    *("realpath", "rm", "rmdir", "sed", "seq", "setsid", "sh", "sha256sum", "sleep", "sort", "split", "stat"),
    *("stty", "tail", "tar", "tee", "test", "timeout", "touch", "tr", "true", "tty", "uname", "uniq", "wc"),
    *("which", "xargs", "yes"),
)
NOWHERE = "/proc/nonexistent" if Path("/proc/self").exists() else "/nonexistent"  # where even root can make no folder
IDENTITY = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.useConfigOnly", "GIT_CONFIG_VALUE_0": "true"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bare", description="Run a command on a bare machine.")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="such as: make test")
    command = parser.parse_args().command or parser.error("a command is missing, such as: make test")
    if not (ROOT / ".git").exists():
        parser.error("it copies what git knows, and this tree has no .git: clone the project")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder goes away
    with tempfile.TemporaryDirectory(prefix="bare-") as name:
        folder = Path(name).resolve()
        project = copied(folder / "project")
        where = environment(linked(folder / "bin"), project)
        return subprocess.run(command, cwd=project, env=where, check=False).returncode


def copied(target: Path) -> Path:
    """A clone of the project with what has changed since the commit, and links to the installed dependencies."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, target], check=True)
    for name in listed("--cached", "--others"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
        else:
            (target / name).unlink(missing_ok=True)
    (target / ".venv").mkdir()
    for part in VENV.iterdir():
        if part.name != install.NOTE:
            (target / ".venv" / part.name).symlink_to(part)
    install.wanted(target / ".venv", "any").write(target / ".venv")  # `make` has nothing to install
    return target


def listed(*which: str) -> list[str]:
    """Files that git knows or would add."""
    command = ["git", "ls-files", *which, "--exclude-standard", "-z"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in found.split("\0") if name]


def linked(folder: Path) -> Path:
    """A folder with links to the programs of a bare machine, as far as this one has them."""
    folder.mkdir()
    for name in PROGRAMS:
        if found := shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin") or shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


def environment(programs: Path, project: Path) -> dict[str, str]:
    """All that a process sees of this machine beside its files. Git takes nobody for an author who is not named."""
    temporary = project.parent / "tmp"
    temporary.mkdir()
    return {"PATH": str(programs), "HOME": NOWHERE, "TMPDIR": str(temporary), "TERM": "dumb"} | IDENTITY


if __name__ == "__main__":
    sys.exit(main())
