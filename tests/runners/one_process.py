"""Runners of one process, several jobs at once in it, whose children are the steps and have the job's variables.

woodpecker-agent, local backend: woodpecker, pipeline/backend/local/command.go; variables: woodpecker-ci.org/docs/usage/environment.
drone-runner-exec: drone-runners/drone-runner-exec, engine/engine.go; variables: docs.drone.io/pipeline/environment/reference.
Agent.Worker (one job each; here two for the test's sake): microsoft/azure-pipelines-agent, src/Agent.Worker; variables:
learn.microsoft.com/azure/devops/pipelines/build/variables.
java (TeamCity's agent, one build at a time): variables: jetbrains.com/help/teamcity/predefined-build-parameters.html.
worker (a platform that only the settings know).
"""

import sys

from common import Plan, at_once, run, wait_for_end

PLAN = Plan()
PROGRAM = sys.executable.rsplit("/", 1)[-1]
SHA = "1" * 40


def woodpecker(job, step):
    return {
        "CI": "woodpecker",
        "CI_COMMIT_AUTHOR": "octavia",
        "CI_COMMIT_REF": "refs/heads/main",
        "CI_COMMIT_SHA": SHA,
        "CI_PIPELINE_EVENT": "push",
        "CI_PIPELINE_NUMBER": f"70{job['number']}",
        "CI_PIPELINE_URL": f"https://ci.example.test/repos/1/pipeline/70{job['number']}",
        "CI_REPO": job["repository"],
        "CI_STEP_NAME": ["", "compile", "pack"][step],
        "CI_SYSTEM_HOST": "runner-1",
        "CI_SYSTEM_URL": "https://ci.example.test",
        "CI_WORKFLOW_NAME": "build",
        "CI_WORKFLOW_NUMBER": "1",
    }


def drone(job, step):
    return {
        "CI": "true",
        "DRONE": "true",
        "DRONE_BUILD_EVENT": "push",
        "DRONE_BUILD_LINK": f"https://ci.example.test/{job['repository']}/70{job['number']}",
        "DRONE_BUILD_NUMBER": f"70{job['number']}",
        "DRONE_COMMIT_AUTHOR": "octavia",
        "DRONE_COMMIT_REF": "refs/heads/main",
        "DRONE_COMMIT_SHA": SHA,
        "DRONE_REPO": job["repository"],
        "DRONE_STAGE_MACHINE": "runner-1",
        "DRONE_STAGE_NAME": "build",
        "DRONE_STAGE_NUMBER": "1",
        "DRONE_STEP_NAME": ["", "compile", "pack"][step],
        "DRONE_STEP_NUMBER": str(step),
        "DRONE_SYSTEM_HOST": "ci.example.test",
        "DRONE_SYSTEM_PROTO": "https",
    }


def azure(job, step):
    return {
        "AGENT_NAME": "runner-1",
        "BUILD_BUILDID": f"70{job['number']}",
        "BUILD_DEFINITIONNAME": "build",
        "BUILD_REASON": "IndividualCI",
        "BUILD_REPOSITORY_NAME": job["repository"],
        "BUILD_REQUESTEDFOR": "octavia",
        "BUILD_SOURCEBRANCH": "refs/heads/main",
        "BUILD_SOURCEVERSION": SHA,
        "SYSTEM_COLLECTIONURI": "https://dev.example.test/acme/",
        "SYSTEM_JOBATTEMPT": "1",
        "SYSTEM_JOBID": f"00000000-0000-4000-8000-00000000000{job['number']}",
        "SYSTEM_JOBNAME": "build",
        "SYSTEM_STAGENAME": "test",
        "SYSTEM_TASKDISPLAYNAME": ["", "Compile it", "Pack it"][step],
        "SYSTEM_TASKINSTANCEID": ["", "compile", "pack"][step],
        "SYSTEM_TEAMPROJECT": "widgets",
        "TF_BUILD": "True",
    }


def teamcity(job, step):
    return {
        "BUILD_NUMBER": f"1.{job['number']}",
        "BUILD_URL": f"https://teamcity.example.test/buildConfiguration/Widgets/70{job['number']}",
        "BUILD_VCS_NUMBER": SHA,
        "TEAMCITY_BUILDCONF_NAME": "build",
        "TEAMCITY_PROJECT_NAME": job["repository"],
        "TEAMCITY_VERSION": "2024.12",
    }


def nightly(job, step):
    return {
        "NIGHTLY_PROJECT": job["repository"],
        "NIGHTLY_RUN": f"70{job['number']}",
        "NIGHTLY_STEP": ["", "compile", "pack"][step],
    }


VARIABLES = {
    "woodpecker-agent": woodpecker,
    "drone-runner-exec": drone,
    "Agent.Worker": azure,
    "java": teamcity,
    "worker": nightly,
}[PROGRAM]


def job(job):
    for step in (1, 2):
        script = PLAN.script(job, step, VARIABLES(PLAN.other(job), step))
        run(["/bin/sh", "-e", script], VARIABLES(job, step))


if PROGRAM == "java":
    for one in PLAN.jobs:
        job(one)
else:
    at_once(job, PLAN.jobs)
wait_for_end()
