"""Config files become experiments and trials, and every fault in them is told at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tune_cnn.errors import ConfigError
from tune_cnn.settings import KEYS, OPTIONAL, SOURCES
from tune_cnn.sweep.config.file_model import Resources
from tune_cnn.sweep.config.load import Experiment, distinct_trials, load_experiments
from tune_cnn.sweep.config.shipped import shipped_names

GRID = """\
run_name: exp_K{K}_L{L}
grid:
  filters_per_layer: [[32], [64, 128]]
  layers_per_block: [2, 4]
settings: {pool_every: 4, hidden_dims: [100]}
data: shapes
"""
MANY = str(list(range(1, 1001)))
UNDER_SETTINGS = "write keys under it, such as lr: 0.001, or leave it out"
SPELLING = "; look at the indentation, colons, brackets and quotes there and before"


def load(folder: Path, *texts: str | bytes, **options: Any) -> list[Experiment]:
    """Load config files a.yaml, b.yaml, ... of these texts."""
    paths = [folder / f"{letter}.yaml" for letter, _ in zip("abc", texts, strict=False)]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_experiments(paths, **options)


def faults(folder: Path, *texts: str | bytes, **options: Any) -> list[str]:
    """The lines of the error, without the head of its first block and without the folder's name."""
    with pytest.raises(ConfigError, match=r"\d problem") as caught:
        load(folder, *texts, **options)
    lines = str(caught.value).replace(f"{folder}/", "").splitlines()
    return [line.strip() for line in lines[1:]]


def names(experiments: list[Experiment]) -> list[str]:
    return [experiment.name for experiment in experiments]


# From files to experiments


def test_grid_is_a_product_whose_last_key_varies_fastest(tmp_path: Path) -> None:
    assert names(load(tmp_path, GRID)) == ["exp_K32_L2", "exp_K32_L4", "exp_K64-128_L2", "exp_K64-128_L4"]


def test_a_training_of_more_losses_than_a_file_of_results_holds_is_refused(tmp_path: Path) -> None:
    settings = "settings: {epochs: %d, early_stopping: null, bs_train: 2, bs_test: 10}"
    text = f"run_name: long\n{settings}\ndata: {{source: shapes, train_images: 100}}"
    load(tmp_path, text % 77_777)  # of 43 training batches and 2 validation batches
    assert faults(tmp_path, text % 77_778) == [
        "long: 77778 epochs produce 3,500,010 batch losses, and a result file holds 3,500,000; use fewer "
        "epochs, or a larger bs_train"
    ]


def test_experiment_has_the_settings_of_its_cell_and_of_the_file(tmp_path: Path) -> None:
    experiment = load(tmp_path, GRID + "resources: {cpus_per_trial: 2, gpus_per_trial: 0.5}")[3]
    assert experiment.settings.filters_per_layer == (64, 128)
    assert experiment.settings.layers_per_block == 4
    assert experiment.settings.hidden_dims == (100,)
    assert experiment.settings.data.source == "shapes"
    assert experiment.resources == Resources(cpus_per_trial=2, gpus_per_trial=0.5)


def test_only_a_name_is_required(tmp_path: Path) -> None:
    (experiment,) = load(tmp_path, "run_name: one")
    assert experiment.settings.data.source == "cifar10"
    assert experiment.resources == Resources(cpus_per_trial=1, gpus_per_trial="auto")


def test_files_are_read_in_the_order_given(tmp_path: Path) -> None:
    assert names(load(tmp_path, "run_name: second", "run_name: first")) == ["second", "first"]


@pytest.mark.parametrize("number", ["1e-3", "1.e-3", "1.0e-3", ".001", "0.001", "+1E-3"])
def test_every_way_to_write_a_number_is_a_number(tmp_path: Path, number: str) -> None:
    (experiment,) = load(tmp_path, f"run_name: one\nsettings: {{lr: {number}}}")
    assert experiment.settings.lr == 0.001


def test_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert names(load(tmp_path, b"\xef\xbb\xbfrun_name: one")) == ["one"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("plain", "plain"),
        ("{K}-{L}-{P}-{S}", "64-128-3-4-7"),
        ("{filters_per_layer}_{pool_every}", "64-128_4"),
        ("lr{lr}_reg{reg}_{ycn}", "lr1e-05_reg0.002_true"),
        ("es_{early_stopping}_H{hidden_dims}", "es_none_Hnone"),
        ("bs{bs_train}_{bs_test}", "bs50_12"),
    ],
)
def test_name_is_filled_in_from_settings(tmp_path: Path, pattern: str, name: str) -> None:
    text = f"""\
run_name: '{pattern}'
settings: {{filters_per_layer: [64, 128], layers_per_block: 3, pool_every: 4, seed: 7, lr: 1e-5, reg: 2e-3, ycn: true,
  early_stopping: null, hidden_dims: [], bs_train: 50}}
"""
    assert names(load(tmp_path, text)) == [name]


# Trials


def test_experiments_of_equal_settings_are_one_trial(tmp_path: Path) -> None:
    other = "run_name: other_{L}\ngrid: {layers_per_block: [4, 8]}\n"
    other += "settings: {filters_per_layer: [32], pool_every: 4, hidden_dims: [100]}\ndata: shapes\n"
    trials = distinct_trials(load(tmp_path, GRID, other))
    assert [names(group) for group in trials.values()] == [
        ["exp_K32_L2"],
        ["exp_K32_L4", "other_4"],
        ["exp_K64-128_L2"],
        ["exp_K64-128_L4"],
        ["other_8"],
    ]
    assert all(experiment.settings.trial_id == key for key, group in trials.items() for experiment in group)


def test_name_and_resources_do_not_make_another_trial(tmp_path: Path) -> None:
    same = ["run_name: one", "run_name: two\nresources: {cpus_per_trial: 4, gpus_per_trial: 1}"]
    assert len(distinct_trials(load(tmp_path, *same))) == 1


# Seeds

SEEDS = GRID + "seeds: [1, 2]\n"


def test_seeds_repeat_every_cell_and_end_its_name(tmp_path: Path) -> None:
    experiments = load(tmp_path, SEEDS, only=["*_L4*"])
    assert names(experiments) == ["exp_K32_L4_S1", "exp_K32_L4_S2", "exp_K64-128_L4_S1", "exp_K64-128_L4_S2"]
    assert [experiment.settings.seed for experiment in experiments] == [1, 2, 1, 2]


@pytest.mark.parametrize(("pattern", "name"), [("S{S}_K{K}_L{L}", "S2_K32_L4"), ("{seed}-{K}-{L}", "2-32-4")])
def test_pattern_that_names_the_seed_stays_as_it_is(tmp_path: Path, pattern: str, name: str) -> None:
    assert names(load(tmp_path, SEEDS.replace("exp_K{K}_L{L}", f"'{pattern}'")))[3] == name


def test_one_seed_in_the_list_is_named_too_so_that_the_list_can_grow(tmp_path: Path) -> None:
    assert names(load(tmp_path, "run_name: one\nseeds: [0]")) == ["one_S0"]


def test_cell_of_a_seed_is_the_trial_that_it_would_be_alone(tmp_path: Path) -> None:
    together, alone = load(tmp_path, "run_name: one\nseeds: [7]", "run_name: two\nsettings: {seed: 7}")
    assert together.settings.trial_id == alone.settings.trial_id


def test_set_gives_a_file_seeds(tmp_path: Path) -> None:
    changed = load(tmp_path, "run_name: one\nsettings: {seed: 42}", overrides=["seeds=[1, 2]"])
    assert names(changed) == ["one_S1", "one_S2"]


# --set, --only, --data


@pytest.mark.parametrize("text", ["epochs=3", "settings.epochs=3", "epochs= 3"])
def test_set_changes_a_setting(tmp_path: Path, text: str) -> None:
    assert {e.settings.epochs for e in load(tmp_path, GRID, overrides=[text])} == {3}


def test_set_replaces_an_axis_in_its_place(tmp_path: Path) -> None:
    changed = load(tmp_path, GRID, overrides=["grid.filters_per_layer=[[8], [16]]"], only=["*L2"])
    assert names(changed) == ["exp_K8_L2", "exp_K16_L2"]


def test_set_makes_a_setting_vary(tmp_path: Path) -> None:
    changed = load(tmp_path, GRID, overrides=["grid.pool_every=[4, 8]", "run_name={L}_{K}_P{P}"], only=["2_32*"])
    assert names(changed) == ["2_32_P4", "2_32_P8"]


def test_set_changes_resources(tmp_path: Path) -> None:
    (experiment,) = load(tmp_path, "run_name: one", overrides=["resources.gpus_per_trial=0.25"])
    assert experiment.resources == Resources(gpus_per_trial=0.25)


@pytest.mark.parametrize("text", ["scheduler: asha", "scheduler: {asha: }", "scheduler: {asha: {grace_period: 3}}", ""])
def test_set_changes_an_argument_of_a_scheduler(tmp_path: Path, text: str) -> None:
    (experiment,) = load(tmp_path, f"run_name: one\n{text}", overrides=["scheduler.asha.grace_period=2"])
    assert experiment.scheduler == {"asha": {"grace_period": 2, "reduction_factor": 4}}
    (fault,) = faults(tmp_path, f"run_name: one\n{text}", overrides=["scheduler.asha.grace=2"])
    assert fault.endswith("scheduler.asha.grace: unknown key; there are grace_period, reduction_factor")


@pytest.mark.parametrize("text", ["data: shapes", "data: {source: shapes}", "data: {source: shapes, train_images: 40}"])
def test_set_changes_the_images(tmp_path: Path, text: str) -> None:
    changes = ["data.train_images=50", "data.in_size=[3, 9, 9]"]
    (experiment,) = load(tmp_path, f"run_name: one\n{text}", overrides=changes)
    data = experiment.settings.data
    assert (data.source, data.train_images, data.in_size) == ("shapes", 50, (3, 9, 9))
    (experiment,) = load(tmp_path, "run_name: one\ndata: cifar10", overrides=changes, data="shapes")
    assert experiment.settings.data == data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run_name={L}_{K}", ["2_32", "4_32", "2_64-128", "4_64-128"]),
        ("grid={layers_per_block: [1, 3], filters_per_layer: [[8]]}", ["exp_K8_L1", "exp_K8_L3"]),
        ("grid={hidden_dims: [[], [8]], layers_per_block: [1]}", "run_name: 'exp_K{K}_L{L}' gives hidden_dims"),
        ("settings={filters_per_layer: [8]}", "settings.filters_per_layer: grid.filters_per_layer varies it too"),
        ("settings={pool_every: 2}", ["exp_K32_L2", "exp_K32_L4", "exp_K64-128_L2", "exp_K64-128_L4"]),
        ("seeds=[7]", ["exp_K32_L2_S7", "exp_K32_L4_S7", "exp_K64-128_L2_S7", "exp_K64-128_L4_S7"]),
    ],
)
def test_set_changes_a_whole_section(tmp_path: Path, text: str, expected: Any) -> None:
    if isinstance(expected, list):
        assert names(load(tmp_path, GRID, overrides=[text])) == expected
    else:
        (fault,) = faults(tmp_path, GRID, overrides=[text])
        assert fault.startswith(expected)


def test_path_of_set_starts_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    for change in ("data=cifar10:images", "data.path=images"):
        (experiment,) = load(tmp_path / "configs", "run_name: one", overrides=[change])
        assert experiment.settings.data.path == str(tmp_path / "images")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("epohcs=3", "epohcs: unknown key; did you mean 'epochs'?"),
        ("sample=4", "sample: unknown key; did you mean 'samples'?"),
        ("epochs=0", "settings.epochs: 0 is not a whole number from 1 up"),
        ("lr=fast", "settings.lr: 'fast' is not a number above 0"),
        ("lr=[1]", "settings.lr: [1] is not a number above 0; to train with each of these, give the list to grid.lr"),
        ("grid.model_args.width=[[1], [1]]", "grid.model_args.width: [1] is given twice; keep one"),
        ("lr=[1", "lr: line 1, column 3: expected ',' or ']', but got '<stream end>'" + SPELLING),
        ("grid.lr=[]", "grid.lr: [] is not a list of values; give one or more in brackets, or leave it out"),
        ("grid.lr=1", "grid.lr: 1 is not a list of values; give one or more in brackets, or leave it out"),
        ("resources.cpus_per_trial=0", "resources.cpus_per_trial: 0 is not auto, or a whole number from 1 up"),
        ("resource.cpus_per_trial=2", "resource.cpus_per_trial: unknown key; did you mean 'resources'?"),
        ("data=imagenet", "data: 'imagenet' is not a source; did you mean 'image_folder'?"),
        ("data=/images", "data: '/images' is not a source; write image_folder:/images, or arrays:/images"),
        ("data.train_images=3", "data.train_images: 3 is not a whole number from 20 up, or null"),
        ("data.classes=3", "data.classes: determined from the images; leave it out"),
        ("seeds=[-1]", "seeds[0]: -1 is not a whole number from 0 up"),
        ("resources={cpus: 1}", "resources.cpus: unknown key; there are cpus_per_trial, gpus_per_trial"),
        ("settings=null", "settings: None is not a mapping; write keys under it, such as lr: 0.001, or leave it out"),
    ],
)
def test_faulty_set_is_told_once_for_all_files(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(tmp_path, "run_name: one", "run_name: two", overrides=[text]) == [fault]


@pytest.mark.parametrize(
    ("text", "options", "fault"),
    [
        (SEEDS, {"overrides": ["seed=3"]}, "settings.seed: seeds varies it too; set that instead, or keep one"),
        ("run_name: a\nsettings: 0", {"overrides": ["lr=1"]}, "settings: 0 is not a mapping; " + UNDER_SETTINGS),
        ("run_name: a\nsettings: b", {"overrides": ["lr=1"]}, "settings: 'b' is not a mapping; " + UNDER_SETTINGS),
        (
            GRID,
            {"overrides": ["layers_per_block=2"]},
            "settings.layers_per_block: grid.layers_per_block varies it too; set that instead, or keep one",
        ),
        (
            GRID,
            {"only": ["*_L2", "*_L9"]},
            "'*_L9' matches no name; there are exp_K32_L2, exp_K32_L4, exp_K64-128_L2, exp_K64-128_L4",
        ),
    ],
)
def test_option_that_does_not_fit_the_file_is_a_fault(
    tmp_path: Path, text: str, options: dict[str, Any], fault: str
) -> None:
    assert faults(tmp_path, text, **options) == [fault]


def test_only_keeps_the_names_that_match_any_pattern(tmp_path: Path) -> None:
    assert names(load(tmp_path, GRID, only=["*K32_L2", "*-128_L?"])) == [
        "exp_K32_L2",
        "exp_K64-128_L2",
        "exp_K64-128_L4",
    ]


def test_long_list_of_names_is_cut(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "run_name: s{S}\ngrid: {seed: " + str(list(range(100))) + "}", only=["x"])
    assert fault.endswith(", s38, s39 and 60 more")


def test_data_option_replaces_the_images_of_every_file(tmp_path: Path) -> None:
    experiments = load(tmp_path, "run_name: one\ndata: {source: nonsense}", "run_name: two", data="shapes")
    assert {experiment.settings.data.source for experiment in experiments} == {"shapes"}


def test_faulty_data_option_is_told_once(tmp_path: Path) -> None:
    assert faults(tmp_path, "run_name: one\ndata: image_folder:nowhere", "run_name: two", data="imagenet") == [
        "data: 'imagenet' is not a source; did you mean 'image_folder'?"
    ]


@pytest.mark.parametrize(
    ("options", "place", "fault"),
    [
        ({"data": "/nowhere"}, "data", "data: '/nowhere' is not a source; write image_folder:/nowhere"),
        ({"data": "image_folder:/nowhere"}, "data", "data: /nowhere: there is no such folder"),
        ({"data": "image_folder"}, "data", "data: image_folder needs its folder"),
        ({"overrides": ["data=image_folder:/nowhere"]}, "changed settings", "data: /nowhere: there is no such folder"),
        (
            {"overrides": ["data.in_size=[3, 4, 4]"]},
            "changed settings",
            "data.in_size: the images of cifar10 are [3, 32, 32]",
        ),
        (
            {"overrides": ["data.in_size=[3, 4, 4]"], "data": "shapes"},
            "data",
            "data.in_size: [3, 4, 4] is too small",
        ),
    ],
)
def test_wrong_images_of_an_option_are_its_fault_and_no_files(
    tmp_path: Path, options: dict[str, Any], place: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match="problem") as caught:
        load(tmp_path, "run_name: one", "run_name: two\ndata: cifar10", **options)
    head, line = str(caught.value).splitlines()
    assert head == f"{place}: 1 problem"
    assert line.strip().startswith(fault)


def test_relative_path_starts_from_the_file_or_for_an_option_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/one.yaml").write_text("run_name: one\ndata: cifar10:images\n")
    from_file, from_option = (load_experiments([Path("configs/one.yaml")], data=d) for d in (None, "cifar10:images"))
    assert from_file[0].settings.data.path == str(tmp_path / "configs" / "images")
    assert from_option[0].settings.data.path == str(tmp_path / "images")
    assert from_file[0].settings.trial_id == from_option[0].settings.trial_id


# Faults of a file


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty; write at least run_name, such as run_name: exp_K{K}_L{L}"),
        ("# nothing\n", "empty; write at least run_name, such as run_name: exp_K{K}_L{L}"),
        ("- run_name", "not a mapping; write keys such as run_name: and settings:"),
        (
            "a: |\n  \u2028\u2028  b",
            "line 2, column 7: more indented follow up line than first in a block scalar" + SPELLING,
        ),
        ("a: [1\nb: 2", "line 2, column 2: expected ',' or ']', but got ':'" + SPELLING),
        ("run_name: a\n\tb: 1", "line 2, column 1: found character '\\t' that cannot start any token" + SPELLING),
        (
            "run_name: a\n---\nrun_name: b",
            "line 2, column 1: expected a single document in the stream, but found another document" + SPELLING,
        ),
        (
            b"run_name: \xff",
            "cannot be read ('utf-8' codec can't decode byte 0xff in position 10: invalid start byte); "
            "name a text in UTF-8 that you may read",
        ),
        (
            "%YAML 1.3\n---\nrun_name: a",
            "no YAML 1.2 (AssertionError: version minor part can only be 2 or 1, got (1, 3)); "
            "look for a %YAML line, or an escape such as \\U0011FFFF",
        ),
        (b"run_name: a\x00", "character 12: U+0000 is not allowed in YAML; remove it"),
        (
            'run_name: "\\UFFFFFFFF"',
            "no YAML 1.2 (OverflowError: Python int too large to convert to C int); "
            "look for a %YAML line, or an escape such as \\U0011FFFF",
        ),
        (
            "[" * 5000,
            "line 1, column 22: lists or mappings are nested too deep; a config needs four levels at most",
        ),
        ("grid: &a [*a]", "line 1, column 7: anchors and aliases are not supported; write the value out"),
        (
            "run_name: !!python/object:os.system a",
            "line 1, column 11: the tag 'tag:yaml.org,2002:python/object:os.system' is not supported; leave it out",
        ),
        ("settings: !!set {lr}", "line 1, column 11: the tag 'tag:yaml.org,2002:set' is not supported; leave it out"),
        ("{}", "run_name: missing; write a pattern such as exp_K{K}_L{L}"),
        ("? [run_name]\n: a\nrun_name: b", "line 1: a list or a mapping cannot be a key; write a word"),
        ("run_name: a\nrun_name: b", "run_name: written twice, in lines 1 and 2; keep one"),
        (
            "run_name: '{K}'\ngrid: {filters_per_layer: [32]}",
            "grid.filters_per_layer: [32] is one list, not a list of lists; write [[32]]",
        ),
        (
            "run_name: '{K}'\ngrid: {filters_per_layer: [[8], [0, 1]]}",
            "grid.filters_per_layer[1]: [0, 1] is not a list of whole numbers from 1 up, such as [64]",
        ),
        ("run_name: '{lr}'\ngrid: {lr: [1, 2, 1.0]}", "grid.lr: 1.0 is given twice; keep one"),
        ("run_name: 'a'\ngrid: {optimizer: [Adam, adam]}", "grid.optimizer: adam is given twice; keep one"),
        (
            "run_name: '{L}'\ngrid: {layers_per_block: [2]}\nsettings: {layers_per_block: 4}",
            "settings.layers_per_block: grid.layers_per_block varies it too; set that instead, or keep one",
        ),
        (
            f"run_name: '{{L}}_{{P}}_{{S}}'\ngrid: {{layers_per_block: {MANY}, pool_every: {MANY}, seed: {MANY}}}",
            "grid: 1,000,000,000 experiments; split it, a file may have 10,000 at most",
        ),
        (GRID.replace("_L{L}", ""), "run_name: 'exp_K{K}' gives layers_per_block 2 and 4 one name; add {L}"),
        (
            "run_name: '{L}{S}'\ngrid: {layers_per_block: [1, 11], seed: [11, 1]}\ndata: shapes",
            "run_name: '111' names an experiment of a.yaml too; change the pattern, or keep one",
        ),
        (
            GRID.replace("[2, 4]", "[2, 16]").replace("pool_every: 4", "pool_every: 3"),
            "exp_K64-128_L16: 10 poolings (32 conv layers, one pooling every 3) shrink 32x32 images below 1x1; at most "
            "5 fit: use a pool_every of at least 6, or at most 17 conv layers",
        ),
        (
            "run_name: '{model_args.width}'\ngrid: {model_args.width: [2, 4]}\ndata: shapes",
            "model_args.width: only a custom network takes arguments; name its class as model, or leave it out",
        ),
    ],
)
def test_faulty_document_is_told_with_place_and_remedy(tmp_path: Path, text: str | bytes, fault: str) -> None:
    assert faults(tmp_path, text) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("seeds: 3", "seeds: 3 is not a list of values; give one or more in brackets, or leave it out"),
        ("seeds:", "seeds: None is not a list of values; give one or more in brackets, or leave it out"),
        ("seeds: []", "seeds: [] is not a list of values; give one or more in brackets, or leave it out"),
        ("seeds: [1, null]", "seeds[1]: None is not a whole number from 0 up"),
        ("seeds: [1, 2, 1]", "seeds: 1 is given twice; keep one"),
        ("seeds: [1]\nsettings: {seed: 2}", "settings.seed: seeds varies it too; set that instead, or keep one"),
        ("seeds: [1]\ngrid: {seed: [2]}", "grid.seed: seeds varies it too; set that instead, or keep one"),
        ("seed: 3", "seed: not a key of the top level; write it under settings:"),
        ("settings: {lr: 1, lr: 2}", "settings.lr: written twice, in line 2; keep one"),
        ("setings: {}", "setings: unknown key; did you mean 'settings'?"),
        ("lr: 1e-3", "lr: not a key of the top level; write it under settings:"),
        (
            "1: 2",
            "1: unknown key; there are run_name, grid, seeds, settings, data, resources, search, samples, search_seed, "
            "algorithm, scheduler",
        ),
        ("settings:", "settings: None is not a mapping; write keys under it, such as lr: 0.001, or leave it out"),
        (
            "settings: [lr]",
            "settings: ['lr'] is not a mapping; write keys under it, such as lr: 0.001, or leave it out",
        ),
        ("settings: {learning_rte: 1}", "settings.learning_rte: unknown key; did you mean 'lr'?"),
        ("settings: {epochs: 2020-01-01}", "settings.epochs: '2020-01-01' is not a whole number from 1 up"),
        ("settings: {epochs: 1:30}", "settings.epochs: '1:30' is not a whole number from 1 up"),
        ("settings: {ycn: yes}", "settings.ycn: 'yes' is not true or false"),
        ("settings: {epochs: true}", "settings.epochs: True is not a whole number from 1 up"),
        ("settings: {lr: .inf}", "settings.lr: inf is not a number above 0"),
        ("settings: {lr: .nan}", "settings.lr: nan is not a number above 0"),
        (
            f"settings: {{seed: {'9' * 5000}}}",
            f"settings.seed: '{'9' * 119}... is not a whole number from 0 up, or null",
        ),
        ("settings: {scheduler: asha}", "settings.scheduler: unknown key; there are " + ", ".join(KEYS[:-1])),
        (
            "grid: {layers_per_block: []}",
            "grid.layers_per_block: [] is not a list of values; give one or more in brackets, or leave it out",
        ),
        (
            "grid: {layers_per_block: 2}",
            "grid.layers_per_block: 2 is not a list of values; give one or more in brackets, or leave it out",
        ),
        ("grid: {layers_per_block: [2, 4, x]}", "grid.layers_per_block[2]: 'x' is not a whole number from 1 up"),
        ("grid: {layer_per_block: [2]}", "grid.layer_per_block: unknown key; did you mean 'layers_per_block'?"),
        ("data:", f"data: None is not a source; there are {', '.join(SOURCES)}"),
        ("data: image_folder", "data: image_folder needs its folder; write image_folder:/path/to/images"),
        ("data: {source: shapes, classes: 3}", "data.classes: determined from the images; leave it out"),
        (
            "data: {source: shapes, in_size: [3, 4, 4]}",
            "data.in_size: [3, 4, 4] is too small to draw shapes; take [3, 8, 8] or more",
        ),
        ("data: image_folder:/nowhere", "data: /nowhere: there is no such folder; check the path of image_folder"),
        (
            "settings: {hidden_dims: []}\ndata: {source: shapes, in_size: [3, 99999999999, 99999999999]}",
            "one: a layer is too large to exist; give fewer filters_per_layer, smaller hidden_dims or smaller images",
        ),
        (
            f"settings: {{filters_per_layer: [{10**10}, {10**10}]}}",
            "one: a layer is too large to exist; give fewer filters_per_layer, smaller hidden_dims or smaller images",
        ),
        (
            "settings: {layers_per_block: 1000000000000}",
            "one: layers_per_block: 1,000,000,000,000 conv layers; give at most 1,000",
        ),
        ("resources: {gpu_per_trial: 1}", "resources.gpu_per_trial: unknown key; did you mean 'gpus_per_trial'?"),
        ("resources: {cpus_per_trial: 0}", "resources.cpus_per_trial: 0 is not auto, or a whole number from 1 up"),
        (
            "resources: {gpus_per_trial: 1.5}",
            "resources.gpus_per_trial: 1.5 is not auto, a number from 0 up and at most 1, or a whole number from 1 up",
        ),
        (
            "resources: {gpus_per_trial: -1}",
            "resources.gpus_per_trial: -1 is not auto, a number from 0 up and at most 1, or a whole number from 1 up",
        ),
        (
            "resources: {gpus_per_trial: .nan}",
            "resources.gpus_per_trial: nan is not auto, a number from 0 up and at most 1, or a whole number from 1 up",
        ),
    ],
)
def test_faulty_value_is_told_with_place_and_remedy(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(tmp_path, f"run_name: one\n{text}") == [fault]


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = """\
run_name: exp_{X}
grid: {layers_per_block: [], lr: [fast]}
settings: {learning_rte: 1, epochs: 3, epochs: 4}
data: imagenet
resources: {cpus_per_trial: two}
when: 1
"""
    with pytest.raises(ConfigError, match="problem") as caught:
        load(tmp_path, text)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/a.yaml: 8 problems",
        "  settings.epochs: written twice, in line 3; keep one",
        "  data: 'imagenet' is not a source; did you mean 'image_folder'?",
        "  grid.lr[0]: 'fast' is not a number above 0",
        "  grid.layers_per_block: [] is not a list of values; give one or more in brackets, or leave it out",
        "  settings.learning_rte: unknown key; did you mean 'lr'?",
        "  resources.cpus_per_trial: 'two' is not auto, or a whole number from 1 up",
        "  when: unknown key; there are run_name, grid, seeds, settings, data, resources, search, samples, "
        "search_seed, algorithm, scheduler",
        "  run_name: {X} is not a placeholder; there are K, L, P, S, seed, bs_train, bs_test, batches, epochs, "
        "early_stopping, lr, reg, filters_per_layer, layers_per_block, pool_every, hidden_dims, ycn, "
        + ", ".join(OPTIONAL),
    ]


def test_faults_of_all_files_and_options_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="problem") as caught:
        load(tmp_path, "settings: {lr: 0}", "run_name: fine", "run_name: '{'", overrides=["x=1"], data="imagenet")
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        "changed settings: 1 problem",
        "  x: unknown key; there are seed, bs_train, bs_test, batches, epochs, early_stopping, lr, reg, "
        "filters_per_layer, layers_per_block, pool_every, hidden_dims, ycn, "
        + ", ".join(OPTIONAL[:-1])
        + ", run_name, grid, seeds, settings, data, resources, search, samples, search_seed, algorithm, scheduler",
        "data: 1 problem",
        "  data: 'imagenet' is not a source; did you mean 'image_folder'?",
        "a.yaml: 2 problems",
        "  run_name: missing; write a pattern such as exp_K{K}_L{L}",
        "  settings.lr: 0 is not a number above 0",
        "c.yaml: 1 problem",
        "  run_name: '{' has a stray brace; a placeholder reads {K} or {lr}, and nothing else has braces",
    ]


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="problem") as caught:
        load_experiments([tmp_path / "none.yaml", tmp_path])
    assert str(caught.value).replace(str(tmp_path), "T").splitlines() == [
        "T/none.yaml: 1 problem",
        f"  no such file; name one, or a shipped one: {', '.join(shipped_names())}",
        "T: 1 problem",
        "  cannot be read (not a regular file); name another file",
    ]


# Faults of names


@pytest.mark.parametrize("pattern", ["{", "}", "{{K}}", "{K", "K}", "{}", "{K}}", "{K}_{", "{K:{L}}"])
def test_stray_brace_is_a_fault(tmp_path: Path, pattern: str) -> None:
    assert faults(tmp_path, f"run_name: '{pattern}'") == [
        f"run_name: '{pattern}' has a stray brace; a placeholder reads {{K}} or {{lr}}, and nothing else has braces"
    ]


@pytest.mark.parametrize("placeholder", ["{K.__class__}", "{K[0]}", "{K!r}", "{K:>9}", "{0}", "{data}"])
def test_placeholder_is_a_bare_key(tmp_path: Path, placeholder: str) -> None:
    (fault,) = faults(tmp_path, f"run_name: '{placeholder}'")
    assert fault.startswith(f"run_name: {placeholder} is not a placeholder; there are K, L, P, S, seed, ")


def test_a_mistyped_placeholder_suggests_the_real_one(tmp_path: Path) -> None:
    assert faults(tmp_path, "run_name: a_{k}_{LR}_{layer_per_block}") == [
        "run_name: {LR} is not a placeholder; did you mean 'lr'?",
        "run_name: {k} is not a placeholder; did you mean 'K'?",
        "run_name: {layer_per_block} is not a placeholder; did you mean 'layers_per_block'?",
    ]


@pytest.mark.parametrize("value", ["5", "{K}", "[a]", "", "''"])
def test_name_must_be_a_text(tmp_path: Path, value: str) -> None:
    (fault,) = faults(tmp_path, f"run_name: {value}")
    assert fault.endswith("is not a text; write a pattern such as 'exp_K{K}_L{L}', in quotes")


@pytest.mark.parametrize("name", ["a/b", "..", "a..b", ".hidden", "-x", "a b", "é", "a\\nb", "x" * 101])
def test_name_must_do_as_a_file_name_everywhere(tmp_path: Path, name: str) -> None:
    (fault,) = faults(tmp_path, f'run_name: "{name}"')
    assert fault == (
        f"run_name: '{name}' cannot be a name; use at most 100 letters, digits and . _ + = - without '..', "
        "and begin with a letter or a digit"
    )


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (
            (GRID, GRID.replace("pool_every: 4", "pool_every: 5")),
            "run_name: 'exp_K32_L2' names an experiment of a.yaml too; change the pattern, or keep one",
        ),
        (
            ("run_name: one", "run_name: one"),
            "run_name: 'one' names an experiment of a.yaml too; change the pattern, or keep one",
        ),
    ],
)
def test_name_of_two_files_is_a_fault(tmp_path: Path, texts: tuple[str, str], fault: str) -> None:
    assert faults(tmp_path, *texts) == [fault]


def test_same_file_twice_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("run_name: one")
    with pytest.raises(ConfigError, match=r"'one' names an experiment of a\.yaml too"):
        load_experiments([Path("a.yaml"), tmp_path / "a.yaml"])


# Networks that cannot exist


def test_only_leaves_out_a_network_that_cannot_exist(tmp_path: Path) -> None:
    text = GRID.replace("[2, 4]", "[2, 64]")
    assert len(faults(tmp_path, text)) == 2
    assert names(load(tmp_path, text, only=["*_L2"])) == ["exp_K32_L2", "exp_K64-128_L2"]


# The way in


def test_reading_the_search_space_imports_neither_ray_nor_torch() -> None:
    code = "import sys, tune_cnn.sweep.config.load; print({'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
