//! The web pages in a real browser: every page, on a desk and on a phone, light and dark, by keyboard, live, with
//! hostile text. Pictures of all of it go to `target/screenshots`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::path::{Path, PathBuf};

use buildtrail_proto::{
    now,
    v1::{
        AuditEvent, ConnectionClosed, Coverage, CredentialUse, DnsLookup, Job, JobStarted, MemoryAccess,
        Process, ProcessExec, SecretAccess, Step, audit_event::Body,
    },
};
use buildtrail_tests::{
    browser::{Browser, ENTER, ESCAPE, Theme},
    collector::{Collector, Site},
    feed::Feed,
    history,
};
use serde_json::Value;
use tempfile::TempDir;

/// A desk's window, and a phone's.
const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (375, 800);
/// What each page must say, by address; `JOB` stands for the id of the job that misbehaved.
const PAGES: [(&str, &str, &str); 16] = [
    ("overview", "/", "memory.access"),
    ("jobs", "/jobs?span=all", "octo/site"),
    ("jobs-mistake", "/jobs?where=sectret%7Eaws", "This search was not understood"),
    ("job", "/jobs/JOB", "opened the memory of /opt/runner/bin/Runner.Worker"),
    ("secrets", "/secrets", "AWS shared credentials"),
    ("secret", "/secret?name=AWS+shared+credentials", "acme/widgets"),
    ("credential", "/credential?name=git+credential+helper", "acme/api"),
    ("destinations", "/destinations", "cdn-telemetry.example"),
    ("destination", "/destination?name=cdn-telemetry.example", "new"),
    ("hosts", "/hosts", "demo-host"),
    ("host", "/hosts/demo-host", "AF_XDP sockets"),
    ("integrity", "/integrity", "Newest checkpoint"),
    ("search", "/search?where=repo%3Dacme%2F*+kind%21%3Dprocess.exec&span=7d", "npm token"),
    ("search-by", "/search?by=secret&span=7d", "AWS shared credentials"),
    ("help", "/help", "Keyboard shortcuts"),
    ("missing", "/nothing/here", "There is nothing here"),
];

/// A collector with two days of history, and a browser that is signed in to it.
struct World {
    browser: Browser,
    feed: Feed,
    collector: Collector,
    address: String,
    directory: TempDir,
}

impl World {
    fn with(events: Vec<AuditEvent>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::prepare(directory.path()).unwrap();
        let collector = site.start("127.0.0.1:0", false).unwrap();
        let code = collector.local_admin("octavia", PASSWORD).unwrap();
        let feed = Feed::start(&site, &collector.address).unwrap();
        let browser = Browser::start(directory.path()).unwrap();
        feed.report(events).unwrap();
        let address = format!("https://{}", collector.address);
        let world = Self { browser, feed, collector, address, directory };
        world.look(DESK, Theme::Light);
        world.sign_in(&code);
        world
    }

    fn sign_in(&self, code: &str) {
        self.go("/jobs");
        assert!(self.browser.url().unwrap().contains("/login?next="), "{}", self.browser.url().unwrap());
        self.picture("sign-in", DESK, Theme::Light);
        for (field, text) in [("name", "octavia"), ("password", PASSWORD), ("code", code)] {
            self.browser.fill(&format!("input[name={field}]"), text).unwrap();
        }
        self.browser.click("input[name=code] ~ button, form[action='/login'] button, main button").unwrap();
        self.browser.wait_for("the page after the sign-in", "return location.pathname === '/jobs'").unwrap();
    }

    fn go(&self, path: &str) {
        self.browser.go(&format!("{}{path}", self.address)).unwrap();
    }

    fn look(&self, (width, height): (u32, u32), theme: Theme) {
        self.browser.look(width, height, theme).unwrap();
    }

    fn picture(&self, name: &str, (width, _): (u32, u32), theme: Theme) {
        let theme = if theme == Theme::Dark { "dark" } else { "light" };
        self.browser.picture(&pictures().join(format!("{name}-{width}-{theme}.png"))).unwrap();
    }

    /// No error, no violation of the content security policy, nothing that is wider than the window.
    fn assert_sound(&self, page: &str) {
        let complaints = self.browser.complaints().unwrap();
        // A page that says that there is nothing has such a status, and the browser says so.
        let bad: Vec<&String> =
            complaints.iter().filter(|said| !(page == "missing" && said.contains("404"))).collect();
        assert!(bad.is_empty(), "{page}: {bad:#?}");
        let wider = "return document.documentElement.scrollWidth - window.innerWidth";
        let wider = self.browser.run(wider).unwrap().as_i64().unwrap();
        assert!(wider <= 0, "{page} is {wider} px wider than its window");
    }

    fn end(self) {
        drop(self.browser);
        self.feed.stop();
        self.collector.stop().unwrap();
        drop(self.directory);
    }
}

const PASSWORD: &str = "FAKE-not-a-secret-at-all";

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots")
}

fn two_days() -> Vec<AuditEvent> {
    let mut events: Vec<AuditEvent> = history::day(&now()).into_iter().flat_map(|host| host.events).collect();
    events.sort_by_key(|event| event.time.map(|time| (time.seconds, time.nanos)));
    events
}

/// The job that reached for the runner's memory.
fn misbehaved(events: &[AuditEvent]) -> String {
    let event = events.iter().find(|event| event.kind() == "memory.access").unwrap();
    event.job.as_ref().unwrap().job_id.clone()
}

#[test]
fn every_page_is_sound_on_a_desk_and_a_phone_light_and_dark() {
    let events = two_days();
    let job = misbehaved(&events);
    let world = World::with(events);
    for (size, theme) in
        [(DESK, Theme::Light), (DESK, Theme::Dark), (PHONE, Theme::Light), (PHONE, Theme::Dark)]
    {
        world.look(size, theme);
        for (name, path, says) in PAGES {
            world.go(&path.replace("JOB", &job));
            let script = format!("return document.body.textContent.includes({says:?})");
            world.browser.wait_for(&format!("{says:?} on {name}"), &script).unwrap();
            world.picture(name, size, theme);
            world.assert_sound(name);
        }
    }
    world.end();
}

#[test]
fn a_job_is_verified_and_so_is_the_log() {
    let events = two_days();
    let job = misbehaved(&events);
    let world = World::with(events);
    world.go(&format!("/jobs/{job}?tz=Europe/Berlin"));
    assert!(world.browser.text().unwrap().contains("CET"), "the zone is shown");
    world.browser.click("form[action$='/verify'] button").unwrap();
    world
        .browser
        .wait_for("the verdict", "return document.body.innerText.includes('Intact and complete')")
        .unwrap();
    world.picture("verdict-job", DESK, Theme::Light);
    world.assert_sound("verdict of the job");
    let evidence = format!(
        "return fetch('/jobs/{job}/evidence') \
         .then((answer) => `${{answer.status}} ${{answer.headers.get('content-disposition')}}`)"
    );
    assert_eq!(world.browser.run(&evidence).unwrap(), "200 attachment; filename=\"job.evidence\"");
    world.go("/integrity");
    assert!(world.browser.run("return document.getElementById('tz').value").unwrap() == "Europe/Berlin");
    world.browser.click("form[action='/integrity/verify'] button").unwrap();
    world.browser.wait_for("the verdict", "return document.body.innerText.includes('Intact')").unwrap();
    world.go("/integrity");
    world
        .browser
        .wait_for("the last verdict", "return document.body.innerText.includes('by local:octavia')")
        .unwrap();
    world.assert_sound("integrity");
    world.end();
}

#[test]
fn the_live_tail_shows_what_arrives_meanwhile() {
    let world = World::with(two_days());
    world.go("/tail?where=kind%3Dsecret.access");
    world.browser.wait_for("the stream", "return document.querySelector('.live.on')").unwrap();
    let access =
        SecretAccess { secret: "canary".into(), path: "/srv/canary".into(), ..SecretAccess::default() };
    let job = Job {
        job_id: "c0ffee00000000000000000000000001".into(),
        repository: "acme/live".into(),
        ..Job::default()
    };
    let event = AuditEvent {
        time: Some(now()),
        job: Some(job),
        body: Some(Body::SecretAccess(access)),
        ..AuditEvent::default()
    };
    world.feed.report(vec![event]).unwrap();
    world
        .browser
        .wait_for("the event", "return document.querySelector('tr.fresh')?.innerText.includes('canary')")
        .unwrap();
    world.look(DESK, Theme::Dark);
    world.picture("tail", DESK, Theme::Dark);
    world.look(PHONE, Theme::Light);
    world.picture("tail", PHONE, Theme::Light);
    world.assert_sound("tail");
    world.end();
}

#[test]
fn keys_are_enough_and_so_are_pages_without_script() {
    let world = World::with(two_days());
    world.go("/");
    world.browser.keys("?").unwrap();
    world.browser.wait_for("the list of keys", "return document.getElementById('keys').open").unwrap();
    world.picture("keys", DESK, Theme::Light);
    world.browser.keys(ESCAPE).unwrap();
    world.browser.wait_for("its end", "return !document.getElementById('keys').open").unwrap();
    world.browser.keys("gj").unwrap();
    world
        .browser
        .wait_for("the jobs", "return location.pathname === '/jobs' && document.readyState === 'complete'")
        .unwrap();
    world.browser.keys("/").unwrap();
    world.browser.wait_for("the search field", "return document.activeElement.name === 'where'").unwrap();
    world.browser.keys("repo=octo/*").unwrap();
    world.browser.keys(ENTER).unwrap();
    world
        .browser
        .wait_for(
            "the filter",
            "return location.search.includes('octo') && document.readyState === 'complete'",
        )
        .unwrap();
    assert!(!world.browser.text().unwrap().contains("acme/widgets"), "filtered");
    world.browser.keys("jjk").unwrap();
    world.browser.keys(ENTER).unwrap();
    world
        .browser
        .wait_for(
            "a job",
            "return location.pathname.startsWith('/jobs/') && document.readyState === 'complete'",
        )
        .unwrap();
    world.browser.keys("gi").unwrap();
    world.browser.wait_for("integrity", "return location.pathname === '/integrity'").unwrap();
    world.assert_sound("keys");

    world.browser.scripts(false).unwrap();
    for (name, path, _) in PAGES.iter().filter(|(name, ..)| !["job", "missing"].contains(name)) {
        world.go(path);
        let rows = world.browser.run("return document.querySelectorAll('main h1').length").unwrap();
        assert_eq!(rows, 1, "{name} without script");
    }
    world.go("/tail");
    assert!(world.browser.text().unwrap().contains("this page needs script"));
    world.end();
}

/// Texts that do something to whoever shows them carelessly.
fn hostile_texts() -> Vec<String> {
    let texts = [
        "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'><svg onload=window.pwned=1>",
        "'; DROP TABLE events; -- %_\\ {{7*7}} javascript:window.pwned=1",
        "\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\u{8}\u{7f}\r\n\tend",
        "gpj.\u{202e}exe\u{2066}a\u{2069}\u{200b}\u{feff}\u{e0041}e\u{301}\u{2028}",
        "nul\0nul\n\ndata: x\n\nevent: end\n\n",
    ];
    texts.map(str::to_owned).into_iter().chain([format!("{}\u{202e}", "A".repeat(64 << 10))]).collect()
}

/// An event of each kind that pages show by itself, all of whose texts are this one; one of each whole, so that the event
/// is not too large to be stored.
fn hostile_events(number: usize, text: &str) -> Vec<AuditEvent> {
    let whole = || text.to_owned();
    let text = || text.chars().take(2048).collect::<String>();
    let job = Job {
        job_id: format!("{:032x}", 0xbad_0000_0000_u64 + number as u64),
        platform: text(),
        server: text(),
        repository: whole(),
        workflow: text(),
        run_id: text(),
        run_attempt: text(),
        name: text(),
        actor: text(),
        r#ref: text(),
        sha: text(),
        trigger: text(),
        runner_name: text(),
        url: text(),
        container: text(),
        ..Job::default()
    };
    let process = Process { pid: 7, start_boot_time_ns: 7, executable: text(), ..Process::default() };
    let bodies = [
        Body::JobStarted(JobStarted::default()),
        Body::ProcessExec(ProcessExec {
            filename: text(),
            argv: vec![whole()],
            credential_variables: vec![text()],
            ..ProcessExec::default()
        }),
        Body::SecretAccess(SecretAccess {
            secret: whole(),
            family: text(),
            path: text(),
            job_path: text(),
            ..SecretAccess::default()
        }),
        Body::CredentialUse(CredentialUse {
            name: whole(),
            family: text(),
            target: text(),
            variables: vec![text()],
            ..CredentialUse::default()
        }),
        Body::ConnectionClosed(ConnectionClosed {
            remote_address: text(),
            dns_names: vec![whole()],
            tls_server_name: text(),
            ..ConnectionClosed::default()
        }),
        Body::DnsLookup(DnsLookup {
            name: whole(),
            r#type: text(),
            answers: vec![text()],
            resolver: text(),
            response_code: text(),
        }),
        Body::MemoryAccess(MemoryAccess { target: Some(process.clone()), ..MemoryAccess::default() }),
        Body::Coverage(Coverage {
            kernel_release: text(),
            agent_version: text(),
            gaps: vec![whole()],
            ..Coverage::default()
        }),
    ];
    let step = Step { id: text(), index: 1, name: text(), path: vec![text()] };
    let event = |body: Body| AuditEvent {
        time: Some(now()),
        job: (!matches!(body, Body::Coverage(_))).then(|| job.clone()),
        step: Some(step.clone()),
        process: Some(process.clone()),
        body: Some(body),
        ..AuditEvent::default()
    };
    bodies.map(event).into()
}

#[test]
fn hostile_text_is_shown_and_does_nothing_on_any_page() {
    // What a field holds is what was asked, as it was; everything else must be shown safely.
    const QUIET: &str = r#"
        const page = document.documentElement.cloneNode(true);
        page.querySelectorAll('input').forEach((field) => field.remove());
        const active = 'img, iframe, object, svg[onload], [onerror], a[href^="javascript" i]';
        const unsafe = /[\0\u0007\u0008\u001b\u007f\u009b\u200b\u202e\u2066\u2069\ufeff\u2028]/;
        return window.pwned === undefined && document.scripts.length === 1 && !page.querySelector(active)
            && !unsafe.test(page.innerHTML) && page.innerHTML.length < 2000000;
    "#;
    let texts = hostile_texts();
    let events: Vec<AuditEvent> =
        texts.iter().enumerate().flat_map(|(number, text)| hostile_events(number, text)).collect();
    let world = World::with(events);
    let mut paths: Vec<String> =
        PAGES.iter().filter(|(name, ..)| *name != "job").map(|(_, path, _)| (*path).to_owned()).collect();
    paths
        .extend((0..texts.len()).map(|number| format!("/jobs/{:032x}", 0xbad_0000_0000_u64 + number as u64)));
    paths.extend(["/search?span=7d", "/search?by=exe&span=7d", "/tail"].map(str::to_owned));
    let look = |path: &str| {
        assert_eq!(world.browser.run(QUIET).unwrap(), true, "{path}: {}", world.browser.text().unwrap());
        world.assert_sound(if path.starts_with("/nothing") { "missing" } else { path });
    };
    for size in [DESK, PHONE] {
        world.look(size, Theme::Light);
        for path in &paths {
            world.go(path);
            look(path);
            if path.starts_with("/jobs/") || path.starts_with("/search?span") {
                let links = "return [...document.querySelectorAll('main td a, main th a')].map(a => a.getAttribute('href')).slice(0, 8)";
                let links = world.browser.run(links).unwrap();
                for link in links.as_array().unwrap().iter().filter_map(Value::as_str) {
                    world.go(link);
                    look(link);
                }
            }
        }
    }
    world.go(&format!("/jobs/{:032x}", 0xbad_0000_0000_u64));
    world.picture("hostile-job", DESK, Theme::Light);
    world.end();
}
