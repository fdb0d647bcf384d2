"""Decodes pods: containers, probes, volumes and the environment.

Fields of Kubernetes that mean nothing on one machine (scheduling, image pulling) are accepted without a word;
those whose absence somebody might notice are accepted with a note; the rest is unknown and a mistake.
"""

from typing import Literal, get_args

from tulle.model.objects import Protocol
from tulle.model.workload import (
    ClaimVolume,
    Container,
    ContainerPort,
    DownwardFile,
    DownwardVolume,
    EmptyDir,
    EnvFrom,
    EnvVar,
    Exec,
    FieldRef,
    GrpcCheck,
    HostAlias,
    HostPath,
    HttpGet,
    KeyPath,
    KeyRef,
    KeysVolume,
    PodSpec,
    PodTemplate,
    Probe,
    ProjectedVolume,
    ResourceRef,
    RestartPolicy,
    Sleep,
    TcpSocket,
    TokenFile,
    Volume,
    VolumeMount,
    VolumeSource,
)
from tulle.rules.metadata import labels
from tulle.rules.schema import (
    ABSOLUTE_PATH,
    ENV_NAME,
    KEY,
    LABEL,
    LABEL_KEY,
    MAX_INT32,
    PORT_NAME,
    RELATIVE_PATH,
    SUBDOMAIN,
    Fields,
    shown,
)

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
RESTART_POLICIES: tuple[RestartPolicy, ...] = get_args(RestartPolicy)
KeysKind = Literal["ConfigMap", "Secret"]
FILE_MODE = 0o644
TOKEN_LIFETIME_S = 3600
OTHER_VOLUMES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc", "flexVolume",
    "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "image", "iscsi", "nfs", "photonPersistentDisk",
    "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip
POD_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations",
    "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip


def pod_template(fields: Fields, claims: tuple[str, ...] = ()) -> PodTemplate:
    """Decode the template of a workload's pods; `claims` are volumes that each pod gets besides."""
    labels, annotations = fields.inside("metadata", template_metadata, ({}, {}))
    spec = fields.need("spec", lambda inner: pod_spec(inner, claims))
    return PodTemplate(labels, annotations, spec, raw=fields.raw(), source=fields.position)


def template_metadata(fields: Fields) -> tuple[dict[str, str], dict[str, str]]:
    """Decode labels and annotations of a template; its pods get their names elsewhere."""
    fields.known("name", "namespace", "creationTimestamp", "generateName")
    return labels(fields, "labels"), fields.text_map("annotations", keys=LABEL_KEY)


def pod_spec(fields: Fields, claims: tuple[str, ...] = ()) -> PodSpec:
    """Decode what a pod consists of."""
    if not fields.has("containers"):
        fields.missing("containers", "a list of containers")
    security = fields.inside("securityContext", pod_security, (None, None, None))
    fields.known(
        "affinity", "dnsPolicy", "enableServiceLinks", "imagePullSecrets", "nodeName", "nodeSelector", "os",
        "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resources",
        "runtimeClassName", "schedulerName", "schedulingGates", "setHostnameAsFQDN", "tolerations",
        "topologySpreadConstraints",
    )  # fmt: skip
    fields.ignored(
        "dnsConfig", "ephemeralContainers", "hostIPC", "hostPID", "hostUsers", "hostnameOverride",
        "resourceClaims", "shareProcessNamespace",
    )  # fmt: skip
    spec = PodSpec(
        containers=fields.each("containers", app_container, unique="name"),
        init_containers=fields.each("initContainers", init_container, unique="name"),
        volumes=fields.each("volumes", volume, unique="name"),
        service_account=service_account(fields),
        restart_policy=fields.choice("restartPolicy", RESTART_POLICIES, "Always"),
        termination_grace_s=fields.integer("terminationGracePeriodSeconds", 30),
        active_deadline_s=fields.integer("activeDeadlineSeconds", None, low=1),
        hostname=fields.text("hostname", None, LABEL),
        subdomain=fields.text("subdomain", None, LABEL),
        host_network=fields.boolean("hostNetwork", False),
        host_aliases=fields.each("hostAliases", host_alias),
        run_as_user=security[0],
        run_as_group=security[1],
        fs_group=security[2],
        automount_token=fields.boolean("automountServiceAccountToken", True),
    )
    if spec.host_network:
        fields.wrong("hostNetwork", "every pod has a network of its own here", "note")
    check_names(fields, spec, claims)
    return spec


def service_account(fields: Fields) -> str:
    """Decode the service account under either of its two names."""
    key = "serviceAccountName" if fields.has("serviceAccountName") else "serviceAccount"
    fields.known("serviceAccount")
    name = fields.text(key, "", SUBDOMAIN)
    if name:
        fields.refer("ServiceAccount", key, name)
    return name or "default"


def check_names(fields: Fields, spec: PodSpec, claims: tuple[str, ...]) -> None:
    """Report volumes that are mounted and not there, and names that two containers share."""
    volumes = {volume.name for volume in spec.volumes} | set(claims)
    everything = (*spec.init_containers, *spec.containers)
    for container in everything:
        for mount in container.mounts:
            if mount.volume and mount.volume not in volumes:
                known = ", ".join(sorted(volumes)) or "none"
                text = f'expected a volume of this pod (there are: {known}), found "{mount.volume}"'
                fields.report.add(mount.source, fields.under("volumes"), text)
    init_names = {container.name for container in spec.init_containers}
    for container in spec.containers:
        if container.name in init_names:
            text = f'an init container is called "{container.name}" too'
            fields.report.add(container.source, fields.under("containers"), text)


def pod_security(fields: Fields) -> tuple[int | None, int | None, int | None]:
    """Decode user, group and the volumes' group."""
    fields.known(
        "appArmorProfile", "fsGroupChangePolicy", "runAsNonRoot", "seLinuxChangePolicy", "seLinuxOptions",
        "seccompProfile", "supplementalGroupsPolicy", "windowsOptions",
    )  # fmt: skip
    fields.ignored("supplementalGroups", "sysctls")
    return (
        fields.integer("runAsUser", None),
        fields.integer("runAsGroup", None),
        fields.integer("fsGroup", None),
    )


def host_alias(fields: Fields) -> HostAlias:
    """Decode a line of /etc/hosts."""
    return HostAlias(fields.need_text("ip"), fields.texts("hostnames", SUBDOMAIN))


def app_container(fields: Fields) -> Container:
    """Decode a container that makes up the pod."""
    fields.ignored("restartPolicy", "restartPolicyRules")
    return container(fields, sidecar=False)


def init_container(fields: Fields) -> Container:
    """Decode a container that runs before the others, or from then on."""
    fields.ignored("restartPolicyRules")
    sidecar = fields.choice("restartPolicy", ("Always",), None) is not None
    if not sidecar:
        for key in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle"):
            if fields.has(key):
                fields.wrong(key, "an init container has this only with restartPolicy: Always")
    return container(fields, sidecar=sidecar)


def container(fields: Fields, *, sidecar: bool) -> Container:
    """Decode a container."""
    fields.known(
        "imagePullPolicy", "resizePolicy", "stdin", "stdinOnce", "terminationMessagePath",
        "terminationMessagePolicy", "tty",
    )  # fmt: skip
    fields.ignored("volumeDevices")
    name = fields.need_text("name", LABEL)
    command = fields.texts("command")
    if not fields.has("image"):
        fields.wrong("", "no image; it is not needed here, but a cluster needs it", "note")
    if not command:
        text = "the command to run from this machine's files; the image is not run here"
        if fields.has("command"):
            fields.wrong("command", f"expected {text}")
        else:
            fields.missing("command", text)
    user, group, read_only = fields.inside("securityContext", container_security, (None, None, False))
    requests, limits = fields.inside("resources", resources, ({}, {}))
    post_start, pre_stop = fields.inside("lifecycle", lifecycle, (None, None))
    return Container(
        name=name,
        image=fields.text("image", None),
        command=command,
        args=fields.texts("args"),
        working_dir=fields.text("workingDir", None, ABSOLUTE_PATH),
        env=fields.each("env", env_var),
        env_from=fields.each("envFrom", env_from),
        ports=fields.each("ports", container_port, unique="name"),
        mounts=fields.each("volumeMounts", volume_mount, unique="mountPath"),
        readiness=fields.inside("readinessProbe", probe, None),
        liveness=fields.inside("livenessProbe", single_success_probe, None),
        startup=fields.inside("startupProbe", single_success_probe, None),
        post_start=post_start,
        pre_stop=pre_stop,
        run_as_user=user,
        run_as_group=group,
        read_only_root=read_only,
        requests=requests,
        limits=limits,
        sidecar=sidecar,
        source=fields.place("command"),
    )


def container_security(fields: Fields) -> tuple[int | None, int | None, bool]:
    """Decode user, group and whether the root file system is read-only."""
    fields.known(
        "allowPrivilegeEscalation", "appArmorProfile", "procMount", "runAsNonRoot", "seLinuxOptions",
        "seccompProfile", "windowsOptions",
    )  # fmt: skip
    if fields.boolean("privileged", False):
        fields.wrong("privileged", "applications get no privileges here", "note")
    if fields.inside("capabilities", added_capabilities, ()):
        fields.wrong("capabilities", "applications get no capabilities here", "note")
    return (
        fields.integer("runAsUser", None),
        fields.integer("runAsGroup", None),
        fields.boolean("readOnlyRootFilesystem", False),
    )


def added_capabilities(fields: Fields) -> tuple[str, ...]:
    """Decode the capabilities that a container wants."""
    fields.texts("drop")
    return fields.texts("add")


def resources(fields: Fields) -> tuple[dict[str, str], dict[str, str]]:
    """Decode requests and limits."""
    fields.ignored("claims")
    return fields.quantities("requests"), fields.quantities("limits")


def container_port(fields: Fields) -> ContainerPort:
    """Decode a port that a container listens on."""
    fields.known("hostIP", "hostPort")
    return ContainerPort(
        name=fields.text("name", None, PORT_NAME),
        port=fields.port("containerPort"),
        protocol=fields.choice("protocol", PROTOCOLS, "TCP"),
    )


def volume_mount(fields: Fields) -> VolumeMount:
    """Decode where a volume appears."""
    fields.known("mountPropagation", "recursiveReadOnly")
    fields.ignored("subPathExpr")
    return VolumeMount(
        volume=fields.need_text("name", LABEL),
        path=fields.need_text("mountPath", ABSOLUTE_PATH),
        sub_path=fields.text("subPath", "", RELATIVE_PATH),
        read_only=fields.boolean("readOnly", False),
        source=fields.place("name"),
    )


# The environment


def env_var(fields: Fields) -> EnvVar:
    """Decode one variable."""
    name = fields.need_text("name", ENV_NAME)
    if fields.has("value") and fields.has("valueFrom"):
        fields.wrong("valueFrom", "expected value or valueFrom, not both")
    value = fields.text("value", "")
    return EnvVar(name, fields.inside("valueFrom", env_source, value))


def env_source(fields: Fields) -> str | KeyRef | FieldRef | ResourceRef:
    """Decode where a variable's value comes from."""
    fields.ignored("fileKeyRef")
    chosen = fields.one_of("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef")
    match chosen:
        case "configMapKeyRef":
            return fields.inside(chosen, config_map_key, "")
        case "secretKeyRef":
            return fields.inside(chosen, secret_key, "")
        case "fieldRef":
            return fields.inside(chosen, field_ref, "")
        case "resourceFieldRef":
            return fields.inside(chosen, resource_ref, "")
        case _:
            return ""


def config_map_key(fields: Fields) -> KeyRef:
    """Decode a key of a ConfigMap."""
    return key_ref(fields, "ConfigMap")


def secret_key(fields: Fields) -> KeyRef:
    """Decode a key of a Secret."""
    return key_ref(fields, "Secret")


def key_ref(fields: Fields, kind: KeysKind) -> KeyRef:
    """Decode a key of either."""
    key = fields.need_text("key", KEY)
    name, may_miss = keys_name(fields, kind, "name", (key,) if key else ())
    return KeyRef(kind, name, key, may_miss)


def keys_name(
    fields: Fields, kind: KeysKind, field: str = "name", keys: tuple[str, ...] = ()
) -> tuple[str, bool]:
    """Decode the name of a ConfigMap or Secret, and whether it may be missing."""
    name = fields.need_text(field, SUBDOMAIN)
    may_miss = fields.boolean("optional", False)
    if name and not may_miss:
        fields.refer(kind, field, name, keys)
    return name, may_miss


def field_ref(fields: Fields) -> FieldRef:
    """Decode a fact about the pod."""
    fields.known("apiVersion")
    path = fields.need_text("fieldPath")
    indexed = path.startswith(("metadata.labels['", "metadata.annotations['")) and path.endswith("']")
    if path and path not in POD_FIELDS and not indexed:
        fields.wrong("fieldPath", f"expected a fact such as status.podIP, found {shown(path)}")
    return FieldRef(path)


def resource_ref(fields: Fields) -> ResourceRef:
    """Decode a limit or request of a container."""
    divisor = fields.plain("divisor")
    resource = fields.need_text("resource")
    if resource and not resource.startswith(("limits.", "requests.")):
        fields.wrong("resource", f"expected limits.cpu, requests.memory or the like, found {shown(resource)}")
    return ResourceRef(
        resource, fields.text("containerName", None), None if divisor is None else str(divisor)
    )


def env_from(fields: Fields) -> EnvFrom:
    """Decode a ConfigMap or Secret whose keys all become variables."""
    prefix = fields.text("prefix", "")
    nothing = ("", True)
    if fields.one_of("configMapRef", "secretRef") == "secretRef":
        name, may_miss = fields.inside("secretRef", lambda inner: keys_name(inner, "Secret"), nothing)
        return EnvFrom("Secret", name, prefix, may_miss)
    name, may_miss = fields.inside("configMapRef", lambda inner: keys_name(inner, "ConfigMap"), nothing)
    return EnvFrom("ConfigMap", name, prefix, may_miss)


# Probes and hooks


def probe(fields: Fields) -> Probe:
    """Decode a probe with the defaults of Kubernetes."""
    return Probe(
        action=probe_action(fields),
        initial_delay_s=fields.integer("initialDelaySeconds", 0),
        period_s=fields.integer("periodSeconds", 10, low=1),
        timeout_s=fields.integer("timeoutSeconds", 1, low=1),
        success_threshold=fields.integer("successThreshold", 1, low=1),
        failure_threshold=fields.integer("failureThreshold", 3, low=1),
        termination_grace_s=fields.integer("terminationGracePeriodSeconds", None, low=1),
    )


def single_success_probe(fields: Fields) -> Probe:
    """Decode a liveness or startup probe."""
    decoded = probe(fields)
    if decoded.success_threshold != 1:
        fields.wrong("successThreshold", "expected 1 for liveness and startup")
    return decoded


def probe_action(fields: Fields) -> HttpGet | TcpSocket | Exec | GrpcCheck:
    """Decode how a probe asks."""
    chosen = fields.one_of("httpGet", "tcpSocket", "exec", "grpc")
    nothing = Exec(())
    match chosen:
        case "httpGet":
            return fields.inside(chosen, http_get, nothing)
        case "tcpSocket":
            return fields.inside(chosen, tcp_socket, nothing)
        case "exec":
            return fields.inside(chosen, exec_command, nothing)
        case "grpc":
            return fields.inside(chosen, grpc_check, nothing)
        case _:
            return nothing


def http_get(fields: Fields) -> HttpGet:
    """Decode a probe by HTTP."""
    if not fields.has("port"):
        fields.missing("port", "a port number or the name of a container's port")
    return HttpGet(
        path=fields.text("path", "/"),
        port=fields.port_or_name("port", 0),
        scheme=fields.choice("scheme", ("HTTP", "HTTPS"), "HTTP"),
        host=fields.text("host", None),
        headers=fields.each("httpHeaders", http_header),
    )


def http_header(fields: Fields) -> tuple[str, str]:
    """Decode a header of a probe."""
    return fields.need_text("name"), fields.text("value", "")


def tcp_socket(fields: Fields) -> TcpSocket:
    """Decode a probe that connects."""
    if not fields.has("port"):
        fields.missing("port", "a port number or the name of a container's port")
    return TcpSocket(fields.port_or_name("port", 0), fields.text("host", None))


def exec_command(fields: Fields) -> Exec:
    """Decode a command."""
    command = fields.texts("command")
    if not command:
        fields.missing("command", "a list of texts")
    return Exec(command)


def grpc_check(fields: Fields) -> GrpcCheck:
    """Decode a gRPC health check."""
    return GrpcCheck(fields.port("port"), fields.text("service", ""))


Hook = Exec | HttpGet | TcpSocket | Sleep | None


def lifecycle(fields: Fields) -> tuple[Hook, Hook]:
    """Decode what happens after the start and before the end of a container."""
    fields.ignored("stopSignal")
    return fields.inside("postStart", hook, None), fields.inside("preStop", hook, None)


def hook(fields: Fields) -> Hook:
    """Decode one hook."""
    chosen = fields.one_of("exec", "httpGet", "tcpSocket", "sleep")
    match chosen:
        case "exec":
            return fields.inside(chosen, exec_command, None)
        case "httpGet":
            return fields.inside(chosen, http_get, None)
        case "tcpSocket":
            return fields.inside(chosen, tcp_socket, None)
        case "sleep":
            return fields.inside(chosen, sleep, None)
        case _:
            return None


def sleep(fields: Fields) -> Sleep:
    """Decode a pause."""
    return Sleep(fields.integer("seconds", 0))


# Volumes


def volume(fields: Fields) -> Volume:
    """Decode a volume of a pod."""
    name = fields.need_text("name", LABEL)
    return Volume(name, volume_source(fields), fields.position)


def volume_source(fields: Fields) -> VolumeSource:
    """Decode what a volume holds."""
    nothing = EmptyDir(memory=False)
    for key in OTHER_VOLUMES:
        if fields.has(key):
            text = (
                "this kind of volume needs a cluster; here there are emptyDir, configMap, secret, projected, "
            )
            fields.wrong(key, f"{text}downwardAPI, persistentVolumeClaim and hostPath")
            return nothing
    chosen = fields.one_of(
        "emptyDir", "configMap", "secret", "persistentVolumeClaim", "projected", "downwardAPI", "hostPath"
    )
    match chosen:
        case "emptyDir":
            return fields.inside(chosen, empty_dir, nothing)
        case "configMap":
            return fields.inside(chosen, config_map_volume, nothing)
        case "secret":
            return fields.inside(chosen, secret_volume, nothing)
        case "persistentVolumeClaim":
            return fields.inside(chosen, claim_volume, nothing)
        case "projected":
            return fields.inside(chosen, projected_volume, nothing)
        case "downwardAPI":
            return fields.inside(chosen, downward_volume, nothing)
        case "hostPath":
            return fields.inside(chosen, host_path, nothing)
        case _:
            return nothing


def empty_dir(fields: Fields) -> EmptyDir:
    """Decode a folder that ends with the pod."""
    fields.known("sizeLimit")
    return EmptyDir(memory=fields.choice("medium", ("", "Memory"), "") == "Memory")


def file_mode(fields: Fields) -> int:
    """Decode the mode of a volume's files."""
    return fields.integer("defaultMode", FILE_MODE, high=0o777)


def key_path(fields: Fields) -> KeyPath:
    """Decode which file a key becomes."""
    return KeyPath(
        key=fields.need_text("key", KEY),
        path=fields.need_text("path", RELATIVE_PATH),
        mode=fields.integer("mode", None, high=0o777),
    )


def config_map_volume(fields: Fields) -> KeysVolume:
    """Decode a ConfigMap as files."""
    return keys_volume(fields, "ConfigMap", "name", file_mode(fields))


def secret_volume(fields: Fields) -> KeysVolume:
    """Decode a Secret as files."""
    return keys_volume(fields, "Secret", "secretName", file_mode(fields))


def keys_volume(fields: Fields, kind: KeysKind, field: str, mode: int) -> KeysVolume:
    """Decode either as files."""
    items = fields.each("items", key_path)
    name, may_miss = keys_name(fields, kind, field, tuple(item.key for item in items if item.key))
    return KeysVolume(kind, name, items, mode, may_miss)


def claim_volume(fields: Fields) -> ClaimVolume:
    """Decode the use of a claim."""
    name = fields.need_text("claimName", SUBDOMAIN)
    if name:
        fields.refer("PersistentVolumeClaim", "claimName", name)
    return ClaimVolume(name, fields.boolean("readOnly", False))


def host_path(fields: Fields) -> HostPath:
    """Decode a folder of this machine."""
    return HostPath(fields.need_text("path", ABSOLUTE_PATH), fields.text("type", ""))


def downward_volume(fields: Fields) -> DownwardVolume:
    """Decode facts about the pod as files."""
    return DownwardVolume(fields.each("items", downward_file, unique="path"), file_mode(fields))


def downward_file(fields: Fields) -> DownwardFile:
    """Decode one fact as a file."""
    path = fields.need_text("path", RELATIVE_PATH)
    mode = fields.integer("mode", None, high=0o777)
    nothing = FieldRef("")
    if fields.one_of("fieldRef", "resourceFieldRef") == "resourceFieldRef":
        return DownwardFile(path, fields.inside("resourceFieldRef", resource_ref, nothing), mode)
    return DownwardFile(path, fields.inside("fieldRef", field_ref, nothing), mode)


def projected_volume(fields: Fields) -> ProjectedVolume:
    """Decode several sources in one folder."""
    return ProjectedVolume(fields.each("sources", projected_source), file_mode(fields))


def projected_source(fields: Fields) -> KeysVolume | DownwardVolume | TokenFile:
    """Decode one of the sources."""
    nothing = DownwardVolume((), FILE_MODE)
    fields.ignored("clusterTrustBundle", "podCertificate")
    chosen = fields.one_of("configMap", "secret", "downwardAPI", "serviceAccountToken")
    match chosen:
        case "configMap":
            return fields.inside(chosen, projected_config_map, nothing)
        case "secret":
            return fields.inside(chosen, projected_secret, nothing)
        case "downwardAPI":
            return fields.inside(chosen, downward_volume, nothing)
        case "serviceAccountToken":
            return fields.inside(chosen, token_file, nothing)
        case _:
            return nothing


def projected_config_map(fields: Fields) -> KeysVolume:
    """Decode a ConfigMap among others."""
    return keys_volume(fields, "ConfigMap", "name", FILE_MODE)


def projected_secret(fields: Fields) -> KeysVolume:
    """Decode a Secret among others."""
    return keys_volume(fields, "Secret", "name", FILE_MODE)


def token_file(fields: Fields) -> TokenFile:
    """Decode a token of the service account."""
    return TokenFile(
        path=fields.need_text("path", RELATIVE_PATH),
        audience=fields.text("audience", ""),
        lifetime_s=fields.integer("expirationSeconds", TOKEN_LIFETIME_S, low=600, high=MAX_INT32),
    )
