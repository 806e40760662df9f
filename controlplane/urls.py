"""All routes: the console, the worker API, its document, and health."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView

from controlplane.api.errors import api_not_found
from controlplane.api.health import DetailedHealthView, HealthView, ReadyView, livez, readyz
from controlplane.api.openapi import OneDocument
from controlplane.console import inviting
from controlplane.console.search import search
from environments.admin.searches import BoundedAutocomplete

autocomplete = BoundedAutocomplete.as_view(admin_site=admin.site)
urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include("workers.api.urls")),
    path("api/health", HealthView.as_view()),
    path("api/health/detailed", DetailedHealthView.as_view()),
    path("api/ready", ReadyView.as_view()),
    path("api/openapi.json", SpectacularJSONAPIView.as_view(generator_class=OneDocument), name="openapi"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="openapi"), name="docs"),
    re_path(r"^api/", api_not_found),
    path("admin/", include("controlplane.accounts.urls")),
    path("admin/search/", admin.site.admin_view(search), name="console_search"),
    path("admin/invite/", admin.site.admin_view(inviting.invite), name="console_invite"),
    path("admin/invite/withdraw/", admin.site.admin_view(inviting.withdraw), name="console_invitation_withdraw"),
    path("admin/autocomplete/", admin.site.admin_view(autocomplete), name="autocomplete"),
    path("admin/", admin.site.urls),
    path("livez", livez),
    path("readyz", readyz),
    path("favicon.ico", RedirectView.as_view(url="/static/controlplane/icon.svg")),
    path("", RedirectView.as_view(url="/admin/")),
]

handler400 = "controlplane.api.errors.bad_request"
handler403 = "controlplane.api.errors.forbidden"
handler404 = "controlplane.api.errors.not_found"
handler500 = "controlplane.api.errors.server_error"
handler429 = "controlplane.accounts.throttling.too_many_attempts"  # allauth looks for it
