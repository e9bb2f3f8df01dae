"""What a comparison makes of a run: its steady part, its cost, whether it is right."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import compare
from bench.compare import OWN, PEERS, Asked, contenders, table
from bench.filling import of_comparison
from bench.peers.avro import batch_reader, leading, tuples
from bench.peers.chart import draw
from bench.peers.figures import (
    FAILED,
    RIGHT,
    SILENT,
    STOPPED,
    WRONG,
    Result,
    summary,
    verdict,
)
from bench.peers.fraud import REMEMBERED, judge
from bench.peers.page import page
from bench.peers.protocol import (
    NOT_WRITTEN,
    Contender,
    Source,
    Table,
    Task,
    read_complete,
    read_progress,
)
from bench.peers.quix import Newest
from bench.peers.runner import Run, last_words
from bench.questions import QUESTIONS
from bench.steady import rates, whole
from bench.throughput import position
from bench.usage import Usage
from bench.worlds import Visits, World
from deploy.settings import Settings
from schemas.topics import KafkaUnavailable


def test_the_steady_part_leaves_out_start_up_and_the_end() -> None:
    # Slow at first, 100 a second in the middle, slow at the end.
    marks = [(10.0, 0), (20.0, 200), (21.0, 300), (22.0, 400), (26.0, 800), (27.8, 980)]
    marks += [(40.0, 1000)]
    cpu = [(0.0, 5.0), (21.0, 10.0), (27.8, 10.0 + 3.4), (40.0, 20.0)]
    assert rates(marks, cpu, began=4.0) == {
        "events_read": 1000,
        "steady": 100,
        "steady_over": "25% to 98%",
        "steady_seconds": 6.8,
        "cpu_seconds_per_million": 5000.0,
        "start_up_seconds": 6.0,
    }


def test_the_whole_ends_with_the_last_row_and_leaves_out_what_nobody_saw_being_read() -> None:
    marks, cpu = [(10.0, 100), (14.0, 1_100)], [(0.0, 0.0), (10.0, 2.0), (15.0, 7.0), (16.0, 0.0)]
    # The workers ended with what they had used.
    assert whole(marks, cpu, complete=20.0, events=1_100) == {
        "whole": 100,
        "whole_cpu_seconds_per_million": 5_000.0,
    }
    assert whole([], cpu, complete=20.0, events=1_100) == {}


def test_one_batch_is_judged_by_the_whole_of_it() -> None:
    found = rates([(2.0, 0), (7.0, 1000)], [(0.0, 0.0), (10.0, 20.0)], began=0.0)
    assert (found["steady"], found["steady_over"]) == (200, "all")
    assert found["cpu_seconds_per_million"] == 10_000.0


def test_a_place_reported_again_does_not_move_the_steady_part() -> None:
    steps = [(float(second), 250 * (1 + second // 5)) for second in range(16)]
    assert rates(steps, [(0.0, 0.0), (16.0, 16.0)], began=0.0)["steady"] == 50


def test_a_run_that_read_nothing_has_no_rate() -> None:
    assert rates([], [], began=0.0) == {}
    assert rates([(1.0, 0)], [(0.0, 0.0)], began=0.0) == {}


def test_a_verdict_counts_wrong_missing_and_strange_rows_of_each_view() -> None:
    expected = {"a": {("1",): ("x",), ("2",): ("y",), ("3",): ("z",)}, "b": {("1",): ("x",)}}
    assert verdict({view: dict(rows) for view, rows in expected.items()}, expected) == "yes"
    found = {"a": {("1",): ("x",), ("2",): ("n",), ("4",): ("z",)}, "b": {("1",): ("x",)}}
    assert verdict(found, expected) == "no: 2 of 3 rows of a wrong or missing, 1 too many"
    assert verdict({}, expected) == (
        "no: 3 of 3 rows of a wrong or missing, 0 too many; "
        "1 of 1 rows of b wrong or missing, 0 too many"
    )


def test_workers_reports_add_up_and_their_rows_come_together(tmp_path: Path) -> None:
    task = _task(tmp_path)
    task.report(0)
    task.report(10, worker=1)
    task.report(5, worker=0)
    task.report(12, worker=1)
    assert [read for _, read in read_progress(tmp_path)] == [0, 10, 15, 17]
    task.write_rows([(0, "/a", 2, 30)])
    task.write_rows([(10_000, "/b", 1, None)], worker=1)
    assert task.read_rows() == {
        "ten_seconds": {("0", "/a"): ("2", "30"), ("10000", "/b"): ("1", "")}
    }


def test_rows_are_complete_when_the_last_worker_has_its_own(tmp_path: Path) -> None:
    task = _task(tmp_path)
    assert read_complete(tmp_path) is None
    task.complete(7.5)
    task.complete(3.25)
    assert read_complete(tmp_path) == 7.5
    task.complete()
    assert 7.5 < (read_complete(tmp_path) or 0) <= time.monotonic()


def test_rows_kept_by_their_keys_tell_when_the_last_one_came() -> None:
    rows = Newest()
    assert rows.changed == 0
    rows["a",] = (1,)
    first = rows.changed
    rows["a",] = (2,)
    assert 0 < first <= rows.changed
    assert rows == {("a",): (2,)}


def test_what_only_settles_the_rest_is_no_answer(tmp_path: Path) -> None:
    task = replace(_task(tmp_path), end_ms=20_000)
    task.write_rows([(10_000, "/a", 2, 30), (20_000, "/a", 1, 1), (0, "closing", 1, 1)])
    assert task.read_rows() == {"ten_seconds": {("10000", "/a"): ("2", "30")}}


def test_what_contenders_wrote_is_told_from_everybody_elses_topics() -> None:
    own = {
        "c12.page_views.views.page_view_sessions.v1",
        "c12.flink_sql.page_view_sessions",
        "bench-34.rows",
        "changelog__bench-quix-56--events.page_views--rows",
    }
    others = {"events.page_views", "c123.events.page_views", "b12.events.page_views"}
    assert of_comparison(own | others, ["c12"]) == own
    assert of_comparison(others, []) == set()


def test_rows_weigh_as_much_as_their_events_or_one_each() -> None:
    rows = {("0", "/a"): ("2", "30"), ("10000", "/b"): ("1", "")}
    assert _TABLE.weigh(rows) == 3
    assert replace(_TABLE, weight="").weigh(rows) == 2


def test_a_task_reaches_a_contender_as_it_was(tmp_path: Path) -> None:
    task = _task(tmp_path)
    task.write(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == task


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("Traceback …\nValueError: no such topic\n", "ValueError: no such topic"),
        (
            "a.b.TableException: Encountered 'x'\nCaused by: a.Error: Python process exits: 1\n",
            "a.b.TableException: Encountered 'x'",
        ),
        ("Killed\n", "Killed"),
        ("", "it ended without a word"),
    ],
)
def test_an_error_is_the_line_that_names_it(log: str, said: str) -> None:
    assert last_words(log) == said


def test_usage_counts_the_family() -> None:
    hold = "x = bytearray(60_000_000); print('ready', flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with psutil.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        usage = Usage(psutil.Process(parent.pid))
        usage.note_memory()
        assert len(usage.family()) == 2
        assert usage.peak_bytes > 60_000_000
        assert usage.cpu_seconds() > 0
        parent.communicate("\n")
    assert usage.family() == []


def test_every_contender_says_what_it_leaves_out_and_why_it_has_no_answer() -> None:
    found = [contender for _, _, contender in contenders((*OWN, *PEERS))]
    assert len({contender.title for contender in found}) == len(found) == 12
    for contender in found:
        assert contender.lacks
        assert contender.settings
        assert {*contender.answers} | contender.cannot.keys() == QUESTIONS.keys()
        assert not {*contender.answers} & contender.cannot.keys()
        assert {*contender.notes} <= {*contender.answers}


def test_python_peers_judge_a_payment_by_amount_distance_and_frequency() -> None:
    minute, berlin, tokyo = 60_000, (52.5, 13.4), (35.7, 139.7)
    usual = [(n * minute, 1_000, *berlin) for n in range(REMEMBERED)]
    now = 20 * minute
    assert judge([], (now, 90_000, *tokyo)) == ""
    assert judge(usual, (now, 90_000, *tokyo)) == "amount, distance, frequency"
    assert judge(usual[:3], (now, 90_000, *tokyo)) == "amount, distance"
    assert judge(usual, (now + 5 * minute, 90_000, *tokyo)) == "amount, distance"
    assert judge(usual, (now, 5_000, *tokyo)) == ""
    assert judge(usual, (now, 5_001, *berlin)) == ""
    assert judge(usual, (now + 60 * minute, 90_000, *tokyo)) == ""


def test_python_peers_read_no_further_than_the_last_field_in_use() -> None:
    instant = {"type": "long", "logicalType": "timestamp-millis"}
    schema = {
        "type": "record",
        "name": "View",
        "fields": [
            {"name": "at", "type": instant},
            {"name": "page", "type": "string"},
            {"name": "ms", "type": ["null", "long"]},
            {"name": "agent", "type": "string"},
        ],
    }
    # 1, "/a" and 2, then 2, "/b" and null, each with an agent "x".
    values = [b"-----\x02\x04/a\x02\x04\x02x", b"-----\x04\x04/b\x00\x02x"]
    assert [field["name"] for field in leading(schema, ["page"])["fields"]] == ["at", "page"]
    assert list(tuples(batch_reader(schema, ["ms", "at", "page"])(values))) == [
        (2, 1, "/a"),
        (None, 2, "/b"),
    ]


def test_right_runs_stand_first_then_those_not_done_then_all_others() -> None:
    def result(name: str, outcome: str, steady: int | None, question: str = "W1") -> Result:
        return Result(question, name, name.upper(), "-", "", outcome=outcome, steady=steady)

    results = [
        result("a", FAILED, None),
        result("b", RIGHT, 10),
        result("c", WRONG, 50),
        result("d", STOPPED, 40),
        result("e", RIGHT, 30),
        result("f", SILENT, None),
        result("b", RIGHT, 60, question="W2"),
    ]
    rows = table(results, "W1")
    assert [row[0] for row in rows] == ["E", "B", "D", "C", "A", "F"]
    assert [row[1] for row in rows] == ["30", "10", "40, not done", "50", "–", "–"]


def test_of_several_runs_the_median_of_those_that_went_worst_counts() -> None:
    def result(outcome: str, steady: int | None) -> Result:
        return Result("W1", "a", "A", "-", "", outcome=outcome, steady=steady)

    (found,) = summary([result(RIGHT, 2_000), result(RIGHT, 9_000), result(RIGHT, 3_000)])
    assert (found.outcome, found.rate) == (RIGHT, "3,000 (2,000 to 9,000)")
    (found,) = summary([result(RIGHT, 20), result(STOPPED, 50), result(FAILED, None)])
    assert (found.outcome, found.rate) == (FAILED, "–")
    (found,) = summary([result(RIGHT, 20), result(STOPPED, 50)])
    assert (found.outcome, found.rate) == (STOPPED, "50 (20 to 50), not done")
    assert replace(found, steady_over="all").rate == "50 (all; 20 to 50), not done"
    (found,) = summary([result(RIGHT, 20), result(SILENT, None)])
    assert found.rate == "20"


def test_what_fails_costs_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = []

    class Topics:
        def __init__(self, *_: object) -> None:
            self.clear = lambda: None
            self.drop = lambda: dropped.append(True)

        def fill(self, world: World) -> tuple[Settings, tuple[Source, ...]]:
            if isinstance(world, Visits):
                raise KafkaUnavailable("no broker")
            return Settings(), ()

    def run(*_: object) -> Run:
        raise TimeoutError("no TaskManager\nin time")

    monkeypatch.setattr(compare, "Worlds", Topics)
    monkeypatch.setattr(compare, "topic_names", lambda _: frozenset())
    monkeypatch.setattr(compare, "run", run)
    asked = Asked(("clickhouse",), ("W1", "W4"), 10_000, 2, 1.0, 100.0, tmp_path)
    monkeypatch.setattr(compare, "is_installed", lambda _: True)
    found = [(r.question, r.outcome, r.verdict) for r in compare.compare(Settings(), asked)]
    assert found[::2] == found[1::2]
    assert found[::2] == [
        ("W1", FAILED, "TimeoutError: no TaskManager in time"),
        ("W4", SILENT, "not run: KafkaUnavailable: no broker"),
    ]
    assert dropped == [True]


def test_what_nobody_wrote_is_told_from_what_cannot_be() -> None:
    cannot = {"W2": "it has no sets", "W3": f"{NOT_WRITTEN}W1 shows it"}
    contender = Contender("A", "-", "", answers=("W1",), cannot=cannot)
    assert contender.no_answer("W2") == "can't: it has no sets"
    assert contender.no_answer("W3") == "not written: W1 shows it"


def test_a_chart_lists_who_has_no_answer_and_hatches_who_was_not_done(tmp_path: Path) -> None:
    results = [
        Result("W1", "a", "Alpha", "-", "", outcome=RIGHT, steady=1_000, verdict="yes"),
        Result("W1", "b", "Beta", "-", "", outcome=STOPPED, steady=2_000, verdict="stopped"),
        Result("W1", "c", "Gamma", "-", "", verdict="can't: it has no windows"),
        Result("W1", "d", "Delta", "-", "", outcome=FAILED, verdict="RuntimeError: no"),
    ]
    draw(results, tmp_path / "some.svg")
    drawn = (tmp_path / "some.svg").read_text()
    for word in ("Alpha", "Beta", "2,000, not done", "Gamma", "can't", "Delta", "failed"):
        assert f"<!-- {word} -->" in drawn
    assert drawn.count("<pattern") == 1
    draw(results[2:], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_a_page_has_a_row_for_who_has_figures_and_a_line_for_who_has_none() -> None:
    figures: dict[str, Any] = {
        "steady": 2_000,
        "steady_seconds": 6.5,
        "cpu_seconds_per_million": 1.5,
        "whole": 1_500,
        "whole_cpu_seconds_per_million": 2.5,
        "peak_gigabytes": 2.0,
        "start_up_seconds": 3.0,
        "result_seconds": 4.0,
        "outcome": RIGHT,
        "verdict": "yes",
    }
    results = [
        Result("W1", "a", "A", "all", "none", verdict="can't: it has no windows"),
        Result(
            "W1", "b", "B", "-", "", "at the end", steady_over="all", **figures | {"steady": 10}
        ),
        Result("W1", "c", "C", "-", "", steady_over="25% to 98%", **figures),
        Result("W2", "a", "A", "all", "none", verdict="can't: it has no windows"),
    ]
    found = page(results[:3], {"W1": "windows"}, 9_000, "2 cores.")
    assert found.startswith(
        "Measured on 2 cores.\n\n"
        "## W1: windows, 9,000 events\n\n"
        "| | events/s, steady | for, s | CPU s a million | events/s, whole "
        "| CPU s a million, whole | peak, GB | start-up, s | to last row, s | right |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
        "| C | 2,000 | 6.5 | 1.5 | 1,500 | 2.5 | 2.0 | 3.0 | 4.0 | yes |\n"
        "| B | 10 (all) | 6.5 | 1.5 | 1,500 | 2.5 | 2.0 | 3.0 | 4.0 | yes |\n\n"
        "- B: at the end.\n\n"
        "- A: can't: it has no windows.\n\n"
    )
    assert found.endswith(
        "## The contenders\n\n| | leaves out | settings |\n|---|---|---|\n"
        "| A | all | none |\n| B | - |  |\n| C | - |  |\n"
    )
    both = page(results, {"W1": "windows", "W2": "uniques"}, 9_000, "2 cores.")
    assert both.count("| A | all | none |") == 1


_TABLE = Table("ten_seconds", ("window_start", "page_id"), ("views", "duration_ms"), "views", 3)


def _task(folder: Path) -> Task:
    return Task(
        question="W1",
        mode="",
        bootstrap="",
        registry="",
        sources=(Source("page_views", "events", {"0": 3}, 3, {}, 0, 0),),
        tables=(_TABLE,),
        size_ms=10_000,
        slide_ms=10_000,
        uniques=False,
        end_ms=0,
        folder=str(folder),
    )


def test_a_topic_that_two_sources_read_is_read_as_far_as_the_slower_is() -> None:
    name = "flink_taskmanager_job_task_operator_KafkaSourceReader_topic_partition_currentOffset"
    offsets = [
        ("a.events.x", "panes", 0, 99),
        ("a.events.x", "panes", 1, 49),
        ("a.events.x", "arrivals", 0, 9),
        # Nothing was read of it yet.
        ("a.events.x", "arrivals", 1, -1),
        ("a.events.y", "panes of y", 0, 4),
        ("a.events.z", "of another question", 0, 7),
    ]
    metrics = "".join(
        f'{name}{{topic="{topic.replace(".", "_")}",operator_id="{operator}",'
        f'partition="{partition}",job_id="0b",}} {offset}.0\n'
        for topic, operator, partition, offset in offsets
    )
    assert position(metrics, ["a.events.x", "a.events.y"]) == 10 + 5
    assert position(metrics, ["a.events.x"], "0b") == 10
    assert position(metrics, ["a.events.x"], "1c") == 0
    assert position("", ["a.events.x"]) == 0
