"""Will a network learn? What an untrained one shows, and what follows from it."""

from tune_cnn.diagnosis.signal import MOST_IMAGES, Diagnoses, Diagnosis, diagnose, diagnose_all
