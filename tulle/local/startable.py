"""What on this machine keeps a folder of manifests from running, found before anything is started."""

from tulle.local.containers import missing_programs, user
from tulle.local.desired import Folder, template_of
from tulle.local.ground import found
from tulle.model.errors import SettingError
from tulle.model.objects import Problem


def startable(folder: Folder, path: str, *, has_proxy: bool) -> list[Problem]:
    """Return everything that is missing; `path` is the PATH of containers."""
    problems: list[Problem] = []
    workloads = folder.workloads.values()
    meshed = [each for each in workloads if folder.membership(each).meshed]
    if meshed and not has_proxy:
        text = "tulle-proxy is not installed on this machine; install it, or set linkerd.io/inject: disabled"
        problems.append(Problem(meshed[0].source, "", text))
    for workload in workloads:
        _, _, spec = template_of(workload)
        problems += missing_programs(spec, lambda name, place: found(name, path, place) is not None)
        for container in (*spec.init_containers, *spec.containers):
            try:
                user(container, spec, many_ids=True)
            except SettingError as error:
                problems.append(Problem(container.source, "securityContext.runAsUser", str(error)))
    return problems
