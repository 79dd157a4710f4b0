"""What a request costs, in queries: warm reads two, whatever is asked of whatever kind of repository."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import tokens
from accounts.models import User
from repos import catalogue, models
from repos.configuration import engine
from tests.contract.samples import SAMPLES, url
from tests.flows.test_commit import put
from tests.gomodules import make_zip

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=sorted(SAMPLES))
def form(request) -> str:
    return request.param


@pytest.fixture
def ask(repository, form):
    """GETs of an artefact through each kind of repository, by somebody with a token who may read all."""
    sample = SAMPLES[form]
    local = repository(form, "local")
    remote = repository(form, "remote", "remote", upstreams=[{"url": "http://127.0.0.1:9"}])
    repository(form, "virtual", "virtual", members=["local", "remote"])
    engine.apply({"users": [{"name": "reader"}], "grants": [{"role": "reader", "users": ["reader"], "repositories": ["*"]}]})
    _, secret = tokens.create(User.objects.get(username="reader"))
    login = "Basic " + base64.b64encode(f"x:{secret}".encode()).decode()
    put(local, {sample.path: sample.content})
    if sample.immutable:
        put(remote, {sample.other_path(1): sample.other_content(1)})
    client = Client()

    def ask(through: str, path: str):
        return client.get(url(form, through, path), headers={"authorization": login})

    return ask


def queries_of(ask, through: str, path: str) -> int:
    ask(through, path)  # what is kept by epoch is loaded by the first
    with CaptureQueriesContext(connection) as captured:
        answer = ask(through, path)
        answer.close()
    assert answer.status_code == 200
    return len(captured)


@pytest.mark.parametrize("through", ["local", "virtual"])
def test_a_warm_get_takes_two_queries(ask, form, through):
    assert queries_of(ask, through, SAMPLES[form].path) == 2


@pytest.mark.parametrize("through", ["remote", "virtual"])
def test_a_warm_get_of_a_cached_artefact_takes_two_queries(ask, form, through):
    if SAMPLES[form].immutable:
        assert queries_of(ask, through, SAMPLES[form].other_path(1)) == 2


def test_a_list_takes_the_same_number_of_queries_whatever_its_length(ask, form):
    if form != "go":
        return
    few = queries_of(ask, "local", "corp.example/lib/@v/list")
    local = catalogue.load_one(models.Repository.objects.get(key="local"))
    module = "corp.example/lib"
    put(local, {f"{module}/@v/v1.{n}.0.zip": make_zip(module, f"v1.{n}.0", {}) for n in range(1, 200)})
    assert queries_of(ask, "local", "corp.example/lib/@v/list") == few <= 3


def test_a_cached_list_through_a_virtual_takes_two_queries(ask, form):
    if form != "go":
        return
    path = "public.example/lib/@v/list"
    remote = catalogue.load_one(models.Repository.objects.get(key="remote"))
    put(remote, {path: b"v1.0.0\n"})
    now = timezone.now()
    models.Freshness.objects.create(repository_id=remote.id, path_key=path, checked_at=now, expires_at=now + timedelta(hours=1))
    assert queries_of(ask, "virtual", path) == 2
