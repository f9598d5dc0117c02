"""Inspect and change the registry: status, list, show, compare, rollback, trace, gc, pull."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from data import cache
from training import params
from training.common.command import JSON_HELP, run_command
from training.common.files import file_sha256
from training.common.table import columns, plain, records
from training.model.judged import FORCED, NotJudgedError
from training.model.lineage import now
from training.registry import aliases, deployments, promotion, provenance, pull, retention, status, trace
from training.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, Move
from training.registry.mlflow_store import TAG_LENGTH, Registry, RegistryError, Version
from training.registry.promotion import BECAUSE, FORCED_TAG, PROMOTED, ROLLED_BACK

SHEET_FILE = Path("models/compare.png")


def find(registry: Registry, text: str) -> Version:
    """The version meant by a number, an alias, a Bento tag, a run id or the start of a model's hash.

    Raises RegistryError when there is none, or more than one.
    """
    number = registry.aliases().get(text)
    if number is not None:
        return registry.version(number)
    found = [version for version in registry.versions() if _is_meant(version, text)]
    if len(found) != 1:
        many = f"{len(found)} versions are" if found else "no version is"
        raise RegistryError(f"{many} {text!r} in {registry.where}: `python -m training.registry list` shows all")
    return found[0]


def _is_meant(version: Version, text: str) -> bool:
    names = (version.number, version.run_id, version.bento_tag)
    return text in names or (len(text) >= 8 and version.sha256.startswith(text))


def _do_status(registry: Registry, arguments: argparse.Namespace) -> None:
    deployed = deployments.known(registry.tags())
    report = status.collect(registry, deployed, arguments.url)
    where = status.last_of_each(deployed)
    if arguments.json:
        found = {"aliases": records(report.rows), "deployments": records(where) if where else []}
        print(json.dumps(found | {"problems": report.problems, "notes": report.notes}, indent=2))
    else:
        _tell_status(report, where)
    if report.problems:
        sys.exit(1)


def _tell_status(report: status.Report, where: Sequence[Sequence[str]]) -> None:
    print(report.table())
    if where:
        print(f"\n{columns(where)}\n")
    print(cache.told())
    for problem in report.problems:
        print(f"DISAGREEMENT: {plain(problem)}")
    for note in report.notes:
        print(plain(note))
    if not report.problems:
        print("registry, pin and BentoML store agree")


def _do_list(registry: Registry, arguments: argparse.Namespace) -> None:
    named = registry.aliases()
    rows = [("version", "alias", "gate", "accuracy", "bento model", "commit", "data")]
    for version in registry.versions():
        tags = version.tags
        gate = "rolled back" if tags.get(ROLLED_BACK) else tags.get("gate", "not judged")
        gate += f": {tags[FORCED_TAG]}" if gate == FORCED and tags.get(FORCED_TAG) else ""
        short = (tags.get("git_commit", "")[:10], tags.get("data_hash", "")[:10])
        alias = ", ".join(sorted(alias for alias, number in named.items() if number == version.number))
        rows.append((version.number, alias, gate, tags.get("accuracy", ""), version.bento_tag, *short))
    print(json.dumps(records(rows), indent=2) if arguments.json else columns(rows))


def _do_show(registry: Registry, arguments: argparse.Namespace) -> None:
    version = find(registry, arguments.version)
    folder = pull.fetch(registry, version)
    names = {"mlflow_version": version.number, "run_id": version.run_id, "gate": _gate(registry, version)}
    print(json.dumps(names | {"tags": version.tags}, indent=2))
    print(json.dumps(folder.card, indent=2))
    if arguments.provenance:
        for path in provenance.fetch(registry, version, folder, arguments.provenance):
            print(f"{file_sha256(path)}  {path}")


def _gate(registry: Registry, version: Version) -> str:
    """What the gate said of `version`, in words."""
    try:
        return str(promotion.judgement(registry, version))
    except NotJudgedError as error:
        return str(error)


def _do_compare(registry: Registry, arguments: argparse.Namespace) -> None:
    from training.gate import compare  # SciPy and scikit-learn take seconds to import

    a, b = find(registry, arguments.a), find(registry, arguments.b)
    found = compare.compare(registry, a, b, arguments.sheet)
    print(json.dumps(found.as_dict(), indent=2) if arguments.json else plain(found.text(), keep="\n"))


def _do_rollback(registry: Registry, arguments: argparse.Namespace) -> None:
    print(plain(rollback(registry, arguments.reason)))


def rollback(registry: Registry, reason: str) -> str:
    """Make `previous` the champion again; the former champion becomes `challenger` and is marked, so that the gate
    does not promote it once more. Raises RegistryError when there is no previous version."""
    with aliases.lock(registry):
        aliases.settle(registry)
        named = registry.aliases()
        if CHAMPION not in named or named.get(PREVIOUS) in (None, named[CHAMPION]):
            raise RegistryError(f"{registry.name} has no previous champion to go back to")
        bad, good = registry.version(named[CHAMPION]), registry.version(named[PREVIOUS])
        promotion.judgement(registry, good)
        pull.fetch(registry, good)
        tags = {
            bad.number: {ROLLED_BACK: f"{now()} {reason}"[:TAG_LENGTH]},
            good.number: {PROMOTED: now(), BECAUSE: f"rollback: {reason}"[:TAG_LENGTH]},
        }
        aliases.carry_out(registry, Move(good.number, None, bad.number, tags))
    return f"version {good.number} ({good.bento_tag}) is the champion again; version {bad.number} is out: {reason}"


def _do_trace(registry: Registry, arguments: argparse.Namespace) -> None:
    answer = trace.answer_in(arguments.what)
    version = find(registry, arguments.what if answer is None else trace.name_in(answer))
    trace.confirm(answer or {}, version)
    print(plain(trace.trace(registry, version).text(), keep="\n"))


def _do_gc(registry: Registry, arguments: argparse.Namespace) -> None:
    deletable = retention.deletable(registry, arguments.keep)
    for version in deletable:
        name = plain(f"version {version.number} ({version.bento_tag})")
        if not arguments.yes:
            print(f"would delete {name}")
        elif retention.delete(registry, version):
            print(f"deleted {name}")
    if not deletable:
        print("nothing to delete")
    elif not arguments.yes:
        print("dry run: add --yes to delete")


def _do_pull(registry: Registry, _: argparse.Namespace) -> None:
    version = pull.pull_champion(registry)
    print(f"{version.bento_tag} (version {version.number}) is in the BentoML store, verified and pinned")


Command = Callable[[Registry, argparse.Namespace], None]


def parser() -> argparse.ArgumentParser:
    """One subcommand for each question or act, each with its own --help."""
    top = argparse.ArgumentParser(
        "python -m training.registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--name", help="registered model (default: register.name of params.yaml)")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    version = ("version", "a version number, an alias, a Bento tag, a run id, or the start of a model's hash")

    def add(name: str, do: Command, text: str, words: Iterable[tuple[str, str]] = ()) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(do=do)
        for word, meaning in words:
            one.add_argument(word, help=meaning)
        return one

    add("status", _do_status, "Show who is champion, in every store; exit 1 if they disagree.").add_argument(
        "--url", help="also ask the service at this address which model it serves"
    )
    add("list", _do_list, "List all versions, newest first.")
    add("show", _do_show, "Show the model card and the tags of a version.", [version]).add_argument(
        "--provenance",
        type=Path,
        metavar="FOLDER",
        help="write its verified ML-BOM, Croissant and in-toto statement here",
    )
    compared = add(
        "compare",
        _do_compare,
        "Compare two versions on the same test pictures.",
        [("a", version[1]), ("b", version[1])],
    )
    compared.add_argument("--sheet", type=Path, default=SHEET_FILE, help=f"contact sheet (default {SHEET_FILE})")
    back = add(
        "rollback", _do_rollback, f"Make `{PREVIOUS}` the champion again; the former champion becomes `{CHALLENGER}`."
    )
    back.add_argument("--reason", required=True, help="why; recorded with both versions")
    what = "an answer of the service (JSON, or a file of it, or - for stdin), or whatever names a version"
    add("trace", _do_trace, "Trace an answer back to its run, parameters, pictures and commit.", [("what", what)])
    collect = add(
        "gc", _do_gc, "Delete old versions from both stores, unless they have an alias, are deployed or built in."
    )
    collect.add_argument("--keep", type=_count, default=5, help="how many of the newest versions to keep (default 5)")
    collect.add_argument("--yes", action="store_true", help="delete them; without it they are only listed")
    for name in ("status", "list", "compare"):
        commands.choices[name].add_argument("--json", action="store_true", help=JSON_HELP)
    add("pull", _do_pull, "Fetch the champion into this machine's BentoML store, verify it, and pin it.")
    return top


def _name(name: str) -> str:
    """ParamsError for what params.yaml would not take as `register.name` either."""
    return params.check(params.Register, {"name": name, "signing_key": None}, "--name").name


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):  # MLflow would give the number of the newest one away again
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of versions, at least 1")
    return int(text)


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    registry = Registry(_name(arguments.name) if arguments.name else params.load().register_.name)
    if aliases.repair(registry):
        print("finished a move of aliases that had been interrupted", file=sys.stderr)
    arguments.do(registry, arguments)


if __name__ == "__main__":
    run_command(main)
