"""What is freed stays with the process; measured in processes of their own, as it is for good."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from tune_cnn.training.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill():
    before = faults()
    np.ones(40 << 20, np.uint8)  # larger than anything that glibc keeps of itself
    return faults() - before
fill()
print(min(fill() for _ in range(3)))
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_freed_memory_is_used_again_without_asking_the_system():
    # 40 MiB are 20 pages where the system has huge ones to give.
    assert page_faults("keep") < 10 < page_faults("give back")
