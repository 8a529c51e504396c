"""Buildkite's agent.

`buildkite-agent start` runs `buildkite-agent bootstrap` for each job, with the job's variables; the bootstrap runs a wrapper
script for each hook and a shell for the command. Public source: buildkite/agent, agent/job_runner.go (NewJobRunner,
createEnvironment), internal/job/executor.go (runWrappedShellScriptHook, defaultCommandPhase).
"""

import os
import sys

from common import Plan, at_once, run, wait_for_end

PLAN = Plan()


def variables(job):
    number = job["number"]
    return {
        "BUILDKITE": "true",
        "BUILDKITE_AGENT_NAME": "runner-1",
        "BUILDKITE_BRANCH": "main",
        "BUILDKITE_BUILD_CREATOR": "octavia",
        "BUILDKITE_BUILD_NUMBER": f"70{number}",
        "BUILDKITE_BUILD_URL": f"https://ci.example.test/acme/widgets/builds/70{number}",
        "BUILDKITE_COMMIT": "1" * 40,
        "BUILDKITE_JOB_ID": f"00000000-0000-4000-8000-00000000000{number}",
        "BUILDKITE_LABEL": "build",
        "BUILDKITE_ORGANIZATION_SLUG": "acme",
        "BUILDKITE_PIPELINE_SLUG": "widgets",
        "BUILDKITE_REPO": f"https://user:fake@git.example.test/{job['repository']}.git",
        "BUILDKITE_RETRY_COUNT": "1",
        "BUILDKITE_SOURCE": "webhook",
        "BUILDKITE_STEP_KEY": "build",
    }


def bootstrap(job):
    for step, phase in [(1, "pre-command"), (2, "command")]:
        script = PLAN.script(job, step, variables(PLAN.other(job)))
        run(["/bin/bash", "-e", script], {**variables(job), "BUILDKITE_HOOK_PHASE": phase})


def start(job):
    run([sys.executable, __file__, "bootstrap", sys.argv[-1]], {**variables(job), "JOB": str(job["number"])})


if sys.argv[1] == "bootstrap":
    bootstrap(next(job for job in PLAN.jobs if str(job["number"]) == os.environ["JOB"]))
else:
    at_once(start, PLAN.jobs)
    wait_for_end()
