"""The networks, their layers, and what they cost."""

from tune_cnn.models.cost import Cost, conv_layers, cost, network_fault
from tune_cnn.models.networks import ConvClassifier, ResidualConv, YourCodeNet, build, initialise_he, pooled_size
from tune_cnn.models.own import unused_keys
from tune_cnn.models.own_source import adopt, resolve, sources

__all__ = [
    "ConvClassifier",
    "Cost",
    "ResidualConv",
    "YourCodeNet",
    "adopt",
    "build",
    "conv_layers",
    "cost",
    "initialise_he",
    "network_fault",
    "pooled_size",
    "resolve",
    "sources",
    "unused_keys",
]
