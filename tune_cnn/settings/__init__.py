"""The settings of a training and of its images: what they may be, how they are read, and the trial id."""

from tune_cnn.settings.data import SOURCES, DataSettings, parse_data
from tune_cnn.settings.trial import (
    ARGUMENT_PREFIX,
    KEYS,
    OPTIONAL,
    Settings,
    parse_settings,
    size_fault,
    varied_keys,
    with_arguments_apart,
    with_arguments_together,
)

__all__ = [
    "ARGUMENT_PREFIX",
    "KEYS",
    "OPTIONAL",
    "SOURCES",
    "DataSettings",
    "Settings",
    "parse_data",
    "parse_settings",
    "size_fault",
    "varied_keys",
    "with_arguments_apart",
    "with_arguments_together",
]
