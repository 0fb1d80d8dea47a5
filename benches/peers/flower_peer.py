"""Flower as its users deploy it: one SuperLink, N SuperNodes, `flwr run`. No TLS, no node authentication."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from measure import Watch, summarise

PORT = 28000
HERE = Path(__file__).resolve().parent


class Flower:
    """Starts processes pinned and niced (`prefix`) in the environment `venv`, with all files in `work`."""

    def __init__(self, venv, work, prefix, app="flower_app"):
        self.bin = Path(venv) / "bin"
        self.work = Path(work)
        self.prefix = prefix
        self.started = []
        self.work.mkdir(parents=True)
        home = self.work / "flwr"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{PORT}"\ninsecure = true\n'
        )
        self.environment = dict(
            os.environ,
            FLWR_HOME=str(home),
            FLWR_TELEMETRY_ENABLED="0",
            HOME=str(self.work),
            TMPDIR=str(self.work),
            PATH=f"{self.bin}:{os.environ['PATH']}",
        )
        # Built from a copy, so that nothing is written beside the sources.
        shutil.copytree(HERE / app, self.work / "app", ignore=shutil.ignore_patterns("__pycache__"))
        self.watch = Watch(self.group_of)

    @staticmethod
    def group_of(_pid, _command, environment):
        return next((entry.split("=", 1)[1] for entry in environment if entry.startswith("PEER_GROUP=")), None)

    def spawn(self, group, program, *arguments):
        log = open(self.work / f"{group}.log", "ab")
        process = subprocess.Popen(
            [*self.prefix, str(self.bin / program), *arguments],
            env=dict(self.environment, PEER_GROUP=group),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def serve(self, devices):
        self.spawn(
            "server", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(PORT),
            "--disable-runtime-dependency-installation",
        )
        for index in range(devices):
            self.spawn(
                f"client-{index}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{PORT}",
                "--port", str(PORT + 100 + index),
            )

    def stop(self):
        self.watch.close()
        for process in self.started:
            process.terminate()
        until = time.time() + 5
        while time.time() < until and self.watch.pids():
            for process in self.started:
                process.poll()
            time.sleep(0.1)
        for pid in self.watch.pids():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        for process in self.started:
            process.wait()


def run(venv, work, prefix, devices, params, rounds, timeout_s, secure=False):
    marks_file = Path(work) / "marks"
    peer = Flower(venv, work, prefix, "flower_secure_app" if secure else "flower_app")
    try:
        began = time.time()
        peer.serve(devices)
        config = f'devices={devices} params={params} rounds={rounds} marks="{marks_file}"'
        while True:  # `flwr run` fails until the SuperLink listens
            submit = peer.spawn("submit", "flwr", "run", str(peer.work / "app"), "--run-config", config)
            if submit.wait(timeout=timeout_s) == 0:
                break
            if time.time() - began > timeout_s:
                raise TimeoutError("flwr run was not accepted; see submit.log")
        while True:
            text = marks_file.read_text() if marks_file.exists() else ""
            marks = [float(line.split()[1]) for line in text.splitlines() if not line.startswith("0 ")]
            if len(marks) == rounds:
                break
            if time.time() - began > timeout_s:
                if len(marks) >= 2:
                    break
                raise TimeoutError(f"{len(marks)} rounds in {timeout_s} s; see server.log")
            time.sleep(0.1)
        time.sleep(0.3)
        return summarise(peer.watch, began, marks, devices, params)
    finally:
        peer.stop()


def idle_rss_mb(venv, work, prefix):
    """One SuperNode that is connected and has nothing to do."""
    peer = Flower(venv, work, prefix)
    try:
        peer.serve(1)
        return settled(peer.watch, "client-0")
    finally:
        peer.stop()


def settled(watch, group, quiet_s=5.0, timeout_s=60.0):
    """Resident memory once it has not moved by more than 1 MB for a while."""
    began = quiet = time.time()
    level = 0.0
    while time.time() - began < timeout_s and time.time() - quiet < quiet_s:
        time.sleep(0.2)
        now = watch.rss_now(group)
        if now == 0.0 or abs(now - level) > 1.0:
            level, quiet = now, time.time()
    return watch.rss_now(group)
