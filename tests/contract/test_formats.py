"""What every format promises over HTTP, whatever it carries: one suite, run for each against the real server."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from repos.format import installed
from tests.contract.samples import SAMPLES, Sample, url

KEYS = sorted(SAMPLES)


@pytest.fixture(scope="module", params=KEYS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def sample(form: str) -> Sample:
    return SAMPLES[form]


@pytest.fixture(scope="module")
def world(server, upstream, form):
    """A server with a local, a remote and a virtual repository, readable by all users, and the small cast."""
    up = upstream()
    here = server(ENTREPOT_WORKERS="1")
    here.apply(
        {
            "version": 1,
            "repositories": [
                {"key": "local", "format": form, "kind": "local"},
                {"key": "secret", "format": form, "kind": "local"},
                {"key": "open", "format": form, "kind": "local"},
                {
                    "key": "remote",
                    "format": form,
                    "kind": "remote",
                    "upstreams": [{"url": up.url, "timeout": "5s"}],
                    "cache": {"lifetime": "0s", "missing": "1h"},
                },
                {"key": "lasting", "format": form, "kind": "remote", "upstreams": [{"url": up.url}], "cache": {"lifetime": "1h"}},
                {
                    "key": "virtual",
                    "format": form,
                    "kind": "virtual",
                    "members": ["remote", "local"],
                    "deploy_to": "local",
                },
                {"key": "readonly", "format": form, "kind": "virtual", "members": ["local"]},
            ],
            "users": [
                {"name": name, "password": f"{name}-password"} for name in ("owner", "developer", "writer", "reader", "outsider")
            ],
            "roles": [{"name": "creator", "permissions": ["artifact:read", "artifact:write"]}],
            "grants": [
                {"role": "owner", "users": ["owner"], "repositories": ["*"]},
                {"role": "developer", "users": ["developer"], "repositories": ["local", "virtual", "remote", "readonly"]},
                {"role": "creator", "users": ["writer"], "repositories": ["local", "virtual", "remote", "readonly"]},
                {"role": "reader", "users": ["reader"], "repositories": ["local", "virtual", "remote", "lasting", "readonly"]},
                {"role": "reader", "anonymous": True, "repositories": ["open"]},
            ],
        }
    )
    here.upstream = up
    return here


@pytest.fixture
def ask(world, form, sample):
    """Send a request to a repository of the format under test, as a user of the cast (None: anonymous)."""

    def ask(method: str, repository: str, path: str, body=None, *, user: str | None = "reader", headers=None):
        credentials = (user, f"{user}-password") if user else None
        headers = {**(sample.headers if method == "PUT" else {}), **(headers or {})}
        return world.request(method, url(form, repository, path), body=body, headers=headers, user=credentials)

    return ask


@pytest.fixture
def clean(world):
    """The promise that whatever a test did, rows and bytes agree after it."""
    yield
    found = world.manage("fsck", "--scrub", "--grace", "3600")
    assert found.stdout.strip() == "clean"


def test_every_installed_format_is_in_this_suite():
    assert set(SAMPLES) == set(installed())


def test_what_is_published_is_served_byte_for_byte(ask, sample, clean):
    path, content = sample.other_path(1), sample.other_content(1)
    assert ask("PUT", "local", path, content, user="writer").status == 201
    answer = ask("GET", "local", path)
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["X-Checksum-Sha256"] == hashlib.sha256(content).hexdigest()


def test_a_head_tells_what_a_get_would(ask, sample):
    ask("PUT", "local", sample.other_path(2), sample.other_content(2), user="writer")
    get, head = ask("GET", "local", sample.other_path(2)), ask("HEAD", "local", sample.other_path(2))
    assert head.body == b""
    assert {**head.headers, "Date": ""} == {**get.headers, "Date": ""}


def test_a_client_that_has_it_already_gets_304(ask, sample):
    ask("PUT", "local", sample.other_path(2), sample.other_content(2), user="writer")
    first = ask("GET", "local", sample.other_path(2))
    again = ask("GET", "local", sample.other_path(2), headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    since = ask("GET", "local", sample.other_path(2), headers={"If-Modified-Since": first.headers["Last-Modified"]})
    assert since.status == 304


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("bytes=0-", 0, None), ("bytes=5-9", 5, 10), ("bytes=-7", -7, None), ("bytes=3-999999", 3, None)]
)
def test_a_range_is_served_as_that_part(ask, sample, asked, start, end):
    content = sample.other_content(2)
    ask("PUT", "local", sample.other_path(2), content, user="writer")
    answer = ask("GET", "local", sample.other_path(2), headers={"Range": asked})
    assert (answer.status, answer.body) == (206, content[start:end])


def test_a_range_past_the_end_is_416(ask, sample):
    ask("PUT", "local", sample.other_path(2), sample.other_content(2), user="writer")
    assert ask("GET", "local", sample.other_path(2), headers={"Range": "bytes=9999999-"}).status == 416


def test_the_same_bytes_again_are_content_and_make_no_change(ask, world, sample, form):
    path, content = sample.other_path(3), sample.other_content(3)
    assert ask("PUT", "local", path, content, user="writer").status == 201
    before = world.counts()
    assert ask("PUT", "local", path, content, user="writer").status in (200, 201)
    assert world.counts() == before


def test_other_bytes_are_refused_where_nothing_may_change_and_else_need_overwrite(ask, sample, clean):
    assert ask("PUT", "local", sample.path, sample.content, user="writer").status == 201
    refused = ask("PUT", "local", sample.path, sample.changed, user="writer")
    if sample.immutable:
        assert refused.status == 409
        assert ask("PUT", "local", sample.path, sample.changed, user="developer").status == 409
        assert ask("GET", "local", sample.path).body == sample.content
    else:
        assert refused.status == 403
        assert "artifact:overwrite" in refused.headers["X-Entrepot-Reason"]
        assert ask("GET", "local", sample.path).body == sample.content
        assert ask("PUT", "local", sample.path, sample.changed, user="developer").status == 201
        assert ask("GET", "local", sample.path).body == sample.changed


def test_what_was_deleted_is_gone_and_may_come_back_only_with_the_same_bytes(ask, sample, clean):
    path, content = sample.other_path(4), sample.other_content(4)
    assert ask("PUT", "local", path, content, user="owner").status == 201
    assert ask("DELETE", "local", path, user="developer").status == 403
    assert ask("DELETE", "local", path, user="owner").status == sample.deleted
    assert ask("GET", "local", path).status == 404
    assert ask("DELETE", "local", path, user="owner").status == 404
    assert ask("PUT", "local", path, content, user="owner").status == 201
    assert ask("GET", "local", path).body == content


def test_what_the_format_refuses_leaves_nothing_behind(ask, world, sample, clean):
    path = sample.path.replace("corp.example/lib", "corp.example/refused")
    for name, body in sample.malformed.items():
        before = world.counts()
        answer = ask("PUT", "local", path, body, user="writer")
        assert 400 <= answer.status < 500, name
        assert answer.headers["X-Entrepot-Reason"], name
        assert b"\n" not in answer.body.strip(), name
        assert world.counts() == before, name


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ({"X-Checksum-Sha256": "0" * 64}, "digest.mismatch"),
        ({"X-Checksum-Md5": "0" * 32}, "digest.mismatch"),
        ({"X-Checksum-Sha256": "short"}, "digest.form"),
        ({"Content-Digest": "sha-256=:AAAA:"}, "digest.form"),
    ],
)
def test_a_body_with_another_digest_than_claimed_is_refused(ask, world, sample, headers, rule):
    before = world.counts()
    answer = ask("PUT", "local", sample.other_path(5), sample.other_content(5), user="writer", headers=headers)
    assert answer.status == 400
    assert rule in answer.headers["X-Entrepot-Reason"]
    assert world.counts() == before


def test_a_body_that_breaks_off_is_refused_and_leaves_nothing(world, sample, form, clean):
    content = sample.other_content(6)
    before = world.counts()
    for framing in ("length", "chunked"):
        answer = world.broken_upload(
            url(form, "local", sample.other_path(6)), content, framing, ("writer", "writer-password"), sample.headers
        )
        assert answer is None or 400 <= answer < 500
        assert world.counts() == before


def test_a_chunked_body_is_taken(world, sample, form):
    path, content = sample.other_path(7), sample.other_content(7)
    pieces = (content[start : start + 100] for start in range(0, len(content), 100))
    answer = world.request(
        "PUT", url(form, "local", path), body=pieces, headers=sample.headers, user=("writer", "writer-password")
    )
    assert answer.status == 201
    assert world.request("GET", url(form, "local", path), user=("reader", "reader-password")).body == content


@pytest.mark.parametrize(
    "path",
    [
        "a/%2e%2e/b", "a/../b", "a//b", "a%2fb", "a%5cb", "a%00b", "a%zz", "a%", "a\\b", "%ff%fe", "./a", "a/%0ab", "x" * 1025,
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_path_that_names_no_artefact_is_refused_with_the_reason(ask, world, sample, path, method):
    before = world.counts()
    answer = ask(method, "local", path, b"x" if method == "PUT" else None, user="owner")
    assert answer.status == 400
    assert "rule: path." in answer.headers["X-Entrepot-Reason"]
    assert world.counts() == before


# Who may


def test_what_is_hidden_and_what_is_absent_look_the_same(ask, sample):
    """reliability: private and absent are the same status, body and headers."""
    ask("PUT", "secret", sample.path, sample.content, user="owner")
    for user, status in ((None, 401), ("outsider", 404), ("reader", 404)):
        names = ("secret", "nowhere")
        answers = [ask("GET", repository, sample.path, user=user) for repository in names]
        assert [answer.status for answer in answers] == [status, status]
        assert answers[0].body == answers[1].body
        own = {"Date": "", "X-Request-Id": ""}
        told = [str({**answer.headers, **own}).replace(name, "…") for answer, name in zip(answers, names, strict=True)]
        assert told[0] == told[1]


def test_anonymous_is_challenged_and_reads_only_what_is_open(ask, sample):
    ask("PUT", "open", sample.path, sample.content, user="owner")
    assert ask("GET", "open", sample.path, user=None).body == sample.content
    private = ask("GET", "local", sample.path, user=None)
    assert private.status == 401
    assert private.headers["WWW-Authenticate"].startswith(sample.challenge)
    assert ask("PUT", "open", sample.other_path(1), sample.other_content(1), user=None).status == 401


def test_wrong_credentials_are_refused_even_where_anybody_may_read(world, sample, form):
    answer = world.request("GET", url(form, "open", sample.path), user=("reader", "wrong"))
    assert answer.status == 401


def test_a_reader_may_not_write_and_is_told_so(ask, world, sample):
    before = world.counts()
    for method, body in (("PUT", sample.content), ("DELETE", None)):
        answer = ask(method, "local", sample.path, body, user="reader")
        assert answer.status == 403
        assert "ask for a role" in answer.headers["X-Entrepot-Reason"]
    assert world.counts() == before


def test_nothing_is_written_to_a_remote_nor_to_a_virtual_without_deploy_to(ask, sample):
    for repository in ("remote", "readonly"):
        answer = ask("PUT", repository, sample.path, sample.content, user="owner")
        assert answer.status == 405


# Remote


@pytest.fixture(autouse=True)
def _asked_again(ask, world, sample):
    """What one test's upstream failed in is over when the next begins."""
    yield
    world.upstream.asked_again(lambda: ask("GET", "remote", sample.other_path(99)))


def test_an_artefact_is_fetched_once_and_then_served_from_here(ask, world, sample, clean):
    path, content = sample.other_path(20), sample.other_content(20)
    world.upstream.routes[sample.at_upstream(path)] = content
    assert ask("GET", "remote", path).body == content
    with world.upstream.down():
        if sample.immutable:
            assert ask("GET", "remote", path).body == content
    assert world.upstream.hits(sample.at_upstream(path)) == 1


def test_many_who_ask_at_once_cause_one_fetch(ask, world, sample):
    path, content = sample.other_path(21), sample.other_content(21)
    world.upstream.routes[sample.at_upstream(path)] = world.upstream.slowly(content, seconds=1)
    with ThreadPoolExecutor(20) as pool:
        bodies = {answer.body for answer in pool.map(lambda _: ask("GET", "lasting", path), range(20))}
    assert bodies == {content}
    assert world.upstream.hits(sample.at_upstream(path)) == 1


def test_a_document_is_asked_for_again_and_served_stale_when_the_upstream_fails(ask, world, sample):
    world.upstream.routes[sample.at_upstream(sample.document)] = sample.first
    assert ask("GET", "remote", sample.document).body == sample.first
    world.upstream.routes[sample.at_upstream(sample.document)] = sample.second
    assert ask("GET", "remote", sample.document).body == sample.second
    for failure in (500, 503, 403):
        world.upstream.routes[sample.at_upstream(sample.document)] = failure
        answer = ask("GET", "remote", sample.document)
        assert (answer.status, answer.body) == (200, sample.second)
        assert "110" in answer.headers["Warning"]
    with world.upstream.down():
        assert ask("GET", "remote", sample.document).body == sample.second


def test_an_outage_is_never_not_found(ask, world, sample):
    path = sample.other_path(22)
    for failure in (500, 502, 401):
        world.upstream.routes[sample.at_upstream(path)] = failure
        assert ask("GET", "remote", path).status == 502
        assert ask("GET", "virtual", path).status == 502
    with world.upstream.down():
        assert ask("GET", "remote", path).status in (502, 503, 504)


def test_not_found_upstream_is_404_and_remembered(ask, world, sample):
    path = sample.other_path(23)
    assert ask("GET", "remote", path).status == 404
    assert ask("GET", "remote", path).status == 404
    assert world.upstream.asked(sample.at_upstream(path)) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_body_that_the_upstream_cut_is_never_cached_nor_completed(ask, world, sample, framing, clean):
    number = 30 + ["length", "chunked", "close"].index(framing)
    path, content = sample.other_path(number), sample.other_content(number)
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        world.upstream.routes[sample.at_upstream(path)] = world.upstream.cut(content, at=cut, framing=framing)
        assert ask("GET", "remote", path).status == 502
    world.upstream.routes[sample.at_upstream(path)] = content
    assert ask("GET", "remote", path).body == content


def test_wrong_bytes_from_the_upstream_are_never_cached(ask, world, sample, clean):
    for name, body in sample.malformed.items():
        path = sample.path.replace("corp.example/lib", "corp.example/wrong")
        world.upstream.routes[sample.at_upstream(path)] = body
        answer = ask("GET", "remote", path)
        assert answer.status == 502, name


def test_bytes_that_differ_from_their_stated_digest_are_never_completed(ask, world, sample):
    path, content = sample.other_path(40), sample.other_content(40)
    world.upstream.routes[sample.at_upstream(path)] = world.upstream.stating(content, sha256="0" * 64)
    assert world.upstream.incomplete(lambda: ask("GET", "remote", path))
    world.upstream.routes[sample.at_upstream(path)] = world.upstream.stating(content, sha256=hashlib.sha256(content).hexdigest())
    assert ask("GET", "remote", path).body == content


# Virtual


def test_a_virtual_serves_its_members_and_takes_uploads_for_its_local_one(ask, world, sample):
    path, content = sample.other_path(50), sample.other_content(50)
    assert ask("PUT", "virtual", path, content, user="writer").status == 201
    assert ask("GET", "virtual", path).body == content
    assert ask("GET", "local", path).body == content
    remote_path, remote_content = sample.other_path(51), sample.other_content(51)
    world.upstream.routes[sample.at_upstream(remote_path)] = remote_content
    assert ask("GET", "virtual", remote_path).body == remote_content


def test_a_name_that_a_local_repository_holds_is_never_asked_of_a_remote(ask, world, sample):
    """Dependency confusion: neither while it is there nor after it was deleted."""
    path, content = sample.other_path(52), sample.other_content(52)
    ask("PUT", "local", path, content, user="owner")
    world.upstream.routes[sample.at_upstream(path)] = b"evil"
    assert ask("GET", "virtual", path).body == content
    ask("DELETE", "local", path, user="owner")
    assert ask("GET", "virtual", path).status == 404
    assert world.upstream.asked(sample.at_upstream(path)) == 0


# Cost


def test_what_went_wrong_is_told_in_the_status_line_too(ask, sample):
    answer = ask("GET", "local", "corp.example/nothing/@v/v9.9.9.zip")
    assert answer.status == 404
    assert "not here" in answer.reason
