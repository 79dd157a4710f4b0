"""Who there is, and what they may do.

A grant is a row of django-guardian: a user or a group has a permission on a Target. The Target says where (a glob over
repositories and one over paths), and the permission is a Role in the form guardian knows. Nothing else grants anything:
Django's `is_superuser` and `is_staff` are not consulted.

Every change to these rows starts a new epoch (see `accounts.signals`). Paths that go around `save` and `delete`
(`QuerySet.update`, `bulk_create`) call `epoch.bump` themselves.
"""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser, Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models, transaction
from guardian.models import GroupObjectPermissionBase, UserObjectPermissionBase

from accounts import globs, permissions
from basics.columns import BytesOrderedField, Clock


class SavedWhole(models.Model):
    """Saved together with what the signals of the save write, the new epoch above all, or not at all."""

    class Meta:
        abstract = True

    def save(self, *args, **kwargs) -> None:
        with transaction.atomic():
            super().save(*args, **kwargs)


class User(SavedWhole, AbstractUser):
    """A person, or a robot (`robot`): somebody who signs in with a password, with tokens, or by a source outside.

    Who is not active was made so by an administrator or, when `suspended`, by the source that they come from, which may also
    undo it.
    """

    robot = models.BooleanField(default=False)
    suspended = models.BooleanField(default=False)


class ExternalName(models.Model):
    """A group's name elsewhere, such as `sso:team-a`."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="external_names")
    name = models.CharField(max_length=500)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["group", "name"], name="one_external_name")]
        indexes = [models.Index(fields=["name"], name="external_name")]

    def __str__(self) -> str:
        return self.name


class Source(models.Model):
    """Who is believed about who somebody is: a directory, a provider, a trust. `settings`: its document, secrets sealed."""

    class Kind(models.TextChoices):
        DIRECTORY = "directory"
        PROVIDER = "provider"
        TRUST = "trust"

    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=100)
    settings = models.JSONField(default=dict)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="one_source")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class ExternalIdentity(models.Model):
    """Whom a source calls `subject` is this user. The pair of issuer and subject is all that links them.

    `issuer`: a provider's issuer, or `directory:` and a directory's name. `subject`: what the issuer never gives to anybody else,
    such as `sub` (OpenID Connect Core section 2) or `entryUUID` (RFC 4530).
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="external_identities")
    source = models.CharField(max_length=100, help_text="the name of the directory or provider")
    issuer = models.CharField(max_length=500)
    subject = models.CharField(max_length=255)
    name = models.CharField(max_length=500, blank=True, help_text="by which the source finds them, such as a distinguished name")
    seen_at = models.DateTimeField(help_text="when the source last vouched for them")

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="one_external_identity")]
        indexes = [models.Index(fields=["source"], name="external_source")]

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}"


class ExternalMembership(models.Model):
    """An external group that an identity is in, as `ExternalName` has it. Which groups here that means is asked each time."""

    identity = models.ForeignKey(ExternalIdentity, on_delete=models.CASCADE, related_name="memberships")
    name = models.CharField(max_length=500)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["identity", "name"], name="one_external_membership")]

    def __str__(self) -> str:
        return self.name


class DirectoryWatch(models.Model):
    """When everybody of a directory is looked at again (`accounts.directories.follow`), and why that failed the last time."""

    name = models.CharField(max_length=100, unique=True)
    due_at = models.DateTimeField()
    failure = models.CharField(max_length=1000, blank=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class FailedSignIn(models.Model):
    """How often signing in by a password failed lately, for a name, an address, or both (`accounts.throttle`).

    `key`: a digest of them.
    """

    key = models.CharField(max_length=64, unique=True)
    failures = models.IntegerField()
    failed_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["failed_at"], name="failed_sign_in_at")]

    def __str__(self) -> str:
        return f"{self.key[:12]}… {self.failures}"


class Target(SavedWhole):
    """Where a grant holds: a glob over repositories and one over `Format.package(path)`.

    An empty path glob is every path. Empty in both is the global target, which carries global permissions only.
    """

    repository = models.CharField(max_length=globs.LENGTH, blank=True)
    path = models.CharField(max_length=globs.LENGTH, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["repository", "path"], name="one_target"),
            models.CheckConstraint(condition=~models.Q(repository="") | models.Q(path=""), name="paths_need_repositories"),
        ]

    def __str__(self) -> str:
        return f"{self.repository}:{self.path}" if self.path else self.repository


class Role(SavedWhole):
    """A named set of permissions. To guardian it is the Permission on Target with the code name `role:<name>`."""

    name = models.CharField(max_length=90, unique=True)
    permissions = models.JSONField(default=list)
    permission = models.OneToOneField(Permission, on_delete=models.CASCADE, related_name="role", editable=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name

    def save(self, *args, **kwargs) -> None:
        """Raises problems.Malformed for an unknown permission."""
        self.permissions = permissions.checked(self.permissions)
        with transaction.atomic():
            self._name_permission()
            super().save(*args, **kwargs)

    def _name_permission(self) -> None:
        codename = f"role:{self.name}"
        if not self.permission_id:
            self.permission, _ = Permission.objects.get_or_create(
                content_type=ContentType.objects.get_for_model(Target), codename=codename, defaults={"name": codename}
            )
        elif self.permission.codename != codename:
            self.permission.codename = self.permission.name = codename
            self.permission.save()


class TargetUserObjectPermission(SavedWhole, UserObjectPermissionBase):
    """A user has a role on a target."""

    content_object = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="user_grants")

    class Meta(UserObjectPermissionBase.Meta):
        default_permissions = ()


class TargetGroupObjectPermission(SavedWhole, GroupObjectPermissionBase):
    """A group has a role on a target."""

    content_object = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="group_grants")

    class Meta(GroupObjectPermissionBase.Meta):
        default_permissions = ()


class Token(models.Model):
    """A secret that signs in as its user, known by its SHA-256 alone. With `scopes` it may only what they allow too."""

    digest = models.CharField(max_length=64, unique=True)
    prefix = models.CharField(max_length=16, help_text="the secret's first characters, to tell tokens apart")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100, blank=True)
    scopes = models.JSONField(null=True, help_text="PERMISSION@REPOSITORY-GLOB[:PATH-GLOB]; null: all its user may")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    warn_at = models.DateTimeField(null=True, help_text="from when on it expires soon; null: of its end nobody is warned")
    warned = models.BooleanField(default=False, help_text="whether the audit says that it expires soon")
    trust = models.CharField(max_length=100, blank=True, help_text="the trust by which it was given; empty: it was made here")

    class Meta:
        default_permissions = ()
        indexes = [
            models.Index(fields=["prefix"], name="token_prefix"),
            models.Index(fields=["expires_at"], name="token_expiry"),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… of {self.user_id}"


class Epoch(models.Model):
    """The one row of `accounts.epoch`."""

    number = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="one_epoch")]


class Event(models.Model):
    """One line of the audit, written by `accounts.audit` alone, and never changed: see `accounts.appendonly`.

    Lines are ordered by (at, id).
    """

    at = models.DateTimeField(db_default=Clock(), help_text="when it was written, by the database's clock")
    action = models.CharField(max_length=40)
    refused = models.BooleanField(default=False)
    actor = models.CharField(max_length=150, blank=True, help_text="who did it; empty: anonymous")
    token = models.BigIntegerField(null=True, help_text="the id of the token that they used")
    address = models.CharField(max_length=45, blank=True, help_text="where the request came from; empty: no request")
    request = models.CharField(max_length=32, blank=True)
    repository = models.CharField(max_length=100, blank=True)
    subject = BytesOrderedField(max_length=1024, blank=True, help_text="what it was done to: a path, a user, a token")
    detail = models.JSONField(default=dict)
    count = models.BigIntegerField(default=1, help_text="how many alike this line stands for")

    class Meta:
        default_permissions = ()
        indexes = [
            models.Index(fields=["at", "id"], name="event_at"),
            models.Index(fields=["actor", "at", "id"], name="event_actor"),
            models.Index(fields=["action", "at", "id"], name="event_action"),
            models.Index(fields=["repository", "at", "id"], name="event_repository"),
            models.Index(fields=["subject", "at", "id"], name="event_subject"),
            models.Index(fields=["at", "id"], condition=models.Q(refused=True), name="event_refused"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%dT%H:%M:%SZ} {self.actor or 'anonymous'} {self.action} {self.subject}"


class RightUse(models.Model):
    """When somebody last used a permission on a repository, as `accounts.uses` notes it."""

    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+", help_text="null: anonymous")
    repository = models.CharField(max_length=100, blank=True, help_text="its key; empty: a global permission")
    permission = models.CharField(max_length=40)
    last_used_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["user", "repository", "permission"], condition=models.Q(user__isnull=False), name="one_use_of_user"
            ),
            models.UniqueConstraint(
                fields=["repository", "permission"], condition=models.Q(user__isnull=True), name="one_use_of_anybody"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.permission} on {self.repository}"


class Review(models.Model):
    """Who had what at a moment, for somebody to look at: an owner's repositories; the installation's, where it says no owner."""

    owner = models.CharField(max_length=150, blank=True, help_text="a user or a group; empty: the installation")
    made_at = models.DateTimeField()
    made_by = models.CharField(max_length=150, blank=True, help_text="who asked for it; empty: it came round")
    unused = models.CharField(max_length=20, help_text="how long not used is unused")
    stale = models.CharField(max_length=20, help_text="how long not seen is stale")
    repositories = models.JSONField(default=list)
    groups = models.JSONField(default=dict, help_text="of each group with a grant: its users, each with through what")

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["owner", "made_at"], name="review_owner")]

    def __str__(self) -> str:
        return f"review {self.pk} of {self.owner or 'the installation'}"


class ReviewItem(models.Model):
    """A grant, a token or an account in a review, and what was decided of it."""

    class Kind(models.TextChoices):
        GRANT = "grant"
        TOKEN = "token"
        ACCOUNT = "account"

    class Decision(models.TextChoices):
        APPROVE = "approve"
        REVOKE = "revoke"

    review = models.ForeignKey(Review, on_delete=models.CASCADE, related_name="items")
    number = models.IntegerField()
    kind = models.CharField(max_length=16, choices=Kind.choices)
    about = models.JSONField(help_text="the grant, the token or the account as it was")
    why = models.JSONField(default=list, help_text="what is worth a look")
    unused = models.BooleanField(default=False)
    last_used_at = models.DateTimeField(null=True)
    decision = models.CharField(max_length=16, blank=True, choices=Decision.choices)
    decided_by = models.CharField(max_length=150, blank=True)
    decided_at = models.DateTimeField(null=True)
    comment = models.CharField(max_length=1000, blank=True)

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["review", "number"], name="one_review_item")]

    def __str__(self) -> str:
        return f"item {self.number} of review {self.review_id}"


class Session(AbstractBaseSession):
    """Somebody who is signed in with a browser: see `accounts.sessions`. Its key is a hash, of no use to who reads it."""

    session_key = models.CharField(max_length=64, primary_key=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sessions")
    proof = models.CharField(max_length=128, help_text="changes with the user's password: Django's session hash")
    created_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="when it was used last, give or take some minutes")
    address = models.CharField(max_length=45, blank=True)
    agent = models.CharField(max_length=300, blank=True, help_text="the browser's own name, as it told it")

    class Meta(AbstractBaseSession.Meta):
        abstract = False
        default_permissions = ()

    def __str__(self) -> str:
        return f"session of {self.user_id}"


class Spent(models.Model):
    """Something that is good for one use, such as the state of a sign-in at a provider, and has had it."""

    key = models.CharField(max_length=64, primary_key=True)
    until = models.DateTimeField(help_text="when it would be good for nothing anyhow")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.key
