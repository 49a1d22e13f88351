"""The networks, their layers, and their cost."""

from tune_cnn.models.cost import Cost, conv_layers, cost, network_fault
from tune_cnn.models.custom import unused_keys
from tune_cnn.models.custom_source import adopt, resolve, sources
from tune_cnn.models.networks import ConvClassifier, YourCodeNet, build
