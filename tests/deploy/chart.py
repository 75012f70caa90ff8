#!/usr/bin/env python3
"""The Helm chart, without a cluster: Helm's own code lints and renders it with many sets of values, the schemas of Kubernetes 1.25 to
1.37 accept what comes out, wrong values are refused, and what a mode needs is there.

    tests/deploy/chart.py          schemas of three versions
    tests/deploy/chart.py --all    of all of them: two minutes

Needs helm-python-sdk, kubernetes-validate (tests/deploy/requirements.txt).
"""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import helm_python as helm
import kubernetes_validate as kubernetes
import yaml

TOP = Path(__file__).parents[2]
CHART = TOP / "helm" / "loaddensity"
# all of them with --all; some kinds of objects changed between these
VERSIONS = [f"1.{minor}.0" for minor in (range(25, 38) if "--all" in sys.argv else (25, 27, 37))]
DOCUMENT = [["LD_start_test", {"user_detail_dict": {"user": "fast_http_user"}, "host": "http://x", "user_count": 1,
                               "spawn_rate": 1, "test_time": 1, "tasks": [{"method": "get", "request_url": "/{{ x }}${env.Y}"}]}]]
RUN = {"Job": 2, "Service": 1, "Secret": 2, "ConfigMap": 1, "NetworkPolicy": 2, "PodDisruptionBudget": 1, "PersistentVolumeClaim": 1}
SERVE = {"Deployment": 2, "Service": 1, "Secret": 2, "NetworkPolicy": 2, "PodDisruptionBudget": 1, "PersistentVolumeClaim": 1}

# name, values, how many of which kind come out beside those of `helm test`
SETS = [
    ("nothing given: the example", {}, {**RUN, "Deployment": 1, "Service": 2, "NetworkPolicy": 3}),
    ("a list", {"document": DOCUMENT}, RUN),
    ("a text", {"document": json.dumps(DOCUMENT)}, RUN),
    ("an object", {"document": {"load_density": DOCUMENT}}, RUN),
    ("many workers", {"document": DOCUMENT, "workers": {"replicas": 100, "antiAffinity": "hard"}}, RUN),
    ("one worker", {"document": DOCUMENT, "workers": {"replicas": 1, "antiAffinity": "off", "topologySpread": False}}, RUN),
    ("a ConfigMap", {"documentFrom": {"configMap": {"name": "mine", "key": "a.json"}}}, {**RUN, "ConfigMap": 0}),
    ("a volume", {"documentFrom": {"path": "/mine/a.json"},
                  "master": {"extraVolumes": [{"name": "mine", "emptyDir": {}}],
                             "extraVolumeMounts": [{"name": "mine", "mountPath": "/mine"}]}}, {**RUN, "ConfigMap": 0}),
    ("files", {"document": DOCUMENT, "files": {"users.csv": "a,b\n1,2\n", "x.proto": "syntax = \"proto3\";"}}, {**RUN, "ConfigMap": 2}),
    ("Secrets given", {"document": DOCUMENT, "token": {"existingSecret": "t"}, "tls": {"existingSecret": "c"}}, {**RUN, "Secret": 0}),
    ("own token", {"document": DOCUMENT, "token": {"value": "abc"}, "tls": {"mode": "auto"}}, {**RUN, "Secret": 1}),
    ("no TLS, in a mesh", {"document": DOCUMENT, "tls": {"mode": "off"}, "master": {"podAnnotations": {"sidecar.istio.io/inject": "true"}},
                           "workers": {"podLabels": {"a": "b"}}}, {**RUN, "Secret": 1}),
    ("no volume", {"document": DOCUMENT, "results": {"enabled": False}}, {**RUN, "PersistentVolumeClaim": 0}),
    ("a claim given", {"document": DOCUMENT, "results": {"existingClaim": "r"}}, {**RUN, "PersistentVolumeClaim": 0}),
    ("a storage class", {"document": DOCUMENT, "results": {"storageClass": "fast", "accessModes": ["ReadWriteMany"], "keep": False}}, RUN),
    ("nothing around", {"document": DOCUMENT, "networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False},
                        "probes": {"enabled": False}}, {**RUN, "NetworkPolicy": 0, "PodDisruptionBudget": 0}),
    ("everything placed", {"document": DOCUMENT, "allowTargets": ["10.0.0.0/8", "*.example.com"], "podDisruptionBudget": {"master": True},
                           "run": {"deadlineSeconds": 60, "masterRestarts": 0, "onTerminate": "end", "ttlSecondsAfterFinished": 60},
                           "workers": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "spool": "1Gi",
                                       "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "10000 65000"}],
                                       "priorityClassName": "low", "resources": {"cpu": 2, "memory": "1Gi", "ephemeralStorage": "2Gi"}},
                           "image": {"repository": "r/x", "tag": "1", "pullPolicy": "Always", "pullSecrets": ["p"]},
                           "networkPolicy": {"webFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                                             "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
                           "master": {"env": [{"name": "LD_SECRET_P", "value": "x"}], "envFrom": [{"secretRef": {"name": "s"}}],
                                      "extraArgs": ["--quiet"], "wait": "5m"}}, {**RUN, "PodDisruptionBudget": 2}),
    ("bare pods", {"document": DOCUMENT, "run": {"as": "pod"}, "workers": {"replicas": 3}, "target": {"enabled": True}},
     {**{k: v for k, v in RUN.items() if k != "Job"}, "Pod": 5, "Secret": 1, "Service": 2, "NetworkPolicy": 3}),
    ("serve", {"mode": "serve"}, SERVE),
    ("serve, scaled", {"mode": "serve", "autoscaling": {"enabled": True, "maxReplicas": 20}, "workers": {"replicas": 3}},
     {**SERVE, "HorizontalPodAutoscaler": 1}),
    ("serve, watched", {"mode": "serve", "serviceMonitor": {"enabled": True, "labels": {"release": "p"}}, "target": {"enabled": True},
                        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}}},
     {**SERVE, "ServiceMonitor": 1, "Deployment": 3, "Service": 2, "NetworkPolicy": 3}),
    ("names", {"mode": "serve", "fullnameOverride": "ld", "global": {"x": 1}}, SERVE),
]

# values, what the refusal says
REFUSED = [
    ({"mode": "cluster"}, ["mode", "run", "serve"]),
    ({"worker": {"replicas": 3}}, ["additional properties", "worker"]),
    ({"workers": {"replica": 3}}, ["workers", "additional properties", "replica"]),
    ({"workers": {"replicas": 0}}, ["workers/replicas", "minimum"]),
    ({"workers": {"replicas": "four"}}, ["workers/replicas", "integer"]),
    ({"workers": {"masterTimeout": "soon"}}, ["workers/masterTimeout", "pattern"]),
    ({"workers": {"resources": {"memory": "lots"}}}, ["workers/resources/memory", "pattern"]),
    ({"document": 7}, ["document"]),
    ({"documentFrom": {"configMap": {"key": "a"}}}, ["documentFrom/configMap", "name"]),
    ({"documentFrom": {"path": "relative.json"}}, ["documentFrom/path"]),
    ({"files": {"a/b": "x"}}, ["files"]),
    ({"tls": {"mode": "on"}}, ["tls/mode", "secret", "auto", "off"]),
    ({"image": {"pullPolicy": "Sometimes"}}, ["image/pullPolicy", "IfNotPresent"]),
    ({"run": {"deadlineSeconds": None, "as": "cronjob"}}, ["run/as"]),
    ({"document": DOCUMENT, "documentFrom": {"configMap": {"name": "x"}}}, ["not both"]),
    ({"autoscaling": {"enabled": True}}, ["autoscaling", "mode: serve"]),
    ({"mode": "serve", "autoscaling": {"enabled": True, "maxReplicas": 1}}, ["maxReplicas", "workers.replicas"]),
    ({"mode": "serve", "run": {"as": "pod"}}, ["mode: run"]),
]


def render(chart, values):
    rendered = chart.render(values, name="demo", namespace="prod")
    documents = [d for path, text in rendered.items() if path.endswith(".yaml") for d in yaml.safe_load_all(text) if d]
    return documents, next(text for path, text in rendered.items() if path.endswith("NOTES.txt"))


def is_test(document):
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def pod_specs(documents):
    for document in documents:
        if document["kind"] == "Pod":
            yield document["spec"]
        elif document["kind"] in ("Job", "Deployment"):
            yield document["spec"]["template"]["spec"]


def named(documents, kind, name):
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)


def check_pods(name, documents):
    """What holds of every pod, whatever the values."""
    for spec in pod_specs(documents):
        assert spec["automountServiceAccountToken"] is False, name
        security = spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] == 65532, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"] + spec.get("initContainers", []):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            resources = container["resources"]
            assert resources["requests"] == resources["limits"], name
    selectors = [(d["kind"], d["spec"]["selector"]) for d in documents if d["kind"] == "Service"]
    labels = [d["metadata"]["labels"] if d["kind"] == "Pod" else d["spec"]["template"]["metadata"]["labels"]
              for d in documents if d["kind"] in ("Pod", "Job", "Deployment")]
    for kind, selector in selectors:
        found = sum(selector.items() <= each.items() for each in labels)
        assert found == 1, f"{name}: a {kind} selects {found} kinds of pods"


def check_values_against(name, documents, values):
    """What the values order."""
    mode = values.get("mode", "run")
    workers = values.get("workers", {}).get("replicas", 2)
    if mode == "run" and values.get("run", {}).get("as") != "pod":
        jobs = [d for d in documents if d["kind"] == "Job"]
        assert all(job["spec"]["activeDeadlineSeconds"] == values.get("run", {}).get("deadlineSeconds", 3600) for job in jobs), name
        master, worker = named(documents, "Job", "demo-loaddensity-master-1"), named(documents, "Job", "demo-loaddensity-worker-1")
        assert worker["spec"]["completions"] == worker["spec"]["parallelism"] == workers, name
        assert f"--expected-workers={workers}" in master["spec"]["template"]["spec"]["containers"][0]["args"], name
        assert master["spec"]["template"]["spec"]["restartPolicy"] == "Never", name
    if mode == "serve":
        worker = next(d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"].endswith("-worker"))
        assert "--stay" in worker["spec"]["template"]["spec"]["containers"][0]["args"], name
        assert worker["spec"].get("replicas") == (None if values.get("autoscaling") else workers), name
    if values.get("document") is not None:
        text = named(documents, "ConfigMap", "demo-loaddensity-document")["data"]["document.json"]
        given = values["document"]
        assert json.loads(text) == (json.loads(given) if isinstance(given, str) else given), name


def kinds(documents):
    counts = {}
    for document in documents:
        counts[document["kind"]] = counts.get(document["kind"], 0) + 1
    return counts


def check_secrets(chart):
    """The fingerprint that workers pin is that of the certificate that the master shows."""
    documents, _ = render(chart, {})
    data = named(documents, "Secret", "demo-loaddensity-tls")["data"]
    pem = base64.b64decode(data["tls.crt"]).decode()
    der = base64.b64decode("".join(line for line in pem.splitlines() if "-----" not in line))
    assert base64.b64decode(data["fingerprint"]).decode() == f"sha256:{hashlib.sha256(der).hexdigest()}"
    again = named(render(chart, {})[0], "Secret", "demo-loaddensity-token")["data"]
    token = named(documents, "Secret", "demo-loaddensity-token")["data"]
    assert token["token"] != again["token"] and token["token"] != token["viewer-token"]
    assert len(base64.b64decode(token["token"])) == 48


def check_policies(chart):
    """A failed run is never run again; a drained master is, where Kubernetes can tell them apart."""
    spec = named(render(chart, {})[0], "Job", "demo-loaddensity-master-1")["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    assert spec["backoffLimit"] == 3 and [rule["action"] for rule in rules] == ["FailJob", "Ignore"]
    assert rules[0]["onExitCodes"]["values"] == [1, 2, 3, 4, 130]
    never = named(render(chart, {"run": {"masterRestarts": 0}})[0], "Job", "demo-loaddensity-master-1")["spec"]
    assert never["backoffLimit"] == 0 and "podFailurePolicy" not in never
    for drain in [0, 15, 600]:
        for spec in pod_specs([d for d in render(chart, {"drainSeconds": drain, "document": DOCUMENT})[0] if not is_test(d)]):
            assert spec["terminationGracePeriodSeconds"] > drain


def main():
    subprocess.run([sys.executable, CHART.parent / "docs.py", "--check"], check=True)
    schema = json.loads((CHART / "values.schema.json").read_text())

    def described(node, path=""):
        for name, value in node.get("properties", {}).items():
            assert value.get("description"), f"{path}{name} is not described"
            described(value, f"{path}{name}.")
        if "properties" in node:
            assert node.get("additionalProperties") is False, f"{path} accepts anything"
    described(schema)
    assert (TOP / "examples/cluster.json").read_text() == (CHART / "files/demo.json").read_text(), "two examples"

    with helm.Chart.load(str(CHART)) as chart:
        for name, values, expected in SETS:
            report = helm.lint(str(CHART), values=values, strict=True, kube_version="v1.37.0")
            assert not report["errors"], (name, report)
            documents, notes = render(chart, values)
            own = [d for d in documents if not is_test(d)]
            assert kinds(own) == {k: v for k, v in expected.items() if v}, (name, kinds(own))
            assert kinds([d for d in documents if is_test(d)]) == {"Service": 1, "Deployment": 1, "Pod": 1}, name
            assert "<no value>" not in notes and "<nil>" not in yaml.safe_dump(documents), name
            check_pods(name, documents)
            if not values.get("fullnameOverride"):
                check_values_against(name, own, values)
        print(f"{len(SETS)} sets of values: linted, rendered, as ordered")

        checked = 0
        for name, values, _ in SETS:
            documents, _ = render(chart, values)
            for version in VERSIONS:
                for document in documents:
                    # not of Kubernetes itself
                    if document["kind"] != "ServiceMonitor":
                        kubernetes.validate(document, version, strict=True)
                        checked += 1
        print(f"{checked} documents are valid Kubernetes {', '.join(VERSIONS)}, strictly")

        for values, words in REFUSED:
            try:
                render(chart, values)
            except helm.HelmError as error:
                text = str(error)
                assert all(word in text for word in words), f"{values}: {text}"
            else:
                raise AssertionError(f"accepted: {values}")
        print(f"{len(REFUSED)} wrong sets of values are refused, with the place")
        check_secrets(chart)
        check_policies(chart)
    print("secrets, deadlines, restarts: as they should be")


if __name__ == "__main__":
    main()
