//! Reads what test programs print: what is worth showing, and how many tests passed, failed or were skipped.

use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Ran and held.
    pub passed: u64,
    /// Ran and did not hold, or could not be built.
    pub failed: u64,
    /// Not run.
    pub skipped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Follows the output of `cargo test`, line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Sum over all test programs so far.
    pub total: Tally,
    program: String,
    each: bool,
}

impl Reader {
    /// A reader that shows each test (`each`) or one line for each test program.
    pub(crate) fn new(each: bool) -> Self {
        Self { each, ..Self::default() }
    }

    /// Takes one line; returns what to show of it.
    pub(crate) fn take(&mut self, line: &str) -> Option<String> {
        let trimmed = line.trim();
        if let Some(program) = program_of(trimmed) {
            program.clone_into(&mut self.program);
            return None;
        }
        if let Some(tally) = result_of(trimmed) {
            self.total += tally;
            return (tally != Tally::default()).then(|| format!("    {}: {tally}", self.program));
        }
        if trimmed.starts_with("test ") && trimmed.ends_with(" ... ok") {
            return self.each.then(|| format!("    {trimmed}"));
        }
        (!is_noise(trimmed)).then(|| line.to_owned())
    }
}

/// Lines of cargo and of the test programs that say nothing about a test.
fn is_noise(line: &str) -> bool {
    let starts = ["Blocking ", "Compiling ", "Finished "];
    let counts_tests = line.starts_with("running ") && (line.ends_with(" test") || line.ends_with(" tests"));
    line.is_empty() || counts_tests || starts.iter().any(|start| line.starts_with(start))
}

/// The source file or crate in `Running unittests src/lib.rs (target/…)` and `Doc-tests name`.
fn program_of(line: &str) -> Option<&str> {
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(name);
    }
    let path = line.strip_prefix("Running ")?.rsplit_once('(')?.1.strip_suffix(')')?;
    let file = path.rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _digest)| name))
}

/// The numbers in `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
fn result_of(line: &str) -> Option<Tally> {
    let numbers = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |word: &str| {
        numbers.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
    };
    Some(Tally { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
   Compiling buildtrail-proto v0.1.0 (proto)
    Finished `test` profile [unoptimized] target(s) in 0.05s
     Running unittests src/lib.rs (target/debug/deps/buildtrail_proto-0123abcd)

running 2 tests
test tests::one ... ok
test tests::two ... FAILED

failures:
    tests::two

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests buildtrail_proto

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn read(each: bool) -> (Vec<String>, Tally) {
        let mut reader = Reader::new(each);
        let shown = OUTPUT.lines().filter_map(|line| reader.take(line)).collect();
        (shown, reader.total)
    }

    #[test]
    fn failures_are_shown_and_passing_tests_are_counted() {
        let (shown, total) = read(false);
        assert_eq!(total, Tally { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(
            shown,
            [
                "test tests::two ... FAILED",
                "failures:",
                "    tests::two",
                "    buildtrail_proto: 1 passed, 1 failed, 0 skipped",
            ]
        );
    }

    #[test]
    fn each_test_is_shown_on_request() {
        assert!(read(true).0.contains(&"    test tests::one ... ok".to_owned()));
    }
}
