"""What the state says about pods: for people and programs outside of the mesh."""

from tulle.local.containers import user
from tulle.local.control import NAME, NAMESPACE, ControlPod
from tulle.local.pod import LocalPod
from tulle.local.snapshot import Json


def pod_state(pod: LocalPod) -> Json:
    """Return one pod."""
    order = pod.order
    return {
        "name": order.name,
        "namespace": order.namespace,
        "phase": "Terminating" if pod.terminating else pod.phase,
        "ready": pod.ready,
        "restarts": pod.restarts,
        "address": pod.addresses[0],
        "addresses": list(pod.addresses),
        "identity": pod.injection.identity if pod.injection else None,
        "meshed": order.membership.meshed,
        "note": pod.note,
        "pid": pod.pid,
        "workload": str(order.workload),
        "containers": [
            {
                "name": container.name,
                "pid": child.pid
                if (child := pod.containers[container.name].child) and child.running
                else None,
                "uid": user(container, order.spec, many_ids=True).uid,
                "restarts": pod.containers[container.name].restarts,
                "state": pod.containers[container.name].word,
            }
            for container in (*order.spec.containers, *order.spec.init_containers)
        ],
    }


def control_state(control: ControlPod) -> Json:
    """Return the controller's pod."""
    controller = control.controller
    note = [control.note, *(each.note for each in (controller, control.proxy) if each)]
    return {
        "name": NAME,
        "namespace": NAMESPACE,
        "phase": "Running" if controller and controller.pid else "Pending",
        "ready": control.ready,
        "restarts": control.restarts,
        "address": control.addresses[0],
        "addresses": list(control.addresses),
        "identity": control.injection.identity if control.injection else None,
        "meshed": True,
        "note": "" if control.ready else "; ".join(each for each in note if each),
        "pid": control.pid,
        "workload": f"Pod/{NAME}",
        "containers": [
            {
                "name": "controller",
                "pid": controller.pid if controller else None,
                "uid": 0,
                "restarts": controller.restarts if controller else 0,
                "state": "running" if controller and controller.pid else "waiting",
            }
        ],
    }
