"""Objects for tests: made from the manifests that a person would write."""

from typing import TypeVar

from tulle.rules.decode import decode
from tulle.rules.kinds import Object

Wanted = TypeVar("Wanted")


def objects(text: str) -> tuple[Object, ...]:
    decoded = decode([("test.yaml", text)])
    assert not decoded.problems, decoded.problems
    return decoded.objects


def one(kind: type[Wanted], text: str) -> Wanted:
    (found,) = (item for item in objects(text) if isinstance(item, kind))
    return found


def deployment(
    name: str = "web", *, replicas: int = 2, spec: str = "", strategy: str = "", metadata: str = ""
) -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  {strategy}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}{metadata}}}
    spec:
      containers:
      - name: main
        command: ["true"]
        {spec}
---
"""


def service(name: str = "web", *, spec: str = "ports: [{port: 80, targetPort: 8000}]") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  {spec}
---
"""


def pod(
    name: str = "lone", *, container: str = "command: ['true']", spec: str = "", metadata: str = ""
) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}{metadata}}}
spec:
  {spec}
  containers:
  - name: main
    {container}
---
"""
