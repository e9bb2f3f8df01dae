"""The alerts as the Prometheus operator takes them.

python -m deploy.rules > deploy/kubernetes/components/monitoring/rules.yaml
"""

from __future__ import annotations

import sys
import textwrap

from deploy.settings import PROJECT_ROOT

ALERTS = PROJECT_ROOT / "deploy" / "alerts.yml"
_HEAD = """\
# Written by `python -m deploy.rules` from ../../../alerts.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kappa-views
spec:
"""


def prometheus_rule(alerts: str) -> str:
    """Return the PrometheusRule with the groups of a Prometheus rule file, both as YAML."""
    return _HEAD + textwrap.indent(alerts, "  ")


if __name__ == "__main__":
    sys.stdout.write(prometheus_rule(ALERTS.read_text()))
