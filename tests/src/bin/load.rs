//! Feeds an agent's spool and uplink with numbered events until it is ended.

use anyhow::Result;
use buildtrail_tests::load::{self, Plan};
use clap::Parser as _;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    load::run(Plan::parse()).await
}
