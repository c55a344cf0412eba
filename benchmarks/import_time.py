"""What `import mdiqa_metric` costs after `import torch`, in fresh interpreters: python benchmarks/import_time.py"""

from __future__ import annotations

import statistics
import subprocess
import sys

PROGRAM = """
import time, torch
start = time.perf_counter()
import mdiqa_metric
print(time.perf_counter() - start)
"""


def main() -> None:
    """Prints the median of nine runs, in seconds and as a share of what importing torch costs."""
    seconds = [float(subprocess.check_output([sys.executable, "-c", PROGRAM])) for _ in range(9)]
    print(f"import mdiqa_metric after torch: median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
