"""Talk to a Flink cluster's REST API; nothing else in jobs/ knows its address."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

_JOB_PATH = re.compile(r"/jobs/(?P<id>[0-9a-f]{32})\b")
LIVE_STATES = ("INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "FAILING", "RECONCILING")
# A live job in one of these has just failed and is to start again.
DOWN_STATES = ("RESTARTING", "FAILING")
CANCELLING = "CANCELLING"
FINISHED = "FINISHED"
# What an operator that has got no watermark says of it.
_NO_WATERMARK = -(2**63)


class ClusterUnavailable(Exception):
    """No Flink cluster answers at the configured address."""


class ClusterError(Exception):
    """Flink refused a request; the message is its own."""


@dataclass(frozen=True)
class RunningJob:
    """A job the cluster knows: id, name and Flink's state of it."""

    id: str
    name: str
    state: str
    started_ms: int


@dataclass(frozen=True)
class Checkpoints:
    """When the newest complete one was acknowledged, epoch ms, and how many failed lately.

    Those failed that began, among the last ten; Flink's own count has each attempt to begin one
    while tasks still start. `failure` is what Flink says of the newest, if that failed. One may be
    `under_way`.
    """

    completed_ms: int | None
    failed: int
    failure: str
    under_way: bool


class Cluster:
    """The REST API of the Flink cluster at the first of `urls`, which new jobs go to.

    Jobs are looked for at the others too: in application mode each has a cluster of its own. One
    that does not answer may have any job, so none is said to be missing without it.
    """

    def __init__(self, *urls: str, timeout: float = 20.0) -> None:
        # Where nothing is encrypted, reading the certificates would cost more than the questions.
        self._clusters = [
            httpx.Client(base_url=url, timeout=timeout, verify=httpx.URL(url).scheme == "https")
            for url in urls
        ]
        self._homes: dict[str, httpx.Client] = {}

    def get(self, path: str) -> Any:
        """Return the JSON answer to a GET, or raise `ClusterUnavailable` or `ClusterError`."""
        return self._call("GET", path)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        return self._ask(self._home(path), method, path, body)

    def _home(self, path: str) -> httpx.Client:
        """Return the cluster that `path` is about: the one with the job in it, else the first."""
        first = self._clusters[0]
        asked = _JOB_PATH.match(path)
        if asked is None or len(self._clusters) == 1:
            return first
        if asked["id"] not in self._homes:
            _, silent = self.look()
            if asked["id"] not in self._homes and silent:
                raise silent[0]
        return self._homes.get(asked["id"], first)

    def _ask(self, cluster: httpx.Client, method: str, path: str, body: Any = None) -> Any:
        try:
            response = cluster.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ClusterUnavailable(
                f"no Flink cluster answers at {str(cluster.base_url).rstrip('/')} ({error}); "
                "is it running?"
            ) from error
        if response.is_error:
            raise ClusterError(f"Flink refused {method} {path}: {_reason(response)}")
        return response.json() if response.content else None

    def jobs(self) -> list[RunningJob]:
        """Return all jobs the clusters remember, newest first, or raise `ClusterUnavailable`."""
        jobs, silent = self.look()
        if silent:
            raise silent[0]
        return jobs

    def look(self) -> tuple[list[RunningJob], list[ClusterUnavailable]]:
        """Return the jobs of the clusters that answer, newest first, and who does not answer."""
        jobs, silent = [], []
        # Of many that don't answer, as after a lost network, each would be waited for.
        with ThreadPoolExecutor(len(self._clusters)) as at_once:
            overviews = list(at_once.map(self._overview, self._clusters))
        for cluster, overview in zip(self._clusters, overviews, strict=True):
            if isinstance(overview, ClusterUnavailable):
                silent.append(overview)
                continue
            for found in overview:
                self._homes[found["jid"]] = cluster
                jobs.append(
                    RunningJob(found["jid"], found["name"], found["state"], found["start-time"])
                )
        return sorted(jobs, key=lambda job: -job.started_ms), silent

    def _overview(self, cluster: httpx.Client) -> list[dict[str, Any]] | ClusterUnavailable:
        try:
            jobs: list[dict[str, Any]] = self._ask(cluster, "GET", "/jobs/overview")["jobs"]
        except ClusterUnavailable as error:
            return error
        return jobs

    def live_job(self, name: str) -> RunningJob | None:
        """Return the job called `name` that has not ended; None where no cluster has it.

        Raises `ClusterUnavailable` where one that does not answer may have it.
        """
        jobs, silent = self.look()
        found = next((j for j in jobs if j.name == name and j.state in LIVE_STATES), None)
        if found is None and silent:
            raise silent[0]
        return found

    def unended(self, name: str) -> list[RunningJob]:
        """Return all jobs called `name` that run or are just being cancelled, newest first.

        Raises `ClusterUnavailable` where a cluster that does not answer may have one.
        """
        states = (*LIVE_STATES, CANCELLING)
        return [job for job in self.jobs() if job.name == name and job.state in states]

    def elsewhere(self, job_id: str) -> str | None:
        """Return the address of the cluster that has the job, None where that is the first."""
        home = self._home(f"/jobs/{job_id}")
        return None if home is self._clusters[0] else str(home.base_url).rstrip("/")

    def state(self, job_id: str) -> str:
        """Return Flink's state of a job."""
        # What Flink tells with a job's tasks it keeps for three seconds, by a clock that may be set
        # back: then it stands still for as long.
        state: str = self.get(f"/jobs/{job_id}/status")["status"]
        return state

    def running_ms(self, job_id: str) -> int:
        """Return for how long a job has been RUNNING since it started or failed last, else 0."""
        job = self.get(f"/jobs/{job_id}")
        return int(job["now"] - job["timestamps"]["RUNNING"]) if job["state"] == "RUNNING" else 0

    def failure(self, job_id: str) -> str:
        """Return the root cause of a job's last failure, in one line, or an empty text."""
        entries = self.get(f"/jobs/{job_id}/exceptions")["exceptionHistory"]["entries"]
        return root_cause(entries[0]["stacktrace"]) if entries else ""

    def checkpoints(self, job_id: str) -> Checkpoints:
        """Return how a job's newest checkpoints went."""
        answer = self.get(f"/jobs/{job_id}/checkpoints")
        latest = (answer.get("latest") or {}).get("completed")
        ended = [one for one in answer["history"] if one["status"] != "IN_PROGRESS"]
        failed = [one for one in ended if one["status"] == "FAILED"]
        return Checkpoints(
            completed_ms=latest["latest_ack_timestamp"] if latest else None,
            failed=len(failed),
            failure=str(failed[0]["failure_message"]) if failed and failed[0] is ended[0] else "",
            under_way=len(ended) < len(answer["history"]),
        )

    def watermarks(self, job_id: str) -> dict[str, int]:
        """Return by vertex's name the watermark, epoch ms, that all its subtasks have got.

        Those that have got none, as sources do, are missing.
        """
        found: dict[str, int] = {}
        for vertex in self.get(f"/jobs/{job_id}")["vertices"]:
            subtasks = self.get(f"/jobs/{job_id}/vertices/{vertex['id']}/watermarks")
            least = min((int(one["value"]) for one in subtasks), default=_NO_WATERMARK)
            if least > _NO_WATERMARK:
                found[vertex["name"]] = min(least, found.get(vertex["name"], least))
        return found

    def newest_checkpoint(self, job_id: str) -> tuple[int, int]:
        """Return the numbers of the newest complete checkpoint and of that a job was restored from.

        0 where there is none. Savepoints count too, and numbers go on from the one restored from.
        """
        latest = self.get(f"/jobs/{job_id}/checkpoints").get("latest") or {}
        found = {kind: int(one["id"]) for kind, one in latest.items() if one}
        complete = (found.get(kind, 0) for kind in ("completed", "savepoint", "restored"))
        return max(complete), found.get("restored", 0)

    def checkpoint_timeout(self, job_id: str) -> float:
        """Return after how many seconds a job's checkpoint or savepoint has failed."""
        return float(self.get(f"/jobs/{job_id}/checkpoints/config")["timeout"]) / 1000

    def parallelism(self, job_id: str) -> int:
        """Return the greatest parallelism of a job's tasks."""
        return max(int(one["parallelism"]) for one in self.get(f"/jobs/{job_id}")["vertices"])

    def cancel(self, job_id: str) -> None:
        """Ask a job to end without a savepoint."""
        self._call("PATCH", f"/jobs/{job_id}?mode=cancel")

    def trigger_savepoint(self, job_id: str, *, stop: bool, folder: str | None) -> str:
        """Ask for a savepoint, and to stop after it if so wished; return the request's id.

        It goes below `folder`, a location, or where the cluster puts them by default.
        """
        if stop:
            order = {"drain": False, "targetDirectory": folder}
            answer = self._call("POST", f"/jobs/{job_id}/stop", order)
        else:
            order = {"cancel-job": False, "target-directory": folder}
            answer = self._call("POST", f"/jobs/{job_id}/savepoints", order)
        request: str = answer["request-id"]
        return request

    def savepoint(self, job_id: str, request: str) -> str | None:
        """Return the finished savepoint's location, None while it runs; raise where it failed."""
        answer = self.get(f"/jobs/{job_id}/savepoints/{request}")
        if answer["status"]["id"] != "COMPLETED":
            return None
        operation = answer["operation"]
        if "failure-cause" in operation:
            raise ClusterError(root_cause(operation["failure-cause"]["stack-trace"]))
        location: str = operation["location"]
        return location

    def slots_free(self) -> int | None:
        """Return how many slots the first cluster has free; None where it gets more when asked."""
        if "kubernetes.cluster-id" in self.configuration():
            return None
        free: int = self.get("/overview")["slots-available"]
        return free

    def configuration(self) -> dict[str, str]:
        """Return the first cluster's configuration."""
        return {entry["key"]: entry["value"] for entry in self.get("/jobmanager/config")}


def root_cause(stacktrace: str) -> str:
    """Return the innermost cause in a Java stack trace in one line, or the Python error inside it.

    A Python traceback stands in the message of the Java exception that reports it, and ends with
    the error.
    """
    cause = re.split(r"^Caused by: ", stacktrace, flags=re.MULTILINE)[-1]
    message = re.split(r"^\s+at ", cause, maxsplit=1, flags=re.MULTILINE)[0].strip()
    lines = [line.strip() for line in message.splitlines()] or [""]
    return lines[-1 if "Traceback (most recent call last):" in message else 0]


def _reason(response: httpx.Response) -> str:
    try:
        errors = response.json().get("errors", [])
    except ValueError:
        return response.text[:300]
    text = "\n".join(e for e in errors if not e.startswith("Internal server error"))
    return root_cause(text.removeprefix("<Exception on server side:\n")) or response.text[:300]
