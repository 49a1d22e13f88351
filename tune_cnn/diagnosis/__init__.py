"""Prediction of whether a network will learn, from one forward and one backward pass before its training."""

from tune_cnn.diagnosis.signal import MOST_IMAGES, Diagnoses, Diagnosis, diagnose, diagnose_all
