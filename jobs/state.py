"""Where jobs keep their state: folders on this machine, or in an S3-compatible store."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from pyarrow import fs

from jobs.cluster import Cluster

CHECKPOINT_DIR = "execution.checkpointing.dir"
SAVEPOINT_DIR = "execution.checkpointing.savepoint-dir"

_LAYOUT_FILE, _LOSS_FILE, _PASSED_FILE = "layout.json", "loss.json", "passed-over.json"
_METADATA = "_metadata"
# Flink's file systems for S3, by the schemes that they answer to.
_S3 = ("s3", "s3a", "s3p")


class StateUnavailable(Exception):
    """The store of checkpoints and savepoints does not answer, or refuses."""


@dataclass(frozen=True)
class Loss:
    """Kafka transactions of a job whose rows are in no topic, though its state is past them.

    `seen` is when the last was found, ISO 8601. Once `accepted` the job may go on all the same.
    """

    transactions: tuple[str, ...]
    seen: str
    accepted: bool = False

    def told_of(self, name: str) -> str:
        """Return what people read of it about job `name`, without the remedy."""
        count = len(self.transactions)
        return (
            f"{name} lost the rows of {count} transaction{'s' if count > 1 else ''}, found at "
            f"{self.seen}: Kafka aborted what a checkpoint had counted on, as after an outage "
            "longer than the transactions' timeout"
        )


class StateFolder:
    """The checkpoints or the savepoints of one job, below `location` as Flink names it.

    An S3 store's address is the cluster's `s3.endpoint`; credentials come from the environment,
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """

    def __init__(self, location: str, configuration: Mapping[str, str]) -> None:
        self.location = location.rstrip("/")
        with self._plain_errors():
            self._fs, self._path = _file_system(self.location, configuration)

    def states(self) -> dict[str, float]:
        """Return when each complete checkpoint and savepoint ended, epoch seconds by location."""
        with self._plain_errors():
            inner = self._folders(self._path)
            inner += [f for one in inner for f in self._folders(one) if "/chk-" in f]
            known = self._infos([f"{one}/{_METADATA}" for one in inner])
        return {
            self.location + info.path[len(self._path) : -len(_METADATA) - 1]: info.mtime_ns / 1e9
            for info in known
        }

    def layout(self) -> dict[str, str] | None:
        """Return what the views computed that this state is of, or None where nothing says so."""
        layout: dict[str, str] | None = self._read(_LAYOUT_FILE)
        return layout

    def keep_layout(self, layout: Mapping[str, str] | None) -> None:
        """Say what the views compute that state here is of, or with None that nothing says so."""
        self._write(_LAYOUT_FILE, None if layout is None else dict(layout))

    def loss(self) -> Loss | None:
        """Return what the job whose state this is ever lost, None where that is nothing."""
        found = self._read(_LOSS_FILE)
        if found is None:
            return None
        return Loss(tuple(found["transactions"]), found["seen"], found["accepted"])

    def keep_loss(self, loss: Loss | None) -> None:
        """Say what the job whose state this is lost, or with None that it lost nothing."""
        self._write(_LOSS_FILE, None if loss is None else asdict(loss))

    def passed(self) -> set[str]:
        """Return the aborted transactions of the job whose state this is that are no loss."""
        return set(self._read(_PASSED_FILE) or ())

    def keep_passed(self, transactions: Iterable[str]) -> None:
        """Say which these are."""
        self._write(_PASSED_FILE, sorted(transactions))

    def drop(self) -> None:
        """Drop all that is here; there may be nothing."""
        if isinstance(self._fs, fs.LocalFileSystem):
            # Flink may be at it, too, so what is there changes meanwhile.
            shutil.rmtree(self._path, ignore_errors=True)
            return
        with self._plain_errors():
            if self._infos([self._path]):
                self._fs.delete_dir(self._path)

    def _read(self, file_name: str) -> Any:
        """Return the JSON in a file here, None where there is none."""
        path = f"{self._path}/{file_name}"
        with self._plain_errors():
            if not self._infos([path]):
                return None
            with self._fs.open_input_file(path) as file:
                return json.loads(file.read())

    def _write(self, file_name: str, content: Any) -> None:
        """Keep `content` as JSON in a file here; None drops the file."""
        path, text = f"{self._path}/{file_name}", json.dumps(content, indent=2).encode() + b"\n"
        if content is None:
            with self._plain_errors():
                if self._infos([path]):
                    self._fs.delete_file(path)
            return
        is_local = isinstance(self._fs, fs.LocalFileSystem)
        # An object store has all of it or nothing; a disk that is full may have a part.
        written = f"{path}.new" if is_local else path
        with self._plain_errors():
            self._fs.create_dir(self._path, recursive=True)
            with self._fs.open_output_stream(written) as file:
                file.write(text)
            if is_local:
                self._fs.move(written, path)

    def _folders(self, path: str) -> list[str]:
        listed = self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return [info.path for info in listed if info.type == fs.FileType.Directory]

    def _infos(self, paths: list[str]) -> list[Any]:
        found = self._fs.get_file_info(paths)
        return [info for info in found if info.type != fs.FileType.NotFound]

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise StateUnavailable(f"can't look through {self.location}: {error}.") from error


def checkpoint_folder(cluster: Cluster, name: str) -> str | None:
    """Return where job `name` is to keep its checkpoints, None where the cluster keeps none.

    It is a folder of its own, in which they are found again by the job's name.
    """
    base = cluster.configuration().get(CHECKPOINT_DIR)
    return f"{base.rstrip('/')}/{name}" if base else None


def state_folders(cluster: Cluster, name: str) -> list[StateFolder]:
    """Return where job `name` has its checkpoints and its savepoints.

    Every job keeps them in folders with its name. Stores other than S3's are not known here.
    """
    entries = cluster.configuration()
    bases = [entries.get(key, "") for key in (CHECKPOINT_DIR, SAVEPOINT_DIR)]
    return [
        StateFolder(f"{base.rstrip('/')}/{name}", entries)
        for base in bases
        if urlsplit(base).scheme in ("file", *_S3)
    ]


def loss_of(cluster: Cluster, name: str) -> Loss | None:
    """Return what job `name` ever lost, None where that is nothing."""
    losses = (folder.loss() for folder in state_folders(cluster, name)[:1])
    return next(losses, None)


def keep_loss(cluster: Cluster, name: str, transactions: Iterable[str], seen: datetime) -> None:
    """Note beside the state of job `name` that it lost these, too."""
    before = loss_of(cluster, name)
    known = before.transactions if before else ()
    loss = Loss(tuple(sorted({*known, *transactions})), seen.isoformat(timespec="seconds"))
    for folder in state_folders(cluster, name)[:1]:
        folder.keep_loss(loss)


def passed_of(cluster: Cluster, name: str) -> set[str]:
    """Return the aborted transactions of job `name` that are no loss."""
    folders = state_folders(cluster, name)[:1]
    return {one for folder in folders for one in folder.passed()}


def keep_passed(cluster: Cluster, name: str, transactions: Iterable[str]) -> None:
    """Note beside the state of job `name` which these are."""
    for folder in state_folders(cluster, name)[:1]:
        folder.keep_passed(transactions)


def accept_loss(cluster: Cluster, name: str) -> None:
    """Note that job `name` may go on though its views lack rows."""
    loss = loss_of(cluster, name)
    if loss is not None and not loss.accepted:
        for folder in state_folders(cluster, name)[:1]:
            folder.keep_loss(replace(loss, accepted=True))


def latest_state(cluster: Cluster, name: str) -> str | None:
    """Return the location of the newest complete savepoint or checkpoint of job `name`, or None."""
    states: dict[str, float] = {}
    for folder in state_folders(cluster, name):
        states |= folder.states()
    return max(states, key=lambda location: (states[location], _number(location)), default=None)


def _number(location: str) -> float:
    """Return which of the states of one second is the newest: S3 tells no less.

    A job that goes on has its checkpoints in order; one that was stopped ends with a savepoint.
    """
    found = re.search(r"/chk-(\d+)$", location)
    return int(found[1]) if found else math.inf


def _file_system(location: str, configuration: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    """Return where `location` is, and its path there; the cluster says where its store is."""
    scheme, _, path = location.partition(":")
    if scheme not in _S3:
        # As Flink does, which takes what stands there for the name and unescapes nothing.
        return fs.LocalFileSystem(), f"/{path.lstrip('/')}"
    endpoint = urlsplit(configuration.get("s3.endpoint", ""))
    given = {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
    query = urlencode({key: value for key, value in given.items() if value})
    found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(
        f"s3:{path}" + (f"?{query}" if query else "")
    )
    return found
