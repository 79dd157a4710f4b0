"""`manage.py apply`, `diff` and `export` as programs: what they print where, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from django.core.management import call_command
from django.core.management.base import CommandError

from repos.configuration.tests.parts import document, local, whole

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command on an installation of its own."""
    data = tmp_path_factory.mktemp("data")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ENTREPOT_")}

    def manage(*arguments: str, text: str = "", data: Path = data, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            input=text, capture_output=True, text=True, cwd=ROOT, env={**clean, "ENTREPOT_DATA": str(data), **environment},
            timeout=120, check=False,
        )  # fmt: skip

    assert manage("migrate").returncode == 0
    return manage


def test_the_programs_end_as_they_promise(run: Run) -> None:
    text = yaml.safe_dump(document(repositories=[local("a")]))
    different = run("diff", "-", text=text)
    assert (different.returncode, different.stdout, different.stderr) == (1, "+ repositories a\n", "")
    applied = run("apply", "-", text=text)
    assert (applied.returncode, applied.stdout, applied.stderr) == (0, "+ repositories a\n", "")
    again = run("diff", "-", text=text)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    pruned = run("diff", "--prune", "-", text="repositories: []")
    assert (pruned.returncode, pruned.stdout) == (1, "- repositories a\n")
    exported = run("export", "--format", "json")
    assert exported.returncode == 0
    assert json.loads(exported.stdout) == document(repositories=[local("a")])


@pytest.mark.parametrize("text", ["zzz: []", "a: }"])
def test_what_is_refused_is_one_line_on_stderr(run: Run, text: str) -> None:
    for command, code in (("apply", 1), ("diff", 2)):
        refused = run(command, "-", text=text)
        assert (refused.returncode, refused.stdout) == (code, "")
        assert refused.stderr.startswith("CommandError: ")
        assert refused.stderr.count("\n") == 1


def test_a_secret_of_the_environment_reaches_no_output(run: Run) -> None:
    text = yaml.safe_dump(document(users=[{"name": "ann", "password": {"env": "ENTREPOT_SECRET_ANN"}}]))
    outcomes = [
        run("apply", "-", text=text),
        run("apply", "-", text=text, ENTREPOT_SECRET_ANN="hunter2"),
        run("apply", "-", text=text, ENTREPOT_SECRET_ANN="hunter22"),
        run("export"),
    ]
    assert [outcome.returncode for outcome in outcomes] == [1, 0, 0, 0]
    assert "no value for ENTREPOT_SECRET_ANN" in outcomes[0].stderr
    assert "hunter2" not in str([(outcome.stdout, outcome.stderr) for outcome in outcomes])


@pytest.mark.parametrize("command", [["apply", "-"], ["diff", "-"], ["export"]])
def test_a_database_that_was_not_set_up_is_told_in_one_line(run: Run, tmp_path: Path, command: list[str]) -> None:
    outcome = run(*command, text="users: [{name: ann}]", data=tmp_path)
    assert outcome.returncode == (2 if command[0] == "diff" else 1)
    assert "migrate" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.django_db
@pytest.mark.usefixtures("secrets")
def test_the_commands_take_several_files(file: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    parts = [file(yaml.safe_dump({name: value}), f"{name}.yaml") for name, value in whole().items()]
    call_command("apply", *parts)
    assert "+ repositories go\n" in capsys.readouterr().out
    call_command("diff", *parts, prune=True)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit) as end:
        call_command("diff", file("users: []"), prune=True)
    assert end.value.code == 1
    with pytest.raises(CommandError) as error:
        call_command("diff", file("users: 1"))
    assert error.value.returncode == 2


@pytest.mark.django_db
@pytest.mark.usefixtures("secrets")
def test_nothing_is_printed_of_an_apply_that_is_refused(file: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    spoilt = whole() | {"grants": [{"role": "nobody", "anonymous": True}]}
    with pytest.raises(CommandError):
        call_command("apply", file(yaml.safe_dump(spoilt)))
    assert capsys.readouterr().out == ""
