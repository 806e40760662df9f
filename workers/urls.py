"""Routes of the worker API, below `/api/v1/`."""

from django.urls import path

from workers.views import StartWorkerView

urlpatterns = [
    path("workers/<str:worker_id>/start", StartWorkerView.as_view()),
]
