"""A notebook that was written for the assignment runs after changing only `utils` to `tune_cnn` in its imports."""

import json
import linecache
import os
import re
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from tune_cnn import bench as textbook
from tune_cnn.settings import DataSettings, Settings

# The assignment's own cells. Left out: what only a notebook or Colab understands, the lines that begin with % or !.
NOTEBOOK = r"""
import os
import re
import sys
import glob
import numpy as np
import matplotlib.pyplot as plt
import unittest
import torch
import torchvision
import torchvision.transforms as tvtf

seed = 42
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
plt.rcParams.update({'font.size': 12})
test = unittest.TestCase()

from utils import *
# %%
from utils import models

torch.manual_seed(seed)
net = models.ConvClassifier((3,100,100), 10, filters=[32]*4, pool_every=2, hidden_dims=[100]*2).to(device)
print(net)

test_image = torch.randint(low=0, high=256, size=(3, 100, 100), dtype=torch.float).to(device)
test_out = net(test_image.unsqueeze(0))
print('out =', test_out)

expected_out = torch.load('tests/assets/expected_conv_out.pt').to(device)
test.assertLess(torch.norm(test_out - expected_out).item(), 1e-5)
# %%
print(f'This notebook is running with device={device}')
print(f'The model parameter tensors are therefore also on device={next(net.parameters()).device}')
print(f'The test image is therefore also on device={test_image.device}')
# %%
data_dir = os.path.expanduser('~/.pytorch-datasets')
ds_train = torchvision.datasets.CIFAR10(root=data_dir, download=True, train=True, transform=tvtf.ToTensor())
ds_test = torchvision.datasets.CIFAR10(root=data_dir, download=True, train=False, transform=tvtf.ToTensor())

print(f'Train: {len(ds_train)} samples')
print(f'Test: {len(ds_test)} samples')

x0,_ = ds_train[0]
in_size = x0.shape
num_classes = 10
print('input image size =', in_size)
# %%
import utils.training as training

torch.manual_seed(seed)

# Define a tiny part of the CIFAR-10 dataset to overfit it
batch_size = 2
max_batches = 25
dl_train = torch.utils.data.DataLoader(ds_train, batch_size, shuffle=False)

# Create model, loss and optimizer instances
model = models.ConvClassifier(in_size, num_classes, filters=[32], pool_every=1, hidden_dims=[100])
print(model)
loss_fn = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9,)

# Use TorchTrainer to run only the training loop a few times.
trainer = training.TorchTrainer(model, loss_fn, optimizer, device)
best_acc = 0
for i in range(22):
    res = trainer.train_epoch(dl_train, max_batches=max_batches, verbose=(i%2==0))
    best_acc = res.accuracy if res.accuracy > best_acc else best_acc

# Test overfitting
test.assertGreaterEqual(best_acc, 95)
# %%
import utils.experiments as experiments
from utils.experiments import load_experiment
from utils.plot import plot_fit

# Test experiment1 implementation on a few data samples and with a small model
experiments.run_experiment('test_run', seed=seed, bs_train=50, batches=10000, epochs=10, early_stopping=5,
                           filters_per_layer=[32], layers_per_block=1, pool_every=1, hidden_dims=[100])

# There should now be a file 'test_run.json' in your `results/` folder.
# We can use it to load the results of the experiment.
cfg, fit_res = load_experiment('results/test_run.json')
_, _ = plot_fit(fit_res)

# And `cfg` contains the exact parameters to reproduce it
print('experiment config: ', cfg)
# %%
def plot_exp_results(filename_pattern, results_dir='results'):
    fig = None
    result_files = glob.glob(os.path.join(results_dir, filename_pattern))
    result_files.sort()
    if len(result_files) == 0:
        print(f'No results found for pattern {filename_pattern}.', file=sys.stderr)
        return
    for filepath in result_files:
        m = re.match('exp\d_(\d_)?(.*)\.json', os.path.basename(filepath))
        cfg, fit_res = load_experiment(filepath)
        fig, axes = plot_fit(fit_res, fig, legend=m[2],log_loss=True)
    del cfg['filters_per_layer']
    del cfg['layers_per_block']
    print('common config: ', cfg)
# %%
import utils.experiments as experiments
from utils.experiments import load_experiment
from utils.plot import plot_fit
for l in [2,4,8,16]:
    # Test experiment1 implementation on a few data samples and with a small model
    experiments.run_experiment(f'exp1_1_K32_L{l}',
                               seed=seed,
                               bs_train=50,
                               batches=10000,
                               epochs=30,
                               early_stopping=5,
                               reg=2e-3,
                               lr=1e-3,
                               filters_per_layer=[32],
                               layers_per_block=l,
                               pool_every=4,
                               hidden_dims=[100, 100])
# %%
plot_exp_results('exp1_1_K32*.json')
# %%
for l in [2,4,8,16]:
    # Test experiment1 implementation on a few data samples and with a small model
    experiments.run_experiment(f'exp1_1_K64_L{l}',
                               seed=seed,
                               bs_train=50,
                               batches=10000,
                               epochs=30,
                               early_stopping=5,
                               reg=2e-3,
                               lr=1e-3,
                               filters_per_layer=[64],
                               layers_per_block=l,
                               pool_every=4,
                               hidden_dims=[100, 100])
# %%
plot_exp_results('exp1_1_K64*.json')
# %%
experiments.run_experiment('extra_points',
                           seed=seed,
                           bs_train=50,
                           batches=10000,
                           epochs=30,
                           early_stopping=5,
                           reg=2e-3,
                           lr=1e-3,
                           filters_per_layer=[32],
                           layers_per_block=16,
                           pool_every=4,
                           hidden_dims=[100, 100],
                           ycn=True)
# %%
for l in [2,4,8]:
    for k in [32,64,128,256]:
        # Test experiment1 implementation on a few data samples and with a small model
        experiments.run_experiment(f'exp1_2_L{l}_K{k}',
                                   seed=seed,
                                   bs_train=50,
                                   batches=10000,
                                   epochs=30,
                                   early_stopping=5,
                                   reg=2e-3,
                                   lr=1e-3,
                                   filters_per_layer=[k],
                                   layers_per_block=l,
                                   pool_every=4,
                                   hidden_dims=[100, 100])
# %%
plot_exp_results('exp1_2_L2*.json')
# %%
plot_exp_results('exp1_2_L4*.json')
# %%
plot_exp_results('exp1_2_L8*.json')
# %%
from tune_cnn.plot import plot_exp_results
plot_exp_results('exp1_2_L8*.json')
"""

# To end within seconds; all else is as it stands in the assignment.
SHORTER = {"epochs=30": "epochs=2", "[32,64,128,256]": "[32,64]"}


def run_cells(source: str) -> None:
    """Run a notebook's cells one after the other, as a user does."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(source.split("# %%\n"), start=1):
        place = f"<cell {number}>"
        linecache.cache[place] = (len(cell), None, cell.splitlines(keepends=True), place)  # for tracebacks
        exec(compile(cell, place, "exec"), names)


@pytest.mark.slow
# The assignment writes a regular expression without an r before it: only a warning in a notebook.
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_notebook_of_the_assignment_runs_from_start_to_end(small_archives, tmp_path, monkeypatch, capsys):
    small_archives("cifar10")
    monkeypatch.chdir(tmp_path)
    Path("tests/assets").mkdir(parents=True)
    torch.manual_seed(42)
    size = {"layers_per_block": 4, "pool_every": 2, "hidden_dims": (100, 100)}
    settings = Settings(filters_per_layer=(32,), **size, data=DataSettings(in_size=(3, 100, 100)))
    by_hand = textbook.conv_classifier(settings)
    torch.save(
        by_hand(torch.randint(0, 256, (3, 100, 100), dtype=torch.float)[None]), "tests/assets/expected_conv_out.pt"
    )

    source = re.sub(r"^(from|import) utils\b", r"\1 tune_cnn", NOTEBOOK, flags=re.MULTILINE)
    for text, shorter in SHORTER.items():
        assert text in source
        source = source.replace(text, shorter)
    plt.switch_backend("Agg")
    with matplotlib.rc_context():
        run_cells(source)

    out, err = capsys.readouterr()
    experiments = [f"exp1_1_K{k}_L{layers}" for k in (32, 64) for layers in (2, 4, 8, 16)]
    experiments += [f"exp1_2_L{layers}_K{k}" for layers in (2, 4, 8) for k in (32, 64)]
    experiments += ["test_run", "extra_points"]
    assert sorted(os.listdir("results")) == sorted(f"{name}.json" for name in experiments)
    for name in experiments:
        assert f"*** Output file results/{name}.json written\n" in out
        config = json.loads(Path(f"results/{name}.json").read_text())["config"]
        assert (config["run_name"], config["seed"], config["ycn"]) == (name, 42, name == "extra_points")
    # One trial under two names has the same numbers.
    assert load("exp1_1_K64_L2")["results"] == load("exp1_2_L2_K64")["results"]

    assert "out = tensor([[-0.0868, -0.3790, -0.4341, -0.1236, -0.2160,  0.1683,  0.4739,  0.0750," in out
    assert "Train: 40 samples\nTest: 20 samples\ninput image size = torch.Size([3, 32, 32])\n" in out
    assert len(re.findall(r"^Test Accuracy: \d+\.\d+$", out, re.M)) == len(experiments)
    assert out.count("common config:") == 6
    assert "experiment config:  {'run_name': 'test_run', 'out_dir': './results', 'seed': 42, 'bs_train': 50, " in out
    assert re.search(r"train_batch \(Avg\. Loss \d\.\d{3}, Accuracy \d+\.0\): 100%\|█+\| 20/20 ", err)

    figures = [plt.figure(number) for number in plt.get_fignums()]
    assert len(figures) == 1 + 5 + 1
    assert [len(figure.axes[0].lines) for figure in figures] == [1, 4, 4, 2, 2, 2, 2]
    for figure in figures:
        assert [axis.get_title() for axis in figure.axes] == ["train_loss", "train_acc", "test_loss", "test_acc"]
        figure.canvas.draw()
    plt.close("all")


def load(name: str) -> dict[str, Any]:
    return json.loads(Path(f"results/{name}.json").read_text())
