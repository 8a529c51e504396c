"""Forgejo's and Gitea's runner with a label of the type "host": the program's name says which.

One daemon, several jobs at once; it is the executor of `act`: each step is a child with GitHub's variables, a script for
`run`. FORGEJO_ACTIONS or GITEA_ACTIONS says whose they are. Public sources: code.forgejo.org/forgejo/runner and
gitea.com/gitea/act_runner, internal/app/run/runner.go (NewRunner).
"""

import sys

from common import Plan, at_once, run, wait_for_end

PLAN = Plan()
MARKS = {
    "forgejo-runner": {"FORGEJO_ACTIONS": "true", "GITEA_ACTIONS": "true"},
    "act_runner": {"GITEA_ACTIONS": "true"},
}


def variables(job, step, mark):
    return {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTION": ["", "compile", "pack.zip"][step],
        "GITHUB_ACTOR": "octavia",
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_JOB": "build",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_REPOSITORY": job["repository"],
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_RUN_ID": f"70{job['number']}",
        "GITHUB_RUN_NUMBER": f"7{job['number']}",
        "GITHUB_SERVER_URL": "https://git.example.test",
        "GITHUB_SHA": "1" * 40,
        "GITHUB_WORKFLOW": "build.yml",
        "GITHUB_WORKSPACE": PLAN.directory("work", str(job["number"])),
        "RUNNER_NAME": "runner-1",
        **mark,
    }


def job(job):
    mark = MARKS[sys.executable.rsplit("/", 1)[-1]]
    for step in (1, 2):
        script = PLAN.script(job, step, variables(PLAN.other(job), step, mark))
        run(["bash", "-e", script], variables(job, step, mark))


if __name__ == "__main__":
    at_once(job, PLAN.jobs)
    wait_for_end()
