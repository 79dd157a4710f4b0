"""The job table: each job is one runner's at a time, and comes to one end, whatever is delivered twice, dies or is cancelled."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection

from accounts import epoch, tokens
from accounts.actors import ANONYMOUS, actor_of
from accounts.models import Token, User
from problems import Conflict, Forbidden, Malformed, StorageFull, TooLarge, TooMany, Unauthenticated, Unavailable, UpstreamFailed
from repos import catalogue, database, fill, jobs, waiting
from repos.blobs.stores import store
from repos.configuration import engine
from repos.formats.go import ahead
from repos.jobs import kinds, outlive, runner, schedule, table
from repos.models import Description, Job, JobLine
from tests.flows.test_commit import put
from tests.gomodules import make_zip

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def kind(monkeypatch):
    """Makes kinds that live as long as the test: `kind(work)`."""
    monkeypatch.setattr(kinds, "_kinds", dict(kinds._kinds))

    def kind(work, **options) -> str:
        jobs.kind("tried", check=lambda arguments, _: arguments, **options)(work)
        return "tried"

    return kind


def run_in_a_thread(pk: int) -> bool:
    try:
        return runner.run(pk)
    finally:
        connection.close()


def lapse(job: Job) -> None:
    """As if its runner had been silent for too long."""
    Job.objects.filter(pk=job.pk).update(expires_at=database.now() - timedelta(seconds=1))


def test_a_job_that_is_delivered_ten_times_at_once_runs_once(kind):
    ran = Counter()

    def work(job) -> dict:
        ran[job.job.pk] += 1
        return {}

    made = [jobs.enqueue(kind(work)) for _ in range(5)]
    with ThreadPoolExecutor(10) as pool:
        claimed = list(pool.map(run_in_a_thread, [job.pk for job in made for _ in range(10)]))
    assert set(ran.values()) == {1} and sum(claimed) == len(ran) == 5
    assert set(Job.objects.values_list("state", "attempt")) == {("done", 1)}


def test_asking_again_with_a_key_gives_the_job_that_has_not_ended(kind):
    name = kind(lambda job: {})
    with ThreadPoolExecutor(8) as pool:
        asked = set(pool.map(lambda _: (jobs.enqueue(name, key="k").pk, connection.close())[0], range(8)))
    assert len(asked) == 1
    runner.run(asked.pop())
    assert jobs.enqueue(name, key="k").state == "queued", "the first has ended"
    assert Job.objects.count() == 2


def test_a_runner_that_was_thought_dead_cannot_end_what_another_has_taken_over(kind):
    job = jobs.enqueue(kind(lambda job: {}))
    first = table.claim(job.pk)
    assert table.claim(job.pk) is None
    lapse(job)
    second = table.claim(job.pk)
    assert (second.attempt, second.fence != first.fence) == (2, True)
    assert not table.finish(first, {"by": "first"}) and not table.fail(first, UpstreamFailed("x"), passes=False)
    assert not table.give_back(first) and table.note(first, 1, None, ["x"]) is None and table.renew([first.fence]) == {}
    assert table.finish(second, {"by": "second"})
    job.refresh_from_db()
    assert (job.state, job.result, job.ended_at is not None) == ("done", {"by": "second"}, True)


def test_a_runner_that_lost_its_job_stops_at_its_next_step(kind):
    reached = []

    def work(job) -> dict:
        lapse(job.job)
        assert table.claim(job.job.pk)
        job._written -= runner.WRITE_EVERY
        job.progress(1)
        reached.append("past the step")
        return {}

    job = jobs.enqueue(kind(work))
    runner.run(job.pk)
    job.refresh_from_db()
    assert reached == [] and job.state == "running"


def test_a_job_that_kills_its_runners_is_given_up(kind):
    job = jobs.enqueue(kind(lambda job: {}, attempts=2))
    for attempt in (1, 2):
        assert table.due(10) == [job.pk]
        assert table.claim(job.pk).attempt == attempt
        lapse(job)
    assert table.due(10) == [] and table.claim(job.pk) is None
    table.settle_lapsed()
    job.refresh_from_db()
    assert job.state == "failed" and "lost" in job.problem


def test_what_may_pass_is_tried_again_after_growing_pauses_and_then_fails(kind):
    def work(job) -> dict:
        raise UpstreamFailed("it is down")

    job = jobs.enqueue(kind(work, attempts=3))
    pauses = []
    for _ in range(2):
        runner.run(job.pk)
        job.refresh_from_db()
        assert (job.state, job.problem) == ("queued", "it is down")
        pauses.append((job.not_before - database.now()).total_seconds())
        assert not runner.run(job.pk), "not before the pause is over"
        Job.objects.update(not_before=database.now())
    assert 0 < pauses[0] < pauses[1]
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempt) == ("failed", 3)


@pytest.mark.parametrize("error", [Malformed("it cannot be"), Forbidden("it may not be"), ZeroDivisionError("a defect")])
def test_what_cannot_pass_is_not_tried_again(kind, error):
    def work(job) -> dict:
        raise error

    job = jobs.enqueue(kind(work))
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempt) == ("failed", 1)
    assert ("a defect" in job.problem) is False, "what a defect says may hold secrets: it is in the server's log"


def test_a_queued_job_is_cancelled_at_once_and_never_runs(kind):
    ran = []
    job = jobs.enqueue(kind(lambda job: ran.append(1) or {}))
    assert jobs.cancel(job.pk)
    assert not runner.run(job.pk) and ran == []
    job.refresh_from_db()
    assert job.state == "cancelled" and not jobs.cancel(job.pk)


def test_a_running_job_is_cancelled_at_its_next_step(kind):
    begun, asked = threading.Event(), threading.Event()

    def work(job) -> dict:
        begun.set()
        assert asked.wait(60)
        for n in range(1_000_000):
            job.progress(n)
            threading.Event().wait(0.01)
        return {}

    job = jobs.enqueue(kind(work))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_in_a_thread, job.pk)
        assert begun.wait(60) and jobs.cancel(job.pk)
        asked.set()
        assert running.result(60)
    job.refresh_from_db()
    assert (job.state, job.fence) == ("cancelled", "")


def test_a_cancelled_job_whose_runner_died_is_not_begun_again(kind):
    job = jobs.enqueue(kind(lambda job: {}))
    table.claim(job.pk)
    jobs.cancel(job.pk)
    lapse(job)
    assert table.due(10) == [] and table.claim(job.pk) is None
    table.settle_lapsed()
    job.refresh_from_db()
    assert job.state == "cancelled"


@pytest.mark.parametrize("error", [UpstreamFailed("it is down"), runner.Stop("ending")])
def test_a_cancelled_job_is_not_queued_again_by_what_comes_before_its_next_step(kind, error):
    def work(job) -> dict:
        assert jobs.cancel(job.job.pk)
        raise error

    job = jobs.enqueue(kind(work))
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.ended_at is not None, table.due(10)) == ("cancelled", True, [])


def test_a_worker_that_ends_gives_its_jobs_back(kind, monkeypatch):
    def work(job) -> dict:
        monkeypatch.setattr(runner._signs, "_ending", True)
        job.progress(1)
        raise AssertionError("it went on")

    job = jobs.enqueue(kind(work))
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempt, table.due(10)) == ("queued", 0, [job.pk])


def test_an_ended_job_is_retried_with_what_it_was_asked_for(kind):
    outcomes = iter([Forbidden("no"), None])

    def work(job) -> dict:
        if problem := next(outcomes):
            raise problem
        return dict(job.arguments)

    job = jobs.enqueue(kind(work), {"a": 1}, key="k")
    with pytest.raises(Conflict):
        jobs.retry(job.pk)
    runner.run(job.pk)
    jobs.retry(job.pk)
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.problem, job.result, job.attempt) == ("done", "", {"a": 1}, 1)
    jobs.enqueue("tried", key="k")
    with pytest.raises(Conflict):
        jobs.retry(job.pk)


def test_progress_and_a_bounded_log_are_kept(kind):
    def work(job) -> dict:
        for n in range(table.LINES + 50):
            job.log(f"line {n} " + "x" * 1000)
            job.progress(n + 1, 2000)
        return {}

    job = jobs.enqueue(kind(work))
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.done, job.total) == ("done", table.LINES + 50, 2000)
    lines = list(JobLine.objects.order_by("pk").values_list("text", flat=True))
    assert len(lines) == table.LINES and max(map(len, lines)) == table.LINE
    assert lines[0].startswith("line 0 ") and "left out" in lines[-1]


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_others_say_is_told_without_what_cannot_be_printed(kind, attempts):
    said = "an answer in a\0b\x1b[2J\ud800"

    def work(job) -> dict:
        job.log(said)
        raise UpstreamFailed(said)

    job = jobs.enqueue(kind(work, attempts=attempts))
    runner.run(job.pk)
    job.refresh_from_db()
    assert job.state == ("failed" if attempts == 1 else "queued")
    assert job.problem == job.lines.get().text == "an answer in a\ufffdb\ufffd[2J\ufffd"


def test_each_time_slot_of_a_periodic_kind_gets_one_job_and_none_runs_before_it(kind):
    kind(lambda job: {}, every=timedelta(hours=1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: (schedule.plan(), connection.close()), range(8)))
    planned = Job.objects.get(kind="tried")
    assert timedelta() < planned.not_before - database.now() <= timedelta(hours=1)
    assert planned.pk not in table.due(10)
    jobs.cancel(planned.pk)
    schedule.plan()
    assert Job.objects.filter(kind="tried").count() == 1, "a slot that was cancelled stays so"


def test_what_ended_long_ago_is_forgotten_with_its_log(kind):
    name = kind(lambda job: job.log("a line") or {}, keep=timedelta(days=1))
    old, new, waiting = (jobs.enqueue(name) for _ in range(3))
    for job in (old, new):
        runner.run(job.pk)
    Job.objects.filter(pk=old.pk).update(ended_at=database.now() - timedelta(days=2))
    assert schedule.forget() == 1
    assert set(Job.objects.values_list("pk", flat=True)) == {new.pk, waiting.pk}
    assert JobLine.objects.count() == 1


# For whom


@pytest.fixture
def remote(repository, upstream):
    up = upstream()
    up.routes["/a"] = b"the bytes"
    return repository("raw", "cache", "remote", upstreams=[{"url": up.url}], cache={"lifetime": "1h"}), up


def grant(name: str, *repositories: str) -> None:
    engine.apply({"users": [{"name": name}]})
    if repositories:
        engine.apply({"grants": [{"role": "reader", "users": [name], "repositories": list(repositories)}]})


def prefetch(repo, text: str, actor=None) -> Job:
    job = jobs.enqueue("prefetch", {"text": text}, repository=repo, actor=actor)
    runner.run(job.pk)
    job.refresh_from_db()
    return job


def test_a_job_gets_what_its_user_gets_and_no_more(remote):
    repo, up = remote
    grant("reader", "cache")
    grant("stranger")
    reader, stranger = (actor_of(User.objects.get(username=name)) for name in ("reader", "stranger"))
    refused = prefetch(repo, "a", stranger)
    assert refused.state == "failed" and up.seen == []
    assert prefetch(repo, "a", reader).state == "done" and up.hits("/a") == 1


def test_a_right_that_was_lost_after_asking_is_missing_when_the_job_runs(remote):
    repo, up = remote
    grant("reader", "cache")
    user = User.objects.get(username="reader")
    waiting = [jobs.enqueue("prefetch", {"text": "a"}, repository=repo, actor=actor_of(user)) for _ in range(2)]
    user.user_permissions.clear()
    engine.apply({"grants": []}, prune=True)
    runner.run(waiting[0].pk)
    user.is_active = False
    user.save()
    runner.run(waiting[1].pk)
    for job in waiting:
        job.refresh_from_db()
        assert job.state == "failed" and "rule: job.permission" in job.problem
    assert up.seen == []


def test_a_token_narrows_its_jobs_too(remote):
    repo, up = remote
    grant("reader", "cache")
    narrow = replace(actor_of(User.objects.get(username="reader")), scopes=("artifact:read@other",))
    assert prefetch(repo, "a", narrow).state == "failed" and up.seen == []


def prefetch_by_token(repo) -> tuple[Token, Job]:
    """A reader's token, and the job that was asked for with it and has not begun."""
    grant("reader", "cache")
    user = User.objects.get(username="reader")
    token, _ = tokens.create(user)
    return token, jobs.enqueue("prefetch", {"text": "a"}, repository=repo, actor=replace(actor_of(user), token_id=token.pk))


def test_a_revoked_token_ends_what_its_jobs_may(remote):
    repo, up = remote
    token, job = prefetch_by_token(repo)
    tokens.revoke(token)
    runner.run(job.pk)
    job.refresh_from_db()
    assert job.state == "failed" and "revoked" in job.problem and up.seen == []


@pytest.mark.parametrize("kind", ["gc", "expire"])
def test_what_keeps_the_house_in_order_is_refused_to_who_may_no_longer_ask_for_it(own_store, kind):
    grant("keeper")
    engine.apply({"roles": [{"name": "keeper", "permissions": ["system:manage"]}]})
    engine.apply({"grants": [{"role": "keeper", "users": ["keeper"]}]})
    keeper = User.objects.get(username="keeper")
    token, _ = tokens.create(keeper)
    revoked = jobs.enqueue(kind, actor=replace(actor_of(keeper), token_id=token.pk))
    tokens.revoke(token)
    runner.run(revoked.pk)
    demoted = jobs.enqueue(kind, actor=actor_of(keeper))
    runner.run(demoted.pk)
    demoted.refresh_from_db()
    assert demoted.state == "done"
    engine.apply({"grants": []}, prune=True)
    jobs.retry(demoted.pk)
    for job, rule in ((revoked, "job.token"), (demoted, "job.permission")):
        runner.run(job.pk)
        job.refresh_from_db()
        assert job.state == "failed" and f"rule: {rule}" in job.problem


def test_a_token_that_has_only_expired_since_does_not_end_what_was_asked_for_with_it(remote):
    repo, _ = remote
    token, job = prefetch_by_token(repo)
    Token.objects.filter(pk=token.pk).update(expires_at=database.now() - timedelta(seconds=1))
    runner.run(job.pk)
    job.refresh_from_db()
    assert job.state == "done"


def test_one_users_jobs_leave_room_for_those_of_others_and_come_after_the_installations(kind):
    name = kind(lambda job: {})
    many, few = (actor_of(User.objects.create(username=name)) for name in ("many", "few"))
    first, second, *rest = (jobs.enqueue(name, actor=many).pk for _ in range(10))
    other, own = jobs.enqueue(name, actor=few).pk, jobs.enqueue(name).pk
    assert table.due(50) == [own, first, second, other]
    table.claim(first)
    assert table.due(50) == [own, second, other], "one of theirs runs"
    runner.run(second)
    assert table.due(50) == [own, rest[0], other]


def test_a_user_who_has_a_hundred_jobs_waiting_is_told_to_wait(kind):
    name = kind(lambda job: {})
    busy, other = (actor_of(User.objects.create(username=name)) for name in ("busy", "other"))
    made = [jobs.enqueue(name, actor=busy) for _ in range(table.OF_ONE)]
    with pytest.raises(TooMany):
        jobs.enqueue(name, actor=busy)
    assert jobs.enqueue(name, actor=other) and jobs.enqueue(name)
    jobs.cancel(made[0].pk)
    last = jobs.enqueue(name, actor=busy)
    with pytest.raises(TooMany):
        jobs.retry(made[0].pk)
    jobs.cancel(last.pk)
    jobs.retry(made[0].pk)


def test_nobody_in_particular_starts_no_job_and_the_jobs_of_a_removed_user_go_too(remote):
    repo, _ = remote
    with pytest.raises(Unauthenticated):
        jobs.enqueue("prefetch", {"text": "a"}, repository=repo, actor=ANONYMOUS)
    grant("reader", "cache")
    user = User.objects.get(username="reader")
    jobs.enqueue("prefetch", {"text": "a"}, repository=repo, actor=actor_of(user))
    user.delete()
    assert Job.objects.count() == 0, "it must not become the installation's own, which may everything"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, Malformed),
        ({"text": 1}, Malformed),
        ({"text": "a", "more": 1}, Malformed),
        ({"text": "# nothing\n"}, Malformed),
        ({"text": "a/../b"}, Malformed),
        ({"text": "folder/"}, Malformed),
        ({"text": "a\0"}, Malformed),
        ({"text": "a" * 1025}, Malformed),
        ({"text": "a\n" * 20_001}, TooLarge),
        ({"text": "a" * (5 << 20)}, TooLarge),
        *(({"text": f"a{end}" * 20_001}, Malformed) for end in "\r\v\f\x1c\x85\u2028"),  # which end no line, counted or read
    ],
)
def test_a_prefetch_that_makes_no_sense_is_refused_and_leaves_no_job(remote, arguments, error):
    with pytest.raises(error):
        jobs.enqueue("prefetch", arguments, repository=remote[0])
    assert Job.objects.count() == 0


def test_lines_of_a_prefetch_may_end_as_on_windows(remote):
    assert prefetch(remote[0], "# a list\r\n\r\na\r\n").state == "done"


def test_a_prefetch_tries_all_and_tells_what_could_not_be_had(remote):
    repo, up = remote
    up.routes |= {"/b": 500, "/c": b"c"}
    job = prefetch(repo, "a  # the first\n\n/b\nmissing\nc\n")
    assert job.state == "failed" and "2 of 4" in job.problem
    assert job.result == {"lines": 2, "failed": 2, "files": 2, "fetched": 2, "bytes": 10}
    told = sorted(job.lines.values_list("text", flat=True))
    assert told[0].startswith("b: the upstream answered 500") and told[1].startswith("missing: missing is not here")
    up.routes |= {"/b": b"b"}
    again = prefetch(repo, "a\nb\nc")
    assert (again.state, again.result["fetched"], up.hits("/a")) == ("done", 1, 1)


def test_a_prefetch_is_begun_again_for_what_may_pass_and_its_log_is_that_of_the_last_attempt(remote):
    repo, up = remote
    up.routes |= {"/a": 503, "/b": b"b", "/wrong": 500}
    job = prefetch(repo, "a\nb\nwrong\nmissing\n")
    assert (job.state, job.attempt) == ("queued", 1) and "3 of 4" in job.problem
    failed = ["a", "missing", "wrong"]
    assert sorted(line.split(":")[0] for line in job.lines.values_list("text", flat=True)) == failed
    up.routes["/wrong"] = b"right now"
    Job.objects.update(not_before=database.now(), attempts=2)
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.result["failed"], up.hits("/b")) == ("failed", 2, 1)
    assert sorted(line.split(":")[0] for line in job.lines.values_list("text", flat=True)) == ["a", "missing"]


def test_a_prefetch_that_met_an_upstream_that_was_out_gets_all_once_it_answers(remote):
    repo, up = remote
    names = [f"n{n}" for n in range(20)]
    up.routes |= {f"/{name}": name.encode() for name in names}
    with up.down():
        job = prefetch(repo, "\n".join(names))
    assert job.state == "queued" and "20 of 20" in job.problem and job.lines.count() == 20
    deadline = time.monotonic() + 60
    while job.state == "queued" and time.monotonic() < deadline:
        Job.objects.update(not_before=database.now(), attempts=100)
        runner.run(job.pk)
        job.refresh_from_db()
    assert (job.state, job.result["files"]) == ("done", 20)


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("room", ["repos.fill", "repos.ahead"])
def test_a_connection_that_cannot_be_given_back_keeps_nobody_waiting(remote, monkeypatch, room):
    given_back = []

    class Stuck:
        def close(self) -> None:
            given_back.append(room)
            connection.close()  # the test's database is to be dropped after all
            raise OperationalError("the pool is closed")

    monkeypatch.setattr(f"{room}.connection", Stuck())
    assert prefetch(remote[0], "a").state == "done"
    assert given_back == [room]


def test_a_full_disk_ends_a_prefetch_at_once_until_there_is_room(remote, monkeypatch):
    repo, up = remote
    up.default = b"bytes"

    def full(*_, **options):
        raise StorageFull("no room for the bytes")

    with monkeypatch.context() as patch:
        patch.setattr(type(store()), "receive", full)
        job = prefetch(repo, "\n".join(f"n{n}" for n in range(100)))
        while under_way := list(fill._fills.values()):  # no later attempt is to meet what this one left
            assert under_way[0].wait(30)
    assert job.state == "queued" and "no room" in job.problem and len(up.seen) < 20
    Job.objects.update(not_before=database.now())
    runner.run(job.pk)
    job.refresh_from_db()
    assert (job.state, job.result["files"]) == ("done", 100)


def test_more_jobs_than_requests_may_wait_for_a_silent_upstream(remote, settings):
    repo, up = remote
    settings.ENTREPOT = replace(settings.ENTREPOT, threads=4)
    up.default = up.slowly(b"late", seconds=waiting.PATIENCE + 1.0)
    with ThreadPoolExecutor(2) as pool:
        texts = ["".join(f"{job}/{n}\n" for n in range(4)) for job in range(2)]
        ended = list(pool.map(lambda text: (prefetch(repo, text).state, connection.close())[0], texts))
    assert ended == ["done", "done"] and not JobLine.objects.exists()


def test_a_prefetch_of_go_resolves_checks_digests_and_leaves_local_names_inside(repository, upstream):
    up = upstream()
    zipped, other = make_zip("rsc.io/a", "v1.1.0", {"a.go": b"package a"}), make_zip("rsc.io/b", "v1.0.0", {})
    mod = b"module rsc.io/a\n\ngo 1.21\n"
    up.routes |= {
        "/rsc.io/a/@v/list": b"v1.0.0\nv1.1.0\n", "/rsc.io/a/@v/v1.1.0.info": b'{"Version":"v1.1.0"}',
        "/rsc.io/a/@v/v1.1.0.mod": mod, "/rsc.io/a/@v/v1.1.0.zip": zipped,
        "/rsc.io/a/@v/main.info": b'{"Version":"v1.1.0"}',
        "/rsc.io/b/@v/v1.0.0.info": b'{"Version":"v1.0.0"}', "/rsc.io/b/@v/v1.0.0.mod": b"module rsc.io/b\n",
        "/rsc.io/b/@v/v1.0.0.zip": other,
    }  # fmt: skip
    local = repository("go", "ours")
    at = "corp.example/lib/@v/v1.0.0"
    put(local, {f"{at}.info": b'{"Version":"v1.0.0"}', f"{at}.mod": b"module corp.example/lib\n"})
    put(local, {f"{at}.zip": make_zip("corp.example/lib", "v1.0.0", {}, go_mod=b"module corp.example/lib\n")})
    repository("go", "theirs", "remote", upstreams=[{"url": up.url}])
    repository("go", "all", "virtual", members=["ours", "theirs"])
    everything = catalogue.repositories(epoch.current())["go", "all"]

    assert prefetch(everything, "rsc.io/a@latest\nrsc.io/a@main\n").result["files"] == 6
    assert up.hits("/rsc.io/a/@v/v1.1.0.zip") == 1
    digest = Description.objects.get(blob__sha256=sha256_of(zipped)).data["h1"]
    go_sum = f"rsc.io/a v1.1.0 {digest}\nrsc.io/a v1.1.0/go.mod {ahead.h1('.mod', sha256_of(mod))}\n"
    assert prefetch(everything, go_sum).state == "done"
    wrong = prefetch(everything, f"rsc.io/b v1.0.0 {digest}\n")
    assert wrong.state == "failed" and "one of the two is wrong" in wrong.lines.get().text
    inside = prefetch(everything, "corp.example/lib@v1.0.0\ncorp.example/lib@v2.0.0+incompatible\n")
    assert "1 of 2" in inside.problem and not [path for path, _ in up.seen if "corp.example" in path]
    assert prefetch(everything, "rsc.io/a@v1.1.0").result["fetched"] == 0


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Fetches under way in a server


def test_a_server_that_ends_hands_over_each_fetch_even_where_one_cannot_be(remote, monkeypatch):
    repo, _ = remote
    asked = []

    def enqueue(*words, key: str, **options) -> None:
        asked.append(key)
        raise Unavailable("keys come and go")

    monkeypatch.setattr(table, "enqueue", enqueue)
    under_way = [jobs.outliving("fetch", {"path": key}, repository=repo, key=key) for key in ("a", "b")]
    with under_way[0], under_way[1]:
        outlive._leave()
    assert sorted(asked) == ["a", "b"]


# By command


def test_jobs_are_started_shown_cancelled_and_retried_from_the_command_line(remote, tmp_path, capsys):
    names = tmp_path / "names"
    names.write_text("a\nmissing\n")

    def job(*words: str) -> str:
        try:
            call_command("job", *words)
        except SystemExit as end:
            return f"{capsys.readouterr().out}exit {end.code}"
        return capsys.readouterr().out

    queued = job("run", "prefetch", "--repository", "cache", "--file", str(names))
    pk = str(Job.objects.get().pk)
    assert f"job {pk} is queued" in queued and "job show" in queued
    assert "is cancelled" in job("cancel", pk)
    with pytest.raises(CommandError, match="has ended already"):
        job("cancel", pk)
    assert "is queued again" in job("retry", pk)
    assert [line.split()[:5] for line in job("list", "--state", "queued").splitlines()[1:]] == [
        [pk, "prefetch", "cache", "entrepot", "queued"]
    ]
    ran = job("run", "prefetch", "--repository", "cache", "--file", str(names), "--here")
    assert "missing: missing is not here" in ran and "prefetch failed: 1 of 2" in ran and ran.endswith("exit 1")
    shown = job("show", str(Job.objects.latest("pk").pk), "--log")
    assert "2/2" in shown and "missing is not here" in shown
    names.write_text("a\n")
    assert job("run", "prefetch", "--repository", "cache", "--file", str(names), "--here").endswith(
        "prefetch done: bytes 0, failed 0, fetched 0, files 1, lines 1\nexit 0"
    )
    for words in (("run", "nonsense"), ("run", "prefetch"), ("run", "gc", "--repository", "nowhere"), ("show", "999999")):
        with pytest.raises(CommandError):
            job(*words)
    assert Job.objects.count() == 3
