"""What importing and asking cost over `import torch`, in fresh interpreters: `python benchmarks/import_time.py`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CLI = "from mdiqa_metric.cli import app; app()"
PROGRAMS = {
    "import mdiqa_metric": ["-c", "import torch, mdiqa_metric"],
    "mdiqa-metric list": ["-c", CLI, "list"],
    "mdiqa-metric --help": ["-c", CLI, "--help"],
}
TORCH = ["-c", "import torch"]


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Prints the median and the worst of nine rounds, each a difference to `import torch` in the same round."""
    rounds = [{name: seconds(arguments) for name, arguments in {"torch": TORCH, **PROGRAMS}.items()} for _ in range(9)]
    for name in PROGRAMS:
        extra = [row[name] - row["torch"] for row in rounds]
        print(f"{name}: {statistics.median(extra):.2f} s over import torch, at worst {max(extra):.2f} s")


if __name__ == "__main__":
    main()
