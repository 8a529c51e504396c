//! Addresses at which clouds hand out credentials to whoever asks from the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Entry;

/// The metadata service at this address and port, if it is one.
#[must_use]
pub fn service(address: IpAddr, port: u16) -> Option<Entry> {
    let entry = match (address, port) {
        (IpAddr::V4(ip), 80) if ip == Ipv4Addr::new(169, 254, 169, 254) => {
            Entry::new("cloud instance metadata (169.254.169.254)", "cloud")
        }
        (IpAddr::V6(ip), 80) if ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) => {
            Entry::new("AWS instance metadata", "aws")
        }
        (IpAddr::V6(ip), 80) if ip == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254) => {
            Entry::new("Google Cloud instance metadata", "gcp")
        }
        (IpAddr::V4(ip), 80) if ip == Ipv4Addr::new(169, 254, 170, 2) => {
            Entry::new("AWS ECS task credentials", "aws")
        }
        (IpAddr::V4(ip), 80) if ip == Ipv4Addr::new(169, 254, 170, 23) => {
            Entry::new("AWS EKS pod identity", "aws")
        }
        (IpAddr::V4(ip), 80 | 32526) if ip == Ipv4Addr::new(168, 63, 129, 16) => {
            Entry::new("Azure wire server", "azure")
        }
        (IpAddr::V4(ip), 80) if ip == Ipv4Addr::new(100, 100, 100, 200) => {
            Entry::new("Alibaba Cloud instance metadata", "alibaba")
        }
        _ => return None,
    };
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_services_own_addresses_and_ports_count() {
        let table = [
            ("169.254.169.254", 80, Some("cloud")),
            ("169.254.169.254", 443, None),
            ("169.254.169.253", 80, None),
            ("fd00:ec2::254", 80, Some("aws")),
            ("169.254.170.2", 80, Some("aws")),
            ("127.0.0.1", 80, None),
        ];
        for (address, port, family) in table {
            let found = service(address.parse().unwrap(), port).map(|entry| entry.family);
            assert_eq!(found.as_deref(), family, "{address}:{port}");
        }
    }
}
