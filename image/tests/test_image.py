"""What is in the image, and how it runs."""

import json
import stat
import subprocess
import time

import pytest
import yaml
from conftest import ADDRESS, REPOSITORY, certificate, config_map
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


# ---- What is in it


def test_only_the_program_and_its_libraries_can_be_executed(image):
    programs = {name for name, file in image.files.items() if file.isfile() and file.mode & 0o111}
    assert "/usr/local/bin/stagedoor" in programs
    assert all(".so" in name for name in programs - {"/usr/local/bin/stagedoor"}), programs


def test_nothing_gives_rights_and_nothing_but_tmp_can_be_written(image):
    for name, file in image.files.items():
        assert not file.mode & (stat.S_ISUID | stat.S_ISGID), name
        assert name == "/tmp" or not file.mode & stat.S_IWOTH, name
        assert file.uid == 0 or name.startswith("/var/lib/stagedoor"), name
        assert not (file.issym() or file.islnk()), name


def test_it_runs_as_nobody_in_particular(image):
    config = image.config["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] + config["Cmd"] == ["/usr/local/bin/stagedoor", "run", "-c", "/etc/stagedoor/stagedoor.yaml"]
    assert config["StopSignal"] == "SIGTERM"
    # For `kubectl exec POD -c stagedoor -- stagedoor doctor`.
    assert "PATH=/usr/local/bin" in config["Env"]


def test_its_labels_say_what_it_is(image):
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image.config["config"]["Labels"].items()}
    assert labels["title"] == "stagedoor"
    assert labels["licenses"] == "Apache-2.0"
    assert f'version = "{labels["version"]}"' in (REPOSITORY / "Cargo.toml").read_text()
    assert len(labels["revision"]) == 40
    assert labels["created"].endswith("Z")


def test_built_again_it_is_the_same(image, built):
    assert built().digest == image.digest


def test_it_lists_what_it_is_made_of(image):
    text = (image.root / "usr/share/doc/stagedoor/sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = json.loads(text)
    names = {part["name"] for part in listed["components"]}
    assert {"config", "filters", "certs", "pingora", "rustls", "tokio", "libc6", "ca-certificates"} <= names
    # For tests alone.
    refs = {part["bom-ref"] for part in listed["components"]} | {listed["metadata"]["component"]["bom-ref"]}
    assert {d for one in listed["dependencies"] for d in one["dependsOn"]} <= refs


# ---- How it runs

# A password has 16 bytes at least.
SECRETS = {
    "/run/secrets/egress": {"password": "0123456789abcdef", "spacelift-io": "0123456789abcdef"},
    "/run/secrets/grafana": {"token": "a-token"},
}


def signing_key():
    """The key of the audit log's checkpoints, as the chart's notes say to make it."""
    made = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True, text=True)
    return {"/run/secrets/audit": {"audit.key": made.stdout}}


def folders(mode, tmp_path):
    """What the mode's pod has mounted."""
    etc = config_map(mode)
    if mode == "edge":
        etc = etc | certificate(tmp_path / "first", "portal.example.com")
    own = certificate(tmp_path / "ca", "dxcp.delivery.svc")
    return {"/etc/stagedoor": etc, **SECRETS, **signing_key(), "/run/secrets/dxcp-ca": {"ca.crt": own["tls/tls.crt"]}}


def ready(pod):
    pod.until("/readyz", lambda: pod.ask("/readyz")[0] == 200)
    return pod


@pytest.mark.parametrize("mode", ["sidecar", "edge", "egress"])
def test_the_charts_pod_gets_ready_without_rights_on_a_read_only_root(mode, pod, tmp_path):
    running = ready(pod(folders(mode, tmp_path)))
    assert running.ask("/livez") == (200, "ok\n")
    status = running.status()
    assert status["Uid"].split() == ["65532"] * 4
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    assert status["NSpid"].split()[-1] == "1"
    with pytest.raises(OSError, match="Read-only file system"):
        open(f"/proc/{running.pid}/root/tmp/x", "w")
    if mode != "egress":
        assert [file for file in running.audit.iterdir() if file.suffix == ".jsonl"]


@pytest.mark.parametrize("mode", ["sidecar", "edge", "egress"])
def test_check_in_the_pod_takes_the_config_and_every_file_that_it_names(mode, pod, tmp_path):
    checked = pod(folders(mode, tmp_path), ["/usr/local/bin/stagedoor", "check", "--files", "-c", "/etc/stagedoor/stagedoor.yaml"])
    assert checked.program.wait(30) == 0, checked.log.read_text()
    assert "valid" in checked.log.read_text()


def test_a_config_map_that_the_kubelet_swaps_is_in_force_without_a_restart(pod, tmp_path):
    running = ready(pod(folders("egress", tmp_path)))
    before, pid = json.loads(running.ask("/config")[1])["digest"], running.pid
    config = yaml.safe_load(config_map("egress")["stagedoor.yaml"])
    config["egress"]["rules"].append({"name": "more", "to": ["more.example.com"]})
    running.mounted["/etc/stagedoor"].swap({"stagedoor.yaml": yaml.safe_dump(config)})
    running.until("the reload", lambda: json.loads(running.ask("/config")[1])["digest"] != before)
    assert running.pid == pid


def test_a_certificate_that_cert_manager_renews_is_served_without_a_restart(pod, tmp_path):
    running = ready(pod(folders("edge", tmp_path)))
    serial = lambda: json.loads(running.ask("/state")[1])["certificates"][0]["serial"]
    before, pid = serial(), running.pid
    running.mounted["/etc/stagedoor"].swap(config_map("edge") | certificate(tmp_path / "second", "portal.example.com"))
    running.until("the new certificate", lambda: serial() != before)
    assert running.pid == pid
    # A certificate that signs itself: who trusts the new one alone is served.
    trusting = ["curl", "-s", "--cacert", tmp_path / "second/tls.crt", "--resolve", f"portal.example.com:8443:{ADDRESS}"]
    served = running.within(*trusting, "-o", "/dev/null", "-w", "%{http_code}", "https://portal.example.com:8443/")
    assert served.returncode == 0 and int(served.stdout) > 0, served


def test_a_config_that_is_wrong_never_gets_ready_and_says_why(pod):
    started = pod({"/etc/stagedoor": {"stagedoor.yaml": "version: stagedoor/v1\nlistners: {}\n"}})
    assert started.program.wait(20) != 0
    assert "did you mean `listeners`" in started.log.read_text()


def test_it_stops_when_it_is_told_to_first_failing_readiness(pod, tmp_path):
    running = ready(pod(folders("egress", tmp_path)))
    began = time.monotonic()
    running.stop()
    running.until("readiness to fail", lambda: running.ask("/readyz")[0] == 503, 4)
    assert running.program.wait(30) == 0, running.log.read_text()
    # drain_delay is 5 s, and nothing was under way. The chart grants 40 s.
    assert 4 < time.monotonic() - began < 12
