//! A job's processes as a tree: who started whom, what each touched.

use std::collections::BTreeMap;

use buildtrail_proto::v1::{AuditEvent, Process, audit_event::Body};
use buildtrail_words::describe;
use maud::{Markup, html};

use super::events::kind;
use crate::web::text::sentence;

/// Deeper ones are shown at this depth.
const MAX_DEPTH: usize = 24;
/// Marks of one process.
const MAX_MARKS: usize = 6;
/// Levels that are open at first.
const OPEN_DEPTH: usize = 3;

/// Unique within a boot; a job runs within one.
type Key = (u64, u32);

#[derive(Default)]
struct Node {
    /// What it executed, one after the other.
    programs: Vec<String>,
    /// What else it did, by kind.
    marks: BTreeMap<&'static str, usize>,
    children: Vec<Key>,
    parent: Option<Key>,
}

/// Processes of a job, from its events, oldest first.
#[derive(Default)]
pub(in crate::web) struct Tree {
    nodes: BTreeMap<Key, Node>,
}

impl Tree {
    pub(in crate::web) fn of(events: &[AuditEvent]) -> Self {
        let mut tree = Self::default();
        let mut parents = BTreeMap::new();
        for event in events {
            let Some(process) = &event.process else { continue };
            let key = key(process);
            parents.insert(key, process.parent_pid);
            let node = tree.nodes.entry(key).or_default();
            match &event.body {
                Some(Body::ProcessExec(_)) => node.programs.push(describe::what(event)),
                Some(Body::JobStarted(_) | Body::JobFinished(_)) | None => {}
                Some(_) => *node.marks.entry(event.kind()).or_default() += 1,
            }
            if node.programs.is_empty() && matches!(event.body, Some(Body::SecretAccess(_))) {
                node.programs.push(describe::process(event, true));
            }
        }
        tree.connect(&parents);
        tree
    }

    /// A child began after its parent; of several processes with the parent's number the latest that did.
    fn connect(&mut self, parents: &BTreeMap<Key, u32>) {
        let mut by_pid: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (start, pid) in self.nodes.keys() {
            by_pid.entry(*pid).or_default().push(*start);
        }
        for ((start, pid), parent) in parents {
            let starts = by_pid.get(parent).map(Vec::as_slice).unwrap_or_default();
            let Some(found) = starts.iter().rev().find(|earlier| *earlier < start) else { continue };
            let (child, parent) = ((*start, *pid), (*found, *parent));
            if let Some(node) = self.nodes.get_mut(&parent) {
                node.children.push(child);
            }
            if let Some(node) = self.nodes.get_mut(&child) {
                node.parent = Some(parent);
            }
        }
    }

    pub(in crate::web) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The tree as nested lists.
    pub(in crate::web) fn show(&self) -> Markup {
        let roots: Vec<Key> =
            self.nodes.iter().filter(|(_, node)| node.parent.is_none()).map(|(key, _)| *key).collect();
        html! { div.tree { (self.list(&roots, 0)) } }
    }

    fn list(&self, keys: &[Key], depth: usize) -> Markup {
        html! { ul { @for key in keys { @if let Some(node) = self.nodes.get(key) { (self.item(*key, node, depth)) } } } }
    }

    fn item(&self, key: Key, node: &Node, depth: usize) -> Markup {
        if node.children.is_empty() {
            return html! { li.leaf { (line(key, node)) } };
        }
        if depth >= MAX_DEPTH {
            let below = self.below(&node.children);
            return html! {
                li.leaf { (line(key, node)) }
                @for key in &below { @if let Some(node) = self.nodes.get(key) { li.leaf { "… " (line(*key, node)) } } }
            };
        }
        html! {
            li { details open[depth < OPEN_DEPTH] { summary { (line(key, node)) } (self.list(&node.children, depth + 1)) } }
        }
    }

    /// All descendants. A parent began before its child, so there is no way round in circles.
    fn below(&self, children: &[Key]) -> Vec<Key> {
        let mut below = children.to_vec();
        let mut at = 0;
        while let Some(key) = below.get(at).copied() {
            below.extend(self.nodes.get(&key).into_iter().flat_map(|node| node.children.iter().copied()));
            at += 1;
        }
        below
    }
}

fn key(process: &Process) -> Key {
    (process.start_boot_time_ns, process.pid)
}

fn line((_, pid): Key, node: &Node) -> Markup {
    html! {
        span.pid { (pid) } " "
        @match &node.programs[..] {
            [] => span.none { "(began before it was watched, or was not executed)" },
            [only] => (sentence(only)),
            [first, .., last] => { (sentence(first)) span.muted { " → " } (sentence(last)) },
        }
        @for (name, times) in node.marks.iter().filter(|(name, _)| notable(name)).take(MAX_MARKS) {
            " " (kind(name)) @if *times > 1 { span.muted { " ×" (times) } }
        }
    }
}

fn notable(kind: &str) -> bool {
    kind != "dns.lookup" && kind != "connection.closed"
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::ProcessExec;

    use super::*;

    fn exec(pid: u32, start: u64, parent_pid: u32, name: &str) -> AuditEvent {
        AuditEvent {
            process: Some(Process { pid, start_boot_time_ns: start, parent_pid, ..Process::default() }),
            body: Some(Body::ProcessExec(ProcessExec { argv: vec![name.into()], ..ProcessExec::default() })),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn a_reused_number_belongs_to_the_latest_process_before_the_child() {
        let events = [
            exec(10, 1, 1, "shell"),
            exec(11, 2, 10, "old"),
            exec(11, 5, 10, "new"),
            exec(12, 6, 11, "child"),
        ];
        let tree = Tree::of(&events);
        assert_eq!(tree.len(), 4);
        assert_eq!(tree.nodes[&(6, 12)].parent, Some((5, 11)));
        let shown = tree.show().into_string();
        assert!(shown.find("new").unwrap() < shown.find("child").unwrap());
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_processes_is_shown_flat_and_one_that_is_its_own_parent_once() {
        let events: Vec<_> = (1..100_000).map(|n| exec(n, n.into(), n - 1, "x")).collect();
        let shown = Tree::of(&events).show().into_string();
        assert_eq!(shown.matches("<details").count(), MAX_DEPTH);
        assert_eq!(shown.matches("class=\"pid\"").count(), 99_999);
        let shown = Tree::of(&[exec(7, 7, 7, "own parent")]).show().into_string();
        assert_eq!(shown.matches("own parent").count(), 1);
    }
}
