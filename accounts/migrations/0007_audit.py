"""The audit is ordered by the database's clock, found by index, and append-only."""

import basics.columns
from django.db import migrations, models

from accounts import appendonly


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0006_tokens'),
    ]

    operations = [
        migrations.AlterField(
            model_name='event',
            name='at',
            field=models.DateTimeField(db_default=basics.columns.Clock(), help_text="when it was written, by the database's clock"),
        ),
        migrations.AlterField(
            model_name='event',
            name='subject',
            field=basics.columns.BytesOrderedField(blank=True, help_text='what it was done to: a path, a user, a token', max_length=1024),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(fields=['at', 'id'], name='event_at'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(fields=['actor', 'at', 'id'], name='event_actor'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(fields=['action', 'at', 'id'], name='event_action'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(fields=['repository', 'at', 'id'], name='event_repository'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(fields=['subject', 'at', 'id'], name='event_subject'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(condition=models.Q(('refused', True)), fields=['at', 'id'], name='event_refused'),
        ),
        migrations.RunPython(lambda apps, editor: appendonly.ensure(), lambda apps, editor: appendonly.remove()),
    ]
