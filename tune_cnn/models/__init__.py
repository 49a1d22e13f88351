"""The networks, their layers, and what they cost."""

from tune_cnn.models.cost import Cost, conv_layers, cost, network_fault
from tune_cnn.models.networks import ConvClassifier, ResidualConv, YourCodeNet, build, initialise_he, pooled_size

__all__ = [
    "ConvClassifier",
    "Cost",
    "ResidualConv",
    "YourCodeNet",
    "build",
    "conv_layers",
    "cost",
    "initialise_he",
    "network_fault",
    "pooled_size",
]
