"""Two processes under torchrun, each in a folder of its own, train as well as one does alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache import CACHE_FOLDER
from data.manifest import Manifest
from tests import killing
from tests.pipeline.together import RECIPES, averaged, settings
from tests.tiny import SOURCE, tiny_project
from training.fit.architectures import build
from training.fit.augment import to_channels
from training.fit.distributed import ALONE
from training.fit.loop import read_history
from training.fit.pooled import Split
from training.train import preprocessing, train

NOISE = 0.08  # in accuracy on 100 pictures: two standard errors at 0.9, and a little


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the projects RECIPES names, trained by two processes and by one, and what the two printed."""
    root = tmp_path_factory.mktemp("together")
    for name in RECIPES:
        project = tiny_project(root / name / "rank0")
        for other in ("rank1", "alone"):
            shutil.copytree(project, root / name / other)
        shutil.copy(project / "params.yaml", root / name)
    torchrun = str(Path(sys.executable).parent / "torchrun")
    projects = [str(root / name) for name in RECIPES]
    own = ["--standalone", "--local-addr", "127.0.0.1"]  # the machine's name may not resolve
    command = [torchrun, *own, "--nproc-per-node", "2", "-m", "tests.pipeline.together", str(root), *projects]
    done = subprocess.run(
        command, cwd=SOURCE, env=killing.environment() | {"DEVICE": "cpu"}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch, one_thread():
        for name in RECIPES:
            patch.chdir(root / name / "alone")
            train(settings(root / name))
    return root, done.stdout + done.stderr


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As torchrun gives its processes; more of them wait for each other longer than such small steps take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def accuracy(project: Path, size: int, architecture: str) -> float:
    """Of the trained network on the test pictures."""
    manifest = Manifest.read(project / "data/manifest.csv", project / "data/processed")
    model = build(architecture, None, len(manifest.classes)).eval()
    model.use(tuple(json.loads((project / "models/training.json").read_text())["levels"]), size)
    model.eval()
    model.load_state_dict(torch.load(project / "models/best_model.pth", weights_only=True))
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode(), one_thread():
        patch.chdir(project.parent)  # whose cache no test looks at
        test = Split.read(manifest, "test", preprocessing(size), ALONE)
        return float((model(to_channels(test.pictures)).argmax(1) == test.labels).float().mean())


def test_gradients_are_averaged_to_those_of_one(together: tuple[Path, str]) -> None:
    root, _ = together
    ranks = [json.loads((root / f"averaged{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1] == pytest.approx(averaged(ALONE), abs=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_two_are_as_accurate_as_one(together: tuple[Path, str], name: str) -> None:
    root, _ = together
    recipe = settings(root / name)
    assert recipe.image_size is not None
    two, one = (accuracy(root / name / who, recipe.image_size, recipe.architecture) for who in ("rank0", "alone"))
    assert one > 0.8
    assert two == pytest.approx(one, abs=NOISE)


def test_a_head_on_shared_features_is_the_one_solved_alone(together: tuple[Path, str]) -> None:
    root, _ = together
    two, one = (read_history(root / "tuned" / who / "models/history.csv") for who in ("rank0", "alone"))
    assert two[0]["phase"] == one[0]["phase"] == "head"
    # The folds are others, since the pictures come in another order; a strength may be the next one.
    assert two[0]["validation_loss"] == pytest.approx(one[0]["validation_loss"], abs=0.1)


def test_rank_0_alone_writes_and_logs(together: tuple[Path, str]) -> None:
    root, printed = together
    assert printed.count("validation accuracy") == len(RECIPES)
    assert printed.count("finetune: 2 of 2 epoch") == 1
    for name in RECIPES:
        assert {path.name for path in (root / name / "rank0/models").iterdir()} == {
            "best_model.pth",
            "history.csv",
            "training.json",
        }
        assert not (root / name / "rank1/models").exists()
        assert not list((root / name / "rank1" / CACHE_FOLDER).glob("train/*"))


def test_each_process_decodes_its_share_alone(together: tuple[Path, str]) -> None:
    root, _ = together
    shares = [
        sorted(len(np.load(path, mmap_mode="r")) for path in (root / "tuned" / rank / CACHE_FOLDER).glob("pictures/*"))
        for rank in ("rank0", "rank1")
    ]
    assert shares == [[10, 40], [10, 40]]
