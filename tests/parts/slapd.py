"""A private OpenLDAP on loopback, from Debian's package: TLS by a CA of its own, and limits as real directories have them."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

START_SECONDS = 30.0
BASE = "dc=example,dc=org"
PEOPLE, GROUPS, AD = f"ou=people,{BASE}", f"ou=groups,{BASE}", f"ou=ad,{BASE}"
ADMIN, SERVICE = f"cn=admin,{BASE}", f"cn=entrepot,{BASE}"
ADMIN_PASSWORD, SERVICE_PASSWORD = "the directory's", "the service's"
SIZE_LIMIT = 500
"""Entries that a search without pages gives at most."""
NOBODY = f"cn=nobody,{BASE}"
"""A member that groups may have to have one."""

AD_SCHEMA = """
attributetype ( 1.3.6.1.4.1.4203.666.99.1 NAME 'sAMAccountName' EQUALITY caseIgnoreMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.4203.666.99.2 NAME 'objectGUID' EQUALITY octetStringMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.4203.666.99.3 NAME 'userAccountControl' EQUALITY integerMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.4203.666.99.4 NAME 'user' SUP inetOrgPerson STRUCTURAL
    MUST sAMAccountName MAY ( objectGUID $ userAccountControl ) )
objectclass ( 1.3.6.1.4.1.4203.666.99.5 NAME 'group' SUP top STRUCTURAL MUST cn MAY ( member $ description ) )
"""
"""What filters for Active Directory name. Ids of OpenLDAP's own range for experiments, of which none is anywhere else."""

CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
include {folder}/ad.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {folder}/slapd.pid
TLSCertificateFile {folder}/cert.pem
TLSCertificateKeyFile {folder}/key.pem
sizelimit {limit}
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw "{password}"
directory {folder}/data
maxsize 134217728
dbnosync
index objectClass,entryUUID,uid,member,memberUid,uniqueMember,sAMAccountName,objectGUID eq
limits dn.exact="{service}" size.soft={limit} size.hard={limit} size.prtotal=unlimited
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{service}" read by * none
overlay ppolicy
"""


class Slapd:
    """`url` is TLS from the start, `plain` is not, and takes StartTLS. `stop` and `start` keep what is in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="entrepot-slapd-"))
        self.port, self.plain_port = _free_ports(2)
        self.url, self.plain = f"ldaps://127.0.0.1:{self.port}", f"ldap://127.0.0.1:{self.plain_port}"
        self.ca = str(self.folder / "ca.pem")
        make_certificates(self.folder)
        (self.folder / "data").mkdir()
        (self.folder / "ad.schema").write_text(AD_SCHEMA)
        config = CONFIG.format(
            folder=self.folder, limit=SIZE_LIMIT, base=BASE, admin=ADMIN, password=ADMIN_PASSWORD, service=SERVICE
        )
        (self.folder / "slapd.conf").write_text(config)
        self._load(_beginning())
        self.start()

    def start(self) -> None:
        command = [program(), "-d", "0", "-f", str(self.folder / "slapd.conf"), "-h", f"{self.url} {self.plain}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                for port in (self.port, self.plain_port):
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, dn: str, kinds: Iterable[str], **values: Any) -> str:
        """An entry; values are texts, bytes, or lists of them. Returns its name."""
        with self._bound() as connection:
            connection.add_s(dn, [("objectClass", _bytes(kinds)), *((name, _bytes(value)) for name, value in values.items())])
        return dn

    def person(self, uid: str, password: str, **values: Any) -> str:
        return self.add(f"uid={uid},{PEOPLE}", ["inetOrgPerson"], cn=uid, sn=uid, userPassword=password, **values)

    def group(self, cn: str, *members: str) -> str:
        return self.add(f"cn={cn},{GROUPS}", ["groupOfNames"], member=[NOBODY, *members])

    def ad_user(self, name: str, password: str, guid: uuid.UUID, control: int = 512) -> str:
        return self.add(
            f"cn={name},{AD}", ["user"], cn=name, sn=name, sAMAccountName=name, objectGUID=guid.bytes_le,
            userAccountControl=str(control), userPassword=password,
        )  # fmt: skip

    def remove(self, dn: str) -> None:
        with self._bound() as connection:
            connection.delete_s(dn)

    def join(self, group: str, dn: str, attribute: str = "member") -> None:
        import ldap

        with self._bound() as connection:
            connection.modify_s(group, [(ldap.MOD_ADD, attribute, _bytes(dn))])

    def leave(self, group: str, dn: str, attribute: str = "member") -> None:
        import ldap

        with self._bound() as connection:
            connection.modify_s(group, [(ldap.MOD_DELETE, attribute, _bytes(dn))])

    def put(self, dn: str, **values: Any) -> None:
        """Replace attributes; None: there is none any more."""
        import ldap

        with self._bound() as connection:
            for name, value in values.items():
                connection.modify_s(dn, [(ldap.MOD_REPLACE, name, None if value is None else _bytes(value))])

    def move(self, dn: str, name: str, below: str) -> None:
        with self._bound() as connection:
            connection.rename_s(dn, name, below)

    def _bound(self) -> Any:
        import ldap

        connection = ldap.initialize(self.plain)
        connection.simple_bind_s(ADMIN, ADMIN_PASSWORD)
        return _Closing(connection)

    def _load(self, entries: str) -> None:
        """Before it runs."""
        command = [program("slapadd"), "-q", "-f", str(self.folder / "slapd.conf")]
        done = subprocess.run(command, input=entries, capture_output=True, text=True, timeout=120)
        assert not done.returncode, done.stderr


class _Closing:
    def __init__(self, connection: Any):
        self._connection = connection

    def __enter__(self) -> Any:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.unbind_s()


def _beginning() -> str:
    units = [f"dn: {dn}\nobjectClass: organizationalUnit\nou: {dn[3:].partition(',')[0]}\n" for dn in (PEOPLE, GROUPS, AD)]
    kinds = "objectClass: organizationalRole\nobjectClass: simpleSecurityObject"
    service = f"dn: {SERVICE}\n{kinds}\ncn: entrepot\nuserPassword: {SERVICE_PASSWORD}\n"
    return "\n".join(
        [f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n", *units, service]
    )


def _bytes(value: Any) -> list[bytes]:
    values = [value] if isinstance(value, str | bytes) else list(value)
    return [one.encode() if isinstance(one, str) else one for one in values]


def make_certificates(folder: Path) -> None:
    """`ca.pem`, and by it `cert.pem` with `key.pem` for this machine."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a company's own CA")])

    def certificate(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            ca_name, name, public, x509.random_serial_number(), now - timedelta(hours=1), now + timedelta(days=2)
        )

    usage = x509.KeyUsage(*[False] * 5, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)
    ca = (
        certificate(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    leaf = (
        certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ldap")]), key.public_key())
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "cert.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def headers() -> None:
    """Raises FileNotFoundError where those are missing that python-ldap is built with."""
    for name in ("ldap.h", "sasl/sasl.h"):
        if not Path("/usr/include", name).exists():
            raise FileNotFoundError("python-ldap cannot be built: apt-get install libldap2-dev libsasl2-dev")


def program(name: str = "slapd") -> str:
    """FileNotFoundError where it is not installed."""
    found = shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/libexec")
    if found is None:
        raise FileNotFoundError("OpenLDAP is not installed: apt-get install slapd")
    return found
