"""What every emulated runner needs: its plan, and what the steps of its jobs do.

A runner is started by a copy of Python that bears the real runner's name, because an agent knows runners by the file that
they run. The plan is the last argument: a JSON file with `scratch`, `secrets` and `jobs`; a job has `number` and
`repository`. Every job has two steps; each reads a secret of its own, so that a wrong word about any reader is seen.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Plan:
    def __init__(self):
        with open(sys.argv[-1], encoding="utf-8") as file:
            plan = json.load(file)
        self.scratch = plan["scratch"]
        self.secrets = plan["secrets"]
        self.jobs = plan["jobs"]

    def other(self, job):
        """The job that this one pretends to be."""
        return next(other for other in self.jobs if other["number"] != job["number"])

    def directory(self, *names):
        path = os.path.join(self.scratch, *names)
        os.makedirs(path, exist_ok=True)
        return path

    def work(self, job, step, other_variables):
        """What a step does: it reads its secret, as itself and under another job's name, and leaves a daemon behind that
        reads another one with an empty environment and a new session."""
        def secret(name):
            return shlex.quote(os.path.join(self.secrets, f"job{job['number']}-{name}"))

        pretended = " ".join(f"{name}={shlex.quote(value)}" for name, value in other_variables.items())
        return "\n".join(
            [
                f"cat {secret(f'step{step}')} > /dev/null",
                f"env {pretended} cat {secret(f'step{step}')} > /dev/null",
                f"setsid --fork env --ignore-environment PATH={PATH} sh -c "
                + shlex.quote(f"sleep 0.3; cat {secret(f'step{step}-daemon')} > /dev/null")
                + " < /dev/null > /dev/null 2>&1",
                "sleep 0.1",
                "",
            ]
        )

    def script(self, job, step, other_variables, place="script"):
        """The same as a file."""
        path = os.path.join(self.directory(place), f"job{job['number']}-step{step}.sh")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.work(job, step, other_variables))
        return path


def run(arguments, variables=None, **more):
    """Starts a child with just these variables, and waits for it."""
    environment = {"PATH": PATH, **(variables or {})}
    more.setdefault("stdin", subprocess.DEVNULL)
    subprocess.run(arguments, env=environment, check=True, **more)


def at_once(function, jobs):
    """Runs all jobs at the same time, in this one process."""
    failed = []

    def guarded(job):
        try:
            function(job)
        except Exception as error:  # an emulation that fails must not look like one that works
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def wait_for_end():
    """A runner that goes on after its jobs, until it is stopped."""
    print("idle", flush=True)
    signal.pause()
