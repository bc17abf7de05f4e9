"""How much memory a run takes."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch


class Memory:
    """The most memory that is in use at once, beyond what was in use at the start: of
    the process, and of the GPU where there is one. In MB; Linux and macOS.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):  # Linux forgets the peak of what came before
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._high_water()

    def _high_water(self) -> float:
        status = Path("/proc/self/status")
        if status.is_file():
            lines = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if line
            )
            return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
        try:
            import resource
        except ImportError:  # Windows
            return float("nan")
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

    def peak(self) -> float:
        """Since the start."""
        on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        grown = max(0.0, self._high_water() - self.before)  # Linux counts roughly
        return grown + on_gpu / 1e6
