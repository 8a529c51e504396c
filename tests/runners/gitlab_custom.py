"""GitLab Runner with the custom executor.

The daemon runs the operator's program for each stage, with the script's path and the stage's name as its last arguments,
and the job's variables under the prefix CUSTOM_ENV_. Public source: docs.gitlab.com/runner/executors/custom.html (Run).
"""

from common import Plan, at_once, run, wait_for_end
from gitlab_variables import variables

PLAN = Plan()


def job(job):
    prefixed = lambda of: {f"CUSTOM_ENV_{name}": value for name, value in variables(of).items()}
    for step, stage in [(1, "get_sources"), (2, "step_script")]:
        script = PLAN.script(job, step, prefixed(PLAN.other(job)))
        run(["/bin/sh", "-e", script, stage], prefixed(job))


at_once(job, PLAN.jobs)
wait_for_end()
