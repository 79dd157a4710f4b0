"""Of tokens: when they are said to expire soon, and the trust that gave them. Robots have no password any more."""

from django.db import migrations, models


def when_to_warn(apps, schema_editor):
    from accounts.tokens import warning

    tokens = apps.get_model("accounts", "Token")
    for token in tokens.objects.exclude(expires_at=None):
        tokens.objects.filter(pk=token.pk).update(warn_at=warning(token.created_at, token.expires_at))


def no_passwords_of_robots(apps, schema_editor):
    apps.get_model("accounts", "User").objects.filter(robot=True).update(password="!")


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_session")]

    operations = [
        migrations.AddField(
            model_name="token",
            name="trust",
            field=models.CharField(
                blank=True, default="", help_text="the trust by which it was given; empty: it was made here", max_length=100
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="token",
            name="warn_at",
            field=models.DateTimeField(
                help_text="from when on it expires soon; null: of its end nobody is warned", null=True
            ),
        ),
        migrations.AddField(
            model_name="token",
            name="warned",
            field=models.BooleanField(default=False, help_text="whether the audit says that it expires soon"),
        ),
        migrations.AddIndex(
            model_name="token",
            index=models.Index(fields=["expires_at"], name="token_expiry"),
        ),
        migrations.RunPython(when_to_warn, migrations.RunPython.noop),
        migrations.RunPython(no_passwords_of_robots, migrations.RunPython.noop),
    ]
