"""What the chart renders, and what it refuses."""

import json
import os
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import (
    CHART,
    CHARTS,
    GOLDEN,
    MODES,
    UPDATE,
    backstage_pod,
    backstage_values,
    changed,
    gate,
    lint,
    pods,
    rendered,
    run,
    stagedoor,
    template,
    the,
    values,
)

SHAPES = json.loads((CHARTS / "tests" / "shapes.json").read_text())
each_mode = pytest.mark.parametrize("mode", MODES)


def written(path, made):
    """Compares a file with what would be made anew."""
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made)
    assert path.exists() and path.read_text() == made, f"{path} is not up to date: UPDATE=1 charts/test"


# ---- What is made from something else


def test_the_schema_of_config_is_what_stagedoor_schema_prints():
    code, printed = stagedoor("schema")
    assert code == 0, printed
    config = json.loads(printed)
    schema = json.loads((CHART / "values.schema.tmpl.json").read_text())
    schema["$defs"] = config.pop("$defs")
    config.pop("$schema")
    schema["properties"]["config"] = config
    written(CHART / "values.schema.json", json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_bootstrap_is_that_of_the_examples():
    example = (CHARTS.parent / "examples" / "egress-bootstrap.js").read_text()
    written(CHART / "files" / "egress-bootstrap.js", example)


def commented(text):
    """Each key of `values.yaml` by its path, and the first line of the comment above it."""
    stack, comment = [], []
    for line in text.split("\n"):
        key = re.match(r"( *)([\w-]+):", line)
        if line.lstrip().startswith("#"):
            comment.append(line.strip())
        elif key:
            depth = len(key[1]) // 2
            stack[depth:] = [key[2]]
            yield tuple(stack), comment
            comment = []
        else:
            comment = []


# What is below them is somebody else's API.
FOREIGN = [
    "config", "backstage.podLabels", "tls.certManager.issuerRef", "externalSecrets.secretStoreRef", "probes.startup", "resources",
    "podSecurityContext", "containerSecurityContext", "topologySpreadConstraints", "networkPolicy.dnsTo", "networkPolicy.privateRanges",
    "networkPolicy.backstage.databaseTo",
]


def test_every_value_has_a_comment_and_a_place_in_the_schema():
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.tmpl.json").read_text())
    seen = 0
    for path, comment in commented(text):
        name = ".".join(path)
        if any(name.startswith(f"{foreign}.") for foreign in FOREIGN):
            continue
        here = schema
        for part in path:
            here = here["properties"].get(part)
            assert here is not None, f"{name} is not in the schema"
            here = here if isinstance(here, dict) else {}
        if "properties" not in here or comment:
            assert comment, f"{name} has no comment"
        if "properties" not in here:
            assert any(line.startswith("# -- ") for line in comment), f"{name} has no comment that begins with `# -- `"
        seen += 1
    assert seen > 100


@each_mode
def test_what_is_rendered_is_in_the_golden_file(mode):
    written(GOLDEN / f"{mode}.yaml", template(values(mode)))


def notes(given):
    """What Helm says after an installation."""
    namespace = "portal" if given["mode"] == "sidecar" else "gate"
    install = [os.environ["HELM"], "install", "portal", CHART, "--namespace", namespace, "--dry-run=client", "-f", "-"]
    code, said = run(*install, given=json.dumps(given))
    assert code == 0, said
    return said[said.index("NOTES:") :]


@each_mode
def test_the_notes_are_in_the_golden_file(mode):
    written(GOLDEN / f"{mode}-notes.txt", notes(values(mode)))


def readme():
    """The chart's page: its introduction, and a row for each value."""
    text = (CHART / "values.yaml").read_text()
    rows = []
    tree = yaml.safe_load(text)
    for path, comment in commented(text):
        name = ".".join(path)
        if not any(line.startswith("# -- ") for line in comment) or any(name.startswith(f"{foreign}.") for foreign in FOREIGN):
            continue
        value = tree
        for part in path:
            value = value[part]
        default = next((line.removeprefix("# @default -- ") for line in comment if line.startswith("# @default")), None)
        default = default or f"`{json.dumps(value)}`"
        said = " ".join(line.removeprefix("# -- ").removeprefix("# ") for line in comment if not line.startswith("# @default"))
        said = re.sub(r" *<!--.*?-->", "", said).replace("|", "\\|")
        rows.append(f"| `{name}` | {said} | {default} |")
    introduction = (CHART / "README.tmpl.md").read_text()
    return introduction.replace("VALUES\n", "\n".join(["| value | what it does | default |", "|---|---|---|", *rows]) + "\n")


def test_the_readme_is_made_of_the_values():
    written(CHART / "README.md", readme())


# ---- What is rendered


@each_mode
def test_good_values_pass_lint(mode):
    code, said = lint(values(mode))
    assert code == 0, said


@each_mode
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_every_object_is_one_that_kubernetes_takes(mode, version):
    objects = rendered(values(mode))
    for found in objects + pods(mode, objects)[1:] + ([backstage_pod(objects)] if mode == "sidecar" else []):
        shape = SHAPES.get(f"{found['apiVersion']} {found['kind']}")
        if shape:
            jsonschema.validate(found["spec"], shape)
        else:
            kubernetes_validate.validate(found, version, strict=True)


@each_mode
def test_names_are_distinct_and_fit(mode):
    given = values(mode) | {"fullnameOverride": "a-name-of-more-than-forty-characters-which-is-cut-off"}
    seen = set()
    for found in rendered(given):
        name = found["metadata"]["name"]
        key = (found["kind"], found["metadata"]["namespace"], name)
        assert key not in seen, key
        seen.add(key)
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name), name


@each_mode
def test_pods_are_restricted(mode):
    """The Pod Security Standard `restricted`, as far as it concerns what is here."""
    objects = rendered(values(mode))
    for pod in pods(mode, objects):
        spec = pod["spec"]
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert all(set(volume) - {"name"} <= {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"} for volume in spec["volumes"])
        for container in spec.get("initContainers", []) + spec["containers"]:
            own = container["securityContext"]
            whole = spec["securityContext"] | own
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert whole["runAsNonRoot"] is True
            assert whole["seccompProfile"]["type"] == "RuntimeDefault"
            assert not any("hostPort" in port for port in container.get("ports", []))
    container, spec = gate(mode, objects)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["runAsUser"] == 65532
    if mode != "sidecar":
        assert spec["automountServiceAccountToken"] is False


@each_mode
def test_probes_ask_the_status_listener_at_the_pods_address_and_the_admin_listener_is_the_pods_own(mode):
    objects = rendered(values(mode))
    container, _ = gate(mode, objects)
    config = yaml.safe_load(the(objects, "ConfigMap", "-stagedoor")["data"]["stagedoor.yaml"])
    assert config["listeners"]["admin"]["address"].startswith("127.0.0.1:")
    host, _, port = config["listeners"]["status"]["address"].rpartition(":")
    assert host == "0.0.0.0"
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    for probe, path in [("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        asked = container[probe]["httpGet"]
        assert (asked["path"], ports[asked["port"]]) == (path, int(port))


@each_mode
def test_every_file_that_the_config_names_is_in_a_folder_that_is_mounted(mode):
    objects = rendered(values(mode))
    container, spec = gate(mode, objects)
    volumes = {volume["name"] for volume in spec["volumes"]}
    claims = [claim["metadata"]["name"] for o in objects for claim in o.get("spec", {}).get("volumeClaimTemplates", [])]
    folders = []
    for mount in container["volumeMounts"]:
        assert "subPath" not in mount, "a file that is mounted by `subPath` never changes"
        assert mount["name"] in volumes | set(claims)
        folders.append(mount["mountPath"])
    config = the(objects, "ConfigMap", "-stagedoor")["data"]["stagedoor.yaml"]
    named = re.findall(r"/(?:etc/stagedoor|run/secrets|var/lib/stagedoor)/[\w./-]+", config)
    assert named or mode == "egress"
    for file in named:
        assert any(file.startswith(f"{folder}/") or file == folder for folder in folders), file


def test_no_two_mounts_are_one_within_the_other():
    for mode in MODES:
        container, _ = gate(mode, rendered(values(mode)))
        folders = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert not [(a, b) for a in folders for b in folders if a != b and b.startswith(f"{a}/")]


@each_mode
def test_stagedoor_check_takes_the_config_map(mode, tmp_path):
    objects = rendered(values(mode))
    for name, text in the(objects, "ConfigMap", "-stagedoor")["data"].items():
        (tmp_path / name).write_text(text)
    code, said = stagedoor("check", "--format", "json", "-c", tmp_path / "stagedoor.yaml")
    assert code == 0, said
    warnings = [warning["message"] for warning in json.loads(said)["warnings"]]
    expected = set()
    if mode == "egress":
        expected.add("`egress` accepts")
    if mode == "edge":
        expected.add("plain HTTP")
    assert [w for w in warnings if not any(part in w for part in expected)] == []


@each_mode
def test_a_change_of_the_config_changes_no_pod(mode):
    before = rendered(values(mode))
    after = rendered(changed(mode, ("config/rate_limit", {"per_workspace": {"rate": "7/m"}})))
    assert gate(mode, before) == gate(mode, after)
    digests = [the(o, "ConfigMap", "-stagedoor")["metadata"]["annotations"]["stagedoor/config-sha256"] for o in (before, after)]
    assert digests[0] != digests[1]


def test_numbers_stay_what_they_are():
    config = the(rendered(values("edge")), "ConfigMap", "-stagedoor")["data"]["stagedoor.yaml"]
    assert "connections_max: 20000000\n" in config


# ---- Beside Backstage


def test_the_sidecar_is_native_and_holds_backstage_back_until_it_serves():
    [container] = backstage_values(rendered(values("sidecar")))["initContainers"]
    assert container["restartPolicy"] == "Always"
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_backstage_is_sent_through_the_sidecar_on_loopback():
    given = backstage_values(rendered(values("sidecar")))
    env = {e["name"]: e.get("value") for e in given["extraEnvVars"]}
    assert env["HTTPS_PROXY"] == env["HTTP_PROXY"] == "http://127.0.0.1:3128"
    assert env["NO_PROXY"] == "127.0.0.1,localhost"
    assert env["NODE_OPTIONS"] == "--no-node-snapshot -r /opt/stagedoor/egress-bootstrap.js"
    assert "NODE_USE_ENV_PROXY" not in env


def test_backstage_sees_none_of_the_sidecars_secrets():
    given = backstage_values(rendered(values("sidecar")))
    assert [mount["name"] for mount in given["extraVolumeMounts"]] == ["stagedoor-bootstrap"]


def test_without_the_bootstrap_node_itself_reads_the_variables():
    given = backstage_values(rendered(changed("egress", ("backstage/bootstrap", False))))
    env = {e["name"]: e.get("value") for e in given["extraEnvVars"]}
    assert env["NODE_USE_ENV_PROXY"] == "1"
    assert "NODE_OPTIONS" not in env
    assert "extraVolumes" not in given


def test_name_and_password_of_the_gateway_come_from_a_secret():
    env = backstage_values(rendered(values("egress")))["extraEnvVars"]
    assert env[0]["valueFrom"]["secretKeyRef"] == {"name": "stagedoor-login", "key": "username"}
    assert env[2]["value"] == "http://$(STAGEDOOR_USER):$(STAGEDOOR_PASSWORD)@portal-stagedoor.gate.svc:3128"


def test_a_sidecar_without_a_way_out_changes_nothing_of_backstages_environment():
    given = backstage_values(rendered(changed("sidecar", ("config/listeners/egress", None), ("config/egress", None), ("secrets/egress", None))))
    assert "extraEnvVars" not in given and "extraVolumeMounts" not in given


def test_thirty_seconds_are_not_given_to_a_chart_that_may_not_know_the_key():
    assert backstage_values(rendered(values("sidecar")))["terminationGracePeriodSeconds"] == 40
    assert "terminationGracePeriodSeconds" not in backstage_values(rendered(changed("sidecar", ("terminationGracePeriodSeconds", 30))))


ENTRANCE = ("config/listeners/edge", {"kind": "reverse", "address": "0.0.0.0:8080"})


def test_a_sidecar_can_be_the_pods_entrance():
    objects = rendered(changed("sidecar", ENTRANCE, ("service", {"ports": {"edge": 80}})))
    service = the(objects, "Service")["spec"]
    assert service["selector"] == {"app.kubernetes.io/name": "backstage", "app.kubernetes.io/component": "backstage"}
    assert service["ports"] == [{"name": "edge", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    entrance, (_, status) = peers(the(objects, "NetworkPolicy"), "ingress")
    assert (entrance, status) == (("anybody", [8080]), [9902])
    ingress = {"podSelector": {"matchLabels": {"app": "ingress"}}}
    past_it = rendered(changed("sidecar", ENTRANCE, ("networkPolicy/backstage", {"clients": [ingress]})))
    assert ([ingress], [7007]) in list(peers(the(past_it, "NetworkPolicy"), "ingress"))


# ---- Network policies


def peers(policy, way):
    """The rules of a policy, in short: whom, on which ports."""
    side = "from" if way == "ingress" else "to"
    for rule in policy["spec"].get(way, []):
        ports = [port["port"] for port in rule.get("ports", [])]
        yield rule.get(side, "anybody"), ports


def cidrs(policy):
    return {peer["ipBlock"]["cidr"]: ports for whom, ports in peers(policy, "egress") for peer in whom if "ipBlock" in peer}


def test_backstage_reaches_the_gateway_its_database_and_dns_alone():
    policy = the(rendered(values("egress")), "NetworkPolicy", "-backstage")
    assert policy["metadata"]["namespace"] == "portal"
    assert policy["spec"]["policyTypes"] == ["Egress"]
    gateway, dns, database = peers(policy, "egress")
    assert gateway[0][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "stagedoor"
    assert gateway[0][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "gate"}
    assert (gateway[1], dns[1], database) == ([3128], [53, 53], ([{"ipBlock": {"cidr": "10.3.0.7/32"}}], [5432]))


def test_the_gateway_lets_backstage_alone_in():
    policy = the(rendered(values("egress")), "NetworkPolicy", "portal-stagedoor")
    [(whom, ports)] = peers(policy, "ingress")
    assert ports == [3128]
    assert whom[0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "portal"}
    assert whom[0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "backstage"


def test_the_gateway_reaches_what_its_config_names_and_no_private_network():
    reached = cidrs(the(rendered(values("egress")), "NetworkPolicy", "portal-stagedoor"))
    assert reached == {"10.4.0.9/32": [443], "10.2.0.0/16": [], "0.0.0.0/0": [443, 8443], "::/0": [443, 8443], "10.0.0.10/32": [53, 53]}
    policy = the(rendered(values("egress")), "NetworkPolicy", "portal-stagedoor")
    internet = next(p["ipBlock"] for whom, _ in peers(policy, "egress") for p in whom if p.get("ipBlock", {}).get("cidr") == "0.0.0.0/0")
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "100.64.0.0/10"} <= set(internet["except"])


def test_backstage_is_entered_through_the_edge_alone():
    objects = rendered(values("edge"))
    [(whom, ports)] = peers(the(objects, "NetworkPolicy", "-backstage"), "ingress")
    assert ports == [7007]
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for peer in whom] == ["stagedoor"]
    assert "egress" not in the(objects, "NetworkPolicy", "-backstage")["spec"]


def test_an_edge_that_is_the_way_out_as_well_holds_backstage_in():
    forward = ("config/listeners/out", {"kind": "forward", "address": "0.0.0.0:3128", "workspace": "payments"})
    policy = the(rendered(changed("edge", forward)), "NetworkPolicy", "-backstage")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    gate_first = next(peers(policy, "egress"))
    assert gate_first[0][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "edge"
    assert gate_first[1] == [8443, 3128]


def test_others_can_be_the_clients_of_a_gateway():
    own = [{"ipBlock": {"cidr": "10.9.0.0/16"}}]
    policy = the(rendered(changed("egress", ("networkPolicy/clients", own))), "NetworkPolicy", "portal-stagedoor")
    assert list(peers(policy, "ingress")) == [(own, [3128])]


def test_the_edge_is_open_and_its_status_listener_is_prometheus_own():
    policy = the(rendered(values("edge")), "NetworkPolicy", "portal-stagedoor")
    (anybody, entrance), (prometheus, status) = peers(policy, "ingress")
    assert (anybody, entrance, status) == ("anybody", [8443], [9902])
    assert prometheus[0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}


def test_the_edge_reaches_the_namespace_of_its_upstream_and_the_public_port_of_another():
    policy = the(rendered(values("edge")), "NetworkPolicy", "portal-stagedoor")
    namespaces = [p["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for whom, _ in peers(policy, "egress") for p in whom if "namespaceSelector" in p]
    assert namespaces == ["kube-system", "portal"]
    assert cidrs(policy) == {"0.0.0.0/0": [443], "::/0": [443]}


def reached(url):
    """Where the edge may go for an upstream with this URL, beside DNS and its other upstreams."""
    return reached_with("config/upstreams/more", {"url": url})


def reached_with(where, value):
    policy = the(rendered(changed("edge", (where, value))), "NetworkPolicy", "portal-stagedoor")
    without = list(peers(the(rendered(values("edge")), "NetworkPolicy", "portal-stagedoor"), "egress"))
    found = [(whom, ports) for whom, ports in peers(policy, "egress") if (whom, ports) not in without]
    return [(peer.get("ipBlock", peer), ports) for whom, ports in found for peer in whom]


def namespace(name):
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


@pytest.mark.parametrize(
    "url,whom,ports",
    [
        ("http://10.1.2.3:8080", {"cidr": "10.1.2.3/32"}, [8080]),
        ("https://10.1.2.3", {"cidr": "10.1.2.3/32"}, [443]),
        ("http://[fd00::7]:8080/api", {"cidr": "fd00::7/128"}, [8080]),
        ("http://dxcp:8080", {"podSelector": {}}, []),
        ("https://dxcp.delivery.svc:8443", namespace("delivery"), []),
        ("https://dxcp.delivery.svc.cluster.local", namespace("delivery"), []),
        ("https://db-0.dxcp.delivery.svc.cluster.local", namespace("delivery"), []),
    ],
)
def test_an_upstream_inside_is_reached_by_address_or_namespace(url, whom, ports):
    assert reached(url) == [(whom, ports)]


def test_a_store_is_reached_by_address_or_namespace():
    addresses = ["10.1.2.3:6379", "redis.cache.svc:6380"]
    found = reached_with("config/store", {"kind": "cluster", "addresses": addresses})
    assert found == [({"cidr": "10.1.2.3/32"}, [6379]), (namespace("cache"), [])]


def test_an_upstream_outside_adds_its_port_and_one_in_the_pod_or_the_environment_nothing():
    assert {tuple(ports) for _, ports in reached("https://vendor.example.com:9443/api")} == {(443, 9443)}
    assert reached("http://127.0.0.1:7007") == reached("http://localhost:7007") == []


def test_the_status_listener_can_have_another_name_and_address():
    given = values("egress")
    given["config"]["listeners"] |= {"status": None, "probes": {"kind": "status", "address": "[::]:9000"}}
    container, _ = gate("egress", rendered(given))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports[container["startupProbe"]["httpGet"]["port"]] == 9000
    assert list(ports.values()) == [3128, 9000]


def test_a_pod_with_a_sidecar_has_one_policy_for_both():
    objects = rendered(values("sidecar"))
    policy = the(objects, "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "backstage"
    (anybody, portal), (_, status) = peers(policy, "ingress")
    assert (anybody, portal, status) == ("anybody", [7007], [9902])


def test_policies_can_be_written_by_hand():
    own = [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}]
    policy = the(rendered(changed("egress", ("networkPolicy/fromConfig", False), ("networkPolicy/extraEgress", own))), "NetworkPolicy", "portal-stagedoor")
    assert cidrs(policy) == {"10.9.0.0/16": []}
    assert [o for o in rendered(changed("egress", ("networkPolicy/enabled", False))) if o["kind"] == "NetworkPolicy"] == []


def test_a_listener_that_only_reports_needs_every_port():
    policy = the(rendered(changed("egress", ("config/listeners/egress/report_only", True))), "NetworkPolicy", "portal-stagedoor")
    assert cidrs(policy)["0.0.0.0/0"] == []


# ---- Volumes, replicas


def test_records_on_a_volume_make_a_stateful_set_with_a_claim_for_each_replica():
    objects = rendered(values("edge"))
    stateful = the(objects, "StatefulSet")
    assert stateful["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert the(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    assert "replicas" not in stateful["spec"]
    assert the(objects, "Service", stateful["spec"]["serviceName"])["spec"]["clusterIP"] == "None"


def test_records_without_persistence_are_on_a_volume_with_a_limit():
    objects = rendered(changed("egress", ("config/audit", {"directory": "/var/lib/stagedoor/audit"})))
    _, spec = gate("egress", objects)
    assert {"name": "stagedoor-audit", "emptyDir": {"sizeLimit": "2Gi"}} in spec["volumes"]


@pytest.mark.parametrize("mode", ["edge", "sidecar"])
def test_the_samples_sign_their_records_and_the_notes_remind_who_does_not(mode):
    assert values(mode)["config"]["audit"]["checkpoints"]["key_file"] == "/run/secrets/audit/audit.key"
    assert "not signed" not in notes(values(mode))
    assert "not signed" in notes(changed(mode, ("config/audit/checkpoints", None)))


def test_an_external_secret_is_mounted_where_the_config_looks():
    objects = rendered(values("edge"))
    _, spec = gate("edge", objects)
    made = the(objects, "ExternalSecret")["spec"]["target"]["name"]
    assert {"name": "stagedoor-secret-grafana", "secret": {"secretName": made}} in spec["volumes"]
    projected = next(v["projected"]["sources"] for v in spec["volumes"] if v["name"] == "stagedoor-config")
    assert projected[1]["secret"]["name"] == the(objects, "Certificate")["spec"]["secretName"]


def test_what_needs_an_operator_is_off_by_default():
    kinds = {o["kind"] for o in rendered(values("egress"))}
    assert kinds == {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"}


# ---- What is refused


REFUSED = [
    ("egress", [("mode", "gateway")], "must be one of 'sidecar', 'edge', 'egress'"),
    ("egress", [("replcas", 3)], "'replcas' not allowed"),
    ("egress", [("config/listners", {})], "'listners' not allowed"),
    ("egress", [("config/egress/rules", [{"name": "a", "to": "github"}])], "at '/config/egress/rules/0/to'"),
    ("egress", [("config/process", {"drain_timeout": 10})], "at '/config/process/drain_timeout'"),
    ("egress", [("image/repository", "")], "image.repository is empty: no image is published"),
    ("egress", [("terminationGracePeriodSeconds", 27)], "terminationGracePeriodSeconds: 27 s is too short: config.process drains for 5s + 20s and needs 2 s more; write 28"),
    ("edge", [("config/process", {"drain_delay": "1m30s"})], "drains for 1m30s + 20s and needs 2 s more; write 113"),
    ("egress", [("config/listeners/status", {"kind": "status", "address": "127.0.0.1:9902"})], "no status listener that the kubelet can reach"),
    ("egress", [("config/listeners/probes", {"kind": "status", "address": "0.0.0.0:9000"})], "`probes` and `status` are both status listeners"),
    ("egress", [("config/listeners/egress/address", "0.0.0.0:${PORT}")], "config.listeners.egress.address: the chart must know the port"),
    ("egress", [("config/listeners/egress/address", "127.0.0.1:3128")], "mode egress needs a listener of kind forward"),
    ("edge", [("config/listeners/edge/address", "127.0.0.1:8443"), ("service/ports", None)], "mode edge needs a listener of kind reverse"),
    ("sidecar", [("config/listeners/egress/address", "0.0.0.0:3128")], "in mode sidecar a forward listener belongs on loopback"),
    ("sidecar", [("config/listeners/egress/address", "127.0.0.1:7010")], "port 7010 is already used by listener `dxcp`"),
    ("sidecar", [("config/listeners", {})], "only listeners for operators and probes"),
    ("sidecar", [("backstage", {"namespace": "elsewhere"})], "install into namespace elsewhere"),
    ("sidecar", [("audit", {"persistence": {"enabled": True}})], "audit.persistence.existingClaim is empty"),
    ("sidecar", [("secrets/egress", None)], "there is no secrets.egress"),
    ("sidecar", [("config/audit/directory", "/tmp/audit")], "config.audit.directory: `/tmp/audit` is not a volume"),
    ("sidecar", [("config/audit", {"folder": "/tmp/audit"})], "config.audit.directory: `/tmp/audit` is not a volume"),
    ("egress", [("audit", {"persistence": {"enabled": True}})], "records go to standard output"),
    ("edge", [("tls/certManager/enabled", False)], "no Secret is mounted there; set tls.existingSecret"),
    ("edge", [("tls/existingSecret", "another")], "two sources of one Secret"),
    ("edge", [("tls/certManager/issuerRef/name", "")], "tls.certManager.issuerRef.name is empty"),
    ("egress", [("tls", {"existingSecret": "unused"})], "config uses no file from it"),
    ("edge", [("externalSecrets", None)], "externalSecrets.secretStoreRef.name"),
    ("edge", [("service/ports", {"egde": 443})], "service.ports.egde: no listener of that name"),
    ("edge", [("autoscaling/maxReplicas", 2)], "minReplicas 3 is more than maxReplicas 2"),
    ("edge", [("pdb", {"minAvailable": 1})], "minAvailable and maxUnavailable exclude each other"),
    ("edge", [("extraFiles", {"stagedoor.yaml": ""})], "`stagedoor.yaml` is generated from config"),
    ("egress", [("backstage/forwardListener", "egres")], "`egres` is not a forward listener"),
]


@pytest.mark.parametrize("mode,changes,sentence", REFUSED, ids=[f"{mode}: {said[:50]}" for mode, _, said in REFUSED])
def test_bad_values_fail_lint_with_a_sentence(mode, changes, sentence):
    code, said = lint(changed(mode, *changes))
    assert code != 0, said
    # In lint a sentence is quoted within another.
    assert sentence in said.replace('\\"', '"'), said


def test_all_that_is_wrong_is_said_at_once():
    code, said = lint(changed("egress", ("terminationGracePeriodSeconds", 3), ("image/repository", "")))
    assert code != 0
    assert "image.repository is empty" in said and "is too short" in said


def test_rendering_fails_with_the_plain_sentences():
    with pytest.raises(AssertionError, match=r"(?m)^\s*terminationGracePeriodSeconds: 3 s is too short"):
        rendered(changed("egress", ("terminationGracePeriodSeconds", 3)))
