"""Many trainings: from config files to trials, over the cores and GPUs of one machine or of a cluster.

The only folder that imports ray, and it does so when something runs, not when it is imported.
"""
