"""The shipped config files say what they hold and how to run them, and hold what the assignment asks for."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tune_cnn.settings import ARGUMENT_PREFIX, DataSettings, Settings
from tune_cnn.sweep.config.file_model import SCHEDULERS, Resources, file_model
from tune_cnn.sweep.config.load import load_experiments
from tune_cnn.sweep.config.search_space import DISTRIBUTIONS

FOLDER = Path(__file__).parents[1] / "configs"
COUNTS = {
    "asha": 24, "best": 1, "exp1_1": 8, "exp1_2": 12, "extra_points": 4, "quick": 6, "resnet": 8, "search": 16,
    "test_run": 1,
}  # fmt: skip
COMMON = Settings(
    seed=42,
    bs_train=50,
    batches=10_000,
    epochs=30,
    early_stopping=5,
    reg=2e-3,
    lr=1e-3,
    pool_every=4,
    hidden_dims=(100, 100),
)


DISTRIBUTION = {  # what the value of a key of `search` is
    "additionalProperties": False,
    "examples": [{"loguniform": [1e-4, 1e-2]}],
    "maxProperties": 1,
    "minProperties": 1,
    "properties": {
        name: {"description": ", ".join(arguments), "minItems": 1, "type": "array"}
        for name, arguments in DISTRIBUTIONS.items()
    },
    "type": "object",
}


def file_schema() -> dict[str, Any]:
    """The JSON schema of a file, by which editors complete and check one: what `configs/schema.json` has to be."""
    schema = file_model().model_json_schema()
    owners = dict.fromkeys(("Grid", "Search", "Settings"), Settings) | {"Data": DataSettings, "Resources": Resources}
    for name, owner in (owners | {kind.__name__: kind for kind in SCHEDULERS.values()}).items():
        texts = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.cleandoc(owner.__doc__ or ""), re.MULTILINE))
        schema["$defs"][name].pop("description", None)
        for key, value in schema["$defs"][name]["properties"].items():
            value |= DISTRIBUTION if name == "Search" else {}
            value["description"] = " ".join(texts[key].split())
        if owner is Settings:  # the arguments of a custom network
            schema["$defs"][name]["patternProperties"] = {f"^{re.escape(ARGUMENT_PREFIX)}": {}}
    for name, kind in SCHEDULERS.items():
        schema["$defs"]["Scheduler"]["properties"][name]["description"] = str(kind.__doc__).partition("\n")[0]
    for value in schema["properties"].values():
        value.pop("default", None)
    for key, text in (("data", {"type": "string"}), ("scheduler", {"enum": [*SCHEDULERS, None]})):
        mapping = schema["properties"][key]
        schema["properties"][key] = {"anyOf": [text, mapping], "description": mapping["description"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def settings_by_name(*files: str) -> dict[str, Settings]:
    experiments = load_experiments([FOLDER / f"{file}.yaml" for file in files])
    return {experiment.name: experiment.settings for experiment in experiments}


def expected(k: int, layers: int, ycn: bool = False) -> Settings:
    return Settings(**{**vars(COMMON), "filters_per_layer": (k,), "layers_per_block": layers, "ycn": ycn})


def test_schema_for_editors_is_current(tmp_path: Path) -> None:
    current = tmp_path / "schema.json"
    current.write_text(json.dumps(file_schema(), indent=1) + "\n")
    assert file_schema() == json.loads((FOLDER / "schema.json").read_text()), f"cp {current} {FOLDER}"


@pytest.mark.parametrize("name", COUNTS)
def test_schema_accepts_the_shipped_files(name: str) -> None:
    jsonschema.validate(YAML(typ="safe", pure=True).load(FOLDER / f"{name}.yaml"), file_schema())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"learning_rate": 1}}, "'learning_rate' does not match any"),
        ({"settings": {"epochs": 0}}, "0 is less than the minimum of 1"),
        ({"grid": {"lr": 0.1}}, "0.1 is not of type 'array'"),
        ({"grid": {"optimizer": ["adam", "adm"]}}, "'adm' is not one of"),
        ({"seeds": [1, 1]}, "non-unique elements"),
        ({"when": 1}, "'when' was unexpected"),
    ],
)
def test_schema_refuses_what_the_command_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=message):
        jsonschema.validate({"run_name": "a", **changes}, file_schema())


def test_schema_explains_every_key() -> None:
    sections = file_schema()["$defs"].values()
    assert all(value["description"] for section in sections for value in section["properties"].values())


def test_every_shipped_file_is_tested() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.yaml")) == [f"{name}.yaml" for name in COUNTS]


@pytest.mark.parametrize("name", COUNTS)
def test_file_opens_with_its_purpose_its_size_and_its_command(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=schema.json"
    assert lines[1].startswith("# ")
    assert f"{COUNTS[name]} experiment" in lines[2]
    assert lines[2].endswith(f"Run with:  tune-cnn sweep configs/{name}.yaml")
    assert len(settings_by_name(name)) == COUNTS[name]


def test_experiment_1_1() -> None:
    assert settings_by_name("exp1_1") == {
        f"exp1_1_K{k}_L{layers}": expected(k, layers) for k in (32, 64) for layers in (2, 4, 8, 16)
    }


def test_experiment_1_2() -> None:
    assert settings_by_name("exp1_2") == {
        f"exp1_2_L{layers}_K{k}": expected(k, layers) for layers in (2, 4, 8) for k in (32, 64, 128, 256)
    }


def test_extra_points_are_the_untrainable_cells_with_the_other_network() -> None:
    assert settings_by_name("extra_points") == {
        f"extra_points_K{k}_L{layers}": expected(k, layers, ycn=True) for k in (32, 64) for layers in (8, 16)
    }


def test_test_run() -> None:
    changed = {
        "filters_per_layer": (32,),
        "layers_per_block": 1,
        "pool_every": 1,
        "hidden_dims": (100,),
        "epochs": 10,
        "reg": 1e-3,
    }
    assert settings_by_name("test_run") == {"test_run": Settings(**{**vars(COMMON), **changed})}


def test_trial_id_of_a_known_experiment_never_changes() -> None:
    # Finished trials are found again by this id: whoever changes it makes every user train everything again.
    assert settings_by_name("exp1_1")["exp1_1_K32_L2"].trial_id == "0d29faf2"


def test_quick_needs_neither_network_connection_nor_folder() -> None:
    assert {settings.data for settings in settings_by_name("quick").values()} == {
        DataSettings("shapes", in_size=(3, 24, 24), train_images=3000, test_images=1000)
    }
