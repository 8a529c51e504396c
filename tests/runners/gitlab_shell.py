"""GitLab Runner with the shell executor.

One daemon, several jobs at once. For each stage of a job it starts `bash -l` without any variable of the job and writes a
script to its standard input: exports, then `mkdir` and `touch` for the file of GITLAB_ENV, then the stage's commands, all
of it below `: | eval`. Public source: gitlab-runner, executors/shell/shell.go (Run), shells/bash.go (Variable, SourceEnv,
Finish), shells/abstract.go (writeExports).
"""

import shlex

from common import Plan, at_once, run, wait_for_end
from gitlab_variables import variables

PLAN = Plan()


def stage(job, commands):
    temporary = PLAN.directory("builds", str(job["number"]), "widgets.tmp")
    environment = f"{temporary}/gitlab_runner_env"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables(job).items()]
    lines += [
        f"export GITLAB_ENV={shlex.quote(environment)}",
        f"mkdir -p {shlex.quote(temporary)}",
        f"touch {shlex.quote(environment)}",
        f'while read -r line; do export "$line"; done < {shlex.quote(environment)}',
        commands,
    ]
    script = "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\nset +o noclobber\n"
    script += f": | eval {shlex.quote(chr(10).join(lines))}\nexit 0\n"
    run(["bash", "-l"], {"HOME": PLAN.scratch}, stdin=None, input=script.encode())


def job(job):
    other = variables(PLAN.other(job))
    # The job's own script calls itself another job before it starts anything.
    lie = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in other.items())
    stage(job, f"cd {shlex.quote(PLAN.directory('builds', str(job['number'])))}\n" + PLAN.work(job, 1, other))
    stage(job, lie + "\n" + PLAN.work(job, 2, other))


at_once(job, PLAN.jobs)
wait_for_end()
