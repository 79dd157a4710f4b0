from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AccountsConfig(AppConfig):
    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts import appendonly, builtin, signals

        signals.connect()
        post_migrate.connect(builtin.after_migrate, sender=self, dispatch_uid="accounts.builtin")
        post_migrate.connect(appendonly.after_migrate, sender=self, dispatch_uid="accounts.appendonly")
