"""Run `kappa replay` as people do, kill it at a step, and read views at full speed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from deploy.settings import PROJECT_ROOT
from jobs.cluster import LIVE_STATES, Cluster
from replay.control import Control
from replay.records import JournalEntry, ReplayRecord
from sinks.clickhouse import ClickHouse
from tests import datasets
from tests.harness import Environment, read_topic, rows, view_rows, wait_for
from tests.oracle import PER_MINUTE, Record, Verdict, judge
from tests.settling import view_difference

VIEWS = ("page_views_per_minute", "page_views_sliding", "site_traffic_per_minute")
REBUILT = (*VIEWS, "page_view_sessions")
PUBLIC = (*REBUILT, "page_views_accounting")
SUBMIT = ("submit", "page_views", *(f"--view={view}" for view in REBUILT))
SAMPLE_EVENTS = 9_999
Place = tuple[int, int]
DEADLINE = 300.0
_KAPPA = ("-m", "deploy.cli")
_HOLDING = Path(__file__).with_name("holding.py")
_PACKAGES = ("schemas", "udfs", "jobs", "sinks", "replay", "serving", "deploy")


def run(env: Environment, *words: str, project: Path = PROJECT_ROOT) -> Any:
    """Return how `kappa` with `words` ended, run from the code in `project`."""
    process = start(env, *words, project=project)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def start(
    env: Environment,
    *words: str,
    project: Path = PROJECT_ROOT,
    program: Sequence[str] = _KAPPA,
) -> subprocess.Popen[str]:
    """Start `kappa`, or the `program` that Python runs in its place, with `words`."""
    return subprocess.Popen(
        [sys.executable, *program, *words],
        env=os.environ | env.settings.environment() | {"PYTHONPATH": str(project)},
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(env: Environment, *words: str) -> dict[str, Any]:
    """Return the JSON that `kappa replay` with `words` prints; it must succeed."""
    ended = run(env, "replay", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def refused(env: Environment, *words: str) -> str:
    """Return the one sentence with which `kappa replay` with `words` fails."""
    ended = run(env, "replay", *words)
    assert ended.returncode == 1, ended.stdout
    sentence: str = ended.stderr.split("error:", 1)[1].strip()
    assert "Traceback" not in ended.stderr
    return sentence


def project_with(tmp_path: Path, module: str, changes: Mapping[str, str]) -> Path:
    """Return a copy of the project whose `module` says what `changes` has for what it said."""
    copy = tmp_path / "project"
    for package in _PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT_ROOT / package, copy / package, ignore=ignored)
    (copy / ".jars").symlink_to(PROJECT_ROOT / ".jars")
    text = (copy / module).read_text()
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (copy / module).write_text(text)
    return copy


def events_loaded(env: Environment, version: int, events: int = SAMPLE_EVENTS) -> None:
    """Wait until the tables of `version` hold every event of the sample."""
    database = env.settings.database
    for view, times in zip(VIEWS, (1, 5, 1), strict=True):
        wait_for(
            lambda table=f"{database}.{view}_v{version}": rows(
                env, f"SELECT sum(views) FROM {table} FINAL"
            )[0][0],
            300,
            f"{view} version {version} has all events",
            until=lambda views, wanted=events * times: views == wanted,
        )


def control(env: Environment) -> Control:
    """Return the control plane of the namespace."""
    return Control(env.settings.postgres, env.settings.namespace, "tests")


def journal(env: Environment) -> list[JournalEntry]:
    """Return the journal of the newest replay."""
    with control(env) as found:
        return found.journal(found.replays()[0].id)


def newest(env: Environment) -> ReplayRecord:
    """Return the newest replay."""
    with control(env) as found:
        return found.replays()[0]


def kill_at(env: Environment, step: str, *words: str, project: Path = PROJECT_ROOT) -> None:
    """Run `kappa replay` with `words` and end it with SIGKILL within `step`."""
    # The tests' folder is not to be where modules are looked for.
    program = ("-P", str(_HOLDING), step)
    process = start_up_to(env, step, *words, project=project, program=program)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, errors
    assert [entry.state for entry in journal(env) if entry.step == step][-1] == "started"


def start_up_to(
    env: Environment,
    step: str,
    *words: str,
    project: Path = PROJECT_ROOT,
    program: Sequence[str] = _KAPPA,
) -> subprocess.Popen[str]:
    """Start `kappa replay` with `words` and return its process as soon as it has begun `step`."""
    with control(env) as found:

        def begun() -> int:
            with found.transaction() as connection:
                (row,) = connection.execute(
                    "SELECT count(*) FROM kappa.journal j JOIN kappa.replays r ON r.id = replay_id"
                    " WHERE namespace = %s AND step = %s AND j.state = 'started'",
                    (env.settings.namespace, step),
                ).fetchall()
            return int(row["count"])

        seen = begun()
        process = start(env, "replay", *words, project=project, program=program)
        try:
            # A step may take some milliseconds only, so there is no pause between two looks.
            deadline = time.monotonic() + 600
            while begun() == seen:
                ended = process.poll() is not None and begun() == seen
                assert not ended, f"{words[0]} ended before {step!r}: {process.communicate()[1]}"
                assert time.monotonic() < deadline, f"{words[0]} never began {step!r}"
                time.sleep(0.002)
        except BaseException:
            process.kill()
            raise
    return process


def letters(env: Environment, topic: str, *headers: str) -> dict[Place, str]:
    """Return what `topic` says of each event, by its partition and offset in the events topic."""
    found: dict[Place, str] = {}
    for message in read_topic(env, topic):
        place = int(message.headers["partition"]), int(message.headers["offset"])
        assert place not in found, f"{place} stands in {topic} twice"
        found[place] = " ".join(message.headers[name] for name in headers)
    return found


def shown(env: Environment) -> dict[str, int]:
    """Return the version that each public name shows, as `kappa tables` has it."""
    ended = run(env, "tables", "--json")
    assert ended.returncode == 0, ended.stderr
    tables = json.loads(ended.stdout)["tables"]
    return {one["name"]: one["version"] for one in tables if one["public"] and one["version"]}


def one_version(env: Environment) -> int:
    """Return the version that all public names show; they must agree."""
    versions = set(shown(env).values())
    assert len(versions) == 1
    return versions.pop()


def live_jobs(env: Environment) -> list[str]:
    """Return the names of the namespace's jobs that run, without its prefix."""
    prefix = f"{env.settings.namespace}."
    jobs = Cluster(env.settings.flink).jobs()
    return sorted(
        job.name.removeprefix(prefix)
        for job in jobs
        if job.name.startswith(prefix) and job.state in LIVE_STATES
    )


@dataclass
class Reading:
    """What readers saw: (begun, ended, answer) of each query, and what failed."""

    answers: list[tuple[float, float, tuple[Any, ...]]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def counts(self) -> Counter[tuple[Any, ...]]:
        """Return how often each answer was given."""
        return Counter(answer for _, _, answer in self.answers)

    def stale(self, old: tuple[Any, ...], new: tuple[Any, ...]) -> int:
        """Return how many queries saw `old` that began after one had ended that saw `new`."""
        first = min(ended for _, ended, answer in self.answers if answer == new)
        return sum(begun > first for begun, _, answer in self.answers if answer == old)

    def longest_pause_ms(self) -> float:
        """Return the longest time in which no query ended."""
        ends = sorted(ended for _, ended, _ in self.answers)
        return max(after - before for before, after in pairwise(ends)) * 1000


@contextmanager
def readers(env: Environment, sql: str, threads: int = 4) -> Iterator[Reading]:
    """Ask `sql` from several threads as fast as answers come, while the block runs."""
    reading, stop = Reading(), threading.Event()

    def read() -> None:
        clickhouse = ClickHouse(env.settings, reader=True, timeout=30)
        while not stop.is_set():
            begun = time.monotonic()
            try:
                answer = clickhouse.query(sql).rows[0]
            except Exception as error:
                reading.failures[str(error)] += 1
                continue
            reading.answers.append((begun, time.monotonic(), answer))
        clickhouse.close()

    workers = [threading.Thread(target=read) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield reading
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def await_rows(env: Environment, sent: Iterable[Record]) -> None:
    """Wait until people see exactly the rows of `sent` in `page_views_per_minute`."""
    expected = judge(sent, env.registered).views[PER_MINUTE]
    wait_for(
        lambda: view_rows(env, PER_MINUTE),
        DEADLINE,
        f"{PER_MINUTE} has its {len(expected)} rows",
        until=lambda found: found == expected,
    )


def judged(env: Environment) -> Verdict:
    """Return the oracle's verdict on the events in the topic."""
    return judge([m.record for m in read_topic(env, env.stream.topic)], env.registered)


def await_oracle_rows(env: Environment, verdict: Verdict, version: int, seconds: float) -> None:
    """Wait until the tables of `version` have the oracle's rows."""
    for view, wanted in verdict.views.items():
        wait_for(
            partial(view_difference, env, f"{view}_v{version} FINAL", wanted),
            seconds,
            f"{view} version {version} has the oracle's rows",
            until=lambda text: text == "",
        )


def assert_whole(env: Environment, versions: Iterable[int]) -> None:
    """Assert that each version has the oracle's rows, late and dead events, each once."""
    verdict = judged(env)
    for version in versions:
        await_oracle_rows(env, verdict, version, 600)
        for topic, events in (
            (env.stream.late_topic(version), verdict.late),
            (env.stream.dead_letter_topic(version), verdict.dead),
        ):
            assert letters(env, topic).keys() == set(events)


def visit(partition: int, timestamp_ms: int, schema_id: int, page: str) -> Record:
    """Return a page view on `partition`."""
    user = next(u for u in map(str, range(1_000)) if datasets.partition_of(u) == partition)
    event = {"event_id": f"{partition}-{timestamp_ms}", "event_time": timestamp_ms}
    event |= {"user_id": user, "page_id": page}
    return datasets.numbered([datasets.draft(event, schema_id)])[0]


@contextmanager
def steadily(send: Callable[[int], None], first: int = 0) -> Iterator[None]:
    """Call `send` with ascending numbers, five a second, while the block runs."""
    stop = threading.Event()

    def run_on() -> None:
        for number in count(first):
            send(number)
            if stop.wait(0.2):
                return

    sending = threading.Thread(target=run_on)
    sending.start()
    try:
        yield
    finally:
        stop.set()
        sending.join()
