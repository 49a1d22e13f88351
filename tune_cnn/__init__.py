"""Train a grid of CNNs on CIFAR-10 with Ray Tune, and answer what the grid was run for."""

__version__ = "0.1.0"
