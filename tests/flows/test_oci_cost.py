"""What images cost, in queries and what these read, however much there is; and what a pass is worth, whatever is asked."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
import weakref
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import combinations
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import epoch, tokens
from accounts.access import rights_of
from accounts.authenticate import authenticate
from accounts.models import User
from repos import catalogue, hot, models
from repos.configuration import engine
from repos.formats.oci.index import PLACES
from repos.formats.oci.parse import image_of
from repos.models import Asset, Blob, Description, Reference
from repos.upkeep.unheld import close_unheld
from tests.flows.test_commit import put
from tests.parts.oci import INDEX, digest, index
from tests.parts.server import Server

pytestmark = pytest.mark.django_db(transaction=True)

SUBJECT = digest(b"subject")


@pytest.fixture
def here(repository):
    """A local repository with one image, which has one tag."""
    repo = repository("oci", "local")
    repository("oci", "virtual", "virtual", members=["local"])
    put(repo, {"app/manifests/first": index()})
    engine.apply(
        {
            "users": [{"name": "reader"}, {"name": "narrow"}],
            "grants": [
                {"role": "reader", "users": ["reader"], "repositories": ["*"]},
                {"role": "reader", "users": ["narrow"], "repositories": ["local"], "paths": ["zzz/**"]},
            ],
        }
    )
    return repo


def login(name: str) -> dict[str, str]:
    _, secret = tokens.create(User.objects.get(username=name))
    return Server.authorization(("x", secret))


def stand(repo, places: dict[str, str], blobs: list[Blob] | None = None) -> None:
    """Rows of a great many manifests, by path with the version each; PostgreSQL makes statistics of so many by itself."""
    blob = Blob.objects.first()
    since = models.Repository.objects.get(pk=repo.id).head
    Asset.objects.bulk_create(
        [
            Asset(
                repository_id=repo.id, path=path, path_key=path, blob=blobs[n] if blobs else blob, media_type=INDEX,
                package=image_of(path), version=version, since=since,
            )
            for n, (path, version) in enumerate(places.items())
        ],
        batch_size=5000,
    )  # fmt: skip
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def cost(path: str, headers: dict[str, str]) -> tuple[int, dict]:
    """In queries, once what is kept by epoch is loaded; and the answer."""
    client = Client()
    client.get(path, headers=headers)
    with CaptureQueriesContext(connection) as captured:
        answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    return len(captured), json.loads(answer.content)


@pytest.mark.parametrize("through", ["local", "virtual"])
def test_a_list_of_tags_costs_the_same_at_a_hundred_thousand(here, through):
    reader = login("reader")
    few, _ = cost(f"/v2/{through}/app/tags/list?n=50", reader)
    names = [f"v{n:06}" for n in range(100_000)]
    stand(here, {f"app/manifests/{name}": name for name in names})
    for query, expected in (
        ("?n=50", ["first", *names[:49]]), ("?n=50&last=v050000", names[50_001:50_051]), ("?n=50&last=v099998", names[99_999:]),
        ("", ["first", *names[:9999]]), ("?n=200000", ["first", *names[:9999]]),
    ):  # fmt: skip
        many, document = cost(f"/v2/{through}/app/tags/list{query}", reader)
        assert document["tags"] == expected
        assert many == few <= 4


def test_a_page_of_the_catalogue_costs_the_same_at_ten_thousand_images(here):
    reader, narrow = login("reader"), login("narrow")
    few, _ = cost("/v2/_catalog?n=50", reader)
    few_narrow, _ = cost("/v2/_catalog", narrow)
    names = [f"img/{n:05}" for n in range(10_000)]
    stand(here, {f"{name}/manifests/{tag}": tag for name in [*names, "zzz/mine"] for tag in ("v1", "v2", "v3")})
    for query, expected in (
        ("?n=50", ["app", *names[:49]]), ("?n=50&last=local/img/05000", names[5001:5051]), ("?n=1000", ["app", *names[:999]]),
    ):  # fmt: skip
        many, document = cost(f"/v2/_catalog{query}", reader)
        assert document["repositories"] == [f"local/{name}" for name in expected]
        assert many <= few <= 3, "fewer where the page is full before the next repository"
    many, document = cost("/v2/_catalog", narrow)
    assert document["repositories"] == ["local/zzz/mine"]
    assert many == few_narrow


@pytest.fixture
def few_of_many(here) -> list[str]:
    """The names of three images, spread over all, that the user few may read of a repository, also through a virtual one."""
    paths = ["img/*0/mine", "img/?/mine"]
    where = {"users": ["few"], "repositories": ["local", "virtual"]}
    engine.apply({"users": [{"name": "few"}], "grants": [{"role": "reader", "paths": paths, **where}]})
    mine = ["img/0/mine", "img/5000/mine", "img/9/mine"]
    stand(here, {f"{name}/manifests/v1": "v1" for name in mine})
    return mine


def pages(path: str, headers: dict[str, str]) -> list[list[str]]:
    """Each page of a catalogue, as its links lead to it."""
    found: list[list[str]] = []
    while path:
        answer = Client().get(path, headers=headers)
        found.append(answer.json()["repositories"])
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return found


def test_the_catalogue_costs_the_same_at_five_thousand_images_of_which_one_may_read_three(here, few_of_many):
    headers = login("few")
    expected = [f"{key}/{name}" for key in ("local", "virtual") for name in few_of_many]
    stand(here, {f"img/{n}/theirs/manifests/v1": "v1" for n in range(10)})
    few, document = cost("/v2/_catalog", headers)
    assert document["repositories"] == expected
    stand(here, {f"img/{n}/theirs/manifests/v1": "v1" for n in range(10, 5000)})
    many, document = cost("/v2/_catalog", headers)
    assert document["repositories"] == expected
    assert many == few == 2, "who asks, and what they may read"
    for count in (1, 2, 3, 4):
        assert pages(f"/v2/_catalog?n={count}", headers) == [expected[n : n + count] for n in range(0, 6, count)]
    _, secret = tokens.create(User.objects.get(username="few"), scopes=["artifact:read@local:img/5*/**"])
    _, document = cost("/v2/_catalog", Server.authorization(("x", secret)))
    assert document["repositories"] == ["local/img/5000/mine"]


def test_a_page_of_the_catalogue_is_made_by_the_index_and_reads_not_past_its_end(here, few_of_many):
    headers = login("few")
    first_page = partial(Client().get, "/v2/_catalog?n=1", headers=headers)  # and reads on to the second
    stand(here, {f"img/0/theirs/{n:04}/manifests/{tag}": tag for n in range(1000) for tag in ("v1", "v2", "v3")})
    first_page()
    few = steps(first_page)
    stand(here, {f"img/8/theirs/{n:04}/manifests/v1": "v1" for n in range(5000)})
    assert steps(first_page) < 1.1 * few
    with CaptureQueriesContext(connection) as captured:
        first_page()
    [statement] = [query["sql"] for query in captured if "RECURSIVE" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(("EXPLAIN ANALYZE " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN ") + statement)
        plan = [str(row[-1]) for row in cursor.fetchall()]
    reads = [line for line in plan if "repos_asset" in line]
    assert reads
    assert all("asset_package" in line for line in reads), plan
    passed = [int(rows) for line in plan for rows in re.findall(r"Recursive Union.*\(actual.* rows=(\d+)", line)]
    assert [rows < 1100 for rows in passed] == [True] * (connection.vendor == "postgresql"), plan


def test_the_catalogue_of_a_virtual_repository_of_which_one_may_read_no_member_is_empty(here):
    _, secret = tokens.create(User.objects.get(username="reader"), scopes=["artifact:read@virtual"])
    assert cost("/v2/_catalog", Server.authorization(("x", secret)))[1] == {"repositories": []}


def test_a_catalogue_of_more_repositories_than_one_statement_asks_has_each_image_once(here):
    keys = [f"r{n:03}" for n in range(2 * PLACES)]
    engine.apply({"repositories": [{"key": key, "format": "oci", "kind": "local"} for key in keys]})
    for repo in models.Repository.objects.filter(key__in=keys[::3]):
        stand(repo, {"app/manifests/v1": "v1"})
    expected = ["local/app", *(f"{key}/app" for key in keys[::3]), "virtual/app"]
    reader = login("reader")
    count, document = cost("/v2/_catalog", reader)
    assert document["repositories"] == expected
    assert count == 4, "who asks, and three for the repositories"
    assert pages("/v2/_catalog?n=7", reader) == [expected[n : n + 7] for n in range(0, len(expected), 7)]


@pytest.mark.parametrize("through", ["local", "virtual"])
def test_a_page_of_referrers_costs_the_same_at_ten_thousand(here, through):
    reader = login("reader")
    few, _ = cost(f"/v2/{through}/app/referrers/{SUBJECT}", reader)
    names = refer(here, 10_000)
    half = names[len(names) // 2]
    for query, expected in (
        ("", names[:1000]), (f"?last={quote(half)}", names[5001:6001]), (f"?last={quote(names[-2])}", names[-1:]),
        ("?artifactType=application/x.even", [name for name in names if int(name[-1], 16) % 2 == 0][:1000]),
    ):  # fmt: skip
        many, document = cost(f"/v2/{through}/app/referrers/{SUBJECT}{query}", reader)
        assert [one["digest"] for one in document["manifests"]] == expected
        assert many == few <= 4


def test_a_page_of_referrers_with_large_annotations_is_made_without_reading_all_of_them(here):
    refer(here, 1000, {"annotations": {"text": "x" * 60_000}})
    reader = login("reader")
    cost("/v2/local/app/tags/list", reader)
    tracemalloc.start()
    try:
        _, document = cost(f"/v2/local/app/referrers/{SUBJECT}", reader)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(document["manifests"]) == 69, "as many as a client takes"
    assert most < 40 * 1024 * 1024, "which is less than the annotations of all"


def store_rows(names: list[str]) -> list[Blob]:
    """Rows of bytes with these digests."""
    moment = models.Change.objects.first().at
    return Blob.objects.bulk_create(
        [Blob(sha256=name[7:], size=1, key=f"{name[7:9]}/{name[7:]}/1", created_at=moment) for name in names], batch_size=5000
    )


def refer(repo, count: int, facts: dict[str, Any] | None = None) -> list[str]:
    """Rows of many manifests that refer to the subject; their digests in order."""
    names = sorted(digest(f"{n}".encode()) for n in range(count))
    blobs = store_rows(names)
    Reference.objects.bulk_create([Reference(blob=blob, digest=SUBJECT, kind="subject") for blob in blobs], batch_size=5000)
    parity = {True: "application/x.even", False: "application/x.odd"}
    Description.objects.bulk_create(
        [
            Description(
                blob=blob,
                format="oci",
                path_class="manifest",
                data={"artifactType": parity[int(name[-1], 16) % 2 == 0], **(facts or {})},
            )
            for name, blob in zip(names, blobs, strict=True)
        ],
        batch_size=5000,
    )  # fmt: skip
    stand(repo, {f"app/manifests/{name}": name for name in names}, blobs)
    return names


def build(repo, image: str, count: int) -> None:
    """Rows of an image with so many manifests, each with a tag and three layers, and as many layers more that none refers to."""
    manifests = [digest(f"{image} {n}".encode()) for n in range(count)]
    layers = [digest(f"{image} {n} {k}".encode()) for n in range(count) for k in range(4)]
    stored = dict(zip([*manifests, *layers], store_rows([*manifests, *layers]), strict=True))
    named = [(manifest, layer) for n, manifest in enumerate(manifests) for layer in layers[4 * n : 4 * n + 3]]
    Reference.objects.bulk_create(
        [Reference(blob=stored[manifest], digest=layer, kind="layer") for manifest, layer in named], batch_size=5000
    )
    stand(repo, {f"{image}/manifests/{name}": name for name in manifests}, [stored[name] for name in manifests])
    stand(repo, {f"{image}/manifests/v{n}": f"v{n}" for n in range(count)}, [stored[name] for name in manifests])
    stand(repo, {f"{image}/blobs/{name}": name for name in layers}, [stored[name] for name in layers])


def steps(function: Callable[[], object]) -> int:
    """Tens of steps that SQLite takes for it: what it reads, whatever the machine is busy with.

    PostgreSQL tells of no steps, so that one stands for all of them.
    """
    if connection.vendor != "sqlite":
        function()
        return 1
    count = 0

    def another() -> None:
        nonlocal count
        count += 1

    connection.ensure_connection()
    connection.connection.set_progress_handler(another, 10)
    try:
        function()
    finally:
        connection.connection.set_progress_handler(None, 0)
    return count


def test_what_gc_reads_of_an_image_grows_as_the_image_does(here):
    """Nobody has made statistics for SQLite; eight times as much is not sixty-four times as dear."""
    closed: list[int] = []
    sweep = partial(close_unheld, timedelta(0), closed.append)
    build(here, "small", 200)
    few = steps(sweep)
    assert closed[-1] == 200
    build(here, "large", 1600)
    many = steps(sweep)
    assert closed[-1] == 1600
    assert many < 16 * few


ASKED = {
    "a deletion": ("delete", f"/v2/local/app/manifests/{digest(b'app 7')}", 202),
    "a deletion that is refused": ("delete", f"/v2/local/app/blobs/{digest(b'app 7 0')}", 405),
    "a list of referrers": ("get", f"/v2/local/app/referrers/{SUBJECT}", 200),
    "a mount from anywhere": ("post", f"/v2/local/other/blobs/uploads/?mount={digest(b'app 7 0')}", 201),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_by_a_digest_reads_no_more_where_the_image_has_ten_thousand_assets(here, what):
    method, path, status = ASKED[what]
    engine.apply({"grants": [{"role": "owner", "users": ["reader"], "repositories": ["local"]}]})
    headers = login("reader")
    Client().get("/v2/local/app/tags/list", headers=headers)

    def ask() -> None:
        assert getattr(Client(), method)(path, headers=headers).status_code == status

    def cost_of_asking() -> int:
        with transaction.atomic():
            count = steps(ask)
            transaction.set_rollback(True)
        return count

    build(here, "app", 10)
    few = cost_of_asking()
    build(here, "app/more", 10)
    names = {f"app/blobs/{digest(f'{n}'.encode())}": digest(f"{n}".encode()) for n in range(10_000)}
    stand(here, names, store_rows(list(names.values())))
    assert cost_of_asking() < 2 * few


def test_a_manifest_with_seventy_thousand_tags_is_deleted_with_all_of_them(here):
    """More than a statement takes values."""
    names = [digest(index()), *(f"v{n}" for n in range(70_000))]
    stand(here, {f"app/manifests/{name}": name for name in names})
    engine.apply({"grants": [{"role": "owner", "users": ["reader"], "repositories": ["local"]}]})
    headers = login("reader")
    assert Client().delete(f"/v2/local/app/manifests/{digest(index())}", headers=headers).status_code == 202
    assert not Asset.objects.filter(repository_id=here.id, until=None).exists()


def test_a_blob_whose_bytes_are_being_removed_is_not_mounted(here):
    """The client is told to send it, as if it were absent."""
    content = b"being removed"
    put(here, {f"app/blobs/{digest(content)}": content})
    engine.apply({"grants": [{"role": "developer", "users": ["reader"], "repositories": ["local"]}]})
    query = urlencode({"mount": digest(content), "from": "local/app"})
    headers = login("reader")
    blob = Blob.objects.filter(sha256=digest(content).removeprefix("sha256:"))
    blob.update(state=Blob.State.DELETING)
    assert Client().post(f"/v2/local/other/blobs/uploads/?{query}", headers=headers).status_code == 202
    blob.update(state=Blob.State.LIVE)
    assert Client().post(f"/v2/local/another/blobs/uploads/?{query}", headers=headers).status_code == 201


# What a pass is worth


PERMISSIONS = ("read", "write", "overwrite", "delete")
WORDS = {"pull": {"read"}, "push": {"write", "overwrite"}, "delete": {"delete"}}
SETS = [frozenset(some) for count in range(1, 5) for some in combinations(PERMISSIONS, count)]


@pytest.fixture
def secrets_of(here) -> dict[tuple[frozenset[str], frozenset[str]], str]:
    """A token by what its user may do with the images of team and what its scopes say."""
    engine.apply(
        {
            "roles": [{"name": "-".join(sorted(some)), "permissions": [f"artifact:{one}" for one in some]} for some in SETS],
            "users": [{"name": "-".join(sorted(some))} for some in SETS],
            "grants": [
                {"role": name, "users": [name], "repositories": ["local"], "paths": ["team/**"]}
                for name in ("-".join(sorted(some)) for some in SETS)
            ],
        }
    )
    users = {some: User.objects.get(username="-".join(sorted(some))) for some in SETS}
    return {
        (granted, said): tokens.create(users[granted], scopes=[f"artifact:{one}@local:team/**" for one in said])[1]
        for granted in SETS
        for said in SETS
    }


def test_a_pass_is_worth_what_grants_scopes_and_the_question_have_in_common(secrets_of):
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(SETS), st.sampled_from(SETS), st.sets(st.sampled_from([*WORDS, "fly"])),
        st.sampled_from(["team/app", "team/other", "app"]),
    )  # fmt: skip
    def check(granted: frozenset[str], said: frozenset[str], words: set[str], image: str) -> None:
        query = urlencode({"scope": f"repository:local/{image}:{','.join(sorted(words))}"})
        answer = Client().get(f"/v2/token?{query}", headers=Server.authorization(("x", secrets_of[granted, said])))
        identity = authenticate(f"Bearer {answer.json()['token']}")
        rights = rights_of(identity.actor, identity.epoch)
        asked = {permission for word in words for permission in WORDS.get(word, ())}
        common = granted & said & asked if image.startswith("team/") else set()
        for place in ("team/app", "team/other", "app"):
            opened = {one for one in PERMISSIONS if rights.allows(f"artifact:{one}", "local", place)}
            assert opened == (common if place == image else set())

    check()


def test_the_beginning_of_uploads_keeps_no_configuration_alive(here):
    """Clients begin uploads in words of their own, and what each of them is answered is kept for long."""
    engine.apply({"grants": [{"role": "developer", "users": ["reader"], "repositories": ["*"]}]})
    said, place = login("reader"), "/v2/local/app/blobs/uploads/"
    head = f"POST {place} HTTP/1.1\r\n\r\n".encode()
    for _ in range(2):
        with hot.arriving(head):
            assert Client().generic("POST", place, headers=said).status_code == 202
    assert hot.find(head), "it is kept"
    loaded = weakref.ref(catalogue.load(epoch.current()).repositories["oci", "local"])
    engine.apply({"users": [{"name": "newcomer"}]})
    assert Client().get("/v2/local/app/tags/list", headers=said).status_code == 200
    gc.collect()
    assert loaded() is None
