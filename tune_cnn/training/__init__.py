"""The one training loop, its optimizers, weight averaging and checkpoints."""

from tune_cnn.training.trainer import AUTOCAST, TorchTrainer
