import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc_data.hashfile.meta import Meta

from training import params
from training.params import ParamsError

LISTS = {"harmless", "ignore", "rename", "formats", "cors_origins", "value_range"}  # keys that hold more than one value
PROJECT_FILE = Path(__file__).parents[2] / params.PARAMS_FILE


def changed(folder: Path, key: str, value: Any) -> Path:
    """The params.yaml of this project with one key set (`train.lr`), or removed for `...`."""
    values = yaml.safe_load(PROJECT_FILE.read_text())
    *sections, last = key.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_file_of_this_project_is_valid() -> None:
    loaded = params.load(PROJECT_FILE)
    assert loaded.data.source == "sample"
    assert loaded.register_.name == "cats-vs-dogs"


def test_no_key_is_one_that_dvc_takes_no_notice_of() -> None:
    """DVC leaves these names out where it looks up whether a stage ran before: it would bring back another value's
    outputs."""
    keys = {key for section in yaml.safe_load(PROJECT_FILE.read_text()).values() for key in section}
    assert not keys & {Meta.PARAM_SIZE, Meta.PARAM_NFILES}


def test_every_section_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.load(PROJECT_FILE).train.epochs = 1


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.epoch", "train.epochs"),
        ("train.learning_rate", "train."),
        ("prepare.max_shortside", "prepare.max_short_side"),
        ("registr", "register"),
        ("promote.min_acuracy", "promote.min_accuracy"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(tmp_path: Path, key: str, nearest: str) -> None:
    with pytest.raises(ParamsError, match=f"unknown key '{re.escape(key)}', nearest valid key: '{nearest}"):
        params.load(changed(tmp_path, key, 3))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", "fifty"),
        ("train.epochs", 1.5),
        ("train.epochs", True),
        ("train.epochs", 0),
        ("train.lr", "0.1"),
        ("train.lr", -1),
        ("train.lr", float("nan")),
        ("train.lr", float("inf")),
        ("data.source", "samples"),
        ("data.sha256", "B" * 64),
        ("data.rename", ["cat"]),
        ("prepare.test", 1.0),
        ("register.name", "Cats vs dogs"),
        ("drift.permutations", 1000),
    ],
)
def test_a_wrong_value_names_the_key_and_what_was_found(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ParamsError, match=rf"params\.yaml: {re.escape(key)}: .*found") as caught:
        params.load(changed(tmp_path, key, value))
    assert "\n" not in str(caught.value)


def test_a_whole_number_is_fine_where_a_fraction_is_expected(tmp_path: Path) -> None:
    assert params.load(changed(tmp_path, "train.lr", 1)).train.lr == 1.0


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"train\.epochs is missing"):
        params.load(changed(tmp_path, "train.epochs", ...))
    with pytest.raises(ParamsError, match="promote is missing"):
        params.load(changed(tmp_path, "promote", ...))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = changed(tmp_path, "train.epochs", "x").read_text().replace("patience:", "patients:")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"train\.epochs: .*train\.patience is missing.*'train\.patients'"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("train: [", "is not YAML"), ("- 1", "expected keys and values, found list"), ("", "NoneType")],
)
def test_a_file_that_is_no_params(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        params.load(tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is missing: run from the project folder"):
        params.load(tmp_path / "params.yaml")


def test_hash_is_of_the_values_alone(tmp_path: Path) -> None:
    whole = params.load(PROJECT_FILE)
    assert params.load(changed(tmp_path, "train.seed", whole.train.seed)).sha256() == whole.sha256()
    assert params.load(changed(tmp_path, "train.seed", whole.train.seed + 1)).sha256() != whole.sha256()
    assert re.fullmatch("[0-9a-f]{64}", whole.sha256())


def overridden(*words: str, section: str = "train") -> Any:
    values = getattr(params.load(PROJECT_FILE), section)
    parser = argparse.ArgumentParser()
    params.add_arguments(parser, type(values))
    return params.override(values, parser.parse_args(words))


def test_command_line_overrides() -> None:
    train = params.load(PROJECT_FILE).train
    found = overridden("--epochs", "50", "--lr", "0.001", "--batch-size", "8")
    assert found == train.model_copy(update={"epochs": 50, "lr": 0.001, "batch_size": 8})
    assert overridden() == train


@pytest.mark.parametrize("word", ["1e-3", "1E-3", "0.001", ".001"])
def test_numbers_are_read_as_people_write_them(word: str) -> None:
    assert overridden("--lr", word).lr == 0.001


def test_command_line_can_say_null() -> None:
    assert overridden("--path", "null", section="data").path is None
    assert overridden("--epochs", "null").epochs is None
    with pytest.raises(ParamsError, match=r"seed: .*found None"):
        overridden("--seed", "null")


def test_every_scalar_key_has_an_option() -> None:
    for name, section in params.Params.model_fields.items():
        parser = argparse.ArgumentParser()
        kind = section.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, params.Section)
        params.add_arguments(parser, kind)
        options = {action.dest for action in parser._actions} - {"help"}
        assert options == set(kind.model_fields) - LISTS, name


@pytest.mark.parametrize(("key", "word"), [("path", "2024"), ("path", "yes"), ("kaggle", "123"), ("path", "a: b")])
def test_text_stays_text_whatever_it_looks_like(key: str, word: str) -> None:
    assert getattr(overridden(f"--{key}", word, section="data"), key) == word


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False)])
def test_truth_is_read_as_in_yaml(word: str, value: bool) -> None:
    assert overridden("--accept-new-data", word, section="promote").accept_new_data is value
    with pytest.raises(ParamsError, match=r"accept_new_data: .*found 1"):
        overridden("--accept-new-data", "1", section="promote")


def test_a_wrong_override_names_the_key() -> None:
    with pytest.raises(ParamsError, match=r"command line: epochs: .*found 'many'"):
        overridden("--epochs", "many")


def test_a_small_number_as_dvc_writes_it(tmp_path: Path) -> None:
    path = changed(tmp_path, "train.lr", 0.5)
    path.write_text(path.read_text().replace("lr: 0.5", "lr: 1e-05"))
    assert params.load(path).train.lr == 1e-5


@pytest.mark.parametrize("name", ["A", "a b", "a/b", "a--b", "-a", "", "a" * 64, "katze_ä"])
def test_a_model_name_that_a_tag_cannot_carry(tmp_path: Path, name: str) -> None:
    with pytest.raises(ParamsError, match=r"register\.name: .*at most 63 lower-case letters and digits"):
        params.load(changed(tmp_path, "register.name", name))


def test_folders_that_look_like_values_are_renamed(tmp_path: Path) -> None:
    path = changed(tmp_path, "data.rename", {"x": "y"})
    path.write_text(path.read_text().replace("x: y", "007: bond\n    no: Norway\n    null: none"))
    assert params.load(path).data.rename == {"007": "bond", "no": "Norway", "null": "none"}
