//! Who may hold how many connections: nobody can take the places of the others.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::peer::Peer;

/// Handshakes at a time, and of those from one address.
const HANDSHAKES: usize = 256;
const HANDSHAKES_PER_ADDRESS: usize = 64;
/// Connections at a time of peers that may only enrol, renew or sign in, and of those from one address.
const FLEETING: usize = 64;
const FLEETING_PER_ADDRESS: usize = 16;
/// As many more where browsers are let in: each opens several, and many can be behind one address.
const FOR_BROWSERS: usize = 4;
/// Lasting connections at a time of one host, reader or administrator, who may be half of the world's dashboards.
const PER_HOST: usize = 8;
const PER_PERSON: usize = 64;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("limits.max_connections is reached")]
    Connections,
    #[error("too many handshakes at a time")]
    Handshakes,
    #[error("too many connections of one peer")]
    Peer,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    lasting: Arc<Semaphore>,
    fleeting: Arc<Semaphore>,
    fleeting_per_address: usize,
    handshakes: Arc<Semaphore>,
    shares: Arc<Shares>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Handshake(IpAddr),
    Fleeting(IpAddr),
    Peer(String),
}

impl Places {
    pub(crate) fn new(max_connections: usize, web: bool) -> Self {
        let times = if web { FOR_BROWSERS } else { 1 };
        Self {
            lasting: Arc::new(Semaphore::new(max_connections)),
            fleeting: Arc::new(Semaphore::new(FLEETING * times)),
            fleeting_per_address: FLEETING_PER_ADDRESS * times,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            shares: Arc::default(),
        }
    }

    pub(super) fn for_handshake(&self, address: IpAddr) -> Result<Place, Full> {
        let share = self.shares.take(Owner::Handshake(address), HANDSHAKES_PER_ADDRESS);
        place(&self.handshakes, share, Full::Handshakes)
    }

    pub(super) fn for_peer(&self, peer: &Peer, address: IpAddr) -> Result<Place, Full> {
        let (owner, max) = match peer {
            Peer::Host(host) if peer.is_lasting() => (format!("host {}", host.id), PER_HOST),
            Peer::Reader(_) | Peer::Admin(_) => (peer.to_string(), PER_PERSON),
            Peer::Host(_) | Peer::Anonymous | Peer::Nobody(_) => {
                let share = self.shares.take(Owner::Fleeting(address), self.fleeting_per_address);
                return place(&self.fleeting, share, Full::Connections);
            }
        };
        place(&self.lasting, self.shares.take(Owner::Peer(owner), max), Full::Connections)
    }

    fn for_person(&self, name: &str) -> Result<Place, Full> {
        let share = self.shares.take(Owner::Peer(format!("signed in {name}")), PER_PERSON);
        place(&self.lasting, share, Full::Connections)
    }
}

/// How long a connection may stay: it begins in a stranger's place, and moves when somebody is recognised on it.
#[derive(Debug)]
pub(crate) struct Stay {
    places: Arc<Places>,
    place: Mutex<Place>,
    lasting: AtomicBool,
}

impl Stay {
    pub(super) fn new(places: Arc<Places>, place: Place, lasting: bool) -> Self {
        Self { places, place: Mutex::new(place), lasting: AtomicBool::new(lasting) }
    }

    pub(crate) fn is_lasting(&self) -> bool {
        self.lasting.load(Ordering::Relaxed)
    }

    /// This person is on the connection. Without a free place it goes on, as short as a stranger's.
    pub(crate) fn settle(&self, name: &str) {
        if self.is_lasting() {
            return;
        }
        if let Ok(place) = self.places.for_person(name) {
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
            self.lasting.store(true, Ordering::Relaxed);
        }
    }
}

fn place(places: &Arc<Semaphore>, share: Option<Share>, full: Full) -> Result<Place, Full> {
    let share = share.ok_or(Full::Peer)?;
    let permit = places.clone().try_acquire_owned().map_err(|_| full)?;
    Ok(Place { _permit: permit, _share: share })
}

/// How many places each owner holds.
#[derive(Debug, Default)]
struct Shares(Mutex<HashMap<Owner, usize>>);

impl Shares {
    fn take(self: &Arc<Self>, owner: Owner, max: usize) -> Option<Share> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(owner.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Share { shares: self.clone(), owner })
    }
}

#[derive(Debug)]
struct Share {
    shares: Arc<Shares>,
    owner: Owner,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn nobody_takes_the_places_of_the_others_and_places_come_back() {
        let places = Places::new(100, false);
        let (one, other) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
        let mut taken: Vec<Place> =
            (0..HANDSHAKES_PER_ADDRESS).map(|_| places.for_handshake(one).unwrap()).collect();
        assert_eq!(places.for_handshake(one).unwrap_err(), Full::Peer);
        places.for_handshake(other).unwrap();
        taken.pop();
        places.for_handshake(one).unwrap();

        let strangers: Vec<Place> =
            (0..FLEETING_PER_ADDRESS).map(|_| places.for_peer(&Peer::Anonymous, one).unwrap()).collect();
        assert_eq!(places.for_peer(&Peer::Anonymous, one).unwrap_err(), Full::Peer);
        places.for_peer(&Peer::Reader("ann".into()), one).unwrap();
        drop((strangers, taken));
        assert!(places.shares.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_stranger_who_is_recognised_leaves_the_strangers_places() {
        let places = Arc::new(Places::new(1, false));
        let one = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let stranger = || {
            let place = places.for_peer(&Peer::Anonymous, one).unwrap();
            Stay::new(places.clone(), place, false)
        };
        let mut others: Vec<Stay> = (0..FLEETING_PER_ADDRESS).map(|_| stranger()).collect();
        others[0].settle("ann");
        assert!(others[0].is_lasting());
        let next = stranger();
        next.settle("bob");
        assert!(!next.is_lasting(), "limits.max_connections bounds those who signed in");
        others.clear();
        next.settle("bob");
        assert!(next.is_lasting());
    }

    #[test]
    fn the_limit_over_all_counts_lasting_connections() {
        let places = Places::new(2, false);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let _ann = places.for_peer(&Peer::Reader("ann".into()), address).unwrap();
        let _bob = places.for_peer(&Peer::Admin("bob".into()), address).unwrap();
        assert_eq!(places.for_peer(&Peer::Reader("eve".into()), address).unwrap_err(), Full::Connections);
        places.for_peer(&Peer::Anonymous, address).unwrap();
    }
}
