"""What holds for all tests: they ask servers of their own, whatever proxies and keys this machine's shell has set.

Tests of parts that a machine lacks are skipped with a reason, and a table at the end says what brings each part.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests import parts
from training.common.command import spare_loopback

if TYPE_CHECKING:
    from tests.authority import Authority

spare_loopback()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a worker for each core: more threads wait for each other
    os.environ.setdefault(name, "1")
for name in ("API_KEYS", "API_KEYS_FILE", "API_KEY"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private certificate authority, with a certificate for 127.0.0.1."""
    from tests.authority import Authority  # cryptography: only where TLS is tested

    return Authority.make(tmp_path_factory.mktemp("authority"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): skipped where one of these parts (tests/parts.py) is missing")


def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = {name for marker in item.iter_markers("needs") for name in marker.args}
    if unknown := needed - parts.PARTS.keys():
        pytest.fail(f"it needs {', '.join(unknown)}, which tests/parts.py does not know", pytrace=False)
    if reason := parts.want(sorted(needed)):
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Part, tests skipped for want of it, and what brings it; a test that lacks two parts counts for both."""
    reports = terminalreporter.stats.get("skipped", [])
    counts = Counter(name for report in reports for name in set(parts.REASON.findall(str(report.longrepr))))
    if not counts:
        return
    rows = [("part", "tests", "installed by")]
    rows += [(name, str(count), parts.PARTS[name].command) for name, count in counts.most_common()]
    width, number = (max(len(row[column]) for row in rows) for column in (0, 1))
    terminalreporter.section("skipped: missing parts")
    for name, count, command in rows:
        terminalreporter.line(f"{name:{width}}  {count:>{number}}  {command}")
