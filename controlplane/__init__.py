"""Composes the service: settings, routes, the shape of errors, health and the served OpenAPI document."""
