"""Benchmark the service on this machine, side by side with others.

    python -m tests.load.bench compare     the machine's limit, this service and its peers, round by round (make bench)
    python -m tests.load.bench overload    60 s at concurrency 64, then more than may wait
    python -m tests.load.bench soak        10 minutes at 80 % of the throughput
    python -m tests.load.bench framework   processor time a request costs beside decoding and the network
    python -m tests.load.bench layouts     workers, threads and batches, each against the one the service has by itself
    python -m tests.load.bench overhead    what metrics, request log and the figures of pictures cost, on against off
    python -m tests.load.bench ablation    this service without each piece of its own machinery, by turns
    python -m tests.load.bench variant     another model folder, such as the int8 variant, and FastAPI, by turns

In `compare` every server has the same weights and is asked once beforehand whether it answers the same. It runs alone,
with the generator in a process of its own; the limit is measured before and after each server, and a ratio refers to
those two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tests.load import limit
from tests.load.generator import Load, send
from tests.load.pictures import pictures
from tests.load.servers import LAYOUTS, MACHINERY, MODEL, OURS, PEERS, UNWATCHED, BenchError, Kind, Running, running
from training.common.command import run_command
from training.common.cores import usable_cores
from training.model.classifier import Classifier
from training.model.folder import ModelFolder

RESULTS = Path(__file__).parent / "results"
SAME = 2e-3  # largest difference in probability that counts as the same answer: batches change the rounding
CONCURRENCIES = (1, 8, 32, 64)
WARM_UP_S = 2.0
TURNS = 3  # of each of two servers that are measured by turns

Row = dict[str, Any]


def measure(server: Running, requests: tuple[bytes, ...], concurrency: int, seconds: float, **how: Any) -> Row:
    """One load on one running server."""
    cpu = server.cpu_seconds()
    outcome = send(Load(server.port, requests, concurrency, seconds, **how))
    answered = max(1, outcome.answered)
    return {
        "concurrency": concurrency,
        "throughput": outcome.throughput,
        "p50_ms": outcome.milliseconds(0.5),
        "p95_ms": outcome.milliseconds(0.95),
        "p99_ms": outcome.milliseconds(0.99),
        "answered": outcome.answered,
        "errors": outcome.errors,
        "statuses": {str(status): count for status, count in sorted(outcome.statuses.items())},
        "cpu_ms": (server.cpu_seconds() - cpu) / answered * 1000,
        "generator_cpu_ms": outcome.cpu_seconds / answered * 1000,
    }


def prove_same(server: Running, expected: Sequence[float], picture: bytes) -> None:
    """BenchError when the server does not answer as the model does."""
    found = server.ask(picture)
    if not np.allclose(found, expected, atol=SAME):
        raise BenchError(f"{server.kind.name} answers {found}, the model {list(expected)}: run `make pipeline` first")


def one_round(kinds: Sequence[Kind], sent: tuple[bytes, ...], seconds: float) -> Iterator[Row]:
    """Every server once, between two looks at the limit."""
    expected = Classifier(ModelFolder.open(MODEL)).predict_bytes([sent[0]])[0].tolist()
    before = limit.throughput(MODEL, sent, seconds)
    for kind in kinds:
        requests = tuple(kind.request(picture) for picture in sent)
        with running(kind, sent[0]) as server:
            prove_same(server, expected, sent[0])
            send(Load(server.port, requests, 8, WARM_UP_S))
            rows = [measure(server, requests, concurrency, seconds) for concurrency in CONCURRENCIES]
            facts = {"server": kind.name, "start_s": server.start_seconds, "memory_mb": server.megabytes()}
        after = limit.throughput(MODEL, sent, seconds)
        for row in rows:
            yield facts | row | {"ratio": row["throughput"] / ((before + after) / 2), "limit": (before + after) / 2}
        before = after


def compare(arguments: argparse.Namespace) -> None:
    """Rounds over all servers; medians to results/compare.json, as a table to compare.md, and a plot."""
    sent = pictures()
    kinds = [kind for kind in (OURS, *PEERS) if not arguments.only or kind.name in (OURS.name, *arguments.only)]
    rows: list[Row] = []
    with tqdm(total=arguments.rounds * len(kinds) * len(CONCURRENCIES), unit="load") as bar:
        for number in range(arguments.rounds):
            turned = [*kinds[number % len(kinds) :], *kinds[: number % len(kinds)]]  # nobody always follows the same
            for row in one_round(turned, sent, arguments.seconds):
                rows.append(row | {"round": number})
                bar.update()
    lone = [limit.lone_milliseconds(MODEL, sent, arguments.seconds) for _ in range(arguments.rounds)]
    found = medians(rows) | {"machine": machine(), "lone_ms": statistics.median(lone), "rounds": arguments.rounds}
    write(arguments.out / "compare.json", found)
    (arguments.out / "compare.md").write_text(every_figure(found) + "\n")
    plot(found, arguments.out / "compare.png")
    print(table(found))


def medians(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of all rounds -> the median of every figure for each server and concurrency."""
    grouped: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["server"], row["concurrency"]].append(row)
    figures = (
        "ratio",
        "throughput",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "cpu_ms",
        "generator_cpu_ms",
        "memory_mb",
        "start_s",
    )
    found = [
        {"server": server, "concurrency": concurrency, "errors": sum(row["errors"] for row in group)}
        | {figure: statistics.median(row[figure] for row in group) for figure in figures}
        | {"ratio_range": [min(row["ratio"] for row in group), max(row["ratio"] for row in group)]}
        for (server, concurrency), group in grouped.items()
    ]
    return {"servers": found, "limit": statistics.median(row["limit"] for row in rows)}


def table(found: dict[str, Any]) -> str:
    """The medians in short as a table in Markdown, a row for each server."""
    lines = [
        heading(found),
        "",
        "| server | ratio to the limit at 1 / 8 / 32 / 64 | p50, p99 at 1 (ms) | p50, p99 at 32 (ms) | errors "
        "| CPU a request at 8 (ms) | generator | memory (MB) | start (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["server"] for row in found["servers"]):
        at = {row["concurrency"]: row for row in found["servers"] if row["server"] == name}
        ratios = " / ".join(f"{at[concurrency]['ratio']:.2f}" for concurrency in CONCURRENCIES)
        times = [f"{at[concurrency]['p50_ms']:.0f}, {at[concurrency]['p99_ms']:.0f}" for concurrency in (1, 32)]
        cells = [name, ratios, *times, str(sum(row["errors"] for row in at.values())), f"{at[8]['cpu_ms']:.1f}"]
        cells += [f"{at[8]['generator_cpu_ms']:.2f}", f"{at[64]['memory_mb']:.0f}", f"{at[8]['start_s']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def every_figure(found: dict[str, Any]) -> str:
    """All medians as a table in Markdown, a row for each server and concurrency."""
    lines = [
        f"{heading(found)}. Medians of the rounds and the errors of all; in brackets the lowest and the highest.",
        "",
        "| server | clients | share of the limit | pictures/s | p50 (ms) | p95 (ms) | p99 (ms) | errors "
        "| CPU a request (ms) | generator's CPU (ms) | memory (MB) | start (s) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["servers"]:
        low, high = row["ratio_range"]
        cells = [row["server"], str(row["concurrency"]), f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"]
        cells += [f"{row['throughput']:.1f}", *(f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms"))]
        cells += [str(row["errors"]), f"{row['cpu_ms']:.1f}", f"{row['generator_cpu_ms']:.2f}"]
        cells += [f"{row['memory_mb']:.0f}", f"{row['start_s']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def heading(found: dict[str, Any]) -> str:
    """What the machine can do, and how often it was measured."""
    return (
        f"Limit {found['limit']:.0f} pictures/s; one picture after another {found['lone_ms']:.1f} ms; "
        f"{found['rounds']} rounds; {found['machine']}"
    )


def plot(found: dict[str, Any], path: Path) -> None:
    """Ratio to the limit by concurrency, a line for each server."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name in dict.fromkeys(row["server"] for row in found["servers"]):
        own = [row for row in found["servers"] if row["server"] == name]
        wide = 3 if name == OURS.name else 1.5
        places = range(len(own))
        axes.plot(places, [row["ratio"] for row in own], marker="o", linewidth=wide, label=name)
    axes.axhline(1, color="grey", linestyle="--", label="limit: no server, tight loop")
    axes.set_xticks(range(len(CONCURRENCIES)), [str(one) for one in CONCURRENCIES])
    axes.set(xlabel="concurrent clients", ylabel="throughput, share of the limit", ylim=(0, None))
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def overload(arguments: argparse.Namespace) -> None:
    """A minute at 64, then more clients than pictures may wait: some wait as they are told, some come back at once."""
    sent = pictures()
    requests = tuple(OURS.request(picture) for picture in sent)
    with running(OURS, sent[0]) as server:
        send(Load(server.port, requests, 8, WARM_UP_S))
        found = {"at_64": measure(server, requests, 64, arguments.seconds)}
        found["beyond, patient"] = measure(server, requests, arguments.clients, arguments.seconds)
        found["beyond, impatient"] = measure(server, requests, arguments.clients, arguments.seconds, obeys=False)
    for row in found.values():
        row["p99_to_64"] = row["p99_ms"] / found["at_64"]["p99_ms"]
    report(arguments.out / "overload.json", found)


def soak(arguments: argparse.Namespace) -> None:
    """A steady rate of 80 % of the throughput; memory of the warm service at the start and at the end."""
    sent = pictures()
    requests = tuple(OURS.request(picture) for picture in sent)
    with running(OURS, sent[0]) as server:
        most = measure(server, requests, 8, 20)["throughput"]
        how = {"rate": 0.8 * most}
        measure(server, requests, 32, 60, **how)
        memory = [server.megabytes()]
        parts = []
        for _ in tqdm(range(arguments.minutes), "soak", unit="min"):
            parts.append(measure(server, requests, 32, 60, **how))
            memory.append(server.megabytes())
    found = {
        "rate": how["rate"],
        "answered": sum(part["answered"] for part in parts),
        "errors": sum(part["errors"] for part in parts),
        "p99_ms": [round(part["p99_ms"]) for part in parts],
        "memory_mb": [round(each, 1) for each in memory],
        "growth": max(memory) / memory[0] - 1,
    }
    report(arguments.out / "soak.json", {"soak": found})


def framework(arguments: argparse.Namespace) -> None:
    """What a request costs with a network that does next to nothing, less what that costs without a server."""
    from tests.tiny import tiny_model_folder, tiny_picture

    sent = (tiny_picture(0, 1), tiny_picture(1, 1))
    with tempfile.TemporaryDirectory() as place:
        folder = tiny_model_folder(Path(place) / "model")
        alone = _cpu_ms(folder, sent)
        requests = tuple(OURS.request(picture) for picture in sent)
        with running(OURS, sent[0], MODEL_PATH=str(folder.path)) as server:
            send(Load(server.port, requests, 8, WARM_UP_S))
            rows = [measure(server, requests, 8, arguments.seconds) for _ in range(arguments.rounds)]
    cost = statistics.median(row["cpu_ms"] for row in rows)
    throughput = statistics.median(row["throughput"] for row in rows)
    found = {"cpu_ms": cost, "without_server_ms": alone, "framework_ms": cost - alone, "throughput": throughput}
    report(arguments.out / "framework.json", {"framework": found})


def overhead(arguments: argparse.Namespace) -> None:
    """Throughput with and without what watches the service, by turns, at concurrency 8; in every round both are started
    anew, because two processes of the same service differ by 2 % as long as they live."""
    sent = pictures()
    requests = tuple(OURS.request(picture) for picture in sent)
    rows: dict[str, list[Row]] = {}
    for number in tqdm(range(arguments.rounds), "overhead", unit="round"):
        kinds = (OURS, UNWATCHED) if number % 2 else (UNWATCHED, OURS)
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(running(kind, sent[0])) for kind in kinds]
            for server in servers:
                send(Load(server.port, requests, 8, WARM_UP_S))
            for server in servers * TURNS:
                rows.setdefault(server.kind.name, []).append(measure(server, requests, 8, arguments.seconds))
    pairs = list(zip(rows[OURS.name], rows[UNWATCHED.name], strict=True))
    found = {
        f"{figure}_on_to_off": statistics.median(on[figure] / off[figure] for on, off in pairs)
        for figure in ("throughput", "cpu_ms")
    }
    report(arguments.out / "overhead.json", {"overhead": found | {"rounds": len(pairs)}})


def variant(arguments: argparse.Namespace) -> None:
    """Throughput of another model folder, such as the int8 variant, and of a peer, by turns with this one's."""
    sent = pictures()
    requests = tuple(OURS.request(picture) for picture in sent)
    answers = [
        Classifier(ModelFolder.open(folder)).predict_bytes(sent).argmax(1) for folder in (MODEL, arguments.model)
    ]
    other = replace(OURS, name=str(arguments.model), environment={"MODEL_PATH": str(arguments.model.absolute())})
    kinds = (OURS, other, PEERS[0])
    rows: dict[tuple[str, int], list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(kind, sent[0])) for kind in kinds]
        for server in servers:
            send(Load(server.port, requests, 8, WARM_UP_S))
        for number in tqdm(range(arguments.rounds), "variant", unit="round"):
            for server in (*servers[number % 3 :], *servers[: number % 3]):
                for concurrency in (8, 32):
                    row = measure(server, requests, concurrency, arguments.seconds)
                    rows[server.kind.name, concurrency].append(row["throughput"])
    found: dict[str, Any] = {"changed_labels": float(np.mean(answers[0] != answers[1]))}
    for concurrency in (8, 32):
        own, others, peer = (rows[kind.name, concurrency] for kind in kinds)
        for name, above, below in (
            ("variant_to_this", others, own),
            ("this_to_peer", own, peer),
            ("variant_to_peer", others, peer),
        ):
            pairs = zip(above, below, strict=True)
            found[f"{name}_at_{concurrency}"] = statistics.median(one / two for one, two in pairs)
    report(arguments.out / "variant.json", {"variant": found | {"peer": PEERS[0].name, "rounds": arguments.rounds}})


def ablation(arguments: argparse.Namespace) -> None:
    """This service and itself without each piece of its own machinery, by turns; medians of the ratios."""
    sent = pictures()
    requests = tuple(OURS.request(picture) for picture in sent)
    kinds = (OURS, *(piece.without for piece in MACHINERY))
    loads: list[tuple[int, dict[str, bool]]] = [(clients, {}) for clients in CONCURRENCIES]
    loads.append((arguments.clients, {"obeys": False}))
    rows: dict[tuple[str, int], list[Row]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(kind, sent[0])) for kind in kinds]
        for server in servers:
            send(Load(server.port, requests, 8, WARM_UP_S))
        for number in tqdm(range(arguments.rounds), "ablation", unit="round"):
            for concurrency, how in loads:
                turn = number % len(servers)
                for server in (*servers[turn:], *servers[:turn]):
                    row = measure(server, requests, concurrency, arguments.seconds, **how)
                    rows[server.kind.name, concurrency].append(row | {"memory_mb": server.megabytes()})
    found = {}
    for name, lines in ((OURS.name, 0), *((piece.what, piece.lines) for piece in MACHINERY)):
        own = {
            concurrency: list(zip(rows[name, concurrency], rows[OURS.name, concurrency], strict=True))
            for concurrency, _ in loads
        }
        found[name] = {
            f"{figure}_at_{concurrency}": statistics.median(row[figure] / ours[figure] for row, ours in pairs)
            for concurrency, pairs in own.items()
            for figure in ("throughput", "p99_ms", "cpu_ms")
        }
        found[name] |= {
            "memory_mb": statistics.median(row["memory_mb"] for row, _ in own[CONCURRENCIES[-1]]),
            "errors": sum(row["errors"] for concurrency in CONCURRENCIES for row, _ in own[concurrency]),
            "lines": lines,
        }
    write(arguments.out / "ablation.json", found | {"machine": machine(), "rounds": arguments.rounds})
    (arguments.out / "ablation.md").write_text(ablation_table(found, arguments.clients) + "\n")
    print(ablation_table(found, arguments.clients))


def ablation_table(found: dict[str, Any], clients: int) -> str:
    """Ratios to the service as it is, as a table in Markdown."""
    at = " / ".join(str(concurrency) for concurrency in CONCURRENCIES)
    lines = [
        f"`python -m tests.load.bench ablation`, {machine()}: the service without each piece, divided by the service "
        "as it is, by turns in one run; medians. Errors are of the loads up to "
        f"{CONCURRENCIES[-1]} clients; {clients} clients come back at once when they are refused.",
        "",
        f"| without | throughput at {at} clients | p99 at {at} | CPU a request at {at} "
        f"| p99 of the accepted at {clients} | memory (MB) | errors | lines |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        cells = [
            " / ".join(f"{row[f'{figure}_at_{concurrency}']:.2f}" for concurrency in CONCURRENCIES)
            for figure in ("throughput", "p99_ms", "cpu_ms")
        ]
        cells += [
            f"{row[f'p99_ms_at_{clients}']:.2f}",
            f"{row['memory_mb']:.0f}",
            str(row["errors"]),
            str(row["lines"]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def layouts(arguments: argparse.Namespace) -> None:
    """Throughput, latency and memory of ways to lay the service out, each started anew in every round."""
    sent = pictures()
    requests = tuple(OURS.request(picture) for picture in sent)
    rows: dict[str, list[list[Row]]] = {}
    for number in tqdm(range(arguments.rounds), "layouts", unit="round"):
        for kind in (*LAYOUTS[number % len(LAYOUTS) :], *LAYOUTS[: number % len(LAYOUTS)]):
            with running(kind, sent[0]) as server:
                send(Load(server.port, requests, 8, WARM_UP_S))
                loads = [measure(server, requests, concurrency, arguments.seconds) for concurrency in (1, 8, 32)]
                rows.setdefault(kind.name, []).append([row | {"memory_mb": server.megabytes()} for row in loads])
    found = {}
    for name, rounds in rows.items():
        pairs = [list(zip(own, first, strict=True)) for own, first in zip(rounds, rows[LAYOUTS[0].name], strict=True)]
        found[name] = {
            f"throughput_at_{own['concurrency']}": statistics.median(
                pair[place][0]["throughput"] / pair[place][1]["throughput"] for pair in pairs
            )
            for place, own in enumerate(rounds[0])
        } | {"p99_ms_at_32": statistics.median(loads[2]["p99_ms"] for loads in rounds)}
        found[name]["memory_mb"] = statistics.median(loads[2]["memory_mb"] for loads in rounds)
        found[name]["errors"] = sum(row["errors"] for loads in rounds for row in loads)
    report(arguments.out / "layouts.json", found)


def _cpu_ms(folder: ModelFolder, sent: Sequence[bytes], repetitions: int = 2000) -> float:
    classifier = Classifier(folder)
    begun = time.process_time()
    for number in range(repetitions):
        classifier.predict_bytes([sent[number % len(sent)]])
    return (time.process_time() - begun) / repetitions * 1000


def report(path: Path, found: dict[str, Any]) -> None:
    write(path, found | {"machine": machine()})
    for name, row in found.items():
        figures = {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}
        print(f"{name}: {json.dumps(figures)}")


def write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{usable_cores()} cores, {names[0] if names else platform.machine()}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m tests.load.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    plan = (
        (compare, 5.0, 5),
        (overload, 60.0, 1),
        (soak, 60.0, 1),
        (framework, 10.0, 3),
        (layouts, 2.0, 5),
        (overhead, 2.0, 10),
        (variant, 3.0, 5),
        (ablation, 2.0, 7),
    )
    for command, seconds, rounds in plan:
        one = commands.add_parser(command.__name__, help=(command.__doc__ or "").splitlines()[0].replace("%", "%%"))
        one.set_defaults(command=command)
        if command is soak:
            one.add_argument("--minutes", type=int, default=10)
            continue
        one.add_argument("--seconds", type=float, default=seconds, help="of every load")
        if command is overload:
            one.add_argument("--clients", type=int, default=256, help="more than serve.max_waiting")
            continue
        one.add_argument("--rounds", type=int, default=rounds)
        if command is ablation:
            one.add_argument("--clients", type=int, default=256, help="more than serve.max_waiting")
        if command is variant:
            one.add_argument("--model", type=Path, required=True, help="the other model folder")
        if command is compare:
            one.add_argument("--only", nargs="*", choices=[kind.name for kind in PEERS], help="peers; default all")
    return made


def main() -> None:
    arguments = parser().parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    run_command(main)
