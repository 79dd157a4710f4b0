"""Settings from the environment: what is taken, what is refused, and for whom a loopback server is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import environment
from registry.environment import EnvironmentProblem
from registry.first_start import _upstream

SECRET = {"ENTREPOT_SECRET_KEY": "s" * 32}


def read(tmp_path: Path, **given: str) -> environment.Environment:
    return environment.read({"ENTREPOT_DATA": str(tmp_path), **SECRET, **given})


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("127.0.0.1:8080", True),
        ("127.0.0.1", True),
        ("localhost", True),
        ("localhost:8080", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:80", False),
        ("10.0.0.1", False),
        ("", False),
        ("[", False),
    ],
)
def test_a_loopback_server_is_open_only_to_who_asks_for_loopback(tmp_path, host, is_open):
    assert read(tmp_path).open_to(host) is is_open


def test_a_server_that_is_bound_elsewhere_or_has_a_public_address_is_open_to_nobody(tmp_path):
    assert not read(tmp_path, ENTREPOT_BIND="0.0.0.0:8080").open_to("localhost")
    assert not read(tmp_path, ENTREPOT_BASE_URL="https://registry.example.org").open_to("localhost")


def test_a_name_that_is_no_setting_is_refused_with_the_nearest_one(tmp_path):
    with pytest.raises(EnvironmentProblem, match=r"ENTREPOT_STORGE is no setting; did you mean ENTREPOT_STORAGE\?"):
        read(tmp_path, ENTREPOT_STORGE="x")


def test_what_kubernetes_sets_for_a_service_named_entrepot_is_not_taken_for_settings(tmp_path):
    read(
        tmp_path,
        ENTREPOT_SERVICE_HOST="10.0.0.1",
        ENTREPOT_SERVICE_PORT="80",
        ENTREPOT_PORT="tcp://10.0.0.1:80",
        ENTREPOT_PORT_80_TCP_ADDR="10.0.0.1",
    )


@pytest.mark.parametrize("name", ["with space", "with#hash", "with?mark", "with%41"])
def test_a_data_folder_of_any_name_holds_the_database_and_the_files(tmp_path, name):
    given = read(tmp_path / name)
    assert given.database["NAME"] == str(tmp_path / name / "entrepot.sqlite3")
    from repos.blobs.stores import open_store

    assert open_store(given.storage).root == tmp_path / name / "blobs"


def test_a_data_folder_that_is_made_is_for_its_owner_alone(tmp_path):
    read(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_secrets_are_not_in_what_is_printed_of_the_settings(tmp_path):
    given = read(tmp_path, ENTREPOT_ADMIN_PASSWORD="hunter2-hunter2")
    assert "hunter2" not in repr(given) and "s" * 32 not in repr(given)


def test_credentials_in_the_address_that_a_client_is_configured_with_are_kept_apart():
    assert _upstream("https://mirror.example.org/go") == {"url": "https://mirror.example.org/go"}
    assert _upstream("https://ci:p%40ss@mirror.example.org:8443/go") == {
        "url": "https://mirror.example.org:8443/go",
        "username": "ci",
        "password": "p@ss",
    }
