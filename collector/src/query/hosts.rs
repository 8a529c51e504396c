//! Hosts, as the log and the running collector know them.

use buildtrail_proto::{unix_nanos, v1::HostsResponse};

use super::{Queries, QueryError};
use crate::access::{Action, Person};

impl Queries {
    /// Every host of the log.
    pub(crate) async fn hosts(&self, person: &Person) -> Result<HostsResponse, QueryError> {
        person.require(Action::ReadHosts)?;
        self.asked(person, "ListHosts", "");
        let mut hosts = self.ask(person, |asked, scope| Ok(asked.hosts(scope)?)).await?;
        for host in &mut hosts {
            let Some(seen) = self.watch.seen(&host.host_id) else { continue };
            host.dark = seen.dark;
            host.last_heard = seen.heard;
            if let (Some(heard), Some(event)) = (&host.last_heard, &host.last_event) {
                let lag = (unix_nanos(heard) - unix_nanos(event)) / 1_000_000;
                host.lag_ms = u64::try_from(lag).unwrap_or_default();
            }
        }
        Ok(HostsResponse { hosts })
    }
}
