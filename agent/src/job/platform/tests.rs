//! What each platform's processes show, and what is made of it.

use std::collections::HashSet;

use super::{
    rule::{Ends, NamedBy, StepOf},
    template::Choice,
    *,
};
use crate::sensor::records::{Exec, Variable};

const MANUAL: &str = include_str!("../../../../docs/platforms.md");

fn platforms() -> Platforms {
    Platforms::new(&Config::default()).unwrap()
}

fn exec(arguments: &[&str], variables: &[(&str, &str)]) -> Exec {
    let variable = |(name, value): &(&str, &str)| Variable {
        name: name.as_bytes().to_vec(),
        value: Some(value.as_bytes().to_vec()),
    };
    Exec {
        filename: arguments[0].as_bytes().to_vec(),
        arguments: arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        variables: variables.iter().map(variable).collect(),
        ..Exec::default()
    }
}

fn recognised(executable: &str, arguments: &[&str], unit: Option<&str>) -> Option<String> {
    let arguments: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    let candidate = Candidate {
        executable: executable.as_bytes(),
        arguments: &arguments,
        variable: &|_| None,
        unit: &|| unit.map(str::to_owned),
    };
    platforms().recognise(&candidate).map(|platform| platform.rule.name.clone())
}

#[test]
fn every_rule_that_comes_with_the_agent_is_named_like_its_file_and_can_work() {
    let rules = built_in().unwrap();
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, built_in_names());
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}

#[test]
fn runners_are_told_by_their_program_and_arguments_and_their_helpers_are_not() {
    let table: [(&str, &[&str], Option<&str>); 20] = [
        ("/opt/a/bin/Runner.Worker", &["Runner.Worker", "spawnclient"], Some("github-actions")),
        ("/opt/a/bin/Runner.Listener", &["Runner.Listener", "run"], None),
        ("/usr/bin/act", &["act", "push"], Some("act")),
        ("/usr/bin/forgejo-runner", &["forgejo-runner", "daemon"], Some("forgejo")),
        ("/usr/bin/act_runner", &["act_runner", "daemon"], Some("gitea")),
        ("/usr/bin/gitlab-runner", &["gitlab-runner", "run", "--user", "x"], Some("gitlab")),
        ("/usr/bin/gitlab-runner", &["gitlab-runner", "artifacts-uploader"], None),
        ("/usr/bin/node", &["node", "/x/.bin/gitlab-ci-local"], Some("gitlab-ci-local")),
        ("/usr/bin/node", &["node", "server.js"], None),
        ("/usr/bin/java", &["java", "-jar", "/home/j/remoting.jar"], Some("jenkins")),
        ("/usr/bin/java", &["java", "-jar", "agent.jar", "-url", "u"], Some("jenkins")),
        ("/usr/bin/java", &["java", "jetbrains.buildServer.agent.AgentMain"], Some("teamcity")),
        ("/usr/bin/java", &["java", "-jar", "app.jar"], None),
        ("/usr/bin/buildkite-agent", &["buildkite-agent", "start"], Some("buildkite")),
        ("/usr/bin/buildkite-agent", &["buildkite-agent", "artifact", "upload"], None),
        ("/a/Agent.Worker", &["Agent.Worker"], Some("azure-pipelines")),
        ("/usr/bin/circleci-runner", &["circleci-runner", "machine"], Some("circleci")),
        ("/usr/bin/woodpecker-agent", &["woodpecker-agent"], Some("woodpecker")),
        ("/usr/bin/drone-runner-exec", &["drone-runner-exec", "daemon"], Some("drone")),
        ("/usr/bin/python3.11", &["python3", "/v/bin/buildbot-worker", "start", "w"], Some("buildbot")),
    ];
    for (executable, arguments, platform) in table {
        assert_eq!(recognised(executable, arguments, None).as_deref(), platform, "{arguments:?}");
    }
}

#[test]
fn everything_that_a_rule_says_of_a_runner_must_be_so() {
    let text = "[[platform]]\nname = 'own'\nrunner = { executables = ['/opt/*/worker'], units = ['own-*.service'] }\n\
                [[platform.job]]\nwhen = ['RUN']\nfields = { run_id = '${RUN}' }\n";
    let config = Config::parse(text, Path::new("agent.toml")).unwrap();
    let platforms = Platforms::new(&config).unwrap();
    let fits = |executable: &str, unit: &str| {
        let unit = || Some(unit.to_owned());
        let executable = executable.as_bytes();
        platforms
            .recognise(&Candidate { executable, arguments: &[], variable: &|_| None, unit: &unit })
            .is_some()
    };
    assert!(fits("/opt/own/worker", "own-1.service"));
    assert!(!fits("/opt/own/worker", "cron.service"));
    assert!(!fits("/opt/a/b/worker", "own-1.service"), "a wildcard stays within a component");
    assert!(!fits("/tmp/worker", "own-1.service"));
}

fn claim<'a>(platform: &'a Platform, exec: &Exec, directory: &str) -> Option<Claim<'a>> {
    platform.claim(exec, Place { directory: directory.as_bytes(), runner_directory: b"/srv/worker" })
}

#[test]
fn nested_actions_keep_their_path() {
    let platform = platforms().named("github-actions").unwrap();
    let step = |action: &str| {
        let variables = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_JOB", "b"),
            ("GITHUB_RUN_ID", "1"),
            ("GITHUB_ACTION", action),
        ];
        claim(&platform, &exec(&["bash"], &variables), "/").unwrap().step
    };
    let inner = step("build.pack.compile").unwrap();
    assert_eq!(
        (inner.id.as_str(), inner.path),
        ("build.pack.compile", vec!["build".to_owned(), "pack".into()])
    );
    assert_eq!(step("build").unwrap().path, Vec::<String>::new());
    assert_eq!(step(""), None, "a process that is no step");
}

#[test]
fn a_pipeline_step_of_jenkins_is_known_by_its_control_directory_and_git_by_its_name() {
    let platform = platforms().named("jenkins").unwrap();
    let variables =
        [("BUILD_TAG", "t"), ("JOB_NAME", "acme/w"), ("BUILD_NUMBER", "7"), ("STAGE_NAME", "Test")];
    for (arguments, id) in [
        (&["nohup", "sh", "-c", "sh -xe /w/a@tmp/durable-1f2e/script.sh &"][..], "1f2e"),
        (&["/bin/sh", "-xe", "/tmp/jenkins123.sh"], "123"),
        (&["git", "fetch"], "git"),
    ] {
        let step = claim(&platform, &exec(arguments, &variables), "/").unwrap().step.unwrap();
        assert_eq!((step.id.as_str(), step.path), (id, vec!["Test".to_owned()]));
    }
}

#[test]
fn a_buildbot_build_without_variables_is_known_by_its_directory_below_the_workers() {
    let platform = platforms().named("buildbot").unwrap();
    let exec = exec(&["sh", "-c", "make"], &[]);
    assert_eq!(claim(&platform, &exec, "/srv/worker/alpha/build").unwrap().job.workflow, "alpha");
    for elsewhere in ["/srv/worker", "/srv/worker2/alpha", "/tmp"] {
        assert!(claim(&platform, &exec, elsewhere).is_none(), "{elsewhere}");
    }
}

#[test]
fn links_and_repositories_come_without_passwords_and_a_symbolic_commit_is_none() {
    let platform = platforms().named("buildkite").unwrap();
    let variables = [
        ("BUILDKITE", "true"),
        ("BUILDKITE_JOB_ID", "j"),
        ("BUILDKITE_BUILD_NUMBER", "7"),
        ("BUILDKITE_REPO", "https://user:fake@git.example.test/acme/w.git"),
        ("BUILDKITE_COMMIT", "HEAD"),
    ];
    let job = claim(&platform, &exec(&["buildkite-agent", "bootstrap"], &variables), "/").unwrap().job;
    assert_eq!(job.repository, "https://git.example.test/acme/w.git");
    assert_eq!(job.sha, "");
}

#[test]
fn the_variables_of_all_rules_fit_into_the_kernels_table_and_none_is_a_credential() {
    let platforms = platforms();
    let variables = platforms.variables();
    assert!(variables.len() < 512, "{}", variables.len());
    for name in variables {
        assert!(name.len() <= buildtrail_agent_abi::VARIABLE_NAME_BYTES, "{name}");
        assert!(!crate::catalog::variables::carries_credential(name.as_bytes()), "{name}");
    }
}

#[test]
fn programs_that_others_run_as_well_are_not_noted_by_their_name() {
    let names = platforms().runner_names();
    let has = |name: &[u8]| names.iter().any(|known| known == name);
    assert!(has(b"Runner.Worker") && has(b"woodpecker-agent"));
    for name in ["java", "node", "python*", "gitlab-runner"] {
        assert!(!has(name.as_bytes()), "{name}");
    }
}

#[test]
fn mistakes_in_a_rule_are_explained() {
    let table = [
        ("name = 'Own'\nrunner = { executables = ['x'] }", "`platform.0.name`: expected 1 to 64 lower-case"),
        ("name = 'own'\nrunner = {}", "`platform.0.runner`: says nothing"),
        ("name = 'own'\nrunner = { executables = ['[x'] }", "wrong wildcard"),
        ("name = 'own'\nrunner = { executables = ['x'] }\njob = []", "`platform.0.job`: expected 1 to 16"),
    ];
    let rule = "name = 'own'\nrunner = { executables = ['x'] }\n[[platform.job]]\n";
    let jobs = [
        ("when = ['A']\nfields = {}", "give at least one of repository, workflow and run_id"),
        ("when = ['DEPLOY_TOKEN']\nfields = { run_id = '${A}' }", "is a credential"),
        ("when = []\nnamed_by = 'first-to-show'\nfields = { run_id = '${A}' }", "any process would do"),
        ("when = ['A']\nfields = { run_id = '${@nothing}' }", "there is no ${@nothing}"),
        (
            "when = ['A']\nfields = { run_id = '${A}' }\nstep = { of = 'grandchild' }",
            "needs ends = \"with-child\"",
        ),
        ("when = ['A']\nends = 'never'\nfields = { run_id = '${A}' }", "unknown value `never`"),
        ("when = ['A']\nfields = { run = '${A}' }", "unknown key"),
    ];
    let job = "\n[[platform.job]]\nwhen = ['A']\nfields = { run_id = '${A}' }";
    let whole = table.map(|(text, problem)| {
        let tail = if text.contains("job = ") { "" } else { job };
        (format!("[[platform]]\n{text}{tail}"), problem)
    });
    let jobs = jobs.map(|(text, problem)| (format!("[[platform]]\n{rule}{text}"), problem));
    for (text, problem) in whole.into_iter().chain(jobs) {
        let error = Config::parse(&text, Path::new("agent.toml")).unwrap_err().to_string();
        assert!(error.contains(problem), "{text}\n{error}");
    }
}

/// The table of one platform in the manual.
fn table(rule: &PlatformRule) -> String {
    let quoted = |texts: Vec<String>| -> String {
        texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ")
    };
    let choice = |choice: &Choice| quoted(choice.templates().map(ToString::to_string).collect());
    let wildcards = |all: &[Wildcard]| all.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>();
    let mut rows = vec![format!("| runner | {}", quoted(wildcards(&rule.runner.executables)))];
    if !rule.runner.arguments.is_empty() {
        let arguments: Vec<String> =
            wildcards(&rule.runner.arguments).iter().map(|one| format!("`{one}`")).collect();
        rows[0].push_str(" with ");
        rows[0].push_str(&arguments.join(", "));
    }
    rows[0] += " |";
    for job in &rule.job {
        let condition = |one: &Condition| format!("`{}{}`", job.prefix, String::from(one.clone()));
        let when: Vec<String> = job.when.iter().map(condition).collect();
        let when = if when.is_empty() { "its directory".to_owned() } else { when.join(", ") };
        let named_by = match job.named_by {
            NamedBy::Child => "child",
            NamedBy::FirstToShow => "first-to-show",
        };
        let ends = match job.ends {
            Ends::WithRunner => "with-runner",
            Ends::WithChild => "with-child",
            Ends::WhenIdle => "when-idle",
            Ends::WhenNothingIsLeft => "when-nothing-is-left",
        };
        let of = match job.step.of {
            StepOf::Child => "child",
            StepOf::Grandchild => "grandchild",
            StepOf::Nobody => "nobody",
        };
        rows.push(format!("| a job, by | {when} |\n| named by | {named_by} |\n| ends | {ends} |"));
        let said = job.fields.all().into_iter().filter(|(_, field)| !field.is_empty());
        rows.extend(said.map(|(name, field)| format!("| {name} | {} |", choice(field))));
        rows.push(format!("| step | {of} |"));
        let named = [("id", &job.step.id), ("name", &job.step.name)];
        let named = named.into_iter().filter(|(_, text)| !text.is_empty());
        rows.extend(named.map(|(name, text)| format!("| step {name} | {} |", choice(text))));
        let path: Vec<String> = job.step.path.iter().map(choice).collect();
        if !path.is_empty() {
            rows.push(format!("| step path | {} |", path.join(", ")));
        }
    }
    format!("| what | from |\n|---|---|\n{}\n", rows.join("\n"))
}

#[test]
fn the_manual_says_of_each_platform_what_its_rule_says() {
    for rule in built_in().unwrap() {
        let table = table(&rule);
        assert!(MANUAL.contains(&table), "docs/platforms.md does not have this of {}:\n{table}", rule.name);
    }
}
