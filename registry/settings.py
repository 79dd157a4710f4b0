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
    "drf_spectacular",
    "accounts",
    "repos",
    "registry",
]

DATABASES = {"default": ENTREPOT.database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [environment.ROOT / "templates"]}]

# A browser's session; `repos.ui.door` gives the cookies their flags and, over https, their prefix
SESSION_ENGINE = "accounts.sessions"
SESSION_COOKIE_NAME = "entrepot-session"
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
CSRF_COOKIE_NAME = "entrepot-csrf"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_AGE = None
CSRF_FAILURE_VIEW = "repos.ui.door.forged"
CSRF_TRUSTED_ORIGINS = [ENTREPOT.base_url] if ENTREPOT.base_url else []

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "guardian.backends.ObjectPermissionBackend"]
PASSWORD_HASHERS = ["accounts.passwords.Hasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
ANONYMOUS_USER_NAME = "anonymous"
GUARDIAN_MONKEY_PATCH_USER = False
GUARDIAN_MONKEY_PATCH_GROUP = False

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

REST_FRAMEWORK = {
    "DEFAULT_PERMISSION_CLASSES": ["repos.api.permissions.Nobody"],
    "DEFAULT_SCHEMA_CLASS": "repos.api.schema.Described",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_PARSER_CLASSES": [],
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Entrepot",
    "DESCRIPTION": "The API of an artifact registry: its configuration, what its repositories hold and held, tokens and jobs.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": True,
    "POSTPROCESSING_HOOKS": [],  # values stand where they are taken: by keys alone, such as `kind`, they cannot be named apart
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    # django.request repeats every answer of 4xx and 5xx; what went wrong here has a traceback
    "filters": {"failures": {"()": "django.utils.log.CallbackFilter", "callback": lambda record: record.exc_info}},
    "loggers": {
        "django.request": {"level": "ERROR", "filters": ["failures"]},
        "django.security.csrf": {"level": "ERROR"},  # what strangers send may come in floods
    },
}
