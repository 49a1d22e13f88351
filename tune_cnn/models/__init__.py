"""The networks, their layers, and what they cost."""

from tune_cnn.models.cost import Cost, conv_layers, cost, network_fault
from tune_cnn.models.networks import ConvClassifier, YourCodeNet, build
from tune_cnn.models.own import unused_keys
from tune_cnn.models.own_source import adopt, resolve, sources
