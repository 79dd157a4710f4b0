"""A document that is in use is asked for again before it expires, so that no client waits for its upstream."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import connection

from repos import database, jobs, proxy, rows
from repos.ahead import AT_ONCE, revalidate
from repos.jobs import runner
from repos.models import Asset, Freshness, Job, Usage
from tests.parts.server import ADMIN_PASSWORD

ADMIN = ("admin", ADMIN_PASSWORD)
LIFETIME = 30


@pytest.mark.django_db(transaction=True)
class TestWhatIsAskedFor:
    """In the test's own process, with times as a test wants them."""

    @pytest.fixture
    def remote(self, repository, upstream):
        up = upstream()
        up.routes |= {f"/{name}": name.encode() for name in ("used", "unused", "fresh")}
        repo = repository("raw", "cache", "remote", upstreams=[{"url": up.url}], cache={"lifetime": "10m"})
        for name in ("used", "unused", "fresh"):
            proxy.start(repo, name).outcome()
        now = database.now()
        asked = {"checked_at": now - timedelta(minutes=9, seconds=10), "expires_at": now + timedelta(seconds=50)}
        Freshness.objects.exclude(path_key="fresh").update(**asked)
        for name, used in (("used", now), ("fresh", now), ("unused", asked["checked_at"] + timedelta(seconds=9))):
            Usage.objects.create(asset=Asset.objects.get(path=name), downloads=3, last_used=used)
        return repo, up

    def look(self) -> None:
        revalidate.ask_for_what_expires()
        for job in Job.objects.filter(state="queued"):
            runner.run(job.pk)

    def test_what_was_used_since_it_was_checked_and_expires_soon_and_nothing_else(self, remote):
        repo, up = remote
        self.look()
        self.look()
        assert {name: up.hits(f"/{name}") for name in ("used", "unused", "fresh")} == {"used": 2, "unused": 1, "fresh": 1}
        fresh = rows.look([repo], "used").fresh[repo.id]
        assert fresh.expires_at - database.now() > timedelta(minutes=9)
        assert list(Job.objects.values_list("kind", "state", "done", "total")) == [("revalidate", "done", 1, 1)]

    def test_several_schedulers_at_once_cause_one_question(self, remote):
        _, up = remote
        threads = [threading.Thread(target=lambda: (self.look(), connection.close())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert up.hits("/used") == 2

    def test_a_scheduler_that_comes_late_with_what_it_saw_asks_for_nothing_again(self, remote):
        """It looked before another's job had begun, and makes its own when that has ended."""
        repo, up = remote
        seen = {"paths": ["used"], "looked": database.now().isoformat()}
        self.look()
        runner.run(jobs.enqueue("revalidate", seen, repository=repo).pk)
        assert up.hits("/used") == 2
        assert set(Job.objects.values_list("state", flat=True)) == {"done"}

    def test_an_upstream_that_is_down_leaves_what_is_cached_as_it_was(self, remote):
        repo, up = remote
        before = rows.look([repo], "used").fresh[repo.id]
        with up.down():
            self.look()
        job = Job.objects.get()
        assert job.state == "failed" and "could not be reached" in job.problem
        assert rows.look([repo], "used").fresh[repo.id] == before

    def test_a_document_that_fails_keeps_no_other_from_being_asked_for(self, remote):
        repo, up = remote
        now = database.now()
        names = [f"d{n}" for n in range(3 * AT_ONCE)]
        for n, name in enumerate(names):
            up.routes[f"/{name}"] = b"a document"
            proxy.start(repo, name).outcome()
            times = {"checked_at": now - timedelta(minutes=9), "expires_at": now + timedelta(seconds=20 + n)}
            Freshness.objects.filter(path_key=name).update(**times)
            Usage.objects.create(asset=Asset.objects.get(path=name), downloads=3, last_used=now)
        up.routes["/d0"] = 500
        self.look()
        assert [up.hits(f"/{name}") for name in [*names, "used"]] == [2] * (len(names) + 1)
        job = Job.objects.get()
        assert (
            job.state == "failed"
            and "1 of 13" in job.problem
            and job.lines.get().text.startswith("d0: the upstream answered 500")
        )

    @pytest.mark.parametrize("rules", [{"offline": True}, {"exclude": ["used"]}, {"private": ["used"]}, {"include": ["other"]}])
    def test_what_is_offline_or_excluded_is_not_asked_for(self, remote, repository, rules):
        _, up = remote
        repository("raw", "cache", "remote", upstreams=[{"url": up.url}], cache={"lifetime": "10m"}, **rules)
        self.look()
        assert up.hits("/used") == 1 and Job.objects.count() == 0


def test_clients_of_a_popular_document_never_cause_a_request_once_it_is_cached(server, upstream):
    """Asked for all the time through three lifetimes, by a server as it comes: only the first question is a client's."""
    up = upstream()
    up.routes["/doc"] = b"the document"
    here = server()
    cache = {"lifetime": f"{LIFETIME}s"}
    here.apply(
        {"repositories": [{"key": "c", "format": "raw", "kind": "remote", "upstreams": [{"url": up.url}], "cache": cache}]}
    )
    assert here.request("GET", "/raw/c/doc", user=ADMIN).status == 200
    end = time.monotonic() + 3 * LIFETIME
    while time.monotonic() < end:
        answered = here.request("GET", "/raw/c/doc", user=ADMIN)
        assert (answered.status, answered.body) == (200, b"the document")
        time.sleep(0.5)
    jobs = here.rows("SELECT state, done FROM repos_job WHERE kind = 'revalidate'")
    assert len(jobs) >= 2 and set(jobs) == {("done", 1)}
    assert up.hits("/doc") == 1 + len(jobs), "the first question was a client's, all others the background's"
