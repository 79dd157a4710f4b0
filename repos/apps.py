from django.apps import AppConfig


class ReposConfig(AppConfig):
    name = "repos"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # every process knows every kind of job: those that ask for them and those that run them
        from repos import reviews  # noqa: F401
        from repos.ahead import fetch, prefetch, revalidate  # noqa: F401
        from repos.upkeep import audit, expire, gc, people, tokens  # noqa: F401
