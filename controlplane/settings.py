"""Django's settings, read from environment variables; whatever is insecure or missing stops the boot."""

from importlib.util import find_spec
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.utils.csp import CSP

from controlplane.startup import env
from controlplane.startup.authorities import trust_named_authorities
from controlplane.startup.mail import mail_server
from environments.encryption import encode
from environments.endpoints.hosts import is_loopback

env.load_env_file()
trust_named_authorities()

# --- Secrets ---

SECRET_KEY = env.required("SECRET_KEY", "secret")
ENCRYPTION_KEYS = env.key_ring("ENCRYPTION_KEYS", "encryption")
API_KEY_SIGNING_KEYS = env.key_ring("API_KEY_SIGNING_KEYS", "signing", prefix="acp-")

if len(SECRET_KEY) < 50:  # noqa: PLR2004  # Django's own check asks for 50
    msg = "SECRET_KEY has fewer than 50 characters. Make one with: python manage.py generate_key secret"
    raise ImproperlyConfigured(msg)
_materials = [key.material for ring in (ENCRYPTION_KEYS, API_KEY_SIGNING_KEYS) for key in ring.values()]
if len(set(_materials)) != len(_materials) or any(encode(material) in SECRET_KEY for material in _materials):
    msg = "SECRET_KEY, ENCRYPTION_KEYS and API_KEY_SIGNING_KEYS must differ from each other."
    raise ImproperlyConfigured(msg)

# --- Monitoring ---

METRICS_TOKEN = env.metrics_token(SECRET_KEY)
IS_TRACED = env.trace_endpoint()
if IS_TRACED and not find_spec("opentelemetry"):
    msg = "OTEL_EXPORTER_OTLP_ENDPOINT is set, but not what traces need: pip install -r requirements-tracing.txt"
    raise ImproperlyConfigured(msg)

# --- Where it runs ---

DEBUG = env.boolean("DEBUG")
CONTROL_PLANE_URL = env.control_plane_url(default=f"http://127.0.0.1:{env.port()}")
IS_LOCAL = CONTROL_PLANE_URL.startswith("http://")
_own_host = urlsplit(CONTROL_PLANE_URL).hostname or ""
ALLOWED_HOSTS = env.host_names("ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]" if IS_LOCAL else _own_host)
DATABASES = {"default": env.database(env.plain_text("DATABASE_URL", "sqlite:///var/controlplane.sqlite3"))}
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES", "127.0.0.1,::1")
CONNECTION_HOSTS = env.connection_hosts("CONNECTION_HOSTS")
MAIL_SERVER = mail_server()

if IS_LOCAL and not all(is_loopback(host.strip("[]")) for host in ALLOWED_HOSTS):
    msg = "ALLOWED_HOSTS names a host beyond this machine: set CONTROL_PLANE_URL to its https:// URL."
    raise ImproperlyConfigured(msg)
if DEBUG and not (IS_LOCAL and DATABASES["default"]["ENGINE"] == "controlplane.engines.sqlite3"):
    msg = "DEBUG shows internals, so it is refused with PostgreSQL and beyond this machine."
    raise ImproperlyConfigured(msg)

# --- Limits ---

API_KEY_REQUESTS_PER_MINUTE = env.positive_integer("API_KEY_REQUESTS_PER_MINUTE", 30_000)
WORKER_STARTS_PER_MINUTE = env.positive_integer("WORKER_STARTS_PER_MINUTE", 300)
FAILED_AUTHENTICATIONS_PER_MINUTE = env.positive_integer("FAILED_AUTHENTICATIONS_PER_MINUTE", 300)
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}

# --- Django ---

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "environments",
    "workers",
    "controlplane",
]
MIDDLEWARE = [
    "controlplane.monitoring.requests.TelemetryMiddleware",
    *(["controlplane.monitoring.tracing.TracingMiddleware"] if IS_TRACED else []),
    "controlplane.middleware.client.ProxyMiddleware",
    "controlplane.middleware.client.ProbeMiddleware",
    "controlplane.monitoring.metrics.MetricsMiddleware",
    "controlplane.middleware.worker_api.WorkerApiMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "controlplane.middleware.console.ConsolePolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "controlplane.middleware.circuit.CircuitMiddleware",
    "controlplane.middleware.console.UnsizedFormMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "controlplane.middleware.console.SecondFactorMiddleware",
    "controlplane.middleware.console.ConsoleErrorsMiddleware",
]
ROOT_URLCONF = "controlplane.urls"
WSGI_APPLICATION = "controlplane.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [env.ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "controlplane.releases.for_templates",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = ["controlplane.formats"]
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # served straight from the packages: no collectstatic step to forget
WHITENOISE_AUTOREFRESH = False

# --- Security ---

SECURE_SSL_REDIRECT = not IS_LOCAL
SECURE_REDIRECT_EXEMPT = [r"^/?api/", r"^livez$", r"^readyz$"]  # the worker API refuses plain HTTP instead
SECURE_HSTS_SECONDS = 0 if IS_LOCAL else 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = not IS_LOCAL
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not IS_LOCAL
SESSION_COOKIE_NAME = "sessionid" if IS_LOCAL else "__Host-sessionid"
CSRF_COOKIE_NAME = "csrftoken" if IS_LOCAL else "__Host-csrftoken"
CSRF_FAILURE_VIEW = "controlplane.api.errors.form_refused"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
SECURE_CSP = {
    "default-src": [CSP.NONE],
    "frame-ancestors": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "form-action": [CSP.NONE],
}
#: unfold's Alpine evaluates attributes, so it needs 'unsafe-eval'; inline styles come with it.
CONSOLE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF, CSP.UNSAFE_EVAL],
    "style-src": [CSP.SELF, CSP.UNSAFE_INLINE],
    "img-src": [CSP.SELF, "data:"],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],
    "base-uri": [CSP.NONE],
}
DEFAULT_EXCEPTION_REPORTER_FILTER = "controlplane.api.errors.ExceptionReporterFilter"

# --- Login (controlplane.accounts, on django-allauth) ---

PASSWORD_HASHERS = ["controlplane.accounts.hashing.PatientHasher"]
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"
REQUIRE_SECOND_FACTOR = env.boolean("REQUIRE_SECOND_FACTOR")
OIDC_NAME, SOCIALACCOUNT_PROVIDERS = env.openid_connect()
ACCOUNT_ADAPTER = "controlplane.accounts.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SESSION_REMEMBER = True  # for SESSION_COOKIE_AGE
#: Failures are counted before a password is hashed; what succeeds is not, so there is no other limit on logins. What
#: the keys are, controlplane.accounts.throttling tells. A code has six digits only: 20 an hour are 1 in 2,000 a day.
ACCOUNT_RATE_LIMITS = {
    "login": "",
    "login_failed": "10/m/ip,10/5m/key",
    "login_failed_by_name": "50/15m/key",
    "code_failed_by_user": "20/h/key",
    "known_device_failed": "10/5m/key",
    "single_sign_on": "20/m/ip",
    "invitation": "20/m/ip",
    "invite": "60/h/user",
}
MFA_ADAPTER = "controlplane.accounts.adapters.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_ALLOW_UNVERIFIED_EMAIL = True  # administrators make accounts, so there is no stranger's address to verify
MFA_TOTP_ISSUER = "Control plane"
MFA_RATE_LIMITS = {"webauthn_login": "20/m/ip"}  # two for each login: the challenge and the answer
SOCIALACCOUNT_ADAPTER = "controlplane.accounts.identities.IdentityAdapter"

# --- Worker API ---

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["workers.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],  # the authentication refuses whoever has no key; the domain decides the rest
    "DEFAULT_PARSER_CLASSES": ["controlplane.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "controlplane.api.parsers.AlwaysJSON",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "controlplane.api.openapi.WorkerApiSchema",
    "EXCEPTION_HANDLER": "controlplane.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Agent Control Plane API",
    "DESCRIPTION": "Multi-tenant agent orchestration with Temporal workflows",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["controlplane.api.openapi.as_the_contract_has_it"],
    "TAGS": [{"name": "workers", "description": "👷 **Workers** - Worker registration and heartbeat monitoring"}],
}

# --- Console and logs ---

UNFOLD = {
    "SITE_TITLE": "Control plane",
    "SITE_HEADER": "Control plane",
    "SITE_SYMBOL": "hub",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda _request: static("controlplane/icon.svg")}
    ],
    "SHOW_HISTORY": True,
    "COLORS": {"primary": {"500": "oklch(70% .2 304.5)"}},  # unfold's own has too little contrast in the dark
    "STYLES": [lambda _request: static("controlplane/console.css")],
    "SCRIPTS": [lambda _request: static("controlplane/console.js")],
    "DASHBOARD_CALLBACK": "workers.admin.dashboard.context_of",
    "SIDEBAR": {"navigation": "controlplane.console.navigation.sections"},
    "ACCOUNT": {
        "navigation": [
            {"title": "Login and security", "link": "/admin/account/"},
            {"title": "Change password", "link": "/admin/password_change/"},
        ]
    },
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "controlplane.monitoring.logs.JsonFormatter"}},
    "filters": {"unexpected": {"()": "controlplane.monitoring.logs.UnexpectedOnly"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    # Replaces Django's default handlers, so that there is no error mail with an HTML report.
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        "django.request": {"filters": ["unexpected"]},
    },
}
