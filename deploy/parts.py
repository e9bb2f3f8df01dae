"""What a part of the embedded stack is: its command, its ports, how one sees that it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.processes import LOOPBACK, port_taken
from deploy.settings import Settings


@dataclass(frozen=True)
class Folders:
    """The folders of one home."""

    home: Path

    @property
    def run(self) -> Path:
        """Process records."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """One log a part."""
        return self.home / "logs"

    def data(self, part: str) -> Path:
        """Data of one part, also its working directory."""
        return self.home / "data" / part

    def temporary(self, part: str) -> Path:
        """Temporary files of one part."""
        return self.home / "tmp" / part

    def log(self, part: str) -> Path:
        """Log of one part."""
        return self.logs / f"{part}.log"

    def log_before(self, part: str) -> Path | None:
        """What was in that log before it was shortened last; None where it never was."""
        # Flink numbers its own upwards, and so the newest is not always the first.
        log = self.log(part)
        found = log.parent.glob(f"{log.name}.[0-9]")
        return max(found, key=lambda path: path.stat().st_mtime, default=None)


def folders(settings: Settings) -> Folders:
    """Return the folders of these settings' home, as absolute paths."""
    return Folders(settings.home.expanduser().resolve())


@dataclass(frozen=True)
class Part:
    """One local process of the embedded stack."""

    name: str
    title: str
    ports: tuple[int, ...]
    """The ports it listens on; the first is the one people use."""
    command: Callable[[], list[str]]
    healthy: Callable[[], bool]
    """Whether it answers its own protocol; may raise, which counts as no."""
    hosts: Mapping[int, str] = field(default_factory=dict)
    """Where it listens on a port, if that is not loopback; "" is every address."""
    after: tuple[str, ...] = ()
    """Parts that must be healthy before this one starts."""
    falls_with: tuple[str, ...] = ()
    """Parts whose end also ends this one; it starts again after them."""
    prepare: Callable[[], None] = lambda: None
    """Writes configuration and formats storage; runs before each start."""
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    """System user to run as; None for the one who runs the stack."""
    stop_signal: int = 15
    stop_seconds: float = 20.0

    def taken_ports(self) -> Iterator[int]:
        """Return those of its ports on which something listens already."""
        return (one for one in self.ports if port_taken(one, self.hosts.get(one, LOOPBACK)))
