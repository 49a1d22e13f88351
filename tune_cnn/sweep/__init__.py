"""Many trainings: from config files to trials, over the cores and GPUs of one machine or of a cluster.

The only folder that imports ray, and it does so when something runs, not when it is imported.
"""

import os

# Ray reads this when it is imported. One try to join takes it 40 s where no cluster is; its default is twenty.
os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
