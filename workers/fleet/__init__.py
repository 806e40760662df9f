"""Configuration as code: one YAML document with organizations and all that lies in them, applied and exported."""

from workers.fleet.apply import Applied, apply_document
from workers.fleet.changes import Action, Change
from workers.fleet.errors import FleetError, Problem
from workers.fleet.export import export_document

__all__ = ["Action", "Applied", "Change", "FleetError", "Problem", "apply_document", "export_document"]
