"""apply, diff, export and prune, over whole documents."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection, transaction

from accounts import epoch, grants
from accounts.models import Role, User
from problems import Conflict, Malformed, Problem
from repos import publish
from repos.configuration import engine
from repos.configuration.tests.parts import document, empty, everything, hold, local, manager, remote, virtual, whole
from repos.models import Change, Repository, Setting

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("secrets")]


def test_a_whole_document_is_applied_and_the_second_time_nothing_changes() -> None:
    lines = engine.apply(whole())
    assert "+ repositories go-proxy" in lines
    assert "+ grants reader to anonymous on **" in lines
    assert "+ grants releaser to group team-a on go-* at corp.example/**" in lines
    assert '~ history history: keep null -> "90d"' in lines
    before = everything()
    assert engine.diff(whole(), prune=True) == []
    assert engine.apply(whole(), prune=True) == []
    assert everything() == before


def test_everything_is_stored_as_the_document_says() -> None:
    engine.apply(whole())
    alice = User.objects.get(username="alice")
    assert (alice.email, alice.robot, alice.is_active) == ("alice@example.org", False, True)
    assert {group.name for group in alice.groups.all()} == {"team-a", "team b"}
    assert User.objects.get(username="ci").robot
    assert not User.objects.get(username="gone").is_active
    assert Role.objects.get(name="releaser").permissions == ["artifact:read", "artifact:write"]
    assert Setting.objects.get(name="history").value == {"keep": "90d"}
    proxy = Repository.objects.get(key="go-proxy")
    assert (proxy.format, proxy.kind, proxy.settings["cache"]["missing"]) == ("go", "remote", "30s")
    assert Repository.objects.get(key="go").settings["members"] == ["go-proxy", "go-local"]


@pytest.mark.parametrize("written", ["yaml", "json"])
@pytest.mark.django_db(transaction=True)
def test_export_makes_the_same_again(file: Callable[..., str], capsys: pytest.CaptureFixture[str], written: str) -> None:
    engine.apply(whole())
    call_command("export", format=written)
    name = file(capsys.readouterr().out)
    exported = engine.load([name])
    call_command("flush", interactive=False, verbosity=0)
    assert engine.export() == {"version": 1}
    engine.apply(exported)
    assert engine.diff(exported) == engine.diff(exported, prune=True) == []
    assert engine.diff(whole(), prune=True) == []
    assert engine.export() == exported


def test_the_export_of_an_empty_installation_is_empty() -> None:
    assert engine.export() == {"version": 1}


def test_what_a_document_does_not_name_is_left_alone() -> None:
    engine.apply(whole())
    before = everything()
    assert engine.apply(document()) == []
    assert engine.apply(document(repositories=[], roles=[], groups=[], users=[], grants=[])) == []
    assert everything() == before
    engine.apply(document(repositories=[local("new")], users=[{"name": "bob"}]))
    after = everything()
    assert [row for row in after["Repository"] if row["key"] != "new"] == before["Repository"]
    assert [row for row in after["User"] if row["username"] != "bob"] == before["User"]
    assert after["grants"] == before["grants"]


def test_what_an_item_leaves_out_has_its_default() -> None:
    engine.apply({**whole(), "trusts": []})
    plain = document(repositories=[{"key": "go-local", "format": "go", "kind": "local"}], users=[{"name": "ci"}], history={})
    assert engine.apply(plain) == [
        "~ users ci: robot true -> null",
        '~ repositories go-local: description "ours: “A”" -> null; immutable ["**"] -> null; owner "team-a" -> null',
        '~ history history: keep "90d" -> null',
    ]
    assert Repository.objects.get(key="go-local").settings == {}
    assert not User.objects.get(username="ci").robot


def test_prune_removes_from_the_sections_that_are_present_only() -> None:
    engine.apply(whole())
    assert engine.apply(document(history={}), prune=True) == ['~ history history: keep "90d" -> null']
    assert engine.apply(document(repositories=[]), prune=True) == [
        "- repositories files",
        "- repositories go",
        "- repositories go-local",
        "- repositories go-proxy",
    ]
    assert Role.objects.filter(name="releaser").exists()
    assert len(grants.entries()) == 5


def test_prune_takes_grants_first_then_users_groups_and_roles() -> None:
    engine.apply(whole())
    manager()
    kept = document(
        roles=[],
        groups=[],
        users=[{"name": "root"}],
        grants=[{"role": "administrator", "users": ["root"]}],
        repositories=[],
        trusts=[],
    )
    lines = engine.apply(kept, prune=True)
    assert all(line.startswith("- ") for line in lines)
    sections = [line.split()[1] for line in lines]
    assert list(dict.fromkeys(sections)) == ["trusts", "grants", "repositories", "users", "groups", "roles"]
    assert set(engine.export()) == {"version", "history", "users", "grants"}
    assert engine.diff(kept, prune=True) == []


@pytest.mark.parametrize(
    ("kept", "identity"),
    [
        ({"groups": [], "grants": [{"role": "reader", "groups": ["g"], "repositories": ["x"]}]}, "grants reader to group g on x"),
        ({"roles": [], "grants": [{"role": "r", "anonymous": True, "repositories": ["x"]}]}, "grants r to anonymous on x"),
        ({"users": [], "grants": [{"role": "r", "users": ["ann"]}]}, "grants r to user ann"),
        ({"groups": [], "users": [{"name": "ann", "groups": ["g"]}]}, "users ann"),
    ],
)
def test_what_a_document_names_is_not_pruned_with_what_it_needs(kept: dict[str, Any], identity: str) -> None:
    everyone = document(
        roles=[{"name": "r", "permissions": ["data:read"]}],
        groups=[{"name": "g"}],
        users=[{"name": "ann", "groups": ["g"]}],
        grants=[
            {"role": "reader", "groups": ["g"], "repositories": ["x"]},
            {"role": "r", "anonymous": True, "repositories": ["x"]},
            {"role": "r", "users": ["ann"]},
        ],
    )
    engine.apply(everyone)
    before = everything()
    with pytest.raises(Conflict, match=f"{identity}: the same files remove what it needs"):
        engine.apply(document(**kept), prune=True)
    assert everything() == before


def test_prune_leaves_what_is_built_in() -> None:
    manager()
    engine.apply(document(roles=[], groups=[], users=[{"name": "root"}], repositories=[]), prune=True)
    assert set(Role.objects.values_list("name", flat=True)) == {"administrator", "owner", "developer", "reader"}
    assert Group.objects.filter(name="authenticated").exists()
    assert User.objects.filter(username="anonymous").exists()


def test_diff_tells_what_apply_does_and_changes_nothing() -> None:
    engine.apply(whole())
    before = everything()
    changed = whole()
    changed["repositories"][0]["description"] = "other"
    changed["users"] = changed["users"][:1]
    changed["trusts"] = []
    del changed["repositories"][3]
    del changed["grants"][1]["users"]
    told = engine.diff(changed, prune=True)
    assert told == [
        '~ repositories go-local: description "ours: “A”" -> "other"',
        "- trusts pipelines",
        "- grants releaser to user ci on go-* at corp.example/**",
        "- repositories files",
        "- users ci",
        "- users gone",
    ]
    assert everything() == before
    assert engine.apply(changed, prune=True) == told


REFUSED: dict[str, dict[str, Any]] = {
    "unknown section": document(repositories=[local("new")], grantz=[]),
    "unknown key": document(roles=[{"name": "new"}], repositories=[local("new", colour="red")]),
    "member that is not": document(users=[{"name": "new"}], repositories=[virtual("new", "nowhere")]),
    "group that is not": document(roles=[{"name": "new"}], users=[{"name": "new", "groups": ["nowhere"]}]),
    "grant to nobody": document(
        repositories=[local("new")], history={"keep": "1d"}, grants=[{"role": "reader", "users": ["no"]}]
    ),
    "grant of no role": document(groups=[{"name": "new"}], grants=[{"role": "no", "groups": ["new"]}]),
    "built-in role": document(groups=[{"name": "new"}], roles=[{"name": "reader", "permissions": ["user:manage"]}]),
    "other kind": document(history={"keep": "1d"}, repositories=[local("new"), remote("files")]),
    "unset secret": document(users=[{"name": "new"}], repositories=[remote("new", upstream={"token": {"env": "NOT_SET_HERE"}})]),
    "last manager": document(repositories=[local("new")], users=[{"name": "alice", "inactive": True}]),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_a_refused_apply_changes_nothing_at_all(refused: dict[str, Any]) -> None:
    engine.apply(whole())
    before = everything()
    with pytest.raises(Problem) as problem:
        engine.apply(refused)
    assert "\n" not in problem.value.reason
    assert everything() == before


def test_what_fails_halfway_changes_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything()

    def fail(*_: Any) -> bool:
        raise RuntimeError("halfway")

    monkeypatch.setattr(grants, "add", fail)
    with pytest.raises(RuntimeError, match="halfway"):
        engine.apply(whole())
    assert everything() == before


def test_each_apply_that_changes_something_is_a_new_epoch() -> None:
    for change in (
        document(repositories=[local("a")]),
        document(history={"keep": "1d"}),
        document(groups=[{"name": "g", "external": ["x"]}]),
        document(groups=[{"name": "g", "external": ["y"]}]),
        document(repositories=[]),
    ):
        before = epoch.current()
        assert engine.apply(change, prune=True)
        assert epoch.current() > before


def test_each_configured_repository_has_a_change_and_the_numbers_have_no_gap() -> None:
    engine.apply(document(repositories=[local("a"), local("b")]), actor="ann")
    for n in range(2, 5):
        engine.apply(document(repositories=[local("a", description=str(n)), local("b")]))
    changes = Change.objects.filter(repository__key="a").order_by("number")
    assert [(change.number, change.action) for change in changes] == [(n, "configure") for n in range(1, 5)]
    assert [change.actor for change in changes] == ["ann", "apply", "apply", "apply"]
    assert changes[3].detail == {"key": "a", "format": "raw", "kind": "local", "description": "4"}
    assert Repository.objects.get(key="a").head == 4
    assert Change.objects.filter(repository__key="b").count() == 1


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        (virtual("v", "nowhere"), "v: its member nowhere does not exist"),
        (virtual("v", "mod"), "v: its member mod is of format go and not raw"),
        (virtual("v", "a", "w"), "v: its member w is virtual itself"),
        (virtual("v", "v"), "v: its member v is virtual itself"),
        (virtual("v", "far", deploy_to="far"), "v: deploy_to far is not a local repository"),
        (virtual("v", "a", deploy_to="b"), "b is not among the members"),
        (virtual("v"), "a virtual repository needs members"),
        (virtual("v", "a", "a"), "a member is named twice"),
        ({"key": "v", "format": "raw", "kind": "remote"}, "a remote repository needs an upstream"),
        (local("v", members=["a"]), "members: only a virtual repository has this, and this one is local"),
        (local("v", upstreams=[{"url": "https://mirror.example.org"}]), "upstreams: only a remote repository has this"),
        (local("v", private=["x"]), "a local repository asks nobody"),
        (remote("v", immutable=["x"]), "immutable: only a local repository has this"),
        (virtual("v", "a", offline=True), "offline: only a remote repository has this"),
    ],
)
def test_repositories_fit_together(repository: dict[str, Any], said: str) -> None:
    engine.apply(document(repositories=[local("a"), local("b"), local("mod", "go"), remote("far"), virtual("w", "a")]))
    with pytest.raises(Malformed) as problem:
        engine.apply(document(repositories=[repository]))
    assert said in problem.value.detail


def test_a_virtual_may_be_named_before_its_members() -> None:
    engine.apply(document(repositories=[virtual("v", "a", "far", deploy_to="a"), local("a"), remote("far")]))
    assert Repository.objects.count() == 3


def test_a_local_repository_that_holds_an_artefact_stays() -> None:
    engine.apply(document(repositories=[local("a"), local("b")]))
    asset = hold("a")
    with pytest.raises(Conflict, match="a holds artefacts"):
        engine.apply(document(repositories=[]), prune=True)
    assert Repository.objects.count() == 2
    asset.until = 2
    asset.save()
    assert engine.apply(document(repositories=[]), prune=True) == ["- repositories a", "- repositories b"]


def test_a_remote_repository_goes_with_its_cache() -> None:
    engine.apply(document(repositories=[remote("far")]))
    hold("far")
    assert engine.apply(document(repositories=[]), prune=True) == ["- repositories far"]


def test_a_member_of_a_virtual_repository_stays() -> None:
    engine.apply(document(repositories=[local("a"), local("b"), virtual("v", "a", "b")]))
    with pytest.raises(Malformed, match="v: its member a does not exist"):
        engine.apply(document(repositories=[local("b"), virtual("v", "a", "b")]), prune=True)
    engine.apply(document(repositories=[local("b"), virtual("v", "b")]), prune=True)
    engine.apply(document(repositories=[]), prune=True)
    assert not Repository.objects.exists()


@pytest.mark.parametrize("other", [local("a", "go"), remote("a"), virtual("a", "b")])
def test_kind_and_format_stay(other: dict[str, Any]) -> None:
    engine.apply(document(repositories=[local("a"), local("b")]))
    with pytest.raises(Conflict, match="a is a local repository of raw and cannot become"):
        engine.apply(document(repositories=[other]))


def test_a_format_has_other_names() -> None:
    engine.apply(document(repositories=[local("a", "generic")]))
    assert Repository.objects.get(key="a").format == "raw"
    assert engine.diff(document(repositories=[local("a")])) == []


def test_sets_have_no_order_and_members_have() -> None:
    engine.apply(document(repositories=[local("a"), local("b"), virtual("v", "a", "b", private=["x", "y"])]))
    assert engine.diff(document(repositories=[virtual("v", "a", "b", private=["y", "x", "y"])])) == []
    assert engine.diff(document(repositories=[virtual("v", "b", "a", private=["x", "y"])]))


def test_nothing_written_to_a_repository_meanwhile_is_lost() -> None:
    """Of a repository that stands only the settings are written: its head is raised by whoever publishes."""
    engine.apply(document(repositories=[local("a")]))
    with CaptureUpdates() as updates:
        engine.apply(document(repositories=[local("a", description="x")]))
    assert [sql for sql in updates if "settings" in sql]
    assert not [sql for sql in updates if "settings" in sql and "head" in sql]


class CaptureUpdates:
    """The UPDATEs of repositories."""

    def __enter__(self) -> list[str]:
        self._seen: list[str] = []
        self._wrapper = connection.execute_wrapper(self._note)
        self._wrapper.__enter__()
        return self._seen

    def __exit__(self, *error: Any) -> None:
        self._wrapper.__exit__(*error)

    def _note(self, execute, sql, params, many, context):
        if sql.startswith('UPDATE "repos_repository"'):
            self._seen.append(sql.partition("WHERE")[0])
        return execute(sql, params, many, context)


def _together(*works: Callable[[], object]) -> list[object]:
    """Run them at the same time; what each returned or raised."""
    start = threading.Barrier(len(works))
    results: list[object] = [None] * len(works)

    def run(n: int, work: Callable[[], object]) -> None:
        try:
            start.wait(30)
            results[n] = work()
        except Exception as error:
            results[n] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(n, work)) for n, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


@pytest.mark.django_db(transaction=True)
def test_concurrent_applies_end_as_one() -> None:
    one, other = sorted(_together(*[lambda: engine.apply(whole())] * 2), key=str)
    assert other == [] or one == []
    assert engine.diff(whole(), prune=True) == []
    assert set(Change.objects.values_list("number", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_of_concurrent_applies_that_differ_one_is_the_last() -> None:
    engine.apply(document(repositories=[local("a"), local("b")]))
    ways = [
        document(repositories=[local(key, description=word) for key in keys])
        for word, keys in (("x", "ab"), ("y", "ba"), ("z", "ab"))
    ]
    for _ in range(3):
        results = _together(*[lambda way=way: engine.apply(way) for way in ways])
        assert not [result for result in results if isinstance(result, Exception)]
        assert [way for way in ways if engine.diff(way) == []]
    for key in "ab":
        numbers = list(Change.objects.filter(repository__key=key).order_by("number").values_list("number", flat=True))
        assert numbers == list(range(1, Repository.objects.get(key=key).head + 1))


@pytest.mark.django_db(transaction=True)
def test_publishing_goes_on_while_it_is_configured() -> None:
    engine.apply(document(repositories=[local("a")]))

    def publishes() -> None:
        row = Repository.objects.get(key="a")
        for _ in range(20):
            with transaction.atomic():
                publish.configured(row, {}, "publisher")

    def applies() -> None:
        for n in range(20):
            engine.apply(document(repositories=[local("a", description=str(n))]))

    assert _together(publishes, applies) == [None, None]
    numbers = list(Change.objects.filter(repository__key="a").order_by("number").values_list("number", flat=True))
    assert numbers == list(range(1, 42))


def test_an_empty_database_is_what_flush_leaves() -> None:
    engine.apply(whole())
    empty()
    assert engine.export() == {"version": 1}
    assert yaml.safe_dump(engine.export()) == "version: 1\n"
