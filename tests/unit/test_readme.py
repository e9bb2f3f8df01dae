"""README and docs: their commands take what they are given, links and files are there."""

from __future__ import annotations

import importlib
import re
import shlex

import click
import pytest
import typer

from deploy.cli import app
from deploy.settings import PROJECT_ROOT, SECRETS_DIR, Settings, variable

# The catalogue of views is printed by a command, and tested where that is.
_PAGES = [
    PROJECT_ROOT / "README.md",
    *(page for page in sorted((PROJECT_ROOT / "docs").glob("*.md")) if page.name != "VIEWS.md"),
]
TEXTS = {page: page.read_text() for page in _PAGES}
WHOLE = "\n".join(TEXTS.values())
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ENDS = ("|", ">", "&&", ";")


def lines() -> list[list[str]]:
    """Return the words of every line given to a shell."""
    blocks = (block.replace("\\\n", " ") for block in _BLOCK.findall(WHOLE))
    split = (shlex.split(line, comments=True) for block in blocks for line in block.splitlines())
    return [words for words in split if words]


def after(word: str, words: list[str]) -> list[str] | None:
    """Return what a line gives to the program `word`, None where it does not run it."""
    for place, found in enumerate(words):
        if found.rpartition("/")[2] == word and words[place - 1] != "-n":
            given = words[place + 1 :]
            return given[: next((i for i, one in enumerate(given) if one in _ENDS), len(given))]
    return None


def check(command: click.Command, words: list[str]) -> None:
    """Let `command` read `words` as it would when it runs; click refuses what it does not know."""
    while isinstance(command, click.Group):
        name, *words = words
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    command.make_context(command.name, words)


def given(word: str) -> list[list[str]]:
    """Return what each line gives to the program `word` that runs it."""
    return [found for words in lines() if (found := after(word, words)) is not None]


@pytest.mark.parametrize("words", given("kappa"), ids=" ".join)
def test_a_command_takes_what_it_is_given(words: list[str]) -> None:
    check(typer.main.get_command(app), words)


@pytest.mark.parametrize("words", given("python"), ids=" ".join)
def test_a_benchmark_takes_what_it_is_given(words: list[str]) -> None:
    dash, module, *options = words
    assert dash == "-m"
    alone = typer.Typer()
    alone.command()(importlib.import_module(module).main)
    check(typer.main.get_command(alone), options)


def test_targets_of_make_exist() -> None:
    wanted = {words[0] for words in given("make")}
    targets = re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE)
    assert wanted
    assert wanted <= set(targets)


def test_files_that_are_named_exist() -> None:
    linked = [
        page.parent / link
        for page, text in TEXTS.items()
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text)
    ]
    told = re.findall(r"`(tests/[\w/]+\.py)`", WHOLE)
    paths = [w for words in lines() for w in words if re.match(r"(deploy|jobs)/\w+[/.]", w)]
    assert linked
    assert told
    assert paths
    assert [p for p in (*linked, *told, *paths) if not (PROJECT_ROOT / p).exists()] == []


def test_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"\bKAPPA_[A-Z_]*[A-Z]\b", WHOLE))
    assert named
    assert named - {SECRETS_DIR, *map(variable, Settings.model_fields)} == set()
