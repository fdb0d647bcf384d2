"""Every rule of admission by one manifest that breaks it alone: the message, the file and line, the field."""

import pytest

from tulle.rules.decode import decode

POLICY = "policy.linkerd.io"
GATEWAY = "gateway.networking.k8s.io"


def manifest(kind: str, version: str, spec: str, head: str = "") -> str:
    lines = "\n".join(f"  {line}" for line in spec.strip().splitlines())
    return (
        f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop{head}}}\nspec:\n{lines}\n"
    )


def policy(kind: str, spec: str, version: str = "v1alpha1") -> str:
    return manifest(kind, f"{POLICY}/{version}", spec)


def route(rules: str, kind: str = "HTTPRoute", version: str = f"{GATEWAY}/v1", head: str = "") -> str:
    parents = "parentRefs: [{group: core, kind: Service, name: web, port: 80}]\n"
    return manifest(kind, version, parents + rules, head)


def own_route(rules: str, head: str = "") -> str:
    return route(rules, version=f"{POLICY}/v1beta3", head=head)


def profile(spec: str, name: str = "web.shop.svc.cluster.local") -> str:
    return manifest("ServiceProfile", "linkerd.io/v1alpha2", spec).replace("name: a", f"name: {name}")


def refusals(text: str) -> list[str]:
    return [str(problem) for problem in decode([("a.yaml", text)], whole=False).problems]


def warnings(text: str) -> list[str]:
    found = decode([("a.yaml", text)], whole=False)
    assert found.problems == ()
    return [str(remark) for remark in found.remarks if "here" not in remark.text]


AUTHORIZATION = "targetRef: {group: policy.linkerd.io, kind: Server, name: web}\nrequiredAuthenticationRefs:"
TLS_AUTHN = "- {group: policy.linkerd.io, kind: MeshTLSAuthentication, name: a}"
NET_AUTHN = "- {group: policy.linkerd.io, kind: NetworkAuthentication, name: a}"
LIMIT = "targetRef: {group: policy.linkerd.io, kind: Server, name: web}\n"
CLIENT = "server: {name: web}\nclient:\n"
EGRESS = "parentRefs:\n- {group: policy.linkerd.io, kind: EgressNetwork, name: out}\n"
RULE = "rules:\n- "
BACKENDS = "rules:\n- backendRefs: [{name: web, port: 80}]\n"

RULES = {
    # A spec that cannot be decoded
    "proxy protocol": (
        policy("Server", "podSelector: {}\nport: 80\nproxyProtocol: HTTP", "v1beta3"),
        '7: spec.proxyProtocol: expected unknown, HTTP/1, HTTP/2, gRPC, opaque or TLS, found the text "HTTP"; did you mean HTTP/2?',
    ),
    "access policy": (
        policy("Server", "podSelector: {}\nport: 80\naccessPolicy: allow", "v1beta3"),
        "7: spec.accessPolicy: expected deny, all-unauthenticated, all-authenticated, cluster-unauthenticated, "
        'cluster-authenticated or audit, found the text "allow"',
    ),
    "two selectors": (
        policy("Server", "podSelector: {}\nexternalWorkloadSelector: {}\nport: 80", "v1beta3"),
        "6: spec.externalWorkloadSelector: expected one of podSelector or externalWorkloadSelector, but podSelector is here too",
    ),
    "a field of a later version": (
        policy("Server", "podSelector: {}\nport: 80\naccessPolicy: audit", "v1beta1"),
        "7: spec.accessPolicy: unknown field",
    ),
    # AuthorizationPolicy
    "another namespace as target": (
        policy(
            "AuthorizationPolicy",
            "targetRef:\n  kind: Namespace\n  name: bank\nrequiredAuthenticationRefs: []",
        ),
        "7: spec.targetRef.name: expected the policy's own namespace, shop, found bank",
    ),
    "target kind": (
        policy(
            "AuthorizationPolicy", "targetRef:\n  kind: Service\n  name: web\nrequiredAuthenticationRefs: []"
        ),
        "6: spec.targetRef.kind: expected a Server, HTTPRoute, GRPCRoute or Namespace, found Service of the core group",
    ),
    "target without its group": (
        policy(
            "AuthorizationPolicy", "targetRef:\n  kind: Server\n  name: web\nrequiredAuthenticationRefs: []"
        ),
        "6: spec.targetRef.kind: expected a Server, HTTPRoute, GRPCRoute or Namespace, found Server of the core group; "
        "write group: policy.linkerd.io",
    ),
    "no list of authentications": (
        policy("AuthorizationPolicy", "targetRef: {group: policy.linkerd.io, kind: Server, name: web}"),
        "5: spec.requiredAuthenticationRefs: missing; expected a list; an empty one lets everybody in",
    ),
    "two mesh authentications": (
        policy("AuthorizationPolicy", f"{AUTHORIZATION}\n{TLS_AUTHN}\n{TLS_AUTHN}"),
        "8: spec.requiredAuthenticationRefs[1].kind: expected at most one MeshTLSAuthentication; all of the list has to be met",
    ),
    "two service accounts": (
        policy(
            "AuthorizationPolicy",
            f"{AUTHORIZATION}\n- {{kind: ServiceAccount, name: a}}\n- {{kind: ServiceAccount, name: b}}",
        ),
        "8: spec.requiredAuthenticationRefs[1].kind: expected at most one ServiceAccount; all of the list has to be met",
    ),
    "a mesh authentication and a service account": (
        policy("AuthorizationPolicy", f"{AUTHORIZATION}\n{TLS_AUTHN}\n- {{kind: ServiceAccount, name: a}}"),
        "8: spec.requiredAuthenticationRefs[1].kind: expected a MeshTLSAuthentication or a ServiceAccount, found both",
    ),
    "two network authentications": (
        policy("AuthorizationPolicy", f"{AUTHORIZATION}\n{NET_AUTHN}\n{NET_AUTHN}"),
        "8: spec.requiredAuthenticationRefs[1].kind: expected at most one NetworkAuthentication; all of the list has to be met",
    ),
    "authentication kind": (
        policy("AuthorizationPolicy", f"{AUTHORIZATION}\n- {{kind: User, name: a}}"),
        "7: spec.requiredAuthenticationRefs[0].kind: expected a MeshTLSAuthentication, NetworkAuthentication or "
        "ServiceAccount, found User of the core group",
    ),
    # MeshTLSAuthentication
    "identity": (
        policy("MeshTLSAuthentication", "identities:\n- '*'\n- Web.shop"),
        "7: spec.identities[1]: expected a name such as web.shop.serviceaccount.identity.linkerd.cluster.local, '*', "
        "a name with '*.' before it, or spiffe://domain/path; found Web.shop",
    ),
    "spiffe identity": (
        policy("MeshTLSAuthentication", "identities:\n- spiffe://root/a\n- spiffe://root/../a"),
        "7: spec.identities[1]: expected a name such as web.shop.serviceaccount.identity.linkerd.cluster.local, '*', "
        "a name with '*.' before it, or spiffe://domain/path; found spiffe://root/../a",
    ),
    "identity reference": (
        policy("MeshTLSAuthentication", "identityRefs:\n- {kind: Pod, name: a}"),
        "6: spec.identityRefs[0].kind: expected ServiceAccount or Namespace, found Pod of the core group",
    ),
    "a namespace in a namespace": (
        policy("MeshTLSAuthentication", "identityRefs:\n- {kind: Namespace, name: a, namespace: b}"),
        "6: spec.identityRefs[0].namespace: a Namespace is in no namespace; leave it out",
    ),
    "neither identities nor references": (
        policy("MeshTLSAuthentication", "identities: []"),
        "5: spec.identities: expected at least one item, found none",
    ),
    # Networks
    "no networks": (
        policy("NetworkAuthentication", "networks: []"),
        "5: spec.networks: expected at least one network, found none",
    ),
    "no block": (
        policy("NetworkAuthentication", "networks:\n- {cidr: 10.0.0.0/33}"),
        '6: spec.networks[0].cidr: expected a block of addresses such as 10.0.0.0/8, found the text "10.0.0.0/33"',
    ),
    "an exception that covers all": (
        policy("NetworkAuthentication", "networks:\n- cidr: 10.0.0.0/8\n  except: [10.1.0.0/16, 0.0.0.0/0]"),
        "7: spec.networks[0].except[1]: leaves nothing of 10.0.0.0/8: 0.0.0.0/0 covers it",
    ),
    "an exception outside": (
        policy("NetworkAuthentication", "networks:\n- cidr: 10.0.0.0/8\n  except: [192.0.2.1]"),
        "7: spec.networks[0].except[0]: expected a block inside 10.0.0.0/8, found 192.0.2.1/32",
    ),
    "an exception of another family": (
        policy("NetworkAuthentication", "networks:\n- cidr: 10.0.0.0/8\n  except: ['fd00::/8']"),
        "7: spec.networks[0].except[0]: expected a block inside 10.0.0.0/8, found fd00::/8",
    ),
    "an egress network without networks": (
        policy("EgressNetwork", "trafficPolicy: Deny\nnetworks: []"),
        "6: spec.networks: expected at least one network, found none",
    ),
    "an egress network of nothing": (
        policy(
            "EgressNetwork", "trafficPolicy: Deny\nnetworks:\n- cidr: 192.0.2.0/24\n  except: [192.0.2.0/24]"
        ),
        "8: spec.networks[0].except[0]: leaves nothing of 192.0.2.0/24: 192.0.2.0/24 covers it",
    ),
    # ServerAuthorization
    "unauthenticated and mesh": (
        policy(
            "ServerAuthorization",
            CLIENT + "  unauthenticated: true\n  meshTLS: {identities: ['*']}",
            "v1beta1",
        ),
        "7: spec.client.unauthenticated: expected no meshTLS beside unauthenticated",
    ),
    "unauthenticated TLS and names": (
        policy(
            "ServerAuthorization",
            CLIENT + "  meshTLS:\n    unauthenticatedTLS: true\n    serviceAccounts: [{name: a}]",
            "v1beta1",
        ),
        "8: spec.client.meshTLS.unauthenticatedTLS: expected neither identities nor serviceAccounts beside unauthenticatedTLS",
    ),
    "an exception of a server authorization": (
        policy(
            "ServerAuthorization",
            CLIENT + "  networks:\n  - {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}\n  unauthenticated: true",
            "v1beta1",
        ),
        "8: spec.client.networks[0].except[0]: expected a block inside 10.0.0.0/8, found 11.0.0.0/8",
    ),
    "both name and selector": (
        policy(
            "ServerAuthorization",
            "server:\n  name: web\n  selector: {matchLabels: {a: b}}\nclient: {unauthenticated: true}",
            "v1beta1",
        ),
        "7: spec.server.selector: expected one of name or selector, but name is here too",
    ),
    # Routes
    "an egress network without a port": (
        manifest("HTTPRoute", f"{GATEWAY}/v1", EGRESS),
        "6: spec.parentRefs[0].port: missing; an EgressNetwork as parent needs a port",
    ),
    "an egress network without a port, for gRPC": (
        manifest("GRPCRoute", f"{GATEWAY}/v1", EGRESS),
        "6: spec.parentRefs[0].port: missing; an EgressNetwork as parent needs a port",
    ),
    "an egress network without a port, for TLS": (
        manifest("TLSRoute", f"{GATEWAY}/v1alpha2", EGRESS + BACKENDS),
        "6: spec.parentRefs[0].port: missing; an EgressNetwork as parent needs a port",
    ),
    "an egress network without a port, for TCP": (
        manifest("TCPRoute", f"{GATEWAY}/v1alpha2", EGRESS + BACKENDS),
        "6: spec.parentRefs[0].port: missing; an EgressNetwork as parent needs a port",
    ),
    "an egress network without a port, in upstream's kind": (
        manifest("HTTPRoute", f"{POLICY}/v1beta3", EGRESS),
        "6: spec.parentRefs[0].port: missing; an EgressNetwork as parent needs a port",
    ),
    "one parent twice": (
        manifest(
            "HTTPRoute",
            f"{GATEWAY}/v1",
            "parentRefs:\n- {group: '', kind: Service, name: web}\n- {group: core, kind: Service, name: web, namespace: shop}",
        ),
        "7: spec.parentRefs[1]: Service web is here twice; give each another port or sectionName",
    ),
    "a parent without its group": (
        manifest("HTTPRoute", f"{GATEWAY}/v1", "parentRefs:\n- {group: '', kind: Server, name: web}"),
        "6: spec.parentRefs[0].group: there is no core Server; write group: policy.linkerd.io",
    ),
    "retry annotation": (
        route(BACKENDS, head=", annotations: {retry.linkerd.io/limit: many}"),
        "3: metadata.annotations[retry.linkerd.io/limit]: 'many' is not a whole number below 65536",
    ),
    "timeout annotation": (
        own_route(BACKENDS, head=", annotations: {timeout.linkerd.io/request: 1.5s}"),
        "3: metadata.annotations[timeout.linkerd.io/request]: '1.5s' is not a whole number with a unit, such as "
        "300ms, 10s, 5m, 1h or 1d",
    ),
    "retry annotation for gRPC": (
        route(BACKENDS, "GRPCRoute", head=", annotations: {retry.linkerd.io/grpc: unknown}"),
        "3: metadata.annotations[retry.linkerd.io/grpc]: 'unknown' is not a list of cancelled, deadline-exceeded, "
        "internal, resource-exhausted, unavailable ('unknown')",
    ),
    "relative path": (
        route(RULE + "matches:\n  - path: {type: Exact, value: a}"),
        '8: spec.rules[0].matches[0].path.value: expected a path that begins with "/", found "a"',
    ),
    "relative prefix in upstream's kind": (
        own_route(RULE + "matches:\n  - path: {value: a}"),
        '8: spec.rules[0].matches[0].path.value: expected a path that begins with "/", found "a"',
    ),
    "regex of a path": (
        route(RULE + "matches:\n  - path: {type: RegularExpression, value: '/(a'}"),
        '8: spec.rules[0].matches[0].path.value: "/(a" is no regular expression: missing ), unterminated subpattern',
    ),
    "regex that only others have": (
        own_route(RULE + "matches:\n  - headers:\n    - {type: RegularExpression, name: a, value: '(?!a)'}"),
        '9: spec.rules[0].matches[0].headers[0].value: "(?!a)" is no regular expression: look-around is not supported',
    ),
    "regex of a query": (
        route(RULE + "matches:\n  - queryParams:\n    - {type: RegularExpression, name: a, value: 'a{'}"),
        '9: spec.rules[0].matches[0].queryParams[0].value: "a{" is no regular expression: '
        "a '{' that is no repetition has to be written as '\\{'",
    ),
    "header name": (
        route(RULE + "matches:\n  - headers:\n    - {name: 'a b', value: c}"),
        '9: spec.rules[0].matches[0].headers[0].name: expected the name of a header, found "a b"',
    ),
    "header value": (
        route(RULE + 'matches:\n  - headers:\n    - {name: a, value: "b\\nc"}'),
        "9: spec.rules[0].matches[0].headers[0].value: expected the value of a header: printable ASCII",
    ),
    "header name in a filter": (
        route(
            RULE
            + "filters:\n  - type: RequestHeaderModifier\n    requestHeaderModifier: {add: [{name: ':a', value: b}]}"
        ),
        '9: spec.rules[0].filters[0].requestHeaderModifier.add[0].name: expected the name of a header, found ":a"',
    ),
    "header value in a filter": (
        route(
            RULE
            + "filters:\n  - type: ResponseHeaderModifier\n    responseHeaderModifier: {set: [{name: a, value: 'é'}]}"
        ),
        "9: spec.rules[0].filters[0].responseHeaderModifier.set[0].value: expected the value of a header: printable ASCII",
    ),
    "redirect to a relative path": (
        own_route(
            RULE
            + "filters:\n  - type: RequestRedirect\n    requestRedirect:\n      path: {type: ReplaceFullPath, replaceFullPath: a}"
        ),
        '10: spec.rules[0].filters[0].requestRedirect.path.replaceFullPath: expected a path that begins with "/", found "a"',
    ),
    "redirect to no path": (
        route(
            RULE
            + "filters:\n  - type: RequestRedirect\n    requestRedirect:\n      path: {type: ReplacePrefixMatch}"
        ),
        "10: spec.rules[0].filters[0].requestRedirect.path.replacePrefixMatch: missing; expected a path that begins with '/'",
    ),
    "redirect with another status": (
        route(RULE + "filters:\n  - type: RequestRedirect\n    requestRedirect: {statusCode: 200}"),
        "9: spec.rules[0].filters[0].requestRedirect.statusCode: expected 301, 302, 303, 307, 308, found 200",
    ),
    "rewrite to a relative path": (
        route(
            RULE
            + "filters:\n  - type: URLRewrite\n    urlRewrite:\n      path: {type: ReplaceFullPath, replaceFullPath: a}"
        ),
        '10: spec.rules[0].filters[0].urlRewrite.path.replaceFullPath: expected a path that begins with "/", found "a"',
    ),
    "a filter without its settings": (
        route(RULE + "filters:\n  - type: URLRewrite"),
        "8: spec.rules[0].filters[0].urlRewrite: missing; expected a mapping, because type is URLRewrite",
    ),
    "a filter that upstream's kind has not": (
        own_route(RULE + "filters:\n  - type: URLRewrite\n    urlRewrite: {}"),
        '8: spec.rules[0].filters[0].type: expected RequestHeaderModifier or RequestRedirect, found the text "URLRewrite"',
    ),
    "negative timeout": (
        own_route(RULE + "timeouts:\n    request: -1s"),
        "8: spec.rules[0].timeouts.request: expected a duration of at least 0, found a negative one",
    ),
    "a try that is longer than the request": (
        own_route(RULE + "timeouts:\n    request: 1s\n    backendRequest: 1m1.5s"),
        "9: spec.rules[0].timeouts.backendRequest: expected at most timeouts.request, 1s, found 61.5s",
    ),
    "a duration of the other API": (
        route(RULE + "timeouts:\n    request: 1.5s"),
        '8: spec.rules[0].timeouts.request: expected a duration of whole numbers such as 500ms, 10s or 1h30m, found the text "1.5s"',
    ),
    "a backend without a port": (
        route(RULE + "backendRefs:\n  - {name: web}"),
        "8: spec.rules[0].backendRefs[0].port: missing; a Service as backend needs a port",
    ),
    "a gRPC backend without a port": (
        route(RULE + "backendRefs:\n  - {name: web}", "GRPCRoute"),
        "8: spec.rules[0].backendRefs[0].port: missing; a Service as backend needs a port",
    ),
    "a mirror without a port": (
        route(RULE + "filters:\n  - type: RequestMirror\n    requestMirror: {backendRef: {name: web}}"),
        "9: spec.rules[0].filters[0].requestMirror.backendRef.port: missing; a Service as backend needs a port",
    ),
    "regex of a gRPC method": (
        route(RULE + "matches:\n  - method: {type: RegularExpression, service: a}", "GRPCRoute"),
        "8: spec.rules[0].matches[0].method.type: RegularExpression is not supported for gRPC methods; use Exact",
    ),
    "two TLS rules": (
        route("rules:\n- backendRefs: [{name: a, port: 1}]\n- backendRefs: [{name: b, port: 1}]", "TLSRoute"),
        "6: spec.rules: expected exactly one rule, found 2",
    ),
    "no TCP rule": (
        route("rules: []", "TCPRoute", f"{GATEWAY}/v1alpha2"),
        "6: spec.rules: expected exactly one rule, found 0",
    ),
    # HTTPLocalRateLimitPolicy
    "limit of a Service": (
        policy("HTTPLocalRateLimitPolicy", "targetRef:\n  kind: Service\n  name: web"),
        "6: spec.targetRef.kind: expected a Server, found Service of the core group",
    ),
    "total of zero": (
        policy("HTTPLocalRateLimitPolicy", LIMIT + "total:\n  requestsPerSecond: 0"),
        "7: spec.total.requestsPerSecond: expected a whole number of at least 1, found 0",
    ),
    "identity of zero": (
        policy("HTTPLocalRateLimitPolicy", LIMIT + "identity:\n  requestsPerSecond: 0"),
        "7: spec.identity.requestsPerSecond: expected a whole number of at least 1, found 0",
    ),
    "identity above the total": (
        policy(
            "HTTPLocalRateLimitPolicy",
            LIMIT + "total: {requestsPerSecond: 5}\nidentity: {requestsPerSecond: 6}",
        ),
        "7: spec.identity.requestsPerSecond: expected at most the total, 5, found 6",
    ),
    "override above the total": (
        policy(
            "HTTPLocalRateLimitPolicy",
            LIMIT + "total: {requestsPerSecond: 5}\noverrides:\n"
            "- {requestsPerSecond: 6, clientRefs: [{kind: ServiceAccount, name: a}]}",
        ),
        "8: spec.overrides[0].requestsPerSecond: expected at most the total, 5, found 6",
    ),
    "override of zero": (
        policy(
            "HTTPLocalRateLimitPolicy",
            LIMIT + "overrides:\n- {requestsPerSecond: 0, clientRefs: [{kind: ServiceAccount, name: a}]}",
        ),
        "7: spec.overrides[0].requestsPerSecond: expected a whole number of at least 1, found 0",
    ),
    "override of somebody else": (
        policy(
            "HTTPLocalRateLimitPolicy",
            LIMIT + "overrides:\n- {requestsPerSecond: 1, clientRefs: [{kind: Namespace, name: a}]}",
        ),
        "7: spec.overrides[0].clientRefs[0].kind: expected ServiceAccount, found Namespace of the core group",
    ),
    # ServiceProfile
    "profile name": (
        profile("routes: []", "web"),
        "3: metadata.name: expected the full name of a service, such as web.shop.svc.cluster.local, found web",
    ),
    "unknown field of a profile": (profile("retries: 1"), "5: spec.retries: unknown field"),
    "route without a name": (
        profile("routes:\n- condition: {method: GET}"),
        "6: spec.routes[0].name: missing; expected a text",
    ),
    "empty condition": (
        profile("routes:\n- name: a\n  condition: {}"),
        "7: spec.routes[0].condition: expected one of pathRegex, method, all, any or not",
    ),
    "regex of a profile": (
        profile("routes:\n- name: a\n  condition: {all: [{pathRegex: '['}]}"),
        "7: spec.routes[0].condition.all[0].pathRegex: \"[\" is no regular expression: a '[' is not closed",
    ),
    "duration of a profile": (
        profile("routes:\n- {name: a, condition: {method: GET}, timeout: 3}"),
        "6: spec.routes[0].timeout: expected a text, found 3; put quotes around it",
    ),
    "range of statuses": (
        profile(
            "routes:\n- name: a\n  condition: {method: GET}\n  responseClasses:\n  - condition: {status: {min: 500, max: 400}}"
        ),
        "9: spec.routes[0].responseClasses[0].condition.status.max: expected at least min, 500, found 400",
    ),
    "status": (
        profile(
            "routes:\n- name: a\n  condition: {method: GET}\n  responseClasses:\n  - condition: {status: {min: 99}}"
        ),
        "9: spec.routes[0].responseClasses[0].condition.status.min: expected a whole number from 100 to 599, found 99",
    ),
    "negative ratio": (
        profile("retryBudget: {retryRatio: -0.1, minRetriesPerSecond: 1, ttl: 1s}"),
        "5: spec.retryBudget.retryRatio: expected a number from 0 to 1000, found -0.1",
    ),
    "budget without its time": (
        profile("retryBudget: {retryRatio: 0.1, minRetriesPerSecond: 1}"),
        "5: spec.retryBudget.ttl: missing; expected a duration such as 10s",
    ),
    # ExternalWorkload
    "two addresses of a family": (
        manifest(
            "ExternalWorkload",
            "workload.linkerd.io/v1beta1",
            "meshTLS: {identity: a, serverName: a}\nworkloadIPs: [{ip: 192.0.2.1}, {ip: 192.0.2.2}]",
        ),
        "6: spec.workloadIPs: expected at most one address of each family",
    ),
    "two ports of a name": (
        manifest(
            "ExternalWorkload",
            "workload.linkerd.io/v1beta1",
            "meshTLS: {identity: a, serverName: a}\nports:\n- {port: 80, name: a}\n- {port: 81, name: a}",
        ),
        '8: spec.ports[1].name: the text "a" is in line 7 already',
    ),
}

WARNINGS = {
    "annotation of a Service": (
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n"
        "    balancer.linkerd.io/failure-accrual: sometimes\nspec: {ports: [{port: 80}]}\n",
        "6: metadata.annotations[balancer.linkerd.io/failure-accrual]: 'sometimes' is not consecutive or unified",
    ),
    "protocol of a Service": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - {port: 80, appProtocol: mongo}\n",
        "6: spec.ports[0].appProtocol: mongo is not known; what is spoken will be detected",
    ),
    "annotation of a Server's route": (
        manifest(
            "HTTPRoute",
            f"{GATEWAY}/v1",
            "parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]",
            ", annotations: {retry.linkerd.io/limit: x}",
        ),
        "3: metadata.annotations[retry.linkerd.io/limit]: 'x' is not a whole number below 65536",
    ),
    "a server authorization of nobody": (
        policy("ServerAuthorization", CLIENT + "  networks: [{cidr: 10.0.0.0/8}]", "v1beta1"),
        "6: spec.client: lets nobody in: name identities or serviceAccounts",
    ),
    "session persistence": (
        route(RULE + "sessionPersistence: {type: Cookie}\n  backendRefs: [{name: web, port: 80}]"),
        "7: spec.rules[0].sessionPersistence: not acted on",
    ),
    "a filter that is not acted on": (
        route(RULE + "filters:\n  - {type: CORS, cors: {allowOrigins: ['*']}}"),
        "8: spec.rules[0].filters[0].type: CORS is not acted on: requests that it applies to fail",
    ),
    "opaque ports of a profile": (
        profile("opaquePorts: {80: {}}"),
        "5: spec.opaquePorts: not acted on: use the annotation config.linkerd.io/opaque-ports of the Service",
    ),
}


@pytest.mark.parametrize(("text", "expected"), RULES.values(), ids=RULES)
def test_a_manifest_that_breaks_a_rule_is_refused_with_its_place(text: str, expected: str) -> None:
    assert refusals(text) == [f"a.yaml:{expected}"]


@pytest.mark.parametrize(("text", "expected"), WARNINGS.values(), ids=WARNINGS)
def test_what_has_no_effect_is_a_warning_with_its_place(text: str, expected: str) -> None:
    assert warnings(text) == [f"a.yaml:{expected}"]


def test_all_mistakes_of_all_objects_are_found_at_once() -> None:
    texts = [(f"{number}.yaml", text) for number, (text, _) in enumerate(RULES.values())]

    found = {str(problem) for problem in decode(texts, whole=False).problems}

    assert found >= {f"{number}.yaml:{expected}" for number, (_, expected) in enumerate(RULES.values())}


def test_a_field_that_could_not_be_read_is_not_judged() -> None:
    text = policy(
        "HTTPLocalRateLimitPolicy", LIMIT + "total: {requestsPerSecond: x}\nidentity: {requestsPerSecond: 0}"
    )

    assert [problem.field for problem in decode([("a.yaml", text)]).problems] == [
        "spec.total.requestsPerSecond",
        "spec.identity.requestsPerSecond",
    ]
