"""Variables of a GitLab job (docs.gitlab.com, "Predefined CI/CD variables reference")."""


def variables(job):
    number, repository = job["number"], job["repository"]
    return {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_SERVER_URL": "https://gitlab.example.test",
        "CI_PROJECT_PATH": repository,
        "CI_CONFIG_PATH": ".gitlab-ci.yml",
        "CI_PIPELINE_ID": f"70{number}",
        "CI_PIPELINE_SOURCE": "push",
        "CI_JOB_ID": f"80{number}",
        "CI_JOB_NAME": "build",
        "CI_JOB_URL": f"https://gitlab.example.test/{repository}/-/jobs/80{number}",
        "CI_COMMIT_REF_NAME": "main",
        "CI_COMMIT_SHA": "1" * 40,
        "CI_RUNNER_ID": "12",
        "CI_RUNNER_DESCRIPTION": "runner-1",
        "CI_CONCURRENT_ID": str(number),
        "GITLAB_USER_LOGIN": "octavia",
    }
