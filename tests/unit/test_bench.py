"""The benchmark's arithmetic and its tables, on made-up rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.load import bench

FIGURES = ("throughput", "p50_ms", "p95_ms", "p99_ms", "cpu_ms", "generator_cpu_ms", "memory_mb", "start_s")


def row(server: str, concurrency: int, ratio: float, errors: int = 0, **figures: float) -> bench.Row:
    """Of one server in one round; every other figure is `ratio` times a number of its own."""
    made = {name: ratio * (number + 1) for number, name in enumerate(FIGURES)}
    return {"server": server, "concurrency": concurrency, "ratio": ratio, "errors": errors} | made | figures


@pytest.fixture
def found() -> dict[str, Any]:
    """Three rounds of two servers, the last of them far off."""
    ratios = {"ours": (0.5, 0.75, 30.0), "theirs": (0.25, 0.5, 0.125)}
    rows = [
        row(server, concurrency, ratio + concurrency, errors=number, p99_ms=1000 * ratio, limit=300 + 10 * number)
        for number in range(3)
        for server, ratio in ((server, ratios[server][number]) for server in ratios)
        for concurrency in bench.CONCURRENCIES
    ]
    return bench.medians(rows) | {"lone_ms": 4.56, "rounds": 3, "machine": "2 cores, abacus"}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_medians_are_of_each_server_and_concurrency(found: dict[str, Any]) -> None:
    at = {(each["server"], each["concurrency"]): each for each in found["servers"]}
    assert list(at) == [(server, number) for server in ("ours", "theirs") for number in bench.CONCURRENCIES]
    ours = at["ours", 8]
    assert (ours["ratio"], ours["ratio_range"]) == (8.75, [8.5, 38.0])
    assert (ours["throughput"], ours["p50_ms"], ours["p95_ms"], ours["p99_ms"]) == (8.75, 2 * 8.75, 3 * 8.75, 750)
    assert (ours["cpu_ms"], ours["start_s"]) == (5 * 8.75, 8 * 8.75)
    assert at["theirs", 64]["ratio"] == 64.25
    assert {each["errors"] for each in found["servers"]} == {3}  # all of them, not the median
    assert found["limit"] == 310


def test_the_short_table_has_a_row_for_each_server(found: dict[str, Any]) -> None:
    heading, _, head, _, ours, theirs = bench.table(found).splitlines()
    assert heading == "Limit 310 pictures/s; one picture after another 4.6 ms; 3 rounds; 2 cores, abacus"
    assert cells(ours)[:5] == ["ours", "1.75 / 8.75 / 32.75 / 64.75", "4, 750", "66, 750", "12"]
    assert cells(theirs)[0] == "theirs"
    assert len(cells(head)) == len(cells(ours)) == len(cells(theirs))


def test_the_long_table_has_every_figure_of_each_server_and_concurrency(found: dict[str, Any]) -> None:
    heading, _, head, rule, *rows = bench.every_figure(found).splitlines()
    assert heading.startswith("Limit 310 pictures/s; ")
    first = [cells(each)[:2] for each in rows]
    assert first == [[server, str(number)] for server in ("ours", "theirs") for number in bench.CONCURRENCIES]
    named = dict(zip(cells(head), cells(rows[1]), strict=True))
    assert named == {
        "server": "ours",
        "clients": "8",
        "share of the limit": "8.75 (8.50 to 38.00)",
        "pictures/s": "8.8",
        "p50 (ms)": "17.5",
        "p95 (ms)": "26.2",
        "p99 (ms)": "750.0",
        "errors": "3",
        "CPU a request (ms)": "43.8",
        "generator's CPU (ms)": "52.50",
        "memory (MB)": "61",
        "start (s)": "70.0",
    }
    assert {len(cells(each)) for each in (rule, *rows)} == {len(cells(head))}


def test_both_tables_can_be_made_of_the_results_that_are_kept() -> None:
    kept = json.loads((bench.RESULTS / "compare.json").read_text())
    names = {each["server"] for each in kept["servers"]}
    assert len(bench.table(kept).splitlines()) == 4 + len(names)
    assert len(bench.every_figure(kept).splitlines()) == 4 + len(names) * len(bench.CONCURRENCIES)
