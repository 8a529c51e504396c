//! Events of one's own choice, delivered as an agent delivers them: the agent's spool and uplink without its sensors.
//!
//! In: a site and its collector, events. Out: the same events, numbered, signed and on the collector's disk.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use buildtrail_agent::{config::Config, enrol::Credentials, run::Delivery, spool::SpoolHandle};
use buildtrail_proto::v1::AuditEvent;
use tokio::runtime::Runtime;

use crate::collector::{Site, agent_settings};

const DELIVERY_DEADLINE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(5);

/// A host of the site that reports what it is told to.
pub struct Feed {
    runtime: Runtime,
    delivery: Option<Delivery>,
    spool: SpoolHandle,
}

impl Feed {
    /// Connects the site's host to the collector at `address`.
    ///
    /// # Errors
    /// When settings, certificates or spool cannot be used.
    pub fn start(site: &Site, address: &str) -> Result<Self> {
        let settings = agent_settings(site, address, Path::new("/nonexistent"));
        let config = Config::load(&settings.write()?)?;
        let runtime = Runtime::new().context("no runtime")?;
        let entered = runtime.enter();
        let delivery = Delivery::start(&config, Some(Credentials::load(&config)?))?;
        drop(entered);
        let spool = delivery.spool().context("no spool")?;
        Ok(Self { runtime, delivery: Some(delivery), spool })
    }

    /// Reports events and waits until the collector has them on its disk.
    ///
    /// # Errors
    /// When it has not in time, or events were lost.
    pub fn report(&self, events: Vec<AuditEvent>) -> Result<()> {
        let before = self.spool.stats();
        let wanted = before.stored_events + events.len() as u64;
        for event in events {
            self.spool.push(event);
        }
        self.runtime.block_on(async {
            let delivered = async {
                loop {
                    let stats = self.spool.stats();
                    if stats.stored_events >= wanted && stats.delivered_sequence == stats.stored_sequence {
                        return stats;
                    }
                    tokio::time::sleep(POLL).await;
                }
            };
            let stats = tokio::time::timeout(DELIVERY_DEADLINE, delivered).await;
            let stats = stats.context("the collector did not get the events in time")?;
            if stats.lost_events > before.lost_events {
                bail!("{} events were lost", stats.lost_events - before.lost_events);
            }
            Ok(())
        })
    }

    /// Ends the connection.
    pub fn stop(mut self) {
        if let Some(delivery) = self.delivery.take() {
            self.runtime.block_on(delivery.stop());
        }
    }
}
