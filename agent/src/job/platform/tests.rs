//! What each platform's processes show, and what is made of it.

use std::collections::HashSet;

use super::*;

#[test]
fn every_rule_that_comes_with_the_agent_is_named_like_its_file_and_can_work() {
    let rules = built_in().unwrap();
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, built_in_names());
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}
