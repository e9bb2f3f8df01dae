"""The embedded Flink: one JobManager and one TaskManager with folders of their own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.java import classpath, jar_folder, java_command, java_home
from deploy.java_options import COMPILED_LATE, START_QUICKLY
from deploy.loopback import ask
from deploy.parts import Part, folders
from deploy.settings import Settings

REST_PORT = 80
JOBMANAGER_RPC_PORT, BLOB_PORT, DATA_PORT = 83, 84, 86
JOBMANAGER_METRICS_PORT, TASKMANAGER_METRICS_PORT = 249, 250
SLOTS = 12

_JOBMANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_CLIENT = "org.apache.flink.client.cli.CliFrontend"
_CLIENT_NAME = "flink-client"
# The client's, and what all three shared in older versions.
TEMPORARY_OF_NO_PART = (_CLIENT_NAME, "flink")
_TASKMANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# What Flink's own scripts would compute from a process size of 4.2 GB; started without the
# scripts (which cost two JVM starts), the TaskManager wants each of them given.
_MEMORY_MB = {
    "taskmanager.memory.framework.heap.size": 128,
    "taskmanager.memory.task.heap.size": 1536,
    "taskmanager.memory.framework.off-heap.size": 128,
    "taskmanager.memory.task.off-heap.size": 64,
    "taskmanager.memory.network.min": 256,
    "taskmanager.memory.network.max": 256,
    "taskmanager.memory.managed.size": 1536,
    "taskmanager.memory.jvm-metaspace.size": 384,
    "taskmanager.memory.jvm-overhead.min": 192,
    "taskmanager.memory.jvm-overhead.max": 192,
}
# What a task makes of a record is garbage at once: with a third of the heap for the young, as is
# the rule, and a collector of as many threads as there are cores, collecting took a sixth of the
# JVM's time. On more cores than two one thread would hold up all others.
_YOUNG_MB, _FEW_CORES = 960, 2
# Columns of a batch are some MB each. By default libc gives each a mapping of its own and returns
# it at once, and Arrow's own allocator returns memory after a second: then the kernel clears every
# page anew, 0.18 of them an event, a fifth of the time that decoding takes.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_OPENED = (
    *("java.base/java." + name for name in ("lang", "net", "io", "nio", "text", "time", "util")),
    "java.base/sun.nio.ch",
    "java.base/java.lang.reflect",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
)
_LOG4J_FILE = "log4j.properties"
_LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = File
appender.file.name = File
appender.file.type = RollingFile
appender.file.append = true
appender.file.fileName = ${sys:log.file}
appender.file.filePattern = ${sys:log.file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c - %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
logger.kafka.name = org.apache.kafka
logger.kafka.level = WARN
logger.netty.name = org.jboss.netty.channel.DefaultChannelPipeline
logger.netty.level = OFF
# Each checkpoint's committables would be a warning of their own.
logger.metrics.name = org.apache.flink.metrics.MetricGroup
logger.metrics.level = ERROR
"""


def distribution() -> Path:
    """Return the Flink distribution that `apache-flink` brings (lib, opt, bin, plugins)."""
    import importlib.util

    spec = importlib.util.find_spec("pyflink")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("apache-flink is missing: run `make install`.")
    return Path(spec.submodule_search_locations[0])


def configuration(settings: Settings) -> dict[str, Any]:
    """Return the cluster's configuration, shared by both processes and the client."""
    place = folders(settings)
    data = place.data("flink")
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.rpc.port": settings.port(JOBMANAGER_RPC_PORT),
        "blob.server.port": str(settings.port(BLOB_PORT)),
        # REST runs any code sent to it: it never leaves loopback.
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": settings.port(REST_PORT),
        "rest.bind-port": str(settings.port(REST_PORT)),
        # Nobody uploads a jar through its page, and no other site's page is to read its answers.
        "web.submit.enable": False,
        "web.access-control-allow-origin": f"http://127.0.0.1:{settings.port(REST_PORT)}",
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        # A free port each time: where a new TaskManager takes a killed one's address before the
        # JobManager has given that up, the two discard each other's messages for minutes.
        "taskmanager.rpc.port": "0",
        "taskmanager.data.port": settings.port(DATA_PORT),
        "taskmanager.numberOfTaskSlots": SLOTS,
        "taskmanager.cpu.cores": float(SLOTS),
        **{name: f"{size}m" for name, size in _MEMORY_MB.items()},
        "jobmanager.memory.heap.size": "1024m",
        # Those of the cluster's two processes are given on their command lines.
        "io.tmp.dirs": str(place.temporary(_CLIENT_NAME)),
        "parallelism.default": settings.parallelism,
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": True,
        # As it is: what a URI would have escaped, Flink takes for the folder's name.
        "execution.checkpointing.dir": f"file://{data / 'checkpoints'}",
        "execution.checkpointing.savepoint-dir": f"file://{data / 'savepoints'}",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.interval": f"{round(settings.checkpoint_seconds * 1000)} ms",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": 3,
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.max-backoff": "30 s",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "60 s",
        # A killed TaskManager is noticed by its broken connection, well before this timeout.
        "heartbeat.interval": "2 s",
        "heartbeat.timeout": "20 s",
        # On a busy machine ten seconds are too few to start an actor system or deploy a task: the
        # JobManager would end, and a job restart, for no other reason.
        "pekko.ask.timeout": "60 s",
        "pekko.startup-timeout": "60 s",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        # Watermarks asked for over REST are as old as this, which `kappa replay verify` goes by.
        "metrics.fetcher.update-interval": "1 s",
        "metrics.reporter.prom.factory.class": (
            "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
        ),
        "env.log.dir": str(place.logs),
        "env.java.opts.all": " ".join(_module_options()),
        "env.java.opts.client": " ".join(START_QUICKLY),
    }


def client(settings: Settings) -> list[str]:
    """Return the words that begin Flink's own client: that of `flink_home`, or the embedded one.

    The embedded one's files are written first: its cluster may never have run here. It is started
    without Flink's script, which runs another JVM before to read the configuration.
    """
    if settings.flink_home:
        return [str(Path(settings.flink_home) / "bin" / "flink")]
    write_cluster_files(settings)
    # It lives for seconds: what the optimising compiler does for it is never used.
    return _java(settings, _CLIENT_NAME, [_CLIENT], START_QUICKLY)


def client_environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which `client` talks to the cluster it belongs to."""
    if settings.flink_home:
        return {"FLINK_HOME": settings.flink_home}
    base = place_of(settings)
    return {
        "JAVA_HOME": str(java_home()),
        "FLINK_HOME": str(distribution()),
        "FLINK_CONF_DIR": str(base / "conf"),
        "FLINK_LIB_DIR": str(base / "lib"),
        "FLINK_OPT_DIR": str(distribution() / "opt"),
        "FLINK_PLUGINS_DIR": str(distribution() / "plugins"),
        "FLINK_LOG_DIR": str(folders(settings).logs),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }


def place_of(settings: Settings) -> Path:
    """Return the folder of the cluster's generated `conf` and `lib`."""
    return folders(settings).data("flink")


def write_cluster_files(settings: Settings) -> None:
    """Lay out `conf` and `lib`; cheap, and safe to repeat while the cluster runs."""
    base = place_of(settings)
    for name in ("conf", "lib", "checkpoints", "savepoints"):
        (base / name).mkdir(parents=True, exist_ok=True)
    folders(settings).temporary(_CLIENT_NAME).mkdir(parents=True, exist_ok=True)
    lines = [f"{key}: {json.dumps(value)}" for key, value in configuration(settings).items()]
    # Flink's scripts read this one line themselves, and would keep the quotes.
    lines.append(f"env.java.home: {java_home()}")
    _write(base / "conf" / "config.yaml", "\n".join(lines) + "\n")
    for name in (_LOG4J_FILE, "log4j-cli.properties"):
        _write(base / "conf" / name, _LOG4J)
    wanted = {jar.name: jar for jar in _library()}
    for link in (base / "lib").iterdir():
        if wanted.get(link.name) != link.readlink():
            link.unlink()
    for name, jar in wanted.items():
        if not (base / "lib" / name).is_symlink():
            (base / "lib" / name).symlink_to(jar)


def jobmanager(settings: Settings) -> Part:
    """Return the JobManager as a part of the stack."""
    return Part(
        name="jobmanager",
        title="Flink JobManager",
        ports=tuple(
            settings.port(offset)
            for offset in (REST_PORT, JOBMANAGER_RPC_PORT, BLOB_PORT, JOBMANAGER_METRICS_PORT)
        ),
        hosts=_metrics_host(settings, JOBMANAGER_METRICS_PORT),
        command=lambda: _command(
            settings,
            "jobmanager",
            _JOBMANAGER,
            JOBMANAGER_METRICS_PORT,
            # It serves some requests a second: what counts is the start.
            ["-Xmx1g", "-Xms256m", "-XX:MaxMetaspaceSize=256m", *START_QUICKLY],
        ),
        prepare=lambda: write_cluster_files(settings),
        healthy=lambda: "taskmanagers" in _rest(settings, "overview"),
        environment=client_environment(settings),
    )


def taskmanager(settings: Settings) -> Part:
    """Return the TaskManager as a part of the stack."""
    identity = folders(settings).run / "taskmanager.id"

    def prepare() -> None:
        write_cluster_files(settings)
        # Its own name each time: the JobManager still lists a killed one for a while.
        identity.write_text(f"taskmanager-{time.time_ns() // 1_000_000}")

    heap = _MEMORY_MB["taskmanager.memory.task.heap.size"] + 128
    direct = 128 + 64 + _MEMORY_MB["taskmanager.memory.network.max"]
    metaspace = _MEMORY_MB["taskmanager.memory.jvm-metaspace.size"]
    memory = [f"-Xmx{heap}m", f"-Xms{heap}m", f"-Xmn{_YOUNG_MB}m"]
    memory += [f"-XX:MaxDirectMemorySize={direct}m", f"-XX:MaxMetaspaceSize={metaspace}m"]
    collector = "Serial" if (os.cpu_count() or 1) <= _FEW_CORES else "Parallel"
    return Part(
        name="taskmanager",
        title="Flink TaskManager",
        ports=tuple(settings.port(offset) for offset in (TASKMANAGER_METRICS_PORT, DATA_PORT)),
        hosts=_metrics_host(settings, TASKMANAGER_METRICS_PORT),
        command=lambda: _command(
            settings,
            "taskmanager",
            _TASKMANAGER,
            TASKMANAGER_METRICS_PORT,
            [*memory, f"-XX:+Use{collector}GC", *COMPILED_LATE],
            {"taskmanager.resource-id": identity.read_text()},
        ),
        prepare=prepare,
        healthy=lambda: identity.read_text() in _registered(settings),
        # Its Python workers have it from the TaskManager.
        environment={**client_environment(settings), **_KEEP_MEMORY},
        after=("jobmanager",),
        # Tasks of a dead JobManager's jobs must not write beside those of the resumed ones.
        falls_with=("jobmanager",),
    )


def _metrics_host(settings: Settings, offset: int) -> dict[int, str]:
    # Flink's reporter has a setting for its port only, and listens on every address.
    return {settings.port(offset): ""}


def _registered(settings: Settings) -> set[str]:
    return {entry["id"] for entry in _rest(settings, "taskmanagers")["taskmanagers"]}


def _rest(settings: Settings, path: str) -> Any:
    address = f"http://127.0.0.1:{settings.port(REST_PORT)}/{path}"
    return ask(address).raise_for_status().json()


def _command(
    settings: Settings,
    name: str,
    main: str,
    metrics_port: int,
    options: list[str],
    extra: dict[str, str] | None = None,
) -> list[str]:
    conf = place_of(settings) / "conf"
    given = {
        "metrics.reporter.prom.port": str(settings.port(metrics_port)),
        # Killed, it leaves there its state and copies of jars; see the supervisor.
        "io.tmp.dirs": str(folders(settings).temporary(name)),
        **(extra or {}),
    }
    dynamic = [word for key, value in given.items() for word in ("-D", f"{key}={value}")]
    return _java(settings, name, [main, "--configDir", str(conf), *dynamic], options)


def _java(settings: Settings, name: str, main: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return the command line of one of Flink's JVMs, with the log and the jars of all."""
    place, base = folders(settings), place_of(settings)
    logging = [
        f"-Dlog.file={place.log(name)}",
        f"-Dlog4j.configurationFile=file:{base / 'conf' / _LOG4J_FILE}",
    ]
    return java_command(
        main,
        options=[*options, *logging, *_module_options()],
        temporary=place.temporary(name),
        classpath=classpath([base / "lib"]),
    )


def _module_options() -> list[str]:
    return [f"--add-opens={name}=ALL-UNNAMED" for name in _OPENED]


def _library() -> list[Path]:
    """Jars of the cluster: Flink's own, PyFlink's, the Kafka connector and the Avro format.

    A job that sets `pipeline.jars` would lose PyFlink's jar; here it needs none.
    """
    flink = distribution()
    connectors = sorted(jar_folder("flink").glob("*.jar"))
    python = sorted((flink / "opt").glob("flink-python-*.jar"))
    return [*sorted((flink / "lib").glob("*.jar")), *python, *connectors]


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
