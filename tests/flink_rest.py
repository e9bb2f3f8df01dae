"""A Flink cluster's REST API, as far as it tells of one job."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType


@contextmanager
def flink(
    job_id: str,
    name: str,
    started_ms: int,
    state: str,
    asked: list[str] | None = None,
    configuration: Mapping[str, str] = MappingProxyType({}),
    watermarks: Sequence[tuple[str, Sequence[int]]] = (),
    checkpoints: Sequence[str] = ("COMPLETED", "FAILED", "FAILED"),
    slots: int = 0,
    failure: str = "",
    ran_ms: int = 600_000,
    newest: int = 7,
    restored: int = 4,
    timeout_ms: int = 600_000,
) -> Iterator[str]:
    """Serve a cluster's answers about its one job; yield its address. `asked` gets the paths.

    `watermarks` are those of each vertex's subtasks, by its name; `checkpoints` how the newest ones
    went, the newest first, and `timeout_ms` when one has failed. `slots` are free. The job failed
    last with `failure`, and has been in its state for `ran_ms`. It has completed checkpoint
    `newest`, having begun with `restored`.
    """
    vertices = [{"id": str(place), "name": of} for place, (of, _) in enumerate(watermarks)]
    answers = {
        "/jobs/overview": {
            "jobs": [{"jid": job_id, "name": name, "state": state, "start-time": started_ms}]
        },
        "/overview": {"slots-available": slots},
        f"/jobs/{job_id}": {
            "state": state,
            "now": started_ms + ran_ms,
            "timestamps": {state: started_ms},
            "vertices": vertices,
        },
        f"/jobs/{job_id}/exceptions": {
            "exceptionHistory": {"entries": [{"stacktrace": failure}] if failure else []}
        },
        f"/jobs/{job_id}/status": {"status": state},
        f"/jobs/{job_id}/checkpoints/config": {"timeout": timeout_ms},
        **{
            f"/jobs/{job_id}/vertices/{place}/watermarks": [
                {"id": f"{subtask}.currentInputWatermark", "value": str(mark)}
                for subtask, mark in enumerate(marks)
            ]
            for place, (_, marks) in enumerate(watermarks)
        },
        f"/jobs/{job_id}/checkpoints": {
            "latest": {
                "completed": {"id": newest, "latest_ack_timestamp": started_ms + 1},
                "restored": {"id": restored},
            },
            # Attempts while tasks start are counted too, and stand in no history.
            "counts": {"failed": 9},
            "history": [
                {"status": status, "failure_message": f"{len(checkpoints) - place} is too big."}
                for place, status in enumerate(checkpoints)
            ],
        },
        "/jobmanager/config": [
            {"key": key, "value": value} for key, value in {"of": name, **configuration}.items()
        ],
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path in answers
            if asked is not None:
                asked.append(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(self.path, {"errors": ["none"]})).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
