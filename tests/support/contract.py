"""The contract of a start, as existing clients have it."""

import yaml

from tests.support.processes import ROOT

CONTRACT = yaml.safe_load((ROOT / "tests" / "contract" / "start_worker.openapi.yaml").read_text())
SCHEMAS = CONTRACT["components"]["schemas"]
