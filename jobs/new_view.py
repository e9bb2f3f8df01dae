"""Write a view that works, and its test: a declaration in its job's module. No I/O but `write`."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from jobs.catalogue import VIEWS, job_named
from jobs.views import InvalidView
from jobs.views.names import check_name
from schemas.streams import STREAMS, Stream

_IMPORTS = {
    "datetime": ("timedelta",),
    "jobs.views": ("Tumbling", "WindowView"),
    "udfs.measures": ("Count",),
}
_VIEW = """{constant} = WindowView(
    name="{name}",
    stream={stream},
    dimensions=("{dimension}",),
    window=Tumbling(timedelta(seconds={seconds})),
    measures={{"events": Count(doc="Events in the window.")}},
    retention=timedelta(days=365),
    description="How many events each {dimension} has in {seconds} seconds.",
)
"""
_TEST = '''"""The view {name}: which events it counts together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs.catalogue import view_named
from jobs.plan import pane_stores
from jobs.views import WindowView
from udfs.panes import expand

WINDOW_MS = {seconds}_000


def test_events_of_one_{dimension}_and_window_are_counted_together() -> None:
    view = view_named("{name}")
    assert isinstance(view, WindowView)
    (store,) = pane_stores(view.stream, (view,))
    events = pa.table({{"{dimension}": ["a", "b", "a", "a"]}})
    times = np.array([0, 1, WINDOW_MS - 1, WINDOW_MS])
    (windows,) = store.views
    rows = store.rows(windows, expand(windows, store.from_events(events, times)))
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        (0, "a", 2),
        (0, "b", 1),
        (WINDOW_MS, "a", 1),
    ]
'''


class CannotWrite(ValueError):
    """A view that can't be written as asked; the message says why and what else to ask."""


@dataclass(frozen=True)
class Written:
    """Files of a new view, by their place in the project, and their text."""

    module: str
    module_text: str
    test: str
    test_text: str

    def write(self, root: Path) -> None:
        """Write both files below `root`; raises `CannotWrite` where the test is there already."""
        try:
            with (root / self.test).open("x") as test:
                test.write(self.test_text)
        except FileExistsError:
            raise CannotWrite(f"{self.test} is there already; choose another name.") from None
        (root / self.module).write_text(self.module_text)


def new_view(name: str, job_name: str, dimension: str, module_text: str) -> Written:
    """Return the files that declare view `name`, which counts the events of each `dimension`.

    `module_text` is that of the job's module. Without a dimension it is the key of the job's
    first stream. Raises `UnknownJob` or `CannotWrite`.
    """
    job = job_named(job_name)
    stream = job.streams[0]
    dimension = dimension or stream.key_field
    _check(name, dimension, stream)
    if name.upper() in _bound(module_text):
        raise CannotWrite(
            f"jobs/{job_name}.py has something called {name.upper()} already; choose another name."
        )
    values = {
        "name": name,
        "constant": name.upper(),
        "stream": _stream_constant(module_text, job_name),
        "dimension": dimension,
        "seconds": round(stream.pane.total_seconds()),
    }
    text = module_text
    for module, names in _IMPORTS.items():
        text = _importing(text, module, names)
    text = _declaring(text, _VIEW.format(**values), job_name, name.upper())
    return Written(
        f"jobs/{job_name}.py", text, f"tests/jobs/test_{name}.py", _TEST.format(**values)
    )


def _check(name: str, dimension: str, stream: Stream) -> None:
    try:
        check_name(name, STREAMS)
    except InvalidView as error:
        raise CannotWrite(str(error)) from error
    if name in VIEWS:
        raise CannotWrite(f"there is a view {name} already; choose another name.")
    texts = [f["name"] for f in stream.schema["fields"] if _is_text(f["type"])]
    if dimension not in texts:
        raise CannotWrite(
            f"{dimension} is no text field of stream {stream.name}; there are {', '.join(texts)}."
        )


def _bound(text: str) -> set[str]:
    """Return the names that a module's own lines give to something."""
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        else:
            names = (one for one in ast.walk(node) if isinstance(one, ast.Name))
            found |= {one.id for one in names if isinstance(one.ctx, ast.Store)}
    return found


def _is_text(kind: object) -> bool:
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def _job_call(text: str, job_name: str) -> ast.Call:
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            call = node.value
            named = [a.value for a in call.args if isinstance(a, ast.Constant)]
            if ast.unparse(call.func) == "Job" and named[:1] == [job_name] and len(call.args) == 3:
                return call
    raise CannotWrite(
        f'jobs/{job_name}.py has no `Job("{job_name}", (streams,), (views,))`; '
        "write the view there by hand."
    )


def _stream_constant(text: str, job_name: str) -> str:
    streams = _job_call(text, job_name).args[1]
    assert isinstance(streams, ast.Tuple)
    return ast.unparse(streams.elts[0])


def _importing(text: str, module: str, names: tuple[str, ...]) -> str:
    """Return `text` with `names` imported from `module`."""
    found = [n for n in ast.parse(text).body if isinstance(n, ast.ImportFrom)]
    own = next((n for n in found if n.module == module), None)
    known = {alias.name for alias in own.names} if own else set()
    if known >= set(names):
        return text
    line = f"from {module} import {', '.join(sorted(known | set(names)))}"
    lines = text.splitlines()
    if own is None:
        before = [n for n in found if n.module == "__future__" or (n.module or "") < module]
        after = before[-1].end_lineno or 0
        return "\n".join([*lines[:after], line, *lines[after:]]) + "\n"
    return "\n".join([*lines[: own.lineno - 1], line, *lines[own.end_lineno :]]) + "\n"


def _declaring(text: str, declaration: str, job_name: str, constant: str) -> str:
    """Return `text` with `declaration` before the job, and `constant` last among its views."""
    call = _job_call(text, job_name)
    views = call.args[2]
    if not isinstance(views, ast.Tuple):
        raise CannotWrite(f"the views of job {job_name} are no tuple; add the view by hand.")
    names = [*(ast.unparse(one) for one in views.elts), constant]
    lines = text.splitlines()
    listed = ["    (", *(f"        {name}," for name in names), "    ),"]
    first, last = views.lineno - 1, views.end_lineno or 0
    if first == last - 1 and lines[first].strip() != f"{ast.get_source_segment(text, views)},":
        raise CannotWrite(
            f"the views of job {job_name} share a line with more; give them one of their own."
        )
    lines[first:last] = listed
    start = call.lineno - 1
    return "\n".join([*lines[:start], *declaration.splitlines(), "", *lines[start:]]) + "\n"
