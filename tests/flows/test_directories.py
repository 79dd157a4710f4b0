"""Who signs in by a directory, what they may by its groups, and that they lose it when the directory takes it away."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.parts.api import ADMIN, Api, rule
from tests.parts.server import Answer, Server
from tests.parts.slapd import AD, BASE, GROUPS, PEOPLE, SERVICE, SERVICE_PASSWORD, SIZE_LIMIT, Slapd, make_certificates, program

pytest.importorskip("ldap", reason="python-ldap is not installed, so there is no LDAP")
PASSWORD = "the password of everybody"
LOST_WITHIN = 60.0
"""Seconds."""
FILE = "/raw/team/tool.tar"
MANY = 1100
"""Groups of one person: more than the directory gives without pages."""


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    try:
        program()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    one = Slapd()
    yield one
    one.end()


def directory(slapd: Slapd, **options: Any) -> dict[str, Any]:
    return {
        "name": "directory",
        "url": slapd.url,
        "ca": slapd.ca,
        "bind_dn": SERVICE,
        "bind_password": SERVICE_PASSWORD,
        "users": {"base": PEOPLE},
        "groups": {"base": GROUPS, "nested": True},
        **options,
    }


def document(slapd: Slapd, *more: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "directories": [directory(slapd, **options), *more],
        "repositories": [{"key": "team", "format": "raw", "kind": "local"}],
        # Spelled as people do: not as the directory has it.
        "groups": [{"name": "team", "external": ["directory:CN=Team-A, ou=groups, DC=example,DC=org"]}],
        "users": [{"name": "local", "password": PASSWORD}, {"name": "ci", "robot": True}],
        "grants": [{"role": "reader", "groups": ["team"], "repositories": ["team"]}],
    }


@pytest.fixture(scope="module")
def world(server, slapd) -> Server:
    here = server()
    here.apply(document(slapd))
    assert here.request("PUT", FILE, b"a tool", user=ADMIN).status == 201
    slapd.group("team-a")
    return here


@pytest.fixture
def person(slapd) -> Callable[..., str]:
    """Makes people in the directory: `person()` or `person("team-a")`, who is in a group; returns the name."""

    def make(*groups: str, **values: Any) -> str:
        name = f"p{uuid.uuid4().hex[:8]}"
        dn = slapd.person(name, PASSWORD, **values)
        for group in groups:
            slapd.join(f"cn={group},{GROUPS}", dn)
        return name

    return make


def dn(name: str) -> str:
    return f"uid={name},{PEOPLE}"


def me(world: Server, name: str, password: str = PASSWORD) -> Answer:
    return Api(world, (name, password)).get("me/")


def reads(world: Server, name: str, password: str = PASSWORD) -> int:
    return world.request("GET", FILE, user=(name, password)).status


def token(world: Server, name: str) -> str:
    """A token that they made."""
    answer = Api(world, (name, PASSWORD)).post("tokens/", {"name": "pipeline"})
    assert answer.status == 201, answer
    return json.loads(answer.body)["secret"]


def wait_for(so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LOST_WITHIN
    while not so():
        assert time.monotonic() < deadline, f"{what}: not in {LOST_WITHIN} s"
        time.sleep(0.2)


def test_who_is_in_the_directory_signs_in_and_is_a_user_from_then_on(world, person):
    name = person(mail="someone@example.org")
    assert me(world, name).status == 200
    assert json.loads(me(world, name).body)["name"] == name
    assert world.query(f"SELECT email FROM accounts_user WHERE username = '{name}'")[0] == "someone@example.org"
    assert reads(world, name) == 404


def test_a_group_of_the_directory_gives_its_grants_however_its_name_is_spelled(world, person):
    assert reads(world, person("team-a")) == 200


def test_a_name_is_taken_in_any_case_and_is_one_user(world, person):
    name = person("team-a")
    assert [reads(world, spelled) for spelled in (name, name.upper(), name.upper(), name)] == [200] * 4
    users = [one["name"] for one in Api(world).items("users/") if one["name"].lower() == name]
    assert users == [name]


def test_a_group_that_was_left_gives_nothing_to_the_request_that_signs_in_next(world, slapd, person):
    """Nor does what a process knew of them just before. In another spelling the password is not remembered."""
    name = person("team-a")
    assert [reads(world, name) for _ in range(20)] == [200] * 20, "each process knows what they may"
    slapd.leave(f"cn=team-a,{GROUPS}", dn(name))
    assert reads(world, name.upper()) == 404


def test_what_people_write_of_themselves_in_the_directory_keeps_nobody_from_being_followed(world, slapd, person):
    name, other = person("team-a"), person("team-a")
    assert reads(world, name) == reads(world, other) == 200
    slapd.put(dn(name), mail=b"a\0b@example.org")
    slapd.leave(f"cn=team-a,{GROUPS}", dn(other))
    wait_for(lambda: reads(world, other) == 404, "a group that was left by somebody behind them")
    assert reads(world, name.upper()) == 200


def test_groups_within_groups_count_and_a_loop_of_them_ends(world, slapd, person):
    name = person()
    inner = slapd.group("inner", dn(name))
    outer = slapd.group("outer", inner)
    slapd.join(inner, outer)
    slapd.join(f"cn=team-a,{GROUPS}", outer)
    assert reads(world, name) == 200
    slapd.leave(f"cn=team-a,{GROUPS}", outer)


@pytest.mark.parametrize(("kind", "attribute"), [("groupOfUniqueNames", "uniqueMember"), ("posixGroup", "memberUid")])
def test_groups_of_other_kinds_count_too(world, slapd, person, kind, attribute):
    name, cn = person(), f"kind-{attribute}".lower()
    member = name if attribute == "memberUid" else dn(name)
    rest = {"gidNumber": "1"} if attribute == "memberUid" else {}
    slapd.add(f"cn={cn},{GROUPS}", [kind], cn=cn, **{attribute: member}, **rest)
    external = [f"directory:cn={cn},{GROUPS}"]
    assert Api(world).put(f"groups/{cn}/", {"external": external}).status == 201
    grant = {"role": "reader", "groups": [cn], "repositories": ["team"]}
    assert Api(world).post("grants/", grant).status == 201
    assert reads(world, name) == 200


def test_somebody_in_more_groups_than_the_directory_gives_at_once_is_in_all_of_them(world, slapd, person):
    """And the watch over everybody finds them in as many."""
    assert MANY > 2 * SIZE_LIMIT
    name = person()
    for n in range(MANY):
        slapd.group(f"many-{n}", dn(name))
    slapd.join(f"cn=team-a,{GROUPS}", dn(name))  # the last of them
    assert reads(world, name) == 200
    many = f"""SELECT count(*) FROM accounts_externalmembership m JOIN accounts_externalidentity i ON i.id = m.identity_id
        WHERE i.name = '{dn(name)}'"""
    assert world.query(many)[0] == MANY + 1
    secret = token(world, name)
    slapd.leave(f"cn=team-a,{GROUPS}", dn(name))
    wait_for(lambda: reads(world, "x", secret) == 404, "one group of many")
    assert world.query(many)[0] == MANY


INJECTIONS = [
    "{0}*",
    "{0})(uid={0}",
    "*)(uid={0}",
    "{0})(|(uid=*",
    "",
    "*",
    "*)(uid=*",
    "admin*",
    ")(",
    "(",
    "\\",
    "a\\2a",
    "*)(&",
    "x)(|(uid=*",
    "\0",
    "uid=*",
    "é*",
    "a" * 200,
]


@pytest.mark.parametrize("name", INJECTIONS)
def test_a_name_that_is_a_filter_signs_nobody_in(world, person, name):
    name = name.format(person())
    assert me(world, name).status == 401
    assert me(world, name, "").status == 401


@pytest.mark.parametrize("spelling", ["{0} ", " {0}", "{0}\u00ad", "\u200b{0}"])
def test_a_name_with_what_is_not_seen_signs_nobody_in(world, person, spelling):
    """Which a directory would take for the same, and a count of failures would not."""
    assert me(world, spelling.format(person())).status == 401


@pytest.mark.parametrize("password", ["", "\0", "*", ")(", "wrong", f"{PASSWORD}\0", f"{PASSWORD} "])
def test_nothing_but_the_password_signs_in(world, person, password):
    """An empty one above all, with which a directory lets anybody bind."""
    name = person()
    assert me(world, name, password).status == 401
    answer = Api(world, (name, password)).get("me/")
    assert rule(answer) == "credentials"
    assert me(world, name).status == 200


def test_a_name_that_finds_several_people_signs_nobody_in(world, slapd):
    for place in ("one", "other"):
        slapd.add(f"ou={place},{PEOPLE}", ["organizationalUnit"], ou=place)
        slapd.add(f"uid=twin,ou={place},{PEOPLE}", ["inetOrgPerson"], cn="t", sn="t", uid="twin", userPassword=PASSWORD)
    assert me(world, "twin").status == 401


def test_a_local_users_password_is_the_one_that_counts(world, slapd):
    """The directory is not asked of a name that somebody here has with a password, nor of a robot's."""
    for name in ("local", "ci", "admin"):
        slapd.person(name, "the directory's password of it")
        assert me(world, name, "the directory's password of it").status == 401
    assert me(world, "local").status == 200


def test_a_disabled_account_never_signs_in(world, slapd, person):
    name = person()
    slapd.put(dn(name), pwdAccountLockedTime="000001010000Z")
    assert me(world, name).status == 401
    slapd.put(dn(name), pwdAccountLockedTime=None)
    assert me(world, name).status == 200


LOSSES = {
    "membership": lambda slapd, dn: slapd.leave(f"cn=team-a,{GROUPS}", dn),
    "nested membership": lambda slapd, dn: slapd.leave(f"cn=team-a,{GROUPS}", f"cn=nested-loss,{GROUPS}"),
    "nested group": lambda slapd, dn: slapd.remove(f"cn=group-loss,{GROUPS}"),
    "disabled": lambda slapd, dn: slapd.put(dn, pwdAccountLockedTime="000001010000Z"),
    "deleted": lambda slapd, dn: slapd.remove(dn),
}


@pytest.fixture(scope="module")
def losses(world, slapd) -> tuple[dict[str, str], dict[str, str]]:
    """Names and tokens of people of whom each has just lost something in the directory, by what that was."""
    names = {loss: f"loss-{loss.replace(' ', '-')}" for loss in LOSSES}
    for loss, name in names.items():
        slapd.person(name, PASSWORD)
        group = {"nested membership": "nested-loss", "nested group": "group-loss"}.get(loss)
        if group:
            slapd.group(group, dn(name))
        slapd.join(f"cn=team-a,{GROUPS}", f"cn={group},{GROUPS}" if group else dn(name))
    tokens = {loss: token(world, name) for loss, name in names.items()}
    for loss, name in names.items():
        assert reads(world, "x", tokens[loss]) == reads(world, name) == 200, loss
    for loss, name in names.items():
        LOSSES[loss](slapd, dn(name))
    return names, tokens


@pytest.mark.parametrize("loss", LOSSES)
def test_what_goes_away_in_the_directory_is_gone_within_a_minute_on_tokens_and_passwords(world, losses, loss):
    """Of a membership, of a group that was in a group, of an account."""
    names, tokens = losses
    expected = 401 if loss in ("disabled", "deleted") else 404
    wait_for(lambda: reads(world, "x", tokens[loss]) == expected, loss)
    assert reads(world, names[loss]) == expected


def test_who_is_enabled_again_has_everything_back_without_signing_in(world, slapd, losses):
    names, tokens = losses
    wait_for(lambda: reads(world, "x", tokens["disabled"]) == 401, "disabled")
    slapd.put(dn(names["disabled"]), pwdAccountLockedTime=None)
    wait_for(lambda: reads(world, "x", tokens["disabled"]) == 200, "enabled again")


def test_a_name_that_was_given_to_somebody_else_gets_nothing_of_who_had_it(world, slapd, losses):
    names, tokens = losses
    name = names["deleted"]
    wait_for(lambda: reads(world, "x", tokens["deleted"]) == 401, "deleted")
    slapd.person(name, "of the next one")  # of whom the group still holds the name
    answer = me(world, name, "of the next one")
    assert (answer.status, rule(answer)) == (403, "identity.name")
    assert reads(world, "x", tokens["deleted"]) == 401
    assert Api(world).delete(f"users/{name}/").status == 204
    assert reads(world, name, "of the next one") == 200
    assert reads(world, "x", tokens["deleted"]) == 401


def test_somebody_who_was_moved_and_renamed_stays_who_they_are(world, slapd, person):
    name = person()
    secret = token(world, name)
    slapd.add(f"ou=moved,{PEOPLE}", ["organizationalUnit"], ou="moved")
    slapd.move(dn(name), f"uid=new-{name}", f"ou=moved,{PEOPLE}")
    slapd.join(f"cn=team-a,{GROUPS}", f"uid=new-{name},ou=moved,{PEOPLE}")
    wait_for(lambda: reads(world, "x", secret) == 200, "the group of the new name")
    assert json.loads(me(world, f"new-{name}").body)["name"] == name


def test_who_an_administrator_made_inactive_stays_so_whatever_the_directory_says(world, person):
    name = person("team-a")
    secret = token(world, name)
    assert Api(world).put(f"users/{name}/", {"inactive": True}).status == 200
    assert reads(world, "x", secret) == 401
    assert me(world, name).status == 403
    due = "SELECT due_at FROM accounts_directorywatch WHERE name = 'directory'"
    before = world.query(due)
    wait_for(lambda: world.query(due) != before, "the next look")
    assert reads(world, "x", secret) == 401


def test_active_directory_signs_in_by_its_own_attributes(world, slapd):
    """As far as OpenLDAP can hold them: sAMAccountName, a binary objectGUID, and the bit ACCOUNTDISABLE."""
    here = {
        "base": AD,
        "filter": "(&(objectClass=user)(sAMAccountName=%(user)s))",
        "disabled": "(userAccountControl:1.2.840.113556.1.4.803:=2)",
        "id": "objectGUID",
    }
    options = {
        "name": "corp",
        "users": here,
        "groups": {"base": AD, "filter": "(objectClass=group)", "member": "member", "nested": True},
    }
    guid = uuid.uuid4()
    user = slapd.ad_user("Erika", PASSWORD, guid)
    inner = slapd.add(f"cn=Devs,{AD}", ["group"], cn="Devs", member=user)
    slapd.add(f"cn=All,{AD}", ["group"], cn="All", member=inner)
    world.apply(
        {
            "directories": [directory(slapd, **options)],
            "groups": [{"name": "corp-all", "external": [f"corp:CN=All,{AD}"]}],
            "grants": [{"role": "reader", "groups": ["corp-all"], "repositories": ["team"]}],
        }
    )
    assert reads(world, "erika") == 200
    assert world.query("SELECT subject FROM accounts_externalidentity WHERE issuer = 'directory:corp'")[0] == str(guid)
    secret = token(world, "Erika")
    slapd.put(user, userAccountControl="514")
    assert me(world, "ERIKA").status == 401
    wait_for(lambda: reads(world, "x", secret) == 401, "disabled in Active Directory")
    slapd.put(user, userAccountControl="512")
    wait_for(lambda: reads(world, "x", secret) == 200, "enabled in Active Directory")
    assert Api(world).delete("directories/corp/").status == 204
    assert reads(world, "x", secret) == 401


# Failures


@pytest.fixture
def alone(server, slapd) -> Callable[..., Server]:
    """Starts servers with a directory of their own, or with other words about it."""

    def start(directory: Slapd | None = None, **options: Any) -> Server:
        here = server()
        here.apply(document(directory or slapd, **options))
        assert here.request("PUT", FILE, b"a tool", user=ADMIN).status == 201
        return here

    return start


def out(answer: Answer) -> bool:
    return (answer.status, rule(answer)) == (503, "directory.out") and int(answer.headers["Retry-After"]) > 0


def test_a_certificate_of_another_ca_is_refused_before_a_password_is_sent(alone, person, tmp_path: Path):
    make_certificates(tmp_path)
    here = alone(ca=str(tmp_path / "ca.pem"))
    assert out(me(here, person()))
    assert "certificate" in here.log()


def test_a_file_of_certificates_that_cannot_be_used_is_named_by_the_log_alone(alone, person, tmp_path: Path):
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for file, why in ((tmp_path / "none.pem", "No such file or directory"), (empty, "no certificate or crl found")):
        here = alone(ca=str(file))
        answer = me(here, person())
        assert out(answer) and str(file).encode() not in answer.body
        assert re.search(rf"the file of certificates {re.escape(str(file))}: .*{why}", here.log(), re.IGNORECASE)


@pytest.mark.parametrize("how", ["start_tls", "a replica"])
def test_a_directory_is_reached_in_other_ways(alone, slapd, person, how):
    silent = {"url": "ldaps://127.0.0.1:1", "replicas": [slapd.url]}
    here = alone(**({"url": slapd.plain, "start_tls": True} if how == "start_tls" else silent))
    assert reads(here, person("team-a")) == 200


def test_while_the_directory_is_down_nobody_is_told_that_their_password_is_wrong_and_all_keep_what_they_have(alone):
    mine = Slapd()
    try:
        mine.group("team-a", mine.person("ann", PASSWORD))
        here = alone(mine)
        secret = token(here, "ann")
        mine.stop()
        failure = "SELECT failure FROM accounts_directorywatch WHERE name = 'directory'"
        wait_for(lambda: bool(here.rows(failure)) and bool(here.query(failure)[0]), "a look that failed")
        assert out(me(here, "ann", "wrong"))
        assert out(me(here, "nobody-knows"))
        assert reads(here, "x", secret) == 200
        assert me(here, "local").status == me(here, *ADMIN).status == 200
        assert me(here, "local", "wrong").status == 401
        assert here.log().count("so everybody keeps the groups") == 1
        mine.start()
        wait_for(lambda: me(here, "ann").status == 200, "the directory is back")
        mine.leave(f"cn=team-a,{GROUPS}", dn("ann"))
        wait_for(lambda: reads(here, "x", secret) == 404, "followed again")
    finally:
        mine.end()


def test_with_another_secret_key_the_log_says_once_what_to_do_and_who_signs_in_is_told_nothing_of_it(alone, person):
    here = alone()
    name = person()
    secret = token(here, name)
    here.stop()
    here.environment["ENTREPOT_SECRET_KEY"] = "another secret key, of 32 letters or more"
    here.start()
    watch = "SELECT failure, due_at FROM accounts_directorywatch WHERE name = 'directory'"
    wait_for(lambda: bool(here.rows(watch)) and bool(here.query(watch)[0]), "a look that failed")
    due = here.query(watch)[1]
    wait_for(lambda: here.query(watch)[1] != due, "another look")
    answer = me(here, name)
    assert out(answer) and b"KEY" not in answer.body
    assert me(here, "x", secret).status == 200
    assert here.log().count("so everybody keeps the groups that they had: a stored secret was sealed under another") == 1
    assert "Traceback" not in here.log()


def test_a_directory_that_says_nothing_keeps_nobody_from_what_is_here(alone):
    """More sign-ins than there are threads, at a directory that takes connections and then is silent."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(200)
        here = alone(url=f"ldaps://127.0.0.1:{silent.getsockname()[1]}", timeout="20s")
        secret = here.manage("token", "create", "admin").stdout.split()[-1]
        answered = threading.Event()

        def sign_in(n: int) -> int:
            status = me(here, f"somebody-{n}").status
            if status == 200:
                answered.set()
            return status

        with ThreadPoolExecutor(100) as pool:
            waiting = [pool.submit(sign_in, n) for n in range(100)]
            for _ in range(5):
                assert here.request("GET", FILE, user=("x", secret)).status == 200
                assert me(here, "local").status == 200
            assert sum(not one.done() for one in waiting) > 0, "nobody waited for the directory, so nothing was proved"
            assert {one.result() for one in waiting} == {503}


# Guessing


def test_who_guesses_waits_on_all_nodes_and_tokens_do_not(server, alone, person):
    here = alone()
    there = server(beside=here)
    name = person("team-a")
    secret = token(here, name)
    for n in range(5):
        assert me((here, there)[n % 2], name, f"guess {n}").status == 401
    here.execute("UPDATE accounts_failedsignin SET failures = 12")
    for node in (here, there):
        answer = me(node, name)
        assert (answer.status, rule(answer)) == (429, "sign-in.throttled")
        assert int(answer.headers["Retry-After"]) > 0
        assert reads(node, name) == 429
        assert reads(node, "x", secret) == 200
    here.execute("UPDATE accounts_failedsignin SET failures = 4")
    assert me(here, name).status == me(there, name).status == 200


# Configuration


def test_the_password_of_a_directory_is_never_told_and_goes_to_no_other_host(world, slapd):
    told = Api(world).read("directories/directory/")
    assert SERVICE_PASSWORD not in json.dumps(told)
    assert SERVICE_PASSWORD not in world.manage("export").stdout
    moved = {**told, "url": "ldaps://127.0.0.2"}
    moved.pop("name")
    answer = Api(world).put("directories/directory/", moved)
    assert (answer.status, rule(answer)) == (400, "secret.origin")
    more = {**told, "replicas": ["ldaps://127.0.0.2"]}
    more.pop("name")
    assert rule(Api(world).put("directories/directory/", more)) == "secret.origin"
    assert Api(world).read("directories/directory/") == told


def test_who_manages_users_manages_directories_and_names_no_file_of_the_server(world, slapd):
    world.apply(
        {
            "roles": [{"name": "clerk", "permissions": ["user:manage"]}],
            "users": [{"name": "clerk", "password": PASSWORD}],
            "grants": [{"role": "clerk", "users": ["clerk"]}],
        }
    )
    clerk, outsider = Api(world, ("clerk", PASSWORD)), Api(world, ("local", PASSWORD))
    item = {"url": "ldaps://ldap.example.org", "users": {"base": BASE}}
    assert clerk.put("directories/other/", item).status == 201
    answer = clerk.put("directories/other/", {**item, "ca": "/etc/passwd"})
    assert (answer.status, rule(answer)) == (403, "directory.ca")
    assert outsider.get("directories/other/").status == outsider.get("directories/absent/").status == 404
    for method in ("GET", "PUT", "DELETE"):
        assert Api(world, None).ask(method, "directories/other/", item if method == "PUT" else None).status == 401
    assert outsider.put("directories/other/", item).status == outsider.delete("directories/other/").status == 404
    assert clerk.delete("directories/other/").status == 204
