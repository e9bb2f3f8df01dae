"""What a process and its descendants use, seen from outside."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass
class Usage:
    """Processor time and resident memory of `process` and all below it."""

    process: psutil.Process
    peak_bytes: int = 0

    def family(self) -> list[psutil.Process]:
        """Return the process and its descendants, none where it is gone."""
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        """Return the processor time the family has used; that of ended members is left out."""
        total = 0.0
        for process in self.family():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def note_memory(self) -> None:
        """Keep the sum of resident memory if it is the greatest so far."""
        resident = 0
        for process in self.family():
            try:
                resident += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.peak_bytes = max(self.peak_bytes, resident)
