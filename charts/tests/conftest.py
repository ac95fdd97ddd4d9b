"""Helm, the proxy's binary, and what the chart renders."""

import copy
import json
import os
import pathlib
import subprocess

import yaml

CHARTS = pathlib.Path(__file__).parent.parent
CHART = CHARTS / "stagedoor"
GOLDEN = CHARTS / "tests" / "golden"
MODES = ["sidecar", "edge", "egress"]
UPDATE = "UPDATE" in os.environ


def run(*command, given=None):
    """Runs a program to its end: exit code, and all that it wrote."""
    done = subprocess.run([str(c) for c in command], input=given, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def stagedoor(*args):
    return run(os.environ["STAGEDOOR_BIN"], *args)


def values(mode):
    """A mode's values, for a test to change."""
    return yaml.safe_load((CHART / "ci" / f"{mode}-values.yaml").read_text())


def changed(mode, *changes):
    """A mode's values with some changed: `("pdb.create", False)`; `None` takes one away."""
    all_of_them = copy.deepcopy(values(mode))
    for path, value in changes:
        *folders, last = path.split("/")
        here = all_of_them
        for folder in folders:
            here = here.setdefault(folder, {})
        if value is None:
            here.pop(last)
        else:
            here[last] = value
    return all_of_them


def template(given, *args):
    """The text that Helm renders from values, for a release `portal` in namespace `gate`."""
    namespace = "portal" if given.get("mode") == "sidecar" else "gate"
    command = [os.environ["HELM"], "template", "portal", CHART, "--namespace", namespace, "--kube-version", "1.37"]
    done = subprocess.run([*map(str, command), *args, "-f", "-"], input=json.dumps(given), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(given):
    """The objects that Helm renders from values."""
    return [found for found in yaml.safe_load_all(template(given)) if found]


def lint(given):
    return run(os.environ["HELM"], "lint", "--strict", CHART, "-f", "-", given=json.dumps(given))


def the(objects, kind, ending=""):
    """The only object of a kind, or the one whose name ends so."""
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]


def backstage_values(objects):
    """What the chart gives to Backstage's own chart."""
    return yaml.safe_load(the(objects, "ConfigMap", "-backstage")["data"]["values.yaml"])["backstage"]


def backstage_pod(objects):
    """The pod that Backstage's own chart makes of them, as far as they are concerned."""
    given = backstage_values(objects)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "backstage", "labels": {"app.kubernetes.io/name": "backstage"}},
        "spec": {
            "terminationGracePeriodSeconds": given.get("terminationGracePeriodSeconds", 30),
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": given.get("initContainers", []),
            "containers": [
                {
                    "name": "backstage-backend",
                    "image": "ghcr.io/backstage/backstage",
                    "env": given.get("extraEnvVars", []),
                    "volumeMounts": given.get("extraVolumeMounts", []),
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "volumes": given.get("extraVolumes", []),
        },
    }


def pods(mode, objects):
    """The pods that a mode's objects lead to, each with its spec."""
    own = [o["spec"]["template"] for o in objects if o["kind"] in ("Deployment", "StatefulSet")]
    theirs = [] if mode == "edge" else [backstage_pod(objects)]
    return own + theirs


def gate(mode, objects):
    """The container that runs Stagedoor, and the spec of its pod."""
    spec = pods(mode, objects)[0]["spec"]
    everybody = spec.get("initContainers", []) + spec["containers"]
    return next(c for c in everybody if c["name"] == "stagedoor"), spec
