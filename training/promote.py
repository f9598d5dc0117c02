"""Judge models/model against the champion, and make it champion only if it passes the gate.

The verdict is always recorded: table on stdout, models/verdict.json, tags on the MLflow version, an artifact of its
run. Everything that serves demands it (training.model.judged), so a version that was made `champion` by hand is not
served. `--version N` judges that version, and restores the alias if it fails.

Exit code 0: it is the champion, now or already. Exit code 1: it was rejected; the reasons are on stdout. With
--in-pipeline, as dvc.yaml calls it, keeping the former champion counts as success too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from data.manifest import Manifest
from training import params
from training.common import experiment
from training.common.command import JSON_HELP, run_command
from training.gate.verdict import VERDICT_FILE, Name, Verdict, former_verdict, pronounce
from training.model import judged, pin, tracking
from training.model.folder import ModelFolder, ModelFolderError
from training.model.judged import TEST_HASH_TAG
from training.model.lineage import now
from training.model.pin import ChampionError
from training.model.server import without_password
from training.register import open_candidate
from training.registry import aliases, bento_store, promotion, pull
from training.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, Move
from training.registry.mlflow_store import (
    ADMITTED_PATH,
    MANIFEST_PATH,
    TAG_LENGTH,
    VERDICT_PATH,
    Registry,
    RegistryError,
    Version,
    tracking_uri,
)
from training.registry.promotion import BECAUSE, FORCED_TAG, PROMOTED, ROLLED_BACK

ROUNDS = 3  # a champion that changes while we judge is judged against again, this often


@dataclass(frozen=True)
class Outcome:
    """What became of the candidate. `champion` was it before; `verdict` is None when the candidate was it already."""

    candidate: Name
    champion: Name | None
    verdict: Verdict | None

    @property
    def kept_out(self) -> bool:
        return self.verdict is not None and self.verdict.gate == "fail"

    def sentence(self) -> str:
        if self.verdict is None:
            return f"{self.candidate} is already the champion"
        if self.kept_out:
            kept = f"kept the champion: {self.champion}" if self.champion else "there is no champion yet"
            lines = [f"{kept}; {self.candidate} was rejected:", *self.verdict.reasons]
            if self.verdict.advice:
                lines += ["What would probably help:", *self.verdict.advice]
            return "\n  ".join(lines)
        how = "promoted by force" if self.verdict.gate == "forced" else "promoted"
        return f"{how}: {self.candidate} is the champion" + (f"; {self.champion} is previous" if self.champion else "")


def already_decided(folder: ModelFolder, settings: params.Params) -> Outcome | None:
    """The outcome if nothing has changed since the last one, else None.

    Registry, pin and BentoML store must agree. Asked without importing MLflow: a rerun of the pipeline is quick.
    """
    name, uri = settings.register_.name, tracking_uri()
    try:
        pinned = pin.read()
        named = tracking.registry_champion(name, uri)
        unfinished = tracking.has_unfinished_move(name, uri)
    except ChampionError:
        return None
    agreed = tracking.RegistryChampion(pinned.mlflow_version, pinned.model_sha256) == named and pinned.name == name
    here = pinned.tracking_uri == without_password(uri) and bento_store.is_whole(pinned.bento_tag)
    if unfinished or not (agreed and here):
        return None
    try:
        judged.demand_of_pin(pinned)
    except ChampionError:
        return None
    pinned_name = Name(pinned.mlflow_version, pinned.bento_tag, pinned.model_sha256)
    if pinned.model_sha256 == folder.sha256:
        return Outcome(pinned_name, pinned_name, None)
    known = former_verdict(folder.sha256, pinned.model_sha256, Manifest.read().test_sha256, settings.promote)
    return None if known is None else Outcome(known.candidate, known.champion, known)


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
        named = registry.by_alias(CHAMPION)
        former = promotion.rightful(registry, named)
        holder, best = (None if one is None else one.number for one in (named, former))
        if holder == best == candidate.number:
            pull.fetch(registry, candidate)
            aliases.pin(registry)
            return Outcome(Name.of(candidate), Name.of(candidate), None)
        if named is not None and holder not in (best, candidate.number) and force is None:
            promotion.judgement(registry, named)  # somebody moved the alias: it says so, and what has it judged
        if best == candidate.number:
            former = None
        verdict = judge(registry, folder, candidate, former, settings.promote, force)
        if settings.register_.signing_key:
            verdict = verdict.signed(Path(settings.register_.signing_key))
        with aliases.lock(registry):
            aliases.settle(registry)
            if registry.aliases().get(CHAMPION) == holder:
                _decide(registry, candidate, former, verdict)
                return Outcome(verdict.candidate, verdict.champion, verdict)
    raise RegistryError(f"the champion of {registry.name} changed {ROUNDS} times while this was judged: run it again")


def judge(
    registry: Registry,
    folder: ModelFolder,
    candidate: Version,
    former: Version | None,
    limits: params.Promote,
    force: str | None,
) -> Verdict:
    """The verdict on `candidate`; a failure is recalled if nothing it depends on has changed."""
    manifest = Manifest.read()
    rival_sha256 = former.sha256 if former else None
    known = former_verdict(candidate.sha256, rival_sha256, manifest.test_sha256, limits) if force is None else None
    if known is not None:
        return known
    from training.gate.advice import advice  # it and `checks` import SciPy, which takes seconds
    from training.gate.checks import Check, Gate

    unreadable, seen = None, frozenset[str]()
    try:
        rival = None if former is None else pull.fetch(registry, former)
        if former and rival and rival.card["lineage"]["test_hash"] != manifest.test_sha256:
            seen = _seen(registry, former, manifest)
    except (ModelFolderError, RegistryError) as error:
        if force is None:
            raise
        rival, unreadable = None, str(error)
    checks = Gate(folder, rival, manifest, limits, seen).judge()
    if unreadable:
        checks.append(Check("champion readable", False, unreadable, "a champion to compare with"))
    if candidate.tags.get(ROLLED_BACK):
        checks.append(Check("not rolled back", False, candidate.tags[ROLLED_BACK], "--force, once the cause is mended"))
    suggestions = advice(checks, folder.card, manifest)
    return pronounce(candidate, former, manifest.test_sha256, limits, checks, suggestions, force)


def _seen(registry: Registry, champion: Version, manifest: Manifest) -> frozenset[str]:
    """Hashes of the test pictures that the champion has learnt from, by the manifest that its run keeps.

    Raises RegistryError where the run has none any more: comparing on pictures that it may know would favour it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        former = Manifest.read(registry.download_artifacts(champion, MANIFEST_PATH, Path(scratch)))
    return frozenset(picture.sha256 for picture in manifest.test_seen_by(former))


def _decide(registry: Registry, candidate: Version, former: Version | None, verdict: Verdict) -> None:
    """Record the verdict, then act on it. The caller holds the lock."""
    if verdict.gate == "fail":
        registry.set_alias(CHALLENGER, candidate.number)
    _record(registry, candidate, verdict)
    if verdict.gate == "fail":
        if registry.aliases().get(CHAMPION) == candidate.number:
            _give_back(registry, candidate, former)
        return
    tags = {PROMOTED: now(), BECAUSE: (verdict.forced or "passed the gate")[:TAG_LENGTH]}
    if candidate.tags.get(ROLLED_BACK):
        tags[ROLLED_BACK] = ""
    previous = former.number if former else registry.aliases().get(PREVIOUS)
    aliases.carry_out(registry, Move(candidate.number, previous, None, {candidate.number: tags}))


def _give_back(registry: Registry, candidate: Version, former: Version | None) -> None:
    """Take the alias, which somebody moved by hand, from a candidate that failed. The caller holds the lock."""
    if former is None:
        registry.delete_alias(CHAMPION)
        return
    previous = registry.aliases().get(PREVIOUS)
    aliases.carry_out(registry, Move(former.number, None if previous == former.number else previous, candidate.number))


def _record(registry: Registry, candidate: Version, verdict: Verdict) -> None:
    """Artifact, tags, and the file last: while it is there, all of it was recorded."""
    paths = [VERDICT_PATH] if verdict.gate == "fail" else [ADMITTED_PATH, VERDICT_PATH]
    for path in paths:
        registry.client.log_dict(candidate.run_id, verdict.as_dict(), path)
    tags = {
        "gate": verdict.gate,
        "gate_reasons": "; ".join(verdict.reasons)[:TAG_LENGTH],
        "gate_verdict": f"runs:/{candidate.run_id}/{VERDICT_PATH}",
        "gate_champion": verdict.champion.version if verdict.champion else "",
        TEST_HASH_TAG: verdict.test_hash,
        FORCED_TAG: (verdict.forced or "")[:TAG_LENGTH] if verdict.gate == "forced" else "",
    }
    registry.tag_version(candidate.number, tags)
    verdict.write()


def _registered_folder(settings: params.Params, number: str) -> ModelFolder:
    """The model folder of a version, brought here if need be; RegistryError when there is no such version."""
    registry = Registry(settings.register_.name)
    return pull.fetch(registry, registry.version(number))


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m training.promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--in-pipeline", action="store_true", help="exit 0 also when the champion is kept")
    parser.add_argument("--force", action="store_true", help="promote whatever the gate says; needs --reason")
    parser.add_argument("--reason", metavar="TEXT", help="why the gate is overruled; recorded with the version")
    parser.add_argument("--version", metavar="N", help="judge this registered version (default: models/model)")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    params.add_arguments(parser, params.Promote)
    arguments = parser.parse_args()
    if arguments.force != bool(arguments.reason):
        parser.error("--force and --reason TEXT belong together")
    settings = params.load()
    settings = settings.model_copy(update={"promote": params.override(settings.promote, arguments)})
    folder = open_candidate() if arguments.version is None else _registered_folder(settings, arguments.version)
    if message := experiment.passed_over("promoted"):
        print(message)
        return
    known = None if arguments.force or arguments.version else already_decided(folder, settings)
    outcome = known or promote(folder, settings, arguments.reason)
    if arguments.json:
        verdict = None if outcome.verdict is None else outcome.verdict.as_dict()
        print(json.dumps({"outcome": outcome.sentence(), "verdict": verdict}, indent=2))
    else:
        if outcome.verdict is not None:
            print(f"{outcome.verdict.table()}\n\nverdict in {VERDICT_FILE}")
        print(outcome.sentence())
    if outcome.kept_out and not (arguments.in_pipeline and outcome.champion):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
