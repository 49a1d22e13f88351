"""The only training loop, with its optimizers, EMA and checkpoints."""

from tune_cnn.training.trainer import AUTOCAST, TorchTrainer
