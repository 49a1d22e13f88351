"""Custom networks: a class in a file beside the config, from the config file to the report."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_sweep import train, trainable
from torch import nn

import tune_cnn
from tune_cnn import models
from tune_cnn.cli import main
from tune_cnn.errors import ConfigError, NetworkError
from tune_cnn.experiments import load_experiment, run_experiment
from tune_cnn.models.custom_source import adopt, sources
from tune_cnn.settings import Settings
from tune_cnn.sweep.config.load import load_experiments
from tune_cnn.sweep.config.shipped import config_path
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.texts import digest

NETS = """
import numpy as np
import torch
from torch import nn

class WideNet(nn.Module):
    def __init__(self, in_size, out_classes, width=4, activation="ReLU"):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_size[0], width, 3, padding=1), getattr(nn, activation)(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(width, out_classes),
        )

    def forward(self, images):
        return self.layers(images)

class Filtered(WideNet):
    def __init__(self, in_size, out_classes, filters, pool_every):
        super().__init__(in_size, out_classes, sum(filters) * pool_every)

class Passing(WideNet):
    def __init__(self, **arguments):
        super().__init__(**arguments)

class NeedsDepth(WideNet):
    def __init__(self, in_size, out_classes, depth):
        super().__init__(in_size, out_classes)

class Fails(WideNet):
    def __init__(self, in_size, out_classes):
        raise KeyError("no such layer")

class Narrow(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, 3)

class Pair(WideNet):
    def forward(self, images):
        return self.layers(images), images

class Mistaken(WideNet):
    def forward(self, images):
        return self.layers(images.flatten(1))

class Empty(nn.Module):
    def __init__(self, in_size, out_classes):
        super().__init__()

class Weightless(Empty):
    def forward(self, images):
        return images.flatten(1)[:, :10]

class NotANetwork:
    pass

class Auxiliary(WideNet):
    def forward(self, images):
        return (self.layers(images), images) if self.training else self.layers(images)

class Normed(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.layers.insert(4, nn.BatchNorm1d(4))

class Drawing(WideNet):
    def forward(self, images):
        return self.layers(images * np.random.rand() if self.training else images)

class Lazy(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.layers.append(nn.LazyLinear(out_classes))

class Late(WideNet):
    def forward(self, images):
        self.late = nn.Linear(10, 10)
        return self.late(self.layers(images))

class Listed(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.blocks = [[nn.Conv2d(in_size[0], in_size[0], 1)]]

    def forward(self, images):
        return self.layers(self.blocks[0][0](images))

class Scaled(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.scales = {"first": nn.Parameter(torch.ones(1))}

class Summed(WideNet):
    def forward(self, images):
        return self.layers(images).sum()

class Growing(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.register_buffer("seen", self.layers[0].bias.detach())

    def forward(self, images):
        self.seen = images.new_zeros(len(self.seen) + 1)
        return self.layers(images)

class Squeezed(WideNet):
    def forward(self, images):
        return self.layers(images).squeeze()

class Detached(WideNet):
    def forward(self, images):
        return self.layers(images).detach()

class Overwriting(WideNet):
    def forward(self, images):
        return self.layers(images).sigmoid().mul_(2)

class Exits(WideNet):
    def forward(self, images):
        raise SystemExit

class Extra(WideNet):
    def get_extra_state(self):
        return {"calls": 1}

    def set_extra_state(self, state):
        pass

number = 3
"""
CONFIG = """
run_name: wide_{model_args.width}
grid: {model_args.width: [2, 3]}
settings: {model: nets.py:WideNet, seed: 1, epochs: 2, bs_train: 10}
data: {source: shapes, in_size: [3, 8, 8], train_images: 40, test_images: 20}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a network and a config file; the working directory is another one."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS)
    (folder / "wide.yaml").write_text(CONFIG)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def changed(project: Path, **changes: str) -> Path:
    text = CONFIG
    for old, new in changes.items():
        text = text.replace(old, new)
    (project / "wide.yaml").write_text(text)
    return project / "wide.yaml"


def forget() -> None:
    """What a new process does not know."""
    models.custom_source._loaded.clear()
    models.custom_source._sources.clear()


def problems(*files: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_experiments(files, overrides=overrides)
    return caught.value.problems


def test_the_arguments_of_the_constructor_stand_in_the_grid_and_in_the_names(project):
    experiments = load_experiments([project / "wide.yaml"])
    assert [experiment.name for experiment in experiments] == ["wide_2", "wide_3"]
    assert [experiment.settings.model_args for experiment in experiments] == [{"width": 2}, {"width": 3}]
    assert [models.build(e.settings).layers[0].out_channels for e in experiments] == [2, 3]


def test_arguments_can_be_set_searched_and_given_as_a_mapping(project):
    config = changed(
        project, **{"grid: {model_args.width: [2, 3]}": "", "WideNet,": "WideNet, model_args: {width: 5},"}
    )
    (experiment,) = load_experiments([config])
    assert experiment.name == "wide_5"
    (experiment,) = load_experiments([config], overrides=["model_args.width=6"])
    assert experiment.settings.model_args == {"width": 6}
    for changes, arguments in (
        (["model_args={activation: Tanh}"], {"activation": "Tanh"}),  # instead of all arguments of the file
        (["model_args={activation: Tanh}", "model_args.width=7"], {"activation": "Tanh", "width": 7}),
        (["model_args=null"], None),
    ):
        (experiment,) = load_experiments([config], overrides=["run_name=a", *changes])
        assert experiment.settings.model_args == arguments
    searched = ["run_name={sample}", "search.model_args.width={randint: [2, 9]}", "samples=3"]
    widths = [e.settings.model_args["width"] for e in load_experiments([config], overrides=searched)]
    assert len(widths) == 3
    assert set(widths) <= set(range(2, 9))


def test_a_network_that_names_filters_gets_those_of_the_grid(project):
    config = changed(
        project, **{"model_args.width": "filters_per_layer", "[2, 3]": "[[2], [4]]", "WideNet": "Filtered"}
    )
    config.write_text(config.read_text().replace("{filters_per_layer}", "{K}"))
    _, second = load_experiments([config])
    assert models.build(second.settings).layers[0].out_channels == 4 * 2 * 2  # [4, 4], times pool_every


def test_a_network_that_takes_any_arguments_gets_those_that_every_network_gets(project):
    first, _ = load_experiments([changed(project, WideNet="Passing")])
    assert models.build(first.settings)(torch.zeros(1, *first.settings.data.in_size)).shape == (1, 10)


def test_the_trial_id_covers_the_source_file_and_not_where_it_lies(project, tmp_path):
    before = load_experiments([project / "wide.yaml"])[0].settings
    shutil.move(project, tmp_path / "moved")
    moved = load_experiments([tmp_path / "moved" / "wide.yaml"])[0].settings
    assert moved.trial_id == before.trial_id
    (tmp_path / "moved" / "nets.py").write_text(NETS + "\n# changed\n")
    assert load_experiments([tmp_path / "moved" / "wide.yaml"])[0].settings.trial_id != before.trial_id
    forget()
    with pytest.raises(NetworkError, match=r"nets.py:WideNet has changed since this trial was planned"):
        models.build(moved)


def test_a_finished_trial_is_not_repeated_with_another_network(project, capsys):
    train(load_experiments([project / "wide.yaml"]), SweepFolder("ray_results", "wide"))
    (project / "nets.py").write_text(NETS + "\n# changed\n")
    forget()
    assert main(["trial", "ray_results/wide", "wide_2"]) == 2
    assert "nets.py:WideNet has changed since this trial was planned; restore it" in capsys.readouterr().err


FURTHER = """
import torch

class Frozen(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.layers[0].requires_grad_(False)

class Zeros(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        nn.init.zeros_(self.layers[0].weight)

class AllZeros(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        for weight in self.parameters():
            nn.init.zeros_(weight)

class Flat(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.layers = nn.Sequential(nn.Flatten(2), nn.Conv1d(in_size[0], out_classes, 64), nn.Flatten())

class ByName(WideNet):
    def forward(self, images):
        return self.layers[1:](self.layers[0](input=images))

class Decides(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        if self.layers[0].weight.abs().max().item() > 0:
            self.layers[0].weight.data.mul_(2)

class OneByOne(WideNet):
    def forward(self, images):
        conv, relu, _, _, linear = self.layers
        return torch.stack([linear(relu(conv(image)).mean(dim=(1, 2))) for image in images])

class Averages(WideNet):
    def __init__(self, in_size, out_classes):
        super().__init__(in_size, out_classes)
        self.average = nn.AdaptiveAvgPool2d(1)
"""


@pytest.mark.parametrize("model", ["Frozen", "Zeros", "AllZeros", "Flat", "ByName", "Decides", "Averages", "OneByOne"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_unusual_networks_are_diagnosed_and_trained(project, model, optimizer):
    (project / "nets.py").write_text(NETS + FURTHER)
    config = changed(
        project, **{"WideNet": model, "wide_{model_args.width}": "a", "grid: {model_args.width: [2, 3]}": ""}
    )
    train(load_experiments([config], overrides=[f"optimizer={optimizer}"]), SweepFolder("ray_results", "wide"))
    assert main(["diagnose", str(config), "--set", f"optimizer={optimizer}"]) in (0, 1)


def test_the_diagnosis_of_a_network_without_conv_layers_names_none(project, capsys):
    (project / "nets.py").write_text(NETS + FURTHER)
    changes = {"WideNet": "Flat", "wide_{model_args.width}": "a", "grid: {model_args.width: [2, 3]}": ""}
    assert main(["diagnose", str(changed(project, **changes))]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ["-", "-"]


def test_a_network_that_cannot_be_diagnosed_is_trained_all_the_same(project, capsys):
    refusing = """
class Refusing(WideNet):
    def forward(self, images):
        if len(images) > 20:  # as in the diagnosis only
            raise ValueError("so many\\nimages")
        return self.layers(images)
"""
    (project / "nets.py").write_text(NETS + refusing)
    config = changed(project, WideNet="Refusing")
    assert main(["diagnose", str(config)]) == 0
    told = "no verdict on Refusing, which may train all the same: ValueError: so many images"
    assert capsys.readouterr().err.splitlines()[-1] == told
    dry_run = [sys.executable, "-m", "tune_cnn", "sweep", config, "--dry-run"]
    done = subprocess.run(dry_run, capture_output=True, text=True, check=True)
    assert told in done.stdout
    assert "time: not estimated (so many images)" in done.stdout
    assert "leaked" not in done.stderr
    worker = trainable(load_experiments([config])[0], SweepFolder("ray_results", "wide"))
    result = worker.step()
    assert result["warnings"] == ["diagnosis: ValueError: so many images"]
    assert result["epoch"] == 1
    assert main(["trial", str(config), "wide_2"]) == 0
    captured = capsys.readouterr()
    assert "diagnosis: ValueError: so many images" in captured.err


def test_a_network_whose_timing_kills_its_process_is_told_in_a_line(project):
    killing = """
class Killing(WideNet):
    def forward(self, images):
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), 9)
        return self.layers(images)
"""
    (project / "nets.py").write_text(f"import multiprocessing, os\n{NETS}{killing}")
    dry_run = [sys.executable, "-m", "tune_cnn", "sweep", changed(project, WideNet="Killing"), "--dry-run"]
    done = subprocess.run(dry_run, capture_output=True, text=True, check=True)
    assert "time: not estimated (a measuring process died, perhaps out of memory)" in done.stdout
    assert "leaked" not in done.stderr


@pytest.mark.parametrize(("network", "repeats"), [("WideNet", True), ("Drawing", False)])
def test_draws_that_the_seed_does_not_reach_are_suspected_where_a_repetition_differs(project, capsys, network, repeats):
    experiments = load_experiments([changed(project, **{"nets.py:WideNet": f"nets.py:{network}"})])
    train(experiments[:1], SweepFolder("ray_results", "wide"))
    assert main(["trial", "wide", "wide_2"]) == (0 if repeats else 1)
    suspicion = "its network may draw numbers without PyTorch, which the seed does not reach; draw them with torch.rand"
    assert (suspicion in capsys.readouterr().out) == (not repeats)


def test_looking_at_a_sweep_never_runs_the_code_of_its_network(project, capsys):
    folder = SweepFolder("ray_results", "wide")
    experiments = load_experiments([project / "wide.yaml"])
    train(experiments[:1], folder)
    train(experiments, folder, interrupted_after=1)
    (project / "nets.py").write_text("raise SystemExit('it ran')")
    forget()
    assert main(["status", "wide"]) == 0
    assert "unfinished: 1 of 2 epochs" in capsys.readouterr().out
    for command in ("export", "report"):
        assert main([command, "wide"]) == 0
        remark = "the test set of unfinished trials is not measured: no code of custom networks is run here"
        assert remark in capsys.readouterr().err
        assert [load_experiment(f"results/wide_{width}.json")[1].num_epochs for width in (2, 3)] == [2, 1]


def test_cost_counts_conv_and_linear_layers(project):
    settings = load_experiments([project / "wide.yaml"])[0].settings
    cost = models.cost(settings)
    assert cost.parameters == sum(weight.numel() for weight in models.build(settings).parameters())
    assert cost.multiply_adds == 8 * 8 * 3 * 9 * 2 + 2 * 10


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("nets.py:WiderNet", "nets.py:WiderNet: no class of this name is a torch.nn.Module; did you mean 'WideNet'?"),
        ("nets.py:NotANetwork", "nets.py:NotANetwork: no class of this name is a torch.nn.Module; "),
        ("nets.py:number", "nets.py:number: no class of this name is a torch.nn.Module; there are WideNet, Filtered,"),
        ("absent.py:Net", "No such file or directory: '/"),
        ("no_such_module:Net", "no_such_module:Net: there is no module no_such_module; install it, or name a file"),
        ("__main__:Net", "__main__:Net: there is no module __main__; install it, or name a file: nets.py:Net"),
        ("nets.py:NeedsDepth", "NeedsDepth needs depth; write it under model_args:"),
        ("nets.py:Fails", "nets.py:Fails cannot be built: KeyError: 'no such layer' (line {line_of_fault})"),
        (
            "nets.py:Narrow",
            "Narrow gives torch.float32 (2, 3) for two images; its scores must be floats of shape (2, 10)",
        ),
        ("nets.py:Pair", "Pair gives tuple for two images;"),
        ("nets.py:Auxiliary", "Auxiliary gives tuple for two images in training; its scores must be floats"),
        ("nets.py:Lazy", "Lazy has lazy layers; call it once in __init__, so that they get their shapes"),
        ("nets.py:Late", "changes its layers or buffers in forward (make them in __init__, each of one shape)"),
        ("nets.py:Listed", "has weights in blocks, which are not trained; make it an nn.ModuleList, ModuleDict"),
        ("nets.py:Scaled", "Scaled has weights in scales, which are not trained;"),
        ("nets.py:Summed", "Summed gives torch.float32 () for two images;"),
        ("nets.py:Growing", "changes its layers or buffers in forward"),
        ("nets.py:Squeezed", "gives torch.float32 (10,) for one image; its scores must be floats of shape (1, 10)"),
        ("nets.py:Weightless", "cannot be trained: RuntimeError: element 0 of tensors does not require grad"),
        ("nets.py:Detached", "cannot be trained: RuntimeError: element 0 of tensors does not require grad"),
        ("nets.py:Overwriting", "cannot be trained: RuntimeError: one of the variables needed for gradient"),
        ("nets.py:Exits", "cannot classify two images: SystemExit (line "),
        ("nets.py:Extra", "Extra has an extra state that is not a tensor; make it a buffer"),
        ("nets.py:Mistaken", "nets.py:Mistaken cannot classify two images: RuntimeError:"),
        ("nets.py:Empty", "Empty cannot classify two images: NotImplementedError"),
    ],
)
def test_what_does_not_fit_is_one_message_before_the_start(project, model, fault):
    config = changed(project, **{"grid: {model_args.width: [2, 3]}": "", "{model_args.width}": "x"})
    config.write_text(config.read_text().replace("nets.py:WideNet", model))
    (problem,) = problems(config)
    line = 1 + NETS.splitlines().index('        raise KeyError("no such layer")')
    assert fault.replace("{line_of_fault}", str(line)) in problem


def test_a_file_may_begin_with_the_mark_of_windows_editors(project):
    (project / "nets.py").write_text(NETS, encoding="utf-8-sig")
    assert len(load_experiments([project / "wide.yaml"])) == 2


def test_a_network_for_double_precision_is_told_that_images_have_single_precision(project):
    (project / "nets.py").write_text(f"import torch; torch.set_default_dtype(torch.double)\n{NETS}")
    try:
        assert "nets.py:WideNet cannot classify two images: RuntimeError: " in problems(project / "wide.yaml")[0]
    finally:
        torch.set_default_dtype(torch.float)


def test_a_batch_of_one_image_that_the_network_cannot_be_trained_on_is_told_before_the_start(project):
    changes = {"grid: {model_args.width: [2, 3]}": "", "{model_args.width}": "x", "WideNet": "Normed"}
    config = changed(project, **changes)  # of its 40 images, 34 are to train
    for overrides in (("bs_train=11",), ("bs_train=33",), ("bs_train=1", "batches=5")):
        (problem,) = problems(config, overrides=overrides)
        assert "cannot classify one image in training, which an epoch's last batch has (choose another" in problem
    for overrides in (["bs_train=10"], ["bs_train=11", "batches=3"]):
        load_experiments([config], overrides=overrides)


def test_a_fault_of_several_experiments_is_told_once(project):
    (problem,) = problems(changed(project, WideNet="Fails"))
    assert problem == "wide_2 and 1 more: model_args.width: Fails does not take it; it takes none"


def test_an_argument_that_stands_alone_is_shown_its_place(project):
    (problem,) = problems(changed(project, **{"{model_args.width: ": "{width: ", "wide_{model_args.width}": "a"}))
    assert "grid.width: unknown key; there are seed, " in problem
    assert problem.endswith("model, model_args")


def test_faults_of_a_file_name_the_line(project):
    (project / "nets.py").write_text(NETS + "\nimport no_such_package\n")
    (problem,) = problems(project / "wide.yaml")
    line = len(NETS.splitlines()) + 2
    assert f"cannot be imported: ModuleNotFoundError: No module named 'no_such_package' (line {line})" in problem
    (project / "nets.py").write_text("def broken(:\n")
    assert "cannot be imported: SyntaxError: invalid syntax (nets.py, line 1)" in problems(project / "wide.yaml")[0]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model_args.widht=3", "model_args.widht: WideNet does not take it; did you mean 'width'?"),
        ("model_args.in_size=3", "model_args.in_size: tune_cnn gives it to the network; leave it out"),
        ("model_args.width=wide", "nets.py:WideNet cannot be built: TypeError"),
        ("model_args.activation={a: 1}", "model_args.activation: {'a': 1} is not a number, a text"),
        ("model_args.width=.inf", "model_args.width: inf is not a number, a text"),
        ("model_args.width=9223372036854775808", "model_args.width: 9223372036854775808 is not a number, a text"),
        ("model_args=3", "model_args: 3 is not a mapping of names to values"),
        ("model=3", "model: 3 is not a file or a module, and a class in it, such as nets.py:WideNet"),
        ("ycn=true", "ycn: model names another network; keep one of the two"),
        ("model_args.width=2000000000", "WideNet has 76,000,000,010 parameters; at most 1,073,741,824 are trained"),
        (
            "grid.hidden_dims=[[10], [20]]",
            "hidden_dims: varies, but WideNet does not take it; vary one of its arguments",
        ),
        ("model_args.width=0", "nets.py:WideNet cannot classify two images: RuntimeError"),
        ("search.model_args.width={uniforn: [1, 2]}", "search.model_args.width: uniforn: unknown distribution"),
    ],
)
def test_faults_of_its_settings_are_told_with_the_remedy(project, override, fault):
    config = changed(project, **{"grid: {model_args.width: [2, 3]}": "", "{model_args.width}": "{H}"})
    config.write_text(config.read_text().replace("{H}", "{hidden_dims}"))
    overrides = (override, "samples=1") if "search" in override else (override,)
    assert any(fault in problem for problem in problems(config, overrides=overrides))


def test_a_network_may_be_in_an_installed_module_and_import_files_beside_it(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    config = changed(project, **{"nets.py:": "nets:"})
    assert models.build(load_experiments([config])[0].settings).layers[0].out_channels == 2
    planned = load_experiments([config])[0].settings
    (project / "nets.py").write_text(NETS + "\n# changed\n")
    forget()
    with pytest.raises(NetworkError, match=r"nets:WideNet has changed since this trial was planned"):
        models.build(planned)
    (project / "layers_of_mine.py").write_text("from torch.nn import Conv2d\n")
    (project / "nets.py").write_text("from layers_of_mine import Conv2d\n" + NETS)
    config = changed(project)
    assert len(load_experiments([config])) == 2


def test_networks_with_files_of_the_same_name_beside_them_each_get_their_own(project, tmp_path):
    ids = {}
    for folder, name in [("p", "ReLU"), ("q", "Tanh"), ("p", "ReLU"), ("p", "LeakyReLU")]:  # the last is an edit
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "blocks.py").write_text(f'ACTIVATION = "{name}"')
        (tmp_path / folder / "nets.py").write_text(
            "from blocks import ACTIVATION\n" + NETS.replace('activation="ReLU"', "activation=ACTIVATION")
        )
        (tmp_path / folder / "wide.yaml").write_text(CONFIG)
        settings = load_experiments([tmp_path / folder / "wide.yaml"])[0].settings
        assert type(models.build(settings).layers[1]).__name__ == name
        ids.setdefault(name, set()).add(settings.trial_id)
    assert len(set.union(*ids.values())) == len(ids) == 3


def test_what_a_network_that_fails_imported_beside_it_is_not_taken_for_that_of_another(project, tmp_path):
    for folder, width, end in (("p", 3, "fails"), ("q", 5, "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sizes.py").write_text(f"WIDTH = {width}")
        (tmp_path / folder / "nets.py").write_text(f"from sizes import WIDTH\n{end}\n{NETS}")
        (tmp_path / folder / "wide.yaml").write_text(CONFIG)
    with pytest.raises(ConfigError, match="name 'fails' is not defined"):
        load_experiments([tmp_path / "p/wide.yaml"])
    settings = load_experiments([tmp_path / "q/wide.yaml"])[0].settings
    assert [Path(path).name for path in sources([settings])[settings.model_fingerprint]] == ["nets.py", "sizes.py"]
    assert sys.modules[type(models.build(settings)).__module__].WIDTH == 5


def test_the_source_of_a_class_that_a_package_hands_on_is_that_of_its_module(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    package = project / "handing_on"
    package.mkdir()
    (package / "__init__.py").write_text("from handing_on.inside import WideNet")
    (package / "inside.py").write_text(NETS)
    config = changed(project, **{"nets.py:": "handing_on:"})
    before = load_experiments([config])[0].settings
    (package / "inside.py").write_text(NETS + "# changed")
    # This process would train the old class, so it must not take the new file's id.
    with pytest.raises(NetworkError, match=r"handing_on:WideNet: its file has changed since it was imported; restart"):
        models.resolve(dataclasses.replace(before, model_fingerprint=None))
    forget()
    assert load_experiments([config])[0].settings.trial_id != before.trial_id


@pytest.mark.parametrize("module", ["sys", "_csv", "gone", None])  # built in, compiled, no longer there
def test_a_class_of_a_module_without_python_source_is_refused(tmp_path, monkeypatch, module):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"of_{module}"
    source = f"import csv\nfrom torch import nn\nclass Net(nn.Module):\n    __module__ = {module!r}\n"
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(NetworkError, match=f"{name}:Net: no Python source of {module}; name a Python file and a class"):
        models.resolve(Settings(model=f"{name}:Net"))


def test_other_machines_get_the_source_with_the_trials(project):
    settings = [experiment.settings for experiment in load_experiments([project / "wide.yaml"])]
    shipped = sources(settings)
    assert list(shipped.values()) == [{str(project / "nets.py"): NETS}]
    (project / "nets.py").write_text(NETS + "\n# changed while Ray started\n")
    assert sources(settings) == shipped
    (project / "nets.py").unlink()
    forget()
    adopt(shipped)
    assert models.build(settings[0]).layers[0].out_channels == 2


def test_a_file_that_one_beside_it_imports_again_keeps_its_fingerprint(tmp_path):
    source, helper = f"import helper\n{NETS}", "import round_nets"
    (tmp_path / "round_nets.py").write_text(source)
    (tmp_path / "helper.py").write_text(helper)
    resolved = models.resolve(Settings(model=f"{tmp_path}/round_nets.py:WideNet"))
    assert resolved.model_fingerprint == digest(helper.join([source, source]))


def test_other_machines_get_the_files_beside_it_too(project, tmp_path):
    folder = tmp_path / "other"
    (folder / "parts").mkdir(parents=True)
    for name, text in {"__init__": "from parts.widths import TIMES", "widths": "TIMES = 3"}.items():
        (folder / "parts" / f"{name}.py").write_text(text)
    source = f"import parts\n{NETS}".replace("width, 3, padding", "parts.TIMES * width, 3, padding").replace(
        "Linear(width", "Linear(parts.TIMES * width"
    )
    (folder / "nets.py").write_text(source)
    (folder / "wide.yaml").write_text((project / "wide.yaml").read_text())
    settings = load_experiments([folder / "wide.yaml"])[0].settings
    here = models.build(settings).state_dict()
    shipped = sources([settings])
    shutil.rmtree(folder)
    forget()
    adopt(shipped)
    there = models.build(settings)
    assert {name: value.shape for name, value in there.state_dict().items()} == {n: v.shape for n, v in here.items()}
    assert there.layers[0].out_channels == 6


def test_the_first_gradients_of_small_strided_convolutions_do_not_crash():
    # Channels-last, torch 2.14 crashes there on cores; custom networks have PyTorch's default layout.
    settings = load_experiments([config_path("resnet")], overrides=["samples=1"])[0].settings
    model = models.build(settings)
    images = torch.rand(50, 32, 32, 3).permute(0, 3, 1, 2)
    nn.functional.cross_entropy(model(images), torch.zeros(50, dtype=torch.long)).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_notebook_trains_a_custom_network(project, capsys):
    data = {"source": "shapes", "in_size": [3, 8, 8], "train_images": 40, "test_images": 20}
    run_experiment(
        "own", seed=1, epochs=1, bs_train=10, data=data, model=f"{project}/nets.py:WideNet", model_args={"width": 3}
    )
    assert "WideNet(" in capsys.readouterr().out
    config, _ = load_experiment("results/own.json")
    assert config["kw"]["model_args"] == {"width": 3}
    run_experiment(**config | {"run_name": "again"})
    assert load_experiment("results/again.json")[1] == load_experiment("results/own.json")[1]
    with pytest.raises(ConfigError, match=r"absent\.py:Net: cannot be read \(.*No such file"):
        run_experiment("x", model="absent.py:Net")


@pytest.mark.slow
def test_the_example_from_search_to_prediction(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["samples=2", "epochs=2", "data.train_images=200", "data.test_images=50", "data.in_size=[3, 16, 16]"]
    arguments = [part for change in small for part in ("--set", change)]
    assert main(["diagnose", "resnet", *arguments]) == 0
    assert main(["sweep", "resnet", *arguments, "--cpus", "2"]) == 0
    out = capsys.readouterr().out
    assert "model_args.width" in out
    assert "SmallResNet_" in out
    page = Path("results/resnet_report.html").read_text()
    assert "model resnet.py:SmallResNet" in page
    assert "K = 64" not in page
    facts = json.loads(Path("results/resnet_000.json").read_text())
    assert facts["trial"]["parameters"] > 0
    assert main(["trial", "ray_results/resnet", "resnet_001"]) == 0
    assert "identical" in capsys.readouterr().out
    sweep = tune_cnn.open_sweep("resnet")
    assert sweep.results["model_args.width"].notna().all()
    assert sweep.model("resnet_000")(torch.rand(2, 3, 16, 16)).shape == (2, 10)
