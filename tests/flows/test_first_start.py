"""From nothing to a running server, and from a stopped one to all that was there."""

from __future__ import annotations

import stat
import subprocess
import sys
import time

import yaml

from repos.format import installed
from tests.parts.server import ADMIN_PASSWORD, ROOT

ADMIN = ("admin", ADMIN_PASSWORD)


def test_the_first_start_makes_the_administrator_and_repositories_of_every_format(server):
    here = server()
    keys = {item["key"]: item for item in yaml.safe_load(here.manage("export").stdout)["repositories"]}
    for form in installed():
        assert keys[f"{form}-local"]["kind"] == "local"
        assert keys[form]["kind"] == "virtual" and keys[form]["deploy_to"] == f"{form}-local"
        assert keys[form]["members"][0] == f"{form}-local"
    assert here.request("PUT", "/raw/raw/a/file", b"hello", user=ADMIN).status == 201
    assert here.request("GET", "/raw/raw/a/file").body == b"hello", "anybody on this machine may read"
    assert here.request("PUT", "/raw/raw/another", b"hello").status == 401


def test_a_second_start_is_quick_and_finds_everything(server):
    here = server()
    here.request("PUT", "/raw/raw-local/kept", b"still here", user=ADMIN)
    exported = here.manage("export").stdout
    token = here.manage("token", "create", "admin").stdout.split()[-1]
    here.stop()
    started = time.monotonic()
    here.start()
    assert time.monotonic() - started < 50, "seconds are promised; ten times that is a hang"
    assert here.request("GET", "/raw/raw/kept", user=("any", token)).body == b"still here"
    assert here.manage("export").stdout == exported


def test_what_was_removed_after_the_first_start_is_not_made_again(server):
    here = server()
    document = yaml.safe_load(here.manage("export").stdout)
    document["repositories"] = [item for item in document["repositories"] if not item["key"].startswith("raw")]
    here.manage("apply", "--prune", "-", input=yaml.safe_dump(document))
    here.stop()
    here.start()
    assert here.request("GET", "/raw/raw-local/x", user=ADMIN).status == 404
    assert "raw" not in here.manage("export").stdout


def test_a_password_that_was_made_is_in_a_file_that_only_the_owner_reads(server):
    here = server(ENTREPOT_ADMIN_PASSWORD="")
    file = here.data / "admin-password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    password = file.read_text().strip()
    assert password not in here.log()
    assert here.request("PUT", "/raw/raw/x", b"x", user=("admin", password)).status == 201


def test_bound_elsewhere_nothing_is_made_and_nothing_is_open(server):
    here = server(ENTREPOT_BASE_URL="https://registry.example.org")
    assert "repositories" not in yaml.safe_load(here.manage("export").stdout)
    here.apply({"repositories": [{"key": "raw-local", "format": "raw", "kind": "local"}]})
    here.request("PUT", "/raw/raw-local/x", b"x", user=ADMIN)
    assert here.request("GET", "/raw/raw-local/x").status == 401


def test_the_file_of_entrepot_config_is_applied_at_each_start(server, tmp_path):
    file = tmp_path / "entrepot.yaml"
    file.write_text("repositories: [{key: ours, format: raw, kind: local}]\n")
    here = server(ENTREPOT_CONFIG=str(file))
    assert "key: ours" in here.manage("export").stdout


def test_a_wrong_setting_stops_the_start_with_one_line_that_names_it(tmp_path):
    wrong = {
        "ENTREPOT_BIND": "nowhere",
        "ENTREPOT_DATABASE_URL": "mysql://x",
        "ENTREPOT_STORAGE": "ftp://x",
        "ENTREPOT_TLS": "missing.pem:missing.key",
        "ENTREPOT_CONFIG": "/no/such/file.yaml",
        "ENTREPOT_SECRET_KEY": "short",
        "ENTREPOT_BASE_URL": "registry.example.org",
        "ENTREPOT_WORKERS": "none",
        "ENTREPOT_BINDD": "127.0.0.1:1",
    }
    for name, value in wrong.items():
        done = subprocess.run(
            [sys.executable, "manage.py", "serve"],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "ENTREPOT_DATA": str(tmp_path), name: value},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode != 0 and done.stdout == "", name
        assert done.stderr.count("\n") == 1 and done.stderr.startswith(name), done.stderr


def test_an_address_that_is_taken_stops_the_start_with_one_line(server):
    here = server()
    done = here.manage("serve", check=False)
    assert done.returncode != 0 and done.stdout == ""
    assert "ENTREPOT_BIND" in done.stderr and done.stderr.count("\n") == 1


def test_a_configuration_that_is_refused_and_a_database_that_is_away_stop_the_start_with_one_line(server, tmp_path):
    here = server()
    here.stop()
    file = tmp_path / "entrepot.yaml"
    file.write_text("repositories: [{key: ours, formatt: raw, kind: local}]\n")
    for name, value, word in (
        ("ENTREPOT_CONFIG", str(file), "did you mean format?"),
        ("ENTREPOT_DATABASE_URL", "sqlite:////proc/no/such.sqlite3", "does not answer"),
    ):
        before, here.environment[name] = here.environment.get(name, ""), value
        done = here.manage("serve", check=False)
        here.environment[name] = before
        assert done.returncode != 0 and done.stderr.count("\n") == 1, done.stderr
        assert name in done.stderr and word in done.stderr


def test_health_is_told_to_anybody_and_nothing_else(server):
    here = server()
    assert here.request("GET", "/healthz").status == 200
    assert here.request("GET", "/readyz").status == 200
    assert here.request("GET", "/").status == 200
    assert here.request("GET", "/no/such/place").status == 404
