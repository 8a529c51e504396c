"""A Jenkins agent's JVM with one freestyle and one Pipeline build at the same time.

Freestyle: `/bin/sh -xe /tmp/jenkinsNUMBER.sh` with the build's variables. Pipeline: `nohup sh -c` whose script runs in the
background, so that it belongs to init at once; its control directory is WORKSPACE@tmp/durable-ID. The JVM starts programs
through jspawnhelper, with its own variables first. Public source: jenkins, core/src/main/java/hudson/tasks/Shell.java;
durable-task-plugin, BourneShellScript.java; OpenJDK, ProcessImpl_md.c.
"""

import os
import shlex

from common import PATH, Plan, at_once, run, wait_for_end

PLAN = Plan()


def variables(job):
    number = job["number"]
    return {
        "BUILD_TAG": f"jenkins-widgets-{number}",
        "BUILD_NUMBER": f"70{number}",
        "BUILD_ID": f"70{number}",
        "BUILD_URL": f"https://jenkins.example.test/job/widgets/70{number}/",
        "EXECUTOR_NUMBER": str(number),
        "JENKINS_URL": "https://jenkins.example.test/",
        "JOB_NAME": job["repository"],
        "JOB_BASE_NAME": job["repository"].rsplit("/", 1)[-1],
        "NODE_NAME": "runner-1",
        "GIT_COMMIT": "1" * 40,
        "GIT_BRANCH": "main",
        "BUILD_USER_ID": "octavia",
        "BUILD_CAUSE": "push",
    }


def spawn(arguments, environment):
    """As the JVM does it: a helper with the JVM's own variables executes the program with those of the build."""
    command = " ".join(shlex.quote(argument) for argument in arguments)
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    # Assignments in front of exec are the new program's: no process comes between.
    run([HELPER, "-c", f"{given} exec {command}"])


def freestyle(job):
    for step in (1, 2):
        path = PLAN.script(job, step, variables(PLAN.other(job)))
        script = os.path.join(PLAN.directory("tmp"), f"jenkins{job['number']}{step}.sh")
        os.rename(path, script)
        spawn(["/bin/sh", "-xe", script], variables(job))


def pipeline(job):
    for step in (1, 2):
        control = PLAN.directory(f"workspace{job['number']}@tmp", f"durable-{step:08x}")
        script, result = os.path.join(control, "script.sh"), os.path.join(control, "jenkins-result.txt")
        os.rename(PLAN.script(job, step, variables(PLAN.other(job))), script)
        wrapper = f"({{ sh -xe {shlex.quote(script)}; echo $? > {shlex.quote(result)}; }} &) &"
        spawn(["nohup", "sh", "-c", wrapper], {**variables(job), "STAGE_NAME": "Build"})
        while not os.path.exists(result):
            run(["sleep", "0.05"])


HELPER = os.path.join(PLAN.directory("bin"), "jspawnhelper")
if not os.path.exists(HELPER):
    with open("/bin/bash", "rb") as bash, open(HELPER, "wb") as helper:
        helper.write(bash.read())
    os.chmod(HELPER, 0o755)
first, second = PLAN.jobs
at_once(lambda job: freestyle(job) if job is first else pipeline(job), PLAN.jobs)
wait_for_end()
