"""Looks for what is wrong before it is felt: settings, database, clocks, sealed rows, API keys, workers."""

from controlplane.doctor.examination import examine
from controlplane.doctor.findings import Finding, Level

__all__ = ["Finding", "Level", "examine"]
