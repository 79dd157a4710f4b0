"""The tables of a repository's history.

A repository is a history: nothing is overwritten. Every publish, deletion and cache fill is a numbered Change of one
repository, and an Asset row is open from the change that brought it (`since`) until another closes it (`until`). What a
repository holds now is its open assets; what it held after change n is the assets with `since <= n < until`.

Only `repos.publish` writes Change and Asset rows.
"""

from __future__ import annotations

import secrets

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from basics.columns import BytesOrderedField

PATH_BYTES = 1024
"""The longest artefact path, in bytes of UTF-8."""


class Blob(models.Model):
    """Bytes, known by their SHA-256 and shared by all repositories. `key` is never used twice.

    At most one live row has a digest. A freed row keeps the digest that history tells of, after its bytes are gone.
    """

    class State(models.TextChoices):
        LIVE = "live"
        DELETING = "deleting"
        FREED = "freed"

    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    key = models.CharField(max_length=200, unique=True)
    state = models.CharField(max_length=8, choices=State.choices, default=State.LIVE)
    digests = models.JSONField(default=dict, help_text="other digests that a format declares, by algorithm, as hex")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sha256"], condition=Q(state="live"), name="one_live_blob_per_digest"),
        ]
        indexes = [models.Index(fields=["state"], condition=~Q(state="live"), name="blob_not_live")]

    def __str__(self) -> str:
        return f"sha256:{self.sha256}"


def new_epoch() -> str:
    return secrets.token_hex(8)


class Repository(models.Model):
    """A named place of one format and one kind. Its row's lock orders its changes.

    `head` is the number of its newest change, `floor` the number below which history was pruned; `epoch` changes when a
    restore makes numbers mean something else, so a reader's cursor is (epoch, number).
    """

    class Kind(models.TextChoices):
        LOCAL = "local"
        REMOTE = "remote"
        VIRTUAL = "virtual"

    key = models.CharField(max_length=100, unique=True)
    format = models.CharField(max_length=32)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    settings = models.JSONField(default=dict, help_text="the configuration document, secrets sealed")
    seeded = models.BooleanField(default=False, help_text="made by the first start; readable by all while on loopback")
    head = models.BigIntegerField(default=0)
    floor = models.BigIntegerField(default=0)
    epoch = models.CharField(max_length=16, default=new_epoch)
    changed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "repositories"

    def __str__(self) -> str:
        return self.key


class Change(models.Model):
    """One commit to one repository; numbers have no gap and `at` never goes back."""

    class Action(models.TextChoices):
        PUBLISH = "publish"
        FILL = "fill"
        DELETE = "delete"
        CONFIGURE = "configure"

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="changes")
    number = models.BigIntegerField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=150)
    origin = models.CharField(max_length=100, blank=True, help_text="the site it came from; empty: this one")
    action = models.CharField(max_length=16, choices=Action.choices)
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "number"], name="change_number")]

    def __str__(self) -> str:
        return f"{self.repository_id}#{self.number}"


class Asset(models.Model):
    """What stands at a path, from change `since` until change `until` (null: now).

    `path_key` is the path by the format's case rule; two paths with one key are the same place.
    """

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="assets")
    path = BytesOrderedField(max_length=PATH_BYTES)
    path_key = BytesOrderedField(max_length=PATH_BYTES)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="assets")
    media_type = models.CharField(max_length=255)
    package = BytesOrderedField(max_length=PATH_BYTES, blank=True)
    version = BytesOrderedField(max_length=255, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    since = models.BigIntegerField()
    until = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["repository", "path_key"], condition=Q(until=None), name="one_open_asset"),
            models.CheckConstraint(condition=Q(until=None) | Q(until__gt=F("since")), name="until_after_since"),
        ]
        indexes = [
            models.Index(fields=["repository", "path_key", "since"], name="asset_as_of"),
            models.Index(fields=["repository", "package"], name="asset_package"),
            models.Index(fields=["repository", "since"], name="asset_since"),
            models.Index(fields=["repository", "until"], condition=Q(until__isnull=False), name="asset_until"),
        ]

    def __str__(self) -> str:
        return self.path


class Description(models.Model):
    """What a format's `describe` found in the bytes: a pure function of path class and bytes, so kept once a blob."""

    blob = models.ForeignKey(Blob, on_delete=models.CASCADE, related_name="descriptions")
    format = models.CharField(max_length=32)
    path_class = models.CharField(max_length=32)
    data = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["blob", "format", "path_class"], name="one_description")]


class Reference(models.Model):
    """One blob's content names another by digest. Content never changes, so neither does this."""

    blob = models.ForeignKey(Blob, on_delete=models.CASCADE, related_name="references")
    digest = models.CharField(max_length=140)
    kind = models.CharField(max_length=32)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["blob", "digest", "kind"], name="one_reference")]
        indexes = [models.Index(fields=["digest"], name="reference_digest")]


class Freshness(models.Model):
    """What a remote knows of its upstream's document at a path. Never a Change: nothing that is served changed."""

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="freshness")
    path_key = BytesOrderedField(max_length=PATH_BYTES)
    etag = models.CharField(max_length=255, blank=True)
    last_modified = models.CharField(max_length=64, blank=True)
    checked_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, help_text="null: never, the document cannot change")
    missing = models.BooleanField(default=False, help_text="the upstream said that there is none")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "path_key"], name="one_freshness")]
        indexes = [
            models.Index(fields=["expires_at"], condition=Q(expires_at__isnull=False), name="freshness_expires"),
        ]


class Lease(models.Model):
    """The right to fetch one path of a remote, held by one process until it expires. `fence` says whose commit counts.

    `heard_at` is when the upstream last sent something of it, for those who wait in other processes.
    """

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="leases")
    path_key = BytesOrderedField(max_length=PATH_BYTES)
    fence = models.CharField(max_length=32)
    expires_at = models.DateTimeField()
    heard_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "path_key"], name="one_lease")]


class Rest(models.Model):
    """An upstream (the SHA-256 of its URL and credentials) that has asked not to be asked until then."""

    upstream = models.CharField(max_length=64, unique=True)
    until = models.DateTimeField()


class Aside(models.Model):
    """Bytes that wait for the rest of their publication, until they expire."""

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="asides")
    path_key = BytesOrderedField(max_length=PATH_BYTES)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="asides")
    actor = models.CharField(max_length=150)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["repository", "path_key"], name="one_aside")]


class Upload(models.Model):
    """Bytes that a client sends in several requests, any of which any process answers.

    `offset` is how many have come, in `parts` of the store; who adds one sets both, if nobody has meanwhile. A session of
    which nothing has come has no row; one that has `ended` keeps it, so that it cannot be gone on with.
    """

    id = models.CharField(max_length=32, primary_key=True)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="uploads")
    package = BytesOrderedField(max_length=PATH_BYTES)
    actor = models.CharField(max_length=150)
    offset = models.BigIntegerField(default=0)
    parts = models.JSONField(default=list)
    sha256 = models.CharField(max_length=64, blank=True, help_text="of the bytes so far; empty: not known without reading them")
    ended = models.BooleanField(default=False)
    touched_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["touched_at"], name="upload_touched")]

    def __str__(self) -> str:
        return f"upload {self.pk}"


class Usage(models.Model):
    """How often an asset was served; written in batches, off the asset's row."""

    asset = models.OneToOneField(Asset, on_delete=models.CASCADE, primary_key=True)
    downloads = models.BigIntegerField(default=0)
    last_used = models.DateTimeField()


class Installation(models.Model):
    """What this installation has done once: the formats whose repositories the start has created."""

    format = models.CharField(max_length=32, unique=True)


class Setting(models.Model):
    """One section of the configuration that belongs to no repository, such as `history`."""

    name = models.CharField(max_length=32, unique=True)
    value = models.JSONField(default=dict)


class Job(models.Model):
    """Work that no request waits for. The row is the truth of it; what delivers and runs it (see `repos.jobs`) may be lost.

    It acts for `user`, narrowed by `scopes`, with the rights that they have when it runs, and not once `token` is revoked;
    without a user for the installation itself. It goes when its user goes, so that it never acts for anybody else.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    LIVE = (State.QUEUED, State.RUNNING)

    kind = models.CharField(max_length=32)
    arguments = models.JSONField(default=dict)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, null=True, related_name="jobs")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="jobs")
    token = models.ForeignKey(
        "accounts.Token", on_delete=models.SET_NULL, null=True, related_name="+", help_text="that asked for it"
    )
    scopes = models.JSONField(null=True, help_text="of the token that asked for it; null: not narrowed")
    key = models.CharField(max_length=200, null=True, help_text="asking again while it has not ended gives this job")
    slot = models.CharField(max_length=64, null=True, unique=True, help_text="of a periodic kind: when; each is taken once")
    state = models.CharField(max_length=9, choices=State.choices, default=State.QUEUED)
    created_at = models.DateTimeField()
    not_before = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    attempt = models.PositiveSmallIntegerField(default=0, help_text="how often it was begun")
    attempts = models.PositiveSmallIntegerField(help_text="how often it may be begun")
    fence = models.CharField(max_length=32, blank=True, help_text="of who runs it: whose word counts")
    expires_at = models.DateTimeField(null=True, help_text="when it may be taken over, unless who runs it gives a sign of life")
    cancel_requested = models.BooleanField(default=False)
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(null=True, help_text="null: not known")
    problem = models.TextField(blank=True, help_text="why it failed, or failed the last time")
    result = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=Q(state__in=["queued", "running"]), name="one_live_job_per_key"),
        ]
        indexes = [
            models.Index(fields=["not_before"], condition=Q(state="queued"), name="job_queued"),
            models.Index(fields=["expires_at"], condition=Q(state="running"), name="job_running"),
            models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="job_ended"),
        ]

    def __str__(self) -> str:
        return f"job {self.pk} ({self.kind})"

    @property
    def ended(self) -> bool:
        return self.state not in self.LIVE


class JobLine(models.Model):
    """One line of a job's log; their order is that of their ids."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="lines", db_index=False)
    at = models.DateTimeField()
    text = models.CharField(max_length=500)

    class Meta:
        indexes = [models.Index(fields=["job", "id"], name="job_log")]

    def __str__(self) -> str:
        return self.text
