"""Manifests around the program of these tests."""

from tests.local.machine import Machine

OUTSIDE = "annotations: {linkerd.io/inject: disabled}"


def app(
    mesh: Machine,
    name: str = "web",
    *,
    replicas: int = 1,
    spec: str = "",
    pod: str = "",
    note: str = "",
    annotations: str = OUTSIDE,
) -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}, {annotations}}}
    spec:
      terminationGracePeriodSeconds: 5
      {pod}
      containers:
      - name: main
        command: [python3, {mesh.manifests}/app.py, "8000"]
        args: [{note}]
        ports: [{{name: http, containerPort: 8000}}]
        readinessProbe: {{httpGet: {{path: /healthy, port: http}}, periodSeconds: 1}}
        {spec}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
"""


def published(mesh: Machine, name: str = "web") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}-out}}
spec:
  type: LoadBalancer
  selector: {{app: {name}}}
  ports: [{{port: {mesh.port}, targetPort: 8000}}]
---
"""


def headless(name: str) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}-all}}
spec: {{clusterIP: None, selector: {{app: {name}}}, ports: [{{port: 8000}}]}}
---
"""
