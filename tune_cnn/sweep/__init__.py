"""Sweeps of many trainings: from config files to trials, on the cores and GPUs of one machine or a cluster.

No other folder imports ray, and this one only when something runs, not when it is imported.
"""

import os

# Ray reads this when it is imported. One try to join takes it 40 s where no cluster is; its default is twenty.
os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
