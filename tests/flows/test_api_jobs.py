"""Jobs through the API: asked for, followed, cancelled, retried, each by who may."""

from __future__ import annotations

import json
import time

import pytest

from tests.parts.api import PASSWORD, Api, rule

DEADLINE = 120.0


@pytest.fixture(scope="module")
def world(server, upstream):
    up = upstream()
    for name in ("a", "b"):
        up.routes[f"/{name}"] = name.encode()
    up.routes["/slow/again"] = up.slowly(b"slow", seconds=5)
    here = server()
    here.apply(
        {
            "repositories": [{"key": "far", "format": "raw", "kind": "remote", "upstreams": [{"url": up.url}]}],
            "users": [{"name": name, "password": PASSWORD} for name in ("reader", "outsider")],
            "grants": [{"role": "reader", "users": ["reader"], "repositories": ["far"]}],
        }
    )
    return here


def ended(api: Api, path: str) -> dict:
    """The job, once it has ended."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        job = api.read(path)
        if job["ended_at"]:
            return job
        time.sleep(0.1)
    raise AssertionError(f"{path} did not end: {job}")


def test_a_job_is_asked_for_followed_and_listed(world):
    api = Api(world)
    answer = api.post("jobs/", {"kind": "gc"})
    assert answer.status == 202, answer
    job = ended(api, answer.headers["Location"])
    assert (job["state"], job["kind"], job["user"]) == ("done", "gc", "admin")
    assert job["id"] in [item["id"] for item in api.items("jobs/?kind=gc&state=done&limit=1")]
    assert job["id"] not in [item["id"] for item in api.items("jobs/?state=failed")]
    assert isinstance(api.items(f"jobs/{job['id']}/log/"), list)
    assert rule(api.post(f"jobs/{job['id']}/cancel/")) == "job.state"
    assert api.post(f"jobs/{job['id']}/retry/").status == 202
    assert ended(api, f"jobs/{job['id']}/")["state"] == "done"


def test_who_may_read_a_repository_has_it_prefetched_and_sees_no_others_jobs(world):
    reader, outsider = (Api(world, (name, PASSWORD)) for name in ("reader", "outsider"))
    answer = reader.post("jobs/", {"kind": "prefetch", "repository": "far", "arguments": {"text": "a\nb\n"}})
    assert answer.status == 202, answer
    path = answer.headers["Location"]
    job = ended(reader, path)
    assert (job["state"], job["result"]["files"]) == ("done", 2)
    assert [item["path"] for item in reader.items("repositories/far/assets/")] == ["a", "b"]
    assert job["id"] in [item["id"] for item in reader.items("jobs/?repository=far")]
    assert outsider.items("jobs/") == []
    for address in (path, f"{path}log/"):
        assert outsider.get(address).status == 404
    for action in ("cancel", "retry"):
        assert outsider.post(f"{path}{action}/").status == 404
    refused = reader.post("jobs/", {"kind": "gc"})
    assert (refused.status, rule(refused)) == (403, "job.permission")
    assert rule(reader.post("jobs/", {"kind": "revalidate", "repository": "far"})) == "job.permission"
    assert rule(outsider.post("jobs/", {"kind": "prefetch", "repository": "far", "arguments": {"text": "a"}})) == "job.repository"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, "body.form"),
        ({"kind": "none"}, "job.kind"),
        ({"kind": "gc", "arguments": {"x": 1}}, "job.arguments"),
        ({"kind": "gc", "arguments": []}, "body.form"),
        ({"kind": "gc", "user": "reader"}, "body.form"),
        ({"kind": "gc", "repository": "far"}, "job.repository"),
        ({"kind": "expire", "repository": "far"}, "job.repository"),
        ({"kind": "prefetch"}, "job.repository"),
        ({"kind": "prefetch", "repository": "far"}, "job.arguments"),
        ({"kind": "prefetch", "repository": "none"}, "job.repository"),
        ({"kind": "prefetch", "repository": "far", "arguments": {"text": "\ud800"}}, "body.text"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(world, body, found):
    answer = Api(world).post("jobs/", body)
    assert (answer.status, rule(answer)) == (400, found), answer
    assert json.loads(answer.body)["detail"]


def test_asking_for_the_same_again_gives_the_job_that_has_not_ended(world):
    """A slow upstream keeps the first from its end."""
    reader, admin = Api(world, ("reader", PASSWORD)), Api(world)
    wanted = {"kind": "prefetch", "repository": "far", "arguments": {"text": "slow/again\n"}}
    first, second = (json.loads(reader.post("jobs/", wanted).body) for _ in range(2))
    assert first["id"] == second["id"]
    assert json.loads(admin.post("jobs/", wanted).body)["id"] != first["id"], "each asks for themself"
    for job in admin.items("jobs/?kind=prefetch&state=queued") + admin.items("jobs/?kind=prefetch&state=running"):
        admin.post(f"jobs/{job['id']}/cancel/")


def test_what_may_be_too_much_is_described_so(world):
    paths = Api(world).read("schema/?format=json")["paths"]
    bounded = {path for path, methods in paths.items() if any("429" in method["responses"] for method in methods.values())}
    assert bounded == {f"/api/v1/{name}" for name in ("jobs/", "jobs/{number}/retry/", "tokens/", "exchange/")}


def test_who_manages_the_system_alone_cannot_guess_what_is_stored_by_what_would_change_nothing(world):
    world.apply(
        {
            "roles": [{"name": "clerk", "permissions": ["system:manage"]}],
            "users": [{"name": "sys", "password": PASSWORD}],
            "grants": [{"role": "clerk", "users": ["sys"]}],
        }
    )
    sys = Api(world, ("sys", PASSWORD))
    for guess in (PASSWORD, "another password"):
        answer = sys.put("configuration/", {"users": [{"name": "reader", "password": guess}]})
        assert (answer.status, rule(answer)) == (403, "user:manage")
    for key in ("far", "there-is-none"):
        answer = sys.put("configuration/", {"repositories": [{"key": key, "format": "raw", "kind": "local"}]})
        assert (answer.status, rule(answer)) == (403, "repository:manage")
    assert sys.put("configuration/", {"history": {"keep": "30d"}}).status == 200
