from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name

from tests.pipeline.acting import GOOD, NAME, registered
from tests.pipeline.dying import dies
from tests.tiny import tiny_export, tiny_model_folder, tiny_picture
from training import params, register
from training.model.classifier import Classifier
from training.model.folder import ModelFolder, ModelFolderError, write_sums
from training.register import NotReadyError, metric_name
from training.registry import bento_store, packaging, retention
from training.registry.mlflow_store import Registry, RegistryError


def counts() -> tuple[int, int, int]:
    """Runs, versions and Bento models there are."""
    registry = Registry(NAME)
    experiment = registry.client.get_experiment_by_name(NAME)
    runs = registry.client.search_runs([experiment.experiment_id]) if experiment else []
    models = [path for path in (bento_store.store_path() / NAME).glob("*") if path.is_dir()]
    return len(runs), len(registry.versions()), len(models)


def test_registers_run_version_and_bento_model(project: Path) -> None:
    version = registered(project, **GOOD)
    registry = Registry(NAME)
    run, files = registry.run(version.run_id)
    lineage = json.loads((project / "models/model/model_card.json").read_text())["lineage"]
    assert run.info.status == "FINISHED"
    assert run.data.params["train.architecture"] == "tiny"
    assert run.data.metrics["accuracy"] == pytest.approx(float(version.tags["accuracy"]))
    history = registry.client.get_metric_history(version.run_id, "val_loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.4)]
    assert run.data.tags["mlflow.source.git.commit"] == lineage["git_commit"]
    assert {"lineage/manifest.csv", "lineage/dvc.lock", "lineage/params.yaml", "plots/learning_curves.png"} < set(files)
    for key in ("git_commit", "data_hash", "test_hash", "params_hash"):
        assert version.tags[key] == lineage[key]
    assert bento_store.metadata(version.bento_tag) == {
        "mlflow_run_id": version.run_id,
        "mlflow_runs": {version.run_id: version.number},
        "mlflow_version": version.number,
        "data_hash": lineage["data_hash"],
        "git_commit": lineage["git_commit"],
        "model_sha256": version.sha256,
        "params_hash": lineage["params_hash"],
    }
    assert registry.aliases() == {"challenger": version.number}


def test_the_bento_model_holds_the_same_bytes_and_answers_the_same(project: Path) -> None:
    version = registered(project, **GOOD)
    stored = bento_store.find(version.bento_tag)
    assert stored is not None
    made = ModelFolder.open(project / "models/model")
    assert (stored.path / "SHA256SUMS").read_bytes() == (made.path / "SHA256SUMS").read_bytes()
    picture = [tiny_picture(1, 3)]
    assert (Classifier(stored).predict_bytes(picture) == Classifier(made).predict_bytes(picture)).all()


def test_mlflow_loads_the_model_and_predicts_picture_bytes(project: Path) -> None:
    import mlflow

    version = registered(project, **GOOD)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@challenger")
    pictures = [tiny_picture(label, 5, noise=0.0) for label in (0, 1)]
    answers = model.predict(pd.DataFrame({"image": pictures}))
    assert list(answers["label"]) == ["cat", "dog"]
    stored = bento_store.find(version.bento_tag)
    assert stored is not None
    assert answers[["cat", "dog"]].to_numpy() == pytest.approx(Classifier(stored).predict_bytes(pictures))
    assert model.metadata.signature.inputs.to_dict() == [{"type": "binary", "name": "image", "required": True}]
    mixed = model.predict(pd.DataFrame({"image": [b"no picture", pictures[1]]}), params={"skip_refused": True})
    assert list(mixed["label"]) == [None, "dog"]
    assert mixed[["cat", "dog"]].to_numpy()[1] == pytest.approx(answers[["cat", "dog"]].to_numpy()[1])
    assert mixed["cat"].isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="not a picture"):
        model.predict(pd.DataFrame({"image": [b"no picture"]}))
    assert not list((project / "mlruns").rglob("*.pkl"))
    assert list(model.predict(pd.DataFrame({"image": pd.Series([], dtype=object)})).columns) == ["label", "cat", "dog"]


def test_a_class_called_like_the_column_of_the_answer(tmp_path: Path) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from training.registry.mlflow_model import PictureClassifier

    folder = tiny_model_folder(tmp_path / "model", ("cat", "label"))
    context = PythonModelContext({"model": str(folder.path)}, None)  # type: ignore[no-untyped-call]
    model = PictureClassifier()
    model.load_context(context)
    answers = model.predict(context, pd.DataFrame({"image": [tiny_picture(1, 5, noise=0.0)]}))
    assert list(answers.columns) == packaging.signature(("cat", "label")).outputs.input_names()
    assert answers["label"][0] == "label"
    assert answers["probability of label"][0] > 0.5


def test_registers_the_same_model_once(project: Path) -> None:
    first = registered(project, **GOOD)
    second = registered(project, **GOOD)
    assert second == first
    assert counts() == (1, 1, 1)


def test_says_so_without_mlflow_when_nothing_is_to_do(project: Path) -> None:
    version = registered(project, **GOOD)
    known = register.registered(ModelFolder.open(Path("models/model")), NAME, None)
    assert known == register.Record.of(version)


def test_a_lost_bento_model_is_restored_under_the_same_version(project: Path) -> None:
    version = registered(project, **GOOD)
    bento_store.delete(version.bento_tag)
    assert registered(project, **GOOD) == version
    assert bento_store.is_whole(version.bento_tag)


def test_a_damaged_bento_model_is_replaced(project: Path) -> None:
    version = registered(project, **GOOD)
    onnx = bento_store.path_of(version.bento_tag) / "model.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1] + b"!")
    assert not bento_store.is_whole(version.bento_tag)
    registered(project, **GOOD)
    assert bento_store.is_whole(version.bento_tag)


def test_killed_before_any_change_the_next_run_completes(project: Path) -> None:
    tiny_export(project, **GOOD)
    deaths = 0
    while dies("register", before=deaths + 1):
        deaths += 1
        runs, versions, models = counts()
        assert max(runs, versions, models) <= 1
        assert models <= versions <= runs
        for version in Registry(NAME).versions():
            folder = Registry(NAME).download_folder(version, project / f"at-{deaths}")
            assert ModelFolder.open(folder).sha256 == version.sha256
    assert deaths >= 15
    assert counts() == (1, 1, 1)
    version = Registry(NAME).versions()[0]
    assert bento_store.is_whole(version.bento_tag)
    assert json.loads(Path("models/registered.json").read_text())["mlflow_version"] == version.number
    assert len(Registry(NAME).client.get_metric_history(version.run_id, "val_loss")) == 2


def test_what_the_pipeline_has_not_made_is_named(project: Path) -> None:
    with pytest.raises(NotReadyError, match=r"models/model is missing: `dvc repro export`"):
        register.open_candidate()
    tiny_export(project)
    Path("models/history.csv").unlink()
    with pytest.raises(NotReadyError, match=r"models/history.csv is missing: `dvc repro train`"):
        register.register(register.open_candidate(), params.load().register_)
    assert counts()[1:] == (0, 0)


def test_a_changed_model_folder_is_not_registered(project: Path) -> None:
    tiny_export(project)
    card = Path("models/model/model_card.json")
    card.write_text(card.read_text().replace("cats-vs-dogs", "cats-and-dogs"))
    with pytest.raises(ModelFolderError, match=r"model_card.json was changed"):
        register.open_candidate()


def test_any_class_name_is_a_metric_name_of_its_own() -> None:
    assert metric_name("per_class.vögel.recall") == "per_class.vögel.recall"
    names = [
        "a & b (c)",
        "a 26 b 28c29",
        "US$ / A$",
        "_x",
        "^",
        "5e",
        "#1",
        "ä ö",
        "日本",
        "<b>x</b>",
        "'",
        '"',
        "\\",
        "-x",
    ]
    names += ["a/../b", "ab" * 200, "ab" * 201, "..", "|", "nan", "a//b", "a b", "A b"]
    keys = [metric_name(f"per_class.{name}.recall") for name in names] + [metric_name("../x"), metric_name("/x")]
    assert len(set(keys)) == len(keys)
    for key in keys:
        _validate_metric_name(key)  # type: ignore[no-untyped-call]
        assert len(key) <= 250


def test_a_deleted_experiment_is_named_with_the_command_that_restores_it(project: Path) -> None:
    client = Registry(NAME).client
    number = client.create_experiment(NAME)
    client.delete_experiment(number)
    with pytest.raises(RegistryError, match=f"was deleted in MLflow: .*restore --experiment-id {number}`"):
        registered(project)
    client.restore_experiment(number)
    assert registered(project).number == "1"


def test_two_projects_share_one_bento_store(
    project: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same model, other cards: side by side. The same files, registered in two places: one model, of both."""
    first, here = registered(project), Registry(NAME)
    other = shutil.copytree(template, tmp_path / "other")
    with monkeypatch.context() as there:
        there.chdir(other)
        there.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}/mlflow.db")
        folder = tiny_export(other)
        card = folder.path / "model_card.json"
        card.write_text(card.read_text().replace('"created": "2', '"created": "3'))
        write_sums(folder.path)
        second = register.register(ModelFolder.open(folder.path), params.load().register_)
        assert (second.sha256, second.number) == (first.sha256, first.number)
        assert second.bento_tag == f"{first.bento_tag}-{second.run_id[:8]}"
        assert register.registered(folder, NAME, None) == register.Record.of(second)
        shutil.rmtree(folder.path)
        shutil.copytree(project / "models/model", folder.path)
        shutil.copy(template / "mlflow.db", other / "third.db")
        there.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}/third.db")
        third = register.register(ModelFolder.open(folder.path), params.load().register_)
        assert third.bento_tag == first.bento_tag
        assert packaging.is_complete(third, None)
        Registry(NAME).delete_alias("challenger")
        assert retention.delete(Registry(NAME), third)
    assert packaging.is_complete(first, None)
    assert packaging.is_complete(second, None)
    assert not packaging.is_complete(third, None)
    here.delete_alias("challenger")
    assert retention.delete(here, first)
    assert bento_store.find(first.bento_tag) is None
    assert packaging.is_complete(second, None)
