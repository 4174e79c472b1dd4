#!/usr/bin/env python3
"""Draws docs/dashboard.png: the dashboard's queries, answered by a real Prometheus that watches a real service.

    cargo build --release
    pip install matplotlib
    python3 docs/dashboard.py [SECONDS]

Needs Debian's prometheus. The service runs against an API server that this script plays: it creates, and sometimes does
not answer.
"""

import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECRET = b"development"
PORTS = {"service": 18080, "metrics": 19464, "prometheus": 19090, "api": 18443}
state = {"failing": False, "names": set()}


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        run = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(random.lognormvariate(-5.5, 0.8))
        name = run["metadata"]["name"]
        if state["failing"]:
            self.answer(503, {"kind": "Status", "status": "Failure", "reason": "ServiceUnavailable", "message": "away"})
        elif name in state["names"]:
            self.answer(409, {"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "message": "there"})
        else:
            state["names"].add(name)
            self.answer(201, run)

    def do_GET(self):
        self.answer(404, {})

    def answer(self, code, body):
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def merge(number):
    return {
        "action": "closed", "number": number,
        "pull_request": {"number": number, "merged": True, "merged_at": "2026-11-22T13:46:53Z", "base": {"ref": "main"},
                         "merge_commit_sha": hashlib.sha1(str(number).encode()).hexdigest(), "head": {"ref": "x"},
                         "html_url": f"https://github.com/acme/web/pull/{number}"},
        "repository": {"full_name": "acme/web", "html_url": "https://github.com/acme/web"},
        "sender": {"login": "octocat"},
    }


def send(number, event="pull_request", payload=None, secret=SECRET, algorithm="sha256"):
    body = json.dumps(payload if payload is not None else merge(number)).encode()
    digest = hmac.new(secret, body, algorithm).hexdigest()
    header = "X-Hub-Signature-256" if algorithm == "sha256" else "X-Hub-Signature"
    headers = {"Content-Type": "application/json", "X-GitHub-Event": event, "X-GitHub-Delivery": f"d{number}",
               header: f"{algorithm}={digest}"}
    connection = http.client.HTTPConnection("127.0.0.1", PORTS["service"], timeout=20)
    connection.request("POST", "/", body, headers)
    connection.getresponse().read()
    connection.close()


def load(seconds):
    end, number = time.time() + seconds, 0
    while time.time() < end:
        passed = 1 - (end - time.time()) / seconds
        state["failing"] = 0.45 < passed < 0.55
        number += 1
        kind = random.random()
        if kind < 0.5:
            send(number)
        elif kind < 0.6:
            send(random.randint(1, number))
        elif kind < 0.85:
            send(number, "push", {"ref": "refs/heads/main"})
        elif kind < 0.9:
            send(number, algorithm="sha1")
        elif kind < 0.93 or 0.7 < passed < 0.75:
            send(number, secret=b"guessed")
        else:
            send(number, payload={"action": "opened", "pull_request": {}})
        time.sleep(random.expovariate(12 + 10 * passed))


def query(expression, start, end):
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": max((end - start) / 120, 1)})
    with urllib.request.urlopen(f"http://127.0.0.1:{PORTS['prometheus']}/api/v1/query_range?{query}") as answer:
        return json.load(answer)["data"]["result"]


def legend(template, labels):
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def draw(start, end):
    panels = json.loads((ROOT / "config/observability/grafana-dashboard.json").read_text())["panels"]
    panels = [panel for panel in panels if panel["type"] == "timeseries"]
    plt.rcParams.update({"font.size": 7, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(len(panels) // 2, 2, figsize=(10, 9), layout="constrained")
    for panel, axis in zip(panels, axes.flat):
        axis.set_title(panel["title"], loc="left", fontweight="bold")
        for target in panel["targets"]:
            for series in query(target["expr"].replace("$__rate_interval", "15s"), start, end):
                points = [(float(at) - start, float(value)) for at, value in series["values"]]
                if any(value > 0 for _, value in points):
                    axis.plot(*zip(*points), linewidth=1, label=legend(target["legendFormat"], series["metric"]))
        if panel["fieldConfig"]["defaults"]["unit"] == "s":
            axis.set_yscale("log")
            axis.set_ylabel("seconds")
        if axis.has_data():
            axis.legend(fontsize=6, frameon=False, ncols=2)
        axis.set_xlabel("seconds")
    figure.savefig(ROOT / "docs/dashboard.png", dpi=110)


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", PORTS["api"]), Api).serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{PORTS['api']}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ci"}}]}))
        (folder / "prometheus.yaml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "config/observability/prometheus-rules.yaml")],
            "scrape_configs": [{"job_name": "github-trigger",
                                "static_configs": [{"targets": [f"127.0.0.1:{PORTS['metrics']}"]}]}]}))
        environment = {**os.environ, "KUBECONFIG": str(folder / "kubeconfig"), "WEBHOOK_SECRET": SECRET.decode()}
        service = subprocess.Popen(
            [ROOT / "target/release/github-trigger", "--port", str(PORTS["service"]), "--deadline", "2",
             "--metrics-addr", f"127.0.0.1:{PORTS['metrics']}",
             "--trigger-config", ROOT / "config/base/deployer-trigger.yaml"],
            env=environment, stderr=subprocess.DEVNULL)
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{PORTS['prometheus']}"], stderr=subprocess.DEVNULL)
        try:
            time.sleep(8)
            start = time.time()
            senders = [threading.Thread(target=load, args=(seconds,)) for _ in range(4)]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            draw(start, time.time())
        finally:
            for process in (service, prometheus):
                process.send_signal(signal.SIGTERM)
                process.wait()


if __name__ == "__main__":
    main()
