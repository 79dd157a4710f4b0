"""The built-in roles, the group of the signed-in and the first epoch."""

from django.db import migrations

from accounts import builtin


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(lambda apps, _: builtin.ensure(apps), migrations.RunPython.noop),
    ]
