"""The alerts as the Prometheus operator takes them.

python -m deploy.rules > deploy/kubernetes/components/monitoring/rules.yaml
"""

from __future__ import annotations

import re
import sys
import textwrap

from deploy.settings import PROJECT_ROOT

ALERTS = PROJECT_ROOT / "deploy" / "alerts.yml"
_HEAD = """\
# Written by `python -m deploy.rules` from ../../../alerts.yml. In another namespace than kappa, put
# that in place of it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kappa-views
spec:
"""
_NAMESPACE = 'namespace="kappa"'
# The lines of an expression are indented by more than its key is.
_EXPRESSION = re.compile(r"^( +)expr: .*\n(?:\1 +.*\n)*", re.MULTILINE)
_SHARED = re.compile(r"\b(up|flink_\w+)\b(\{?)")


def prometheus_rule(alerts: str) -> str:
    """Return the PrometheusRule with the groups of a Prometheus rule file, both as YAML.

    A cluster's Prometheus has the metrics of others too: of those that these may have as well, the
    rules see the project's namespace alone.
    """
    return _HEAD + textwrap.indent(_EXPRESSION.sub(_in_namespace, alerts), "  ")


def _in_namespace(expression: re.Match[str]) -> str:
    return _SHARED.sub(
        lambda found: f"{found[1]}{{{_NAMESPACE}" + (", " if found[2] else "}"), expression[0]
    )


if __name__ == "__main__":
    sys.stdout.write(prometheus_rule(ALERTS.read_text()))
