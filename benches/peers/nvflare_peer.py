"""NVFlare in its proof-of-concept mode: real server and client processes with mutual TLS, and FedAvg from its numpy recipe."""

import os
import re
import subprocess
import time
from datetime import datetime
from pathlib import Path

from flower_peer import settled
from measure import Watch, summarise

JOB = Path(__file__).resolve().parent / "nvflare_job.py"
STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ")
STARTED = re.compile(r"^\W*Round (\d+) started\.\W*$")
FINISHED = re.compile(r"^\W*Finished FedAvg\.\W*$")


class NvFlare:
    """Provisions N clients (before the clock starts: enrolment is not compared) and runs them pinned and niced."""

    def __init__(self, venv, work, prefix, devices):
        self.bin = Path(venv) / "bin"
        self.work = Path(work)
        self.prefix = prefix
        self.devices = devices
        self.stamps = {}
        self.work.mkdir(parents=True)
        self.token = f"PEER_WORK={self.work}"
        self.environment = dict(
            os.environ,
            HOME=str(self.work),
            TMPDIR=str(self.work),
            NVFLARE_POC_WORKSPACE=str(self.work / "poc"),
            PATH=f"{self.bin}:{os.environ['PATH']}",
            PEER_WORK=str(self.work),
        )
        self.call("nvflare", "poc", "prepare", "-n", str(devices), "--force")
        self.watch = Watch(self.group_of)

    def group_of(self, _pid, command, environment):
        if self.token not in environment:
            return None
        site = re.search(r"/site-(\d+)(?:[/ ]|$)", command)
        if site:
            return f"client-{int(site.group(1)) - 1}"
        return "server" if re.search(r"prod_00/(?:server|localhost)(?:[/ ]|$)", command) else "operator"

    def call(self, program, *arguments, timeout=300):
        with open(self.work / "operator.log", "ab") as log:
            command = [*self.prefix, str(self.bin / program), *arguments]
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            subprocess.run(command, env=self.environment, timeout=timeout, check=True, **streams)

    def start(self):
        self.call("nvflare", "poc", "start", "--no-wait")

    def job(self, verb, rounds=0, params=0):
        admin = next((self.work / "poc").glob("*/prod_00/admin@nvidia.com"))
        log = open(self.work / "operator.log", "ab")
        command = [
            *self.prefix, str(self.bin / "python"), str(JOB), verb, "--job", str(self.work / "job"), "--admin", str(admin),
            "--devices", str(self.devices), "--rounds", str(rounds), "--params", str(params),
        ]
        return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def rounds_committed(self):
        """When each round was over: the next one starts as soon as the model has been saved. The log is followed while the job
        runs, because it is moved away afterwards; the time of a message stands on a line before it.
        """
        for path in (self.work / "poc").glob("*/prod_00/server/*/log.txt"):
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            stamp = None
            for line in text.splitlines():
                found = STAMP.match(line)
                if found:
                    stamp = datetime.strptime(found.group(1), "%Y-%m-%d %H:%M:%S,%f").timestamp()
                started = STARTED.match(line)
                if started:
                    self.stamps[int(started.group(1))] = stamp
                elif FINISHED.match(line):
                    self.stamps["end"] = stamp
        starts = [self.stamps[key] for key in sorted(key for key in self.stamps if key != "end")]
        return starts[1:] + ([self.stamps["end"]] if "end" in self.stamps else [])

    def stop(self):
        self.watch.close()
        try:
            self.call("nvflare", "poc", "stop", timeout=60)
        except subprocess.SubprocessError:
            pass  # what is left is killed below
        for pid in self.watch.pids():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass


def run(venv, work, prefix, devices, params, rounds, timeout_s):
    peer = NvFlare(venv, work, prefix, devices)
    try:
        if peer.job("export", rounds, params).wait(timeout=120) != 0:
            raise RuntimeError("the job could not be written; see operator.log")
        began = time.time()
        peer.start()
        submit = peer.job("submit")
        while True:
            marks = peer.rounds_committed()
            if len(marks) >= rounds:
                break
            ended = submit.poll() is not None or time.time() - began > timeout_s
            if ended and len(marks) >= 2:
                break
            if ended:
                submit.kill()
                raise TimeoutError(f"{len(marks)} rounds in {time.time() - began:.0f} s; see operator.log")
            time.sleep(0.2)
        submit.kill()
        submit.wait()
        return summarise(peer.watch, began, marks[:rounds], devices, params)
    finally:
        peer.stop()


def idle_rss_mb(venv, work, prefix):
    """One client that is connected and has no job."""
    peer = NvFlare(venv, work, prefix, 1)
    try:
        peer.start()
        return settled(peer.watch, "client-0")
    finally:
        peer.stop()
