"""Show a verification as one HTML file: no script, nothing fetched, every value escaped. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from replay.differences import Difference, Kind, Verdict
from replay.report import (
    Moment,
    VerifyReport,
    ViewReport,
    compared_part,
    moving,
    number,
    old_value,
    printable,
    shown,
)

MAX_BARS = 96
_WIDTH, _HEIGHT = 960.0, 150.0
_MEANING = {
    Verdict.EXPECTED: "the plan declares them",
    Verdict.EXPLAINED: "a late or dead event of one version",
    Verdict.UNEXPLAINED: "nobody declared them, no event explains them",
}
_MAX_VALUE_LENGTH = 300

_STYLE = """
:root { color-scheme: light dark;
  --paper: #f6f7f9; --card: #fff; --ink: #16202c; --soft: #586675; --line: #dde3ea;
  --expected: #2f6fde; --explained: #d08700; --unexplained: #d3273e; --good: #1a8754;
  --new: #e7f5ec; --old: #fdecec; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #10151b; --card: #19212a; --ink: #e8edf2; --soft: #9aa8b6; --line: #2d3844;
  --expected: #6ea2ff; --explained: #f0b340; --unexplained: #ff6b7d; --good: #4cc38a;
  --new: #17362a; --old: #43212a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 64px; }
header p { margin: 0; color: var(--soft); }
h1 { font-size: 26px; line-height: 1.25; margin: 4px 0 10px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 14px; margin: 22px 0 8px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 20px 22px; margin-top: 20px; }
code, td, th, .num { font-variant-numeric: tabular-nums; }
code { white-space: pre-wrap;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 13px; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .small { font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin-top: 20px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 14px 16px; border-top: 4px solid var(--tone, var(--line)); }
.tile b { display: block; font-size: 25px; line-height: 1.2; }
.expected { --tone: var(--expected); } .explained { --tone: var(--explained); }
.unexplained { --tone: var(--unexplained); } .good { --tone: var(--good); }
.badge { display: inline-block; padding: 2px 10px; border-radius: 99px; font-weight: 600;
  font-size: 13px; color: var(--tone); border: 1.5px solid var(--tone); white-space: nowrap; }
.head { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; }
.chart { display: grid; grid-template-columns: auto 1fr; gap: 4px 8px; margin-top: 6px; }
.chart .y { display: flex; flex-direction: column; justify-content: space-between;
  text-align: right; font-size: 12px; line-height: 1; color: var(--soft); }
.chart .x { grid-column: 2; display: flex; justify-content: space-between; gap: 8px;
  font-size: 12px; color: var(--soft); }
.chart svg { display: block; width: 100%; height: 150px; background: var(--paper);
  border-bottom: 1px solid var(--soft); border-radius: 4px 4px 0 0; }
.chart rect.expected { fill: var(--expected); } .chart rect.explained { fill: var(--explained); }
.chart rect.unexplained { fill: var(--unexplained); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 13px; margin-top: 8px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  background: var(--tone); margin-right: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: nowrap; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.num, th.num { text-align: right; } th:last-child, td:last-child { padding-right: 0; }
table.samples { table-layout: fixed; } table.samples td { overflow-wrap: anywhere; }
table.samples th:first-child { width: 38%; } table.samples th:last-child { width: 27%; }
.change { display: block; } .change + .change { margin-top: 3px; }
del, ins { text-decoration: none; border-radius: 4px; padding: 0 5px; }
del { background: var(--old); } ins { background: var(--new); }
details > summary { cursor: pointer; margin-top: 20px; font-weight: 600; font-size: 14px;
  color: var(--tone); }
ul { margin: 6px 0 0; padding-left: 20px; }
li { overflow-wrap: anywhere; }
.problem { border-left: 4px solid var(--unexplained); padding: 6px 12px; margin-top: 12px; }
footer { margin-top: 24px; }
@media (max-width: 640px) {
  main { padding: 18px 12px 40px; } section { padding: 16px 14px; }
  table { font-size: 12.5px; } th, td { padding-right: 9px; }
  h1 { font-size: 21px; } .tiles { grid-template-columns: repeat(2, 1fr); }
  table.samples, table.samples tbody, table.samples tr, table.samples td { display: block; }
  table.samples thead { display: none; }
  table.samples tr { padding: 8px 0; border-bottom: 1px solid var(--line); }
  table.samples tr:last-child { border-bottom: 0; }
  table.samples td { border: 0; padding: 2px 0; } }
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""


def page(report: VerifyReport) -> str:
    """Return the page of `report`."""
    title = f"{report.replay or 'Comparison'}: {report.versions.replace('-', ' → ')}"
    views = "".join(_view(view) for view in sorted(report.views, key=_worst_first))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_head(report, title)}{_tiles(report)}{_plan(report)}{views}"
        f'<footer class="soft small">Compared in {report.seconds:.1f} s; ClickHouse read '
        f"{report.rows_read:,} rows.</footer>\n</main>\n</body>\n</html>\n"
    )


def _worst_first(view: ViewReport) -> tuple[int, int]:
    return (-view.unexplained, -view.differences)


def _head(report: VerifyReport, title: str) -> str:
    tone, word = ("unexplained", "not clean") if report.unexplained else ("good", "clean")
    cut = compared_part(report.cut)
    offsets = "; ".join(
        f"{stream} {', '.join(f'{part}:{offset:,}' for part, offset in sorted(parts.items()))}"
        for stream, parts in report.cut.offsets.items()
    )
    read = f" · offsets {offsets}" if offsets else ""
    sentence = report.sentence[0].upper() + report.sentence[1:]
    return (
        f'<header><p class="head"><span>{_text(title)}</span>'
        f'<span class="badge {tone}">{word}</span></p>\n<h1>{_text(sentence)}</h1>\n'
        f'<p class="small">{_moment(report.at)} UTC · compared: {_text(cut)}{_text(read)}</p>'
        "</header>\n"
    )


def _tiles(report: VerifyReport) -> str:
    rows = sum(view.rows for view in report.views)
    problems = sum(len(view.problems) for view in report.views)
    counts = {verdict: report.count(verdict) for verdict in Verdict}
    tiles = [_tile("", f"{rows:,}", f"rows in {len(report.views)} views")]
    for verdict, count in counts.items():
        note = f" + {problems} problems" if problems and verdict is Verdict.UNEXPLAINED else ""
        tiles.append(_tile(verdict.value if count or note else "", f"{count:,}{note}", verdict))
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


def _tile(tone: str, number: str, label: str) -> str:
    return (
        f'<div class="tile {tone}"><b class="num">{_text(number)}</b>'
        f'<span class="soft">{_text(label)}</span></div>'
    )


def _plan(report: VerifyReport) -> str:
    declared = (*report.expected.columns, *report.expected.conditions)
    if not declared:
        return ""
    items = "".join(
        f"<li><code>{_text(one)}</code>"
        + (' <span class="badge explained">not found</span>' if one in report.unused else "")
        + "</li>"
        for one in declared
    )
    return f"<section><h2>What the plan expects to differ</h2><ul>{items}</ul></section>\n"


def _view(view: ViewReport) -> str:
    problems = "".join(f'<p class="problem">{_text(problem)}</p>' for problem in view.problems)
    return (
        f'<section><div class="head"><h2>{_text(view.view)}</h2>{_badge(view)}</div>'
        f'<p class="soft small">{_facts(view)}</p>{problems}'
        f"{_chart(view)}{_columns(view)}{_totals(view)}{_schema(view)}{_samples(view)}</section>\n"
    )


def _badge(view: ViewReport) -> str:
    if view.unexplained:
        return f'<span class="badge unexplained">{view.unexplained:,} unexplained</span>'
    if view.differences:
        return f'<span class="badge good">{view.differences:,} accounted for</span>'
    return '<span class="badge good">the same</span>'


def _facts(view: ViewReport) -> str:
    kinds = [f"{view.kinds[kind]:,} {kind.value}" for kind in Kind if view.kinds.get(kind)]
    return _text(
        " · ".join(
            (
                f"{view.old_rows:,} rows old, {view.new_rows:,} new",
                *([f"up to {_moment(view.until)} UTC"] if view.until else ()),
                *kinds,
                *moving(view),
                f"{view.differing_buckets:,} of {view.buckets:,} buckets differ",
                f"{view.scanned_rows:,} rows hashed, {view.drilled_rows:,} compared",
                f"{view.seconds:.1f} s",
            )
        )
    )


def _chart(view: ViewReport) -> str:
    if not view.timeline or view.span is None or view.bucket_seconds is None:
        return ""
    first, end = view.span
    bars, step = rebinned(view.timeline, first, end, timedelta(seconds=view.bucket_seconds))
    top = max(sum(bar.values()) for bar in bars)
    width = _WIDTH / len(bars)
    drawn = "".join(
        _bar(bar, i * width, width, top, first + i * step) for i, bar in enumerate(bars)
    )
    legend = "".join(
        f'<span class="{verdict.value}"><i></i>{view.counts[verdict]:,} {verdict.value}'
        f' <span class="soft">({_MEANING[verdict]})</span></span>'
        for verdict in Verdict
        if view.counts.get(verdict)
    )
    marks = dict.fromkeys((_moment(first), _moment(first + (end - first) / 2), _moment(end)))
    labels = "".join(f"<span>{mark}</span>" for mark in marks)
    return (
        f"<h3>Keys that differ, by start of their window, {_span(step)} a bar</h3>"
        f'<div class="chart"><div class="y"><span>{top:,}</span><span>0</span></div>'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="Differences over time by class">{drawn}</svg>'
        f'<div class="x">{labels}</div></div><div class="legend">{legend}</div>'
    )


def rebinned(
    timeline: Iterable[Moment], first: datetime, end: datetime, bucket: timedelta
) -> tuple[list[dict[Verdict, int]], timedelta]:
    """Return the counts of equal spans from `first` to `end`, MAX_BARS at most, and the span."""
    buckets = max(1, -(-(end - first) // bucket))
    step = bucket * -(-buckets // MAX_BARS)
    bars: list[dict[Verdict, int]] = [{} for _ in range(max(1, -(-(end - first) // step)))]
    for moment in timeline:
        bar = bars[min(max((moment.start - first) // step, 0), len(bars) - 1)]
        for verdict, count in moment.counts.items():
            bar[verdict] = bar.get(verdict, 0) + count
    return bars, step


def _bar(
    counts: Mapping[Verdict, int], left: float, width: float, top: int, start: datetime
) -> str:
    if not counts:
        return ""
    told = ", ".join(
        f"{counts[verdict]:,} {verdict.value}" for verdict in Verdict if counts.get(verdict)
    )
    parts, floor = [], _HEIGHT
    for verdict in Verdict:
        if count := counts.get(verdict, 0):
            # What is there must be seen, however little of it there is.
            height = max(count / top * (_HEIGHT - 8), 3.0)
            floor -= height
            parts.append(
                f'<rect class="{verdict.value}" x="{left + width * 0.08:.2f}" y="{floor:.2f}" '
                f'width="{width * 0.84:.2f}" height="{height:.2f}"/>'
            )
    return f"<g><title>{_moment(start)}: {told}</title>{''.join(parts)}</g>"


def _columns(view: ViewReport) -> str:
    if not view.columns:
        return ""
    headings = ("column", *(verdict.value for verdict in Verdict))
    rows = [
        (name, *(f"{counts.get(verdict, 0):,}" for verdict in Verdict))
        for name, counts in view.columns.items()
    ]
    return "<h3>Keys that differ, by column</h3>" + _table(headings, rows)


def _totals(view: ViewReport) -> str:
    changed = [one for one in view.sums if one.old != one.new]
    # Sums of floats depend on the order of the rows; alone they say nothing.
    if not changed or not view.differences:
        return ""
    rows = [
        (one.column, number(one.old), number(one.new), number(one.new - one.old, sign=True))
        for one in changed
    ]
    return "<h3>Sums that differ</h3>" + _table(("column", "old", "new", "change"), rows)


def _schema(view: ViewReport) -> str:
    if not view.schema_changes:
        return ""
    items = "".join(f"<li><code>{_text(change)}</code></li>" for change in view.schema_changes)
    return f"<h3>Columns that changed</h3><ul>{items}</ul>"


def _samples(view: ViewReport) -> str:
    parts = []
    for verdict in reversed(Verdict):
        samples = view.samples_of(verdict)
        if samples:
            is_open = "" if verdict is Verdict.EXPECTED else " open"
            parts.append(
                f'<details class="{verdict.value}"{is_open}><summary>{len(samples):,} of '
                f"{view.counts[verdict]:,} {verdict.value}</summary>"
                '<div class="scroll"><table class="samples"><thead><tr><th>key</th>'
                "<th>old → new</th><th>why</th></tr></thead><tbody>"
                f"{''.join(map(_sample, samples))}</tbody></table></div></details>"
            )
    return "".join(parts)


def _sample(one: Difference) -> str:
    key = "".join(
        f'<span class="change"><span class="soft">{_text(name)}</span> '
        f"<code>{_value(value)}</code></span>"
        for name, value in one.row.key.items()
    )
    return f"<tr><td>{key}</td><td>{_changes(one)}</td><td>{_text(one.cause or '–')}</td></tr>"


def _changes(one: Difference) -> str:
    old, new = one.row.old, one.row.new
    if old is None or new is None:
        tag = "ins" if old is None else "del"
        row = (new or {}) if old is None else old
        values = "".join(
            f'<span class="change"><span class="soft">{_text(name)}</span> '
            f"<code><{tag}>{_value(value)}</{tag}></code></span>"
            for name, value in row.items()
        )
        return f"<b>{one.row.pattern.kind.value}</b>{values}"
    return "".join(
        f'<span class="change"><span class="soft">{_text(name)}</span> '
        f"<code><del>{old_value(one.row, name, _value)}</del> → "
        f"<ins>{_value(new.get(name))}</ins></code>"
        "</span>"
        for name in one.row.pattern.columns
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = headings
    head = f"<th>{_text(first)}</th>" + "".join(
        f'<th class="num">{_text(name)}</th>' for name in others
    )
    body = "".join(
        f"<tr><td><code>{_text(name)}</code></td>"
        + "".join(f'<td class="num">{_text(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _value(value: object) -> str:
    text = printable(shown(value))
    short = text if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}…"
    return _text(short)


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S").removesuffix(":00")


def _span(step: timedelta) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if step.total_seconds() % length == 0:
            return f"{step.total_seconds() / length:g} {unit}"
    return f"{step.total_seconds():g} s"


def _text(text: str) -> str:
    lines = (printable(line) for line in text.split("\n"))
    return escape("\n".join(lines), quote=True)
