"""CircleCI's machine runner.

The runner starts a task-agent for each job, which starts a shell for each step. That the steps have the CIRCLE_ variables is
documented (circleci.com/docs, "Project values and variables"); that the task-agent has them is not, so here it has none.
The task-agent is documented in "Machine runner 3.0 configuration reference".
"""

import sys

from common import Plan, at_once, run, wait_for_end

PLAN = Plan()


def variables(job):
    owner, name = job["repository"].split("/")
    return {
        "CI": "true",
        "CIRCLECI": "true",
        "CIRCLE_BRANCH": "main",
        "CIRCLE_BUILD_NUM": f"70{job['number']}",
        "CIRCLE_BUILD_URL": f"https://circleci.example.test/gh/{job['repository']}/70{job['number']}",
        "CIRCLE_JOB": "build",
        "CIRCLE_NODE_INDEX": "0",
        "CIRCLE_PROJECT_REPONAME": name,
        "CIRCLE_PROJECT_USERNAME": owner,
        "CIRCLE_SHA1": "1" * 40,
        "CIRCLE_USERNAME": "octavia",
        "CIRCLE_WORKFLOW_ID": "main",
        "CIRCLE_WORKFLOW_JOB_ID": f"00000000-0000-4000-8000-00000000000{job['number']}",
    }


def task_agent(job):
    for step in (1, 2):
        run(["/bin/bash", "-eo", "pipefail", PLAN.script(job, step, variables(PLAN.other(job)))], variables(job))


if sys.argv[1].startswith("task-"):
    task_agent(next(job for job in PLAN.jobs if sys.argv[1] == f"task-{job['number']}"))
else:
    at_once(lambda job: run([sys.executable, __file__, f"task-{job['number']}", sys.argv[-1]]), PLAN.jobs)
    wait_for_end()
