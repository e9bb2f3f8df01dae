"""A report as text, JSON and a page, with values that nobody should trust."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from deploy.settings import Settings
from replay.bracket import Between, Bracketed
from replay.differences import (
    Cut,
    Difference,
    DifferingRow,
    Expectation,
    Kind,
    Pattern,
    SkippedEvent,
    Verdict,
)
from replay.page import MAX_BARS, page, rebinned
from replay.report import (
    ColumnSum,
    Moment,
    VerifyReport,
    ViewReport,
    moving,
    print_reports,
    save_report,
)

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOSTILE = "</td><script>alert('1')</script><img src=x onerror=\"alert(2)\"> & \x1b[31mred\x00"
EVENT = SkippedEvent("dead", 1, "events.page_views", 2, 41, NOON, "out_of_range")


def sample(verdict: Verdict, key: str = "/a", kind: Kind = Kind.CHANGED) -> Difference:
    columns = ("views",) if kind is Kind.CHANGED else ()
    row = DifferingRow(
        {"page_id": key, "window_start": NOON},
        Pattern(kind, columns),
        None if kind is Kind.ONLY_NEW else {"views": 3, "avg_ms": float("nan")},
        None if kind is Kind.ONLY_OLD else {"views": None, "avg_ms": float("inf")},
    )
    explained = verdict is Verdict.EXPLAINED
    return Difference(row, verdict, EVENT.sentence if explained else "", (EVENT,) * explained)


PAGES = ViewReport(
    view="pages",
    old_version=1,
    old_rows=1_200,
    new_rows=1_199,
    sums=(ColumnSum("views", 100, 90), ColumnSum("avg_ms", 1.5, float("nan"))),
    schema_changes=("bots is new: Int64",),
    counts={Verdict.EXPECTED: 7, Verdict.EXPLAINED: 1, Verdict.UNEXPLAINED: 2},
    kinds={Kind.CHANGED: 9, Kind.ONLY_OLD: 1},
    columns={HOSTILE: {Verdict.EXPECTED: 7}},
    timeline=(
        Moment(NOON, {Verdict.EXPECTED: 7, Verdict.UNEXPLAINED: 2}),
        Moment(NOON + MINUTE, {Verdict.EXPLAINED: 1}),
    ),
    span=(NOON, NOON + 10 * MINUTE),
    bucket_seconds=60.0,
    buckets=10,
    differing_buckets=2,
    samples=(
        sample(Verdict.UNEXPLAINED, HOSTILE),
        sample(Verdict.UNEXPLAINED, kind=Kind.ONLY_OLD),
        sample(Verdict.EXPLAINED),
        sample(Verdict.EXPECTED, kind=Kind.ONLY_NEW),
    ),
    problems=(f"problem {HOSTILE}",),
    scanned_rows=2_399,
    drilled_rows=40,
)
SAME = ViewReport(view="site", old_version=1, old_rows=5, new_rows=5, buckets=1, scanned_rows=10)
REPORT = VerifyReport(
    replay="replay-7",
    new_version=2,
    at=NOON,
    cut=Cut({"visits": {0: 9_000, 1: 12}}, {"visits": NOON + 10 * MINUTE}, drained=False),
    expected=Expectation(("avg_ms",), (f"new.views != '{HOSTILE}'",)),
    views=(SAME, PAGES),
    unused=("avg_ms",),
    seconds=1.25,
)


def test_the_sentence_says_what_blocks() -> None:
    assert REPORT.sentence == "3 unexplained of 10 differences in 1,205 rows, v2 against v1."
    clean = replace(PAGES, counts={Verdict.EXPECTED: 7, Verdict.EXPLAINED: 1}, problems=())
    assert replace(REPORT, views=(clean,)).sentence == (
        "nothing unexplained in 1,200 rows, v2 against v1: 7 differences are expected, 1 explained."
    )
    assert replace(REPORT, views=(SAME,)).sentence == "no difference in 5 rows, v2 against v1."


def test_json_has_the_numbers_and_the_named_events(capsys: pytest.CaptureFixture[str]) -> None:
    print_reports([REPORT], True)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document["unexplained"] == 3
    assert document["counts"] == {"expected": 7, "explained": 1, "unexplained": 2}
    assert document["cut"] == {
        "offsets": {"visits": {"0": 9_000, "1": 12}},
        "all_rows": False,
        "closed_before": {"visits": "2024-05-01T12:10:00Z"},
    }
    samples = document["views"][1]["samples"]
    assert samples[0]["key"] == {"page_id": HOSTILE, "window_start": "2024-05-01T12:00:00Z"}
    assert (samples[0]["old"], samples[0]["new"]) == (
        {"views": 3, "avg_ms": "nan"},
        {"views": None, "avg_ms": "inf"},
    )
    assert samples[1]["new"] is None
    assert samples[2]["events"] == [
        {
            "verdict": "dead",
            "version": 1,
            "topic": "events.page_views",
            "partition": 2,
            "offset": 41,
            "timestamp": "2024-05-01T12:00:00Z",
            "reason": "out_of_range",
        }
    ]


def test_text_shows_every_class_and_obeys_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    print_reports([REPORT])
    text = capsys.readouterr().out
    assert "3 unexplained of 10 differences" in text
    assert "expected and not found: avg_ms" in text
    words = text.replace("│", " ").split()
    assert {"events.page_views[2]", "41", "(out_of_range)"} <= set(words)
    assert "\x1b[31m" not in text
    assert "\x00" not in text


def test_rows_that_moved_are_told_of_in_text_json_and_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sums = {"views": Between(1_200, 1_234, 1_300), "cents": Between(0.5, 1.25, 2.0)}
    row = DifferingRow(
        {"page_id": "/a"},
        Pattern(Kind.CHANGED, ("views",)),
        {"views": 3},
        {"views": 7},
        later={"views": 5},
    )
    moved = replace(
        SAME,
        old_rows=0,
        new_rows=0,
        moving_rows=2_000,
        bracketed=Bracketed(1_000, 2_000, {"avg_ms": 999}, sums, one_in=3),
        counts={Verdict.UNEXPLAINED: 1},
        samples=(Difference(row, Verdict.UNEXPLAINED),),
    )
    report = replace(REPORT, views=(moved,))
    assert report.sentence == "1 unexplained of 1 differences in 1,000 rows, v2 against v1."
    told = (
        "1,000 rows written meanwhile, held between two looks at version 1 (views 1,234 of 1,200 "
        "to 1,300, cents 1.250 of 0.500 to 2.000)",
        "of these, not held: avg_ms in 999",
        "2,000 rows just written, not compared; one key in 3 was looked at",
    )
    assert tuple(moving(moved)) == told
    print_reports([report])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"site: {one}" in text for one in told)
    assert "views 3 to 5 → 7" in text
    html = page(report)
    assert all(one in html for one in told)
    assert "<del>3 to 5</del> → <ins>7</ins>" in html
    print_reports([report], True)
    (view,) = json.loads(capsys.readouterr().out)["views"]
    assert view["bracketed"] == {
        "rows": 1_000,
        "one_in": 3,
        "not_held": {"avg_ms": 999},
        "sums": {
            "views": {"least": 1_200, "new": 1_234, "most": 1_300},
            "cents": {"least": 0.5, "new": 1.25, "most": 2.0},
        },
    }
    assert view["samples"][0]["old_later"] == {"views": 5}


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_fetches_nothing_runs_nothing_and_shows_values_as_text() -> None:
    html = page(REPORT)
    seen = Seen()
    seen.feed(html)
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "a", "base", "form"}
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert not seen.attributes & {"src", "href", "srcset", "action", "xlink:href"}
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    shown = "".join(seen.text)
    assert "</td><script>alert('1')</script><img src=x onerror=\"alert(2)\"> & \\x1b[31m" in shown
    assert "\x1b" not in html
    assert "\x00" not in html


def test_the_view_with_what_blocks_comes_first() -> None:
    html = page(REPORT)
    assert html.index("<h2>pages</h2>") < html.index("<h2>site</h2>")


def test_bars_cover_the_whole_span_and_count_every_difference() -> None:
    moments = [Moment(NOON + i * MINUTE, {Verdict.EXPECTED: 1}) for i in range(0, 1_000, 3)]
    bars, step = rebinned(moments, NOON, NOON + 1_000 * MINUTE, MINUTE)
    assert (step, len(bars)) == (11 * MINUTE, 91)
    assert len(bars) <= MAX_BARS
    assert sum(bar.get(Verdict.EXPECTED, 0) for bar in bars) == len(moments)


def test_files_are_written_below_home_and_named_by_the_replay(tmp_path: Path) -> None:
    path = save_report(Settings(home=tmp_path), REPORT)
    assert path == tmp_path / "reports" / "replay-7.html"
    assert json.loads(path.with_suffix(".json").read_text())["replay"] == "replay-7"
    assert sorted(p.name for p in path.parent.iterdir()) == ["replay-7.html", "replay-7.json"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "..", "a\nb"])
def test_a_report_never_leaves_its_folder(tmp_path: Path, name: str) -> None:
    path = save_report(Settings(home=tmp_path), replace(REPORT, replay=name))
    assert path.resolve().parent == (tmp_path / "reports").resolve()


def test_a_report_without_replay_is_named_by_its_views(tmp_path: Path) -> None:
    assert replace(REPORT, replay="").name == "views-v1-v2"
    assert replace(REPORT, replay="", views=(SAME,)).name == "site-v1-v2"
