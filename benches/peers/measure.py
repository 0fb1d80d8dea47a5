"""Watches the processes of one side: memory and CPU by group ("server", "client-0", ...), and the loopback's byte count.

Memory is resident memory in MB of 10^6 bytes, summed over the processes of a group at one moment; pages that processes share count
in each of them. CPU time includes children that ended and were waited for.
"""

import os
import threading
import time

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PERIOD_S = 0.1


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def loopback_bytes():
    for line in read("/proc/net/dev").decode().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "lo":
            return int(fields.split()[8])
    return 0


class Watch(threading.Thread):
    """Samples until `close`. `group_of(pid, command, environment)` names the group of a process, or None."""

    def __init__(self, group_of):
        super().__init__(daemon=True)
        self.group_of = group_of
        self.groups = {}
        self.samples = []  # (time, {group: (rss_mb, cpu_s)}, loopback bytes)
        self.done = threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(PERIOD_S):
            self.samples.append((time.time(), self.sample(), loopback_bytes()))

    def sample(self):
        groups = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            stat = read(f"/proc/{name}/stat")
            fields = stat[stat.rfind(b")") + 2 :].split()
            if len(fields) < 22:
                continue
            key = (name, fields[19])  # a pid can be used again; with its start time it is one process
            # A process that has just been forked still has its parent's command: look again while it is young.
            if key not in self.groups or time.time() - self.groups[key][1] < 1.0:
                command = read(f"/proc/{name}/cmdline").replace(b"\0", b" ").decode(errors="replace")
                environment = read(f"/proc/{name}/environ").decode(errors="replace").split("\0")
                first = self.groups.get(key, (None, time.time()))[1]
                self.groups[key] = (self.group_of(int(name), command, environment), first)
            group = self.groups[key][0]
            if group is None:
                continue
            rss, cpu = groups.get(group, (0.0, 0.0))
            rss += int(fields[21]) * PAGE_BYTES / 1e6
            cpu += sum(int(field) for field in fields[11:15]) / TICKS_PER_S
            groups[group] = (rss, cpu)
        return groups

    def close(self):
        self.done.set()
        self.join()

    def pids(self):
        """The processes that are being watched and still run."""
        return [int(name) for (name, _), (group, _) in self.groups.items() if group and os.path.exists(f"/proc/{name}")]

    def at(self, moment):
        """The last sample up to a moment."""
        found = [sample for sample in self.samples if sample[0] <= moment]
        return found[-1] if found else self.samples[0]

    def rss_now(self, group):
        return self.samples[-1][1].get(group, (0.0, 0.0))[0] if self.samples else 0.0


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def summarise(watch, began, marks, devices, params):
    """One row from the samples and the times at which rounds were committed (the first mark is round 1's)."""
    clients = [f"client-{index}" for index in range(devices)]
    rounds = [after - before for before, after in zip(marks, marks[1:])]
    first, last = watch.at(marks[0]), watch.at(marks[-1])

    def cpu(sample, names):
        return sum(sample[1].get(name, (0.0, 0.0))[1] for name in names)

    def per_round(names):
        return max(0.0, cpu(last, names) - cpu(first, names)) / len(rounds)

    def peak(name):
        return max(sample[1].get(name, (0.0, 0.0))[0] for sample in watch.samples)

    return {
        "round_s_median": median(rounds),
        "updates_per_s": devices / median(rounds),
        "nothing_to_first_round_s": marks[0] - began,
        "server_cpu_s_per_round": per_round(["server"]),
        "client_cpu_s_per_client_round": per_round(clients) / devices,
        "peak_rss_server_mb": peak("server"),
        "peak_rss_client_mb": max(peak(name) for name in clients),
        "bytes_up_per_client_round": 4 * params,
        "bytes_down_per_client_round": 4 * params,
        "loopback_bytes_per_client_round": (last[2] - first[2]) / len(rounds) / devices,
    }
