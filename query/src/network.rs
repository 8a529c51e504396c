//! Addresses and networks.

use std::{net::IpAddr, str::FromStr};

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Whether an address belongs to it. IPv4 addresses that are written as IPv6 ones count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |one: u128, other: u128, bits: u32| {
            let free = bits.saturating_sub(u32::from(self.length));
            one.checked_shr(free).unwrap_or(0) == other.checked_shr(free).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            // Shifted by all 128 bits nothing is left to differ.
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                shared(u128::from(one.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => shared(one.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }

    /// Whether the text is an address that belongs to it.
    #[must_use]
    pub fn contains_text(&self, text: &str) -> bool {
        text.parse().is_ok_and(|address| self.contains(address))
    }
}

impl FromStr for Network {
    type Err = ();

    /// `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let (whole, canonical) = (if address.is_ipv4() { 32 } else { 128 }, address.to_canonical());
        let mut length: u8 = length.unwrap_or(whole);
        if length > whole {
            return Err(());
        }
        if canonical.is_ipv4() && address.is_ipv6() {
            // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
            length = length.checked_sub(96).ok_or(())?;
        }
        Ok(Self { address: canonical, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "12.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "1.2.3.4"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "nonsense"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains_text(inside), "{network:?} {inside}");
            assert!(!network.contains_text(outside), "{network:?} {outside}");
        }
        for wrong in
            ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "a.example.com", "::ffff:1.2.3.4/95"]
        {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
