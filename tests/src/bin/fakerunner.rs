//! Plays `Runner.Listener` or `Runner.Worker`, by the name it is started under.

use anyhow::Result;

fn main() -> Result<()> {
    buildtrail_tests::fakerunner::play()
}
