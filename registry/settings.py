"""Django's settings, all from the environment (see registry.environment)."""

from __future__ import annotations

import sys

from registry import environment

try:
    ENTREPOT = environment.read()
except environment.EnvironmentProblem as problem:
    sys.stderr.write(f"{problem}\n")
    sys.exit(2)

SECRET_KEY = ENTREPOT.secret_key
DEBUG = False
ALLOWED_HOSTS = ENTREPOT.allowed_hosts
ROOT_URLCONF = "registry.urls"
WSGI_APPLICATION = "registry.wsgi.application"
APPEND_SLASH = False
MIDDLEWARE: list[str] = []

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "guardian",
    "accounts",
    "repos",
    "registry",
]

DATABASES = {"default": ENTREPOT.database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "guardian.backends.ObjectPermissionBackend"]
PASSWORD_HASHERS = ["accounts.passwords.Hasher"]
ANONYMOUS_USER_NAME = "anonymous"
GUARDIAN_MONKEY_PATCH_USER = False
GUARDIAN_MONKEY_PATCH_GROUP = False

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    # django.request repeats every answer of 4xx and 5xx; what went wrong here has a traceback
    "filters": {"failures": {"()": "django.utils.log.CallbackFilter", "callback": lambda record: record.exc_info}},
    "loggers": {"django.request": {"level": "ERROR", "filters": ["failures"]}},
}
