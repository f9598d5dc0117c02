"""The gate before the alias: judge models/model against the champion, and move `champion` only if it passes.

A verdict is always written: the table on stdout, models/verdict.json, tags on the MLflow version, an artifact of its
run. Exit code 0: it is the champion (now or already). Exit code 1: it was kept out, the reasons are on stdout. With
--keep-going, as the pipeline calls it, keeping a champion is a good end as well.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from training import aliases, bento_store, params, pull
from training.aliases import CHALLENGER, CHAMPION, PREVIOUS, Move
from training.command import run_command
from training.dataset import DatasetError, Manifest
from training.inference import ModelFolder
from training.lineage import now
from training.mlflow_store import VERDICT_PATH, Registry, RegistryError, Version
from training.register import EXPECTED_ERRORS, is_champion, open_candidate
from training.verdict import VERDICT_FILE, Verdict, pronounce, recall, subject_of

ROUNDS = 3  # a champion that changes while we judge is judged against again, this often
TAG_LENGTH = 4000
ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Outcome:
    """What became of the candidate: `verdict` is None when it was the champion already."""

    candidate: Version
    champion: Version | None
    verdict: Verdict | None

    @property
    def kept_out(self) -> bool:
        return self.verdict is not None and self.verdict.gate == "fail"

    def sentence(self) -> str:
        mine = f"version {self.candidate.number} ({self.candidate.bento_tag})"
        theirs = f"version {self.champion.number} ({self.champion.bento_tag})" if self.champion else ""
        if self.verdict is None:
            return f"{mine} is already the champion"
        if self.kept_out:
            kept = f"kept the champion: {theirs}" if theirs else "there is still no champion"
            return f"{kept}; {mine} was kept out:\n  " + "\n  ".join(self.verdict.reasons)
        how = "promoted by force" if self.verdict.gate == "forced" else "promoted"
        return f"{how}: {mine} is the champion" + (f"; {theirs} is previous" if theirs else "")


def promote(folder: ModelFolder, settings: params.Params, force: str | None = None) -> Outcome:
    """Judge `folder` and move the aliases if it passes, or if `force` gives a reason to overrule the gate.

    Scoring takes no lock; the aliases move only if the champion is still the one that was judged against.
    """
    registry = Registry(settings.register_.name)
    aliases.repair(registry)
    for _ in range(ROUNDS):
        candidate = registry.by_sha256(folder.sha256)
        if candidate is None:
            raise RegistryError("this model is not registered: run `python -m training.register` first")
        champion = registry.by_alias(CHAMPION)
        if champion is not None and champion.number == candidate.number:
            pull.fetch(registry, candidate)
            aliases.pin(registry)
            return Outcome(candidate, champion, None)
        verdict = judge(registry, folder, candidate, champion, settings.promote, force)
        with aliases.lock(registry):
            aliases.settle(registry)
            if registry.aliases().get(CHAMPION) == (champion.number if champion else None):
                _decide(registry, candidate, champion, verdict)
                return Outcome(candidate, champion, verdict)
    raise RegistryError(f"the champion of {registry.name} changed {ROUNDS} times while this was judged: run it again")


def judge(
    registry: Registry,
    folder: ModelFolder,
    candidate: Version,
    champion: Version | None,
    limits: params.Promote,
    force: str | None,
) -> Verdict:
    """The verdict on `candidate`; the last one is recalled if nothing it depends on has changed."""
    manifest = Manifest.read()
    subject = subject_of(candidate, champion, manifest.test_sha256, limits)
    known = recall(subject) if force is None else None
    if known is not None:
        return known
    from training.gate import Check, Gate  # scikit-learn and SciPy take seconds to import

    rival = None if champion is None else pull.fetch(registry, champion)
    checks = Gate(folder, rival, manifest, limits).judge()
    if candidate.tags.get(ROLLED_BACK):
        checks.append(Check("not rolled back", False, candidate.tags[ROLLED_BACK], "--force, once the cause is mended"))
    return pronounce(subject, candidate, champion, manifest.test_sha256, checks, force)


def _decide(registry: Registry, candidate: Version, champion: Version | None, verdict: Verdict) -> None:
    """Record the verdict, then act on it. The caller holds the lock."""
    _record(registry, candidate, verdict)
    if verdict.gate == "fail":
        if registry.aliases().get(CHALLENGER) != candidate.number:
            registry.set_alias(CHALLENGER, candidate.number)
        return
    tags = {"promoted": now(), "promoted_because": (verdict.forced or "passed the gate")[:TAG_LENGTH]}
    if candidate.tags.get(ROLLED_BACK):
        tags[ROLLED_BACK] = ""
    former = champion.number if champion else registry.aliases().get(PREVIOUS)
    aliases.carry_out(registry, Move(candidate.number, former, None, {candidate.number: tags}))


def _record(registry: Registry, candidate: Version, verdict: Verdict) -> None:
    verdict.write()
    if candidate.tags.get("gate_subject") == verdict.subject and candidate.tags.get("gate") == verdict.gate:
        return
    registry.client.log_dict(candidate.run_id, verdict.as_dict(), VERDICT_PATH)
    tags = {
        "gate": verdict.gate,
        "gate_reasons": "; ".join(verdict.reasons)[:TAG_LENGTH],
        "gate_verdict": f"runs:/{candidate.run_id}/{VERDICT_PATH}",
        "gate_champion": verdict.champion["version"] if verdict.champion else "",
        "gate_subject": verdict.subject,
    }
    registry.tag_version(candidate.number, tags)


def main() -> None:
    parser = argparse.ArgumentParser("python -m training.promote", description=__doc__)
    parser.add_argument(
        "--keep-going", action="store_true", help="exit 0 also when the champion is kept (for dvc.yaml)"
    )
    parser.add_argument("--force", action="store_true", help="promote whatever the gate says; needs --reason")
    parser.add_argument("--reason", metavar="TEXT", help="why the gate is overruled; recorded with the version")
    params.add_arguments(parser, params.Promote)
    arguments = parser.parse_args()
    if arguments.force != bool(arguments.reason):
        parser.error("--force and --reason TEXT belong together")
    settings = params.load()
    settings = settings.model_copy(update={"promote": params.override(settings.promote, arguments)})
    folder = open_candidate()
    name = settings.register_.name
    if is_champion(folder, name):
        print(f"{bento_store.tag_of(name, folder.sha256)} is already the champion")
        return
    outcome = promote(folder, settings, arguments.reason)
    if outcome.verdict is not None:
        print(f"{outcome.verdict.table()}\n\nverdict in {VERDICT_FILE}")
    print(outcome.sentence())
    if outcome.kept_out and not (arguments.keep_going and outcome.champion):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, (*EXPECTED_ERRORS, DatasetError))
