//! Which servers a plugin may send requests to, and which addresses those may have (pure).
//!
//! A server is compared by its parts, in their one normal form. What has no normal form (a trailing dot, an
//! octal address, a user in front of the name) is no server at all, and so is never allowed: nothing is
//! mended here that a resolver could understand in another way.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// RFC 1035, section 2.3.4: the octets of a name, and of one label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Where a request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Whether it is `https`.
    pub tls: bool,
    /// Its name or address.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// The name or the address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// To be resolved. ASCII, in lower case.
    Name(String),
    /// Nothing to resolve.
    Address(IpAddr),
}

impl Server {
    /// The server of a URL's scheme and authority; `None` when it has not the one form that a server has
    /// here.
    #[must_use]
    pub fn parse(tls: bool, authority: &str) -> Option<Self> {
        // An address of version 6 has colons of its own, inside of brackets.
        let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority[end_of_host..].split_once(':') {
            Some((rest, port)) => (&authority[..end_of_host + rest.len()], decimal_port(port)?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        Some(Self { tls, host: Host::parse(host)?, port })
    }
}

/// `u16::from_str` would take `+443` and `00443`, too.
fn decimal_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        // Four decimal numbers without leading zeros. `127.1`, `0x7f.0.0.1` and `2130706433` are not.
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.to_ascii_lowercase();
        let labels_fit = name.split('.').all(|label| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
        (name.len() <= MAX_NAME && labels_fit && !ends_in_a_number(&name)).then_some(Self::Name(name))
    }
}

/// The WHATWG's "ends in a number": what resolvers take for an address, in whatever notation.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

/// Why no request goes to this address: it is none of the public internet, and not in a range that was
/// named. `None` when there is nothing against it.
///
/// An address of version 6 that carries one of version 4 has to pass as both: to name a translator's prefix
/// does not open what lies behind it.
#[must_use]
pub fn refusal(address: IpAddr, named: &[IpNet]) -> Option<&'static str> {
    let is_named = |address: IpAddr| named.iter().any(|range| range.contains(&address));
    let carried = match address {
        IpAddr::V6(address) => carried(address).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    [Some(address), carried].into_iter().flatten().find_map(|address| reserved(address).filter(|_| !is_named(address)))
}

/// What an address is for, when that is not the public internet.
fn reserved(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => reserved_v4(address),
        IpAddr::V6(address) => reserved_v6(address),
    }
}

/// IANA's registry of special-purpose addresses of version 4 (RFC 6890), and the metadata service of Azure, which has
/// a public one. Those of the other clouds are link-local, shared or of the IETF's own range.
fn reserved_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "unspecified",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [100, 64..=127, ..] => "shared (carrier-grade NAT)",
        [127, ..] => "loopback",
        [169, 254, ..] => "link-local (metadata services are there)",
        [168, 63, 129, 16] => "a metadata service",
        [192, 0, 0, _] => "reserved for protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "for documentation",
        [192, 88, 99, _] => "a relay of 6to4",
        [198, 18..=19, ..] => "for benchmarks",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    })
}

/// Only what IANA gives out as global unicast (2000::/3) can be public; the rest is for other things, or for
/// none yet.
fn reserved_v6(address: Ipv6Addr) -> Option<&'static str> {
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0, 0, 0, 0, 0, 0xffff, ..] => "an address of version 4, mapped",
        [0, 0, 0, 0, 0, 0, ..] => "an address of version 4, written as one of version 6",
        [0x64, 0xff9b, ..] => "an address of version 4 behind a translator (NAT64)",
        [0x2002, ..] => "an address of version 4 behind a relay (6to4)",
        [0x2001, 0, ..] => "an address of version 4 behind a relay (Teredo)",
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => "for documentation",
        // 2001::/23, given to the IETF's protocols.
        [0x2001, 0..=0x01ff, ..] => "reserved for protocols",
        [0xfc00..=0xfdff, ..] => "private (unique local)",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "private (site-local)",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2000..=0x3fff, ..] => return None,
        _ => "reserved",
    })
}

/// The address of version 4 that one of version 6 stands for.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // The unspecified address and the loopback look like the second form and are of version 6.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Mapped, translated (RFC 4291, section 2.5.5; RFC 8215), and by the well-known prefix of NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => from(high, low),
        [0x64, 0xff9b, .., high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        // Teredo has the client's address with every bit turned round (RFC 4380, section 4).
        [0x2001, 0, .., high, low] => from(!high, !low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Option<Server> {
        let (scheme, authority) = url.split_once("://").unwrap();
        Server::parse(scheme == "https", authority)
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        for (url, same) in [
            ("https://api.example.com", "https://api.example.com:443"),
            ("https://API.Example.COM", "https://api.example.com"),
            ("http://10.0.0.5", "http://10.0.0.5:80"),
            ("http://[2001:DB8::0:1]:8080", "http://[2001:db8::1]:8080"),
            ("https://xn--bcher-kva.example", "https://XN--BCHER-KVA.example:443"),
        ] {
            assert_eq!(server(url), server(same), "{url}");
            assert!(server(url).is_some(), "{url}");
            assert_eq!(server(&server(url).unwrap().to_string()), server(url), "what is shown can be written");
        }
        for other in
            ["http://api.example.com", "https://api.example.com:8443", "https://example.com", "https://api.example.co"]
        {
            assert_ne!(server(other), server("https://api.example.com"));
        }
    }

    /// Each of these has been used to make a filter and a resolver see two different servers.
    #[test]
    fn what_has_no_normal_form_is_no_server() {
        for authority in [
            "",
            ".",
            "api.example.com.",
            "api..example.com",
            ".api.example.com",
            "user@api.example.com",
            "api.example.com@evil.example",
            "api.example.com:443@evil.example",
            "api.example.com:443:80",
            "api.example.com:",
            "api.example.com:+443",
            "api.example.com:0443",
            "api.example.com:0",
            "api.example.com:65979",
            "api.example.com:44३",
            "api.example.com/",
            "api.example.com\\evil.example",
            "api.example.com%2eevil.example",
            "api.example.com#",
            "api.example.com\t",
            " api.example.com",
            "api.example.com\0.evil.example",
            "bücher.example",
            "api。example。com",
            "①②⑦.⓪.⓪.①",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.1",
            "127.0.0.01",
            "127.0.0.1.",
            "1.2.3.4.5",
            "example.0x",
            "[::1",
            "::1",
            "[::1]]",
            "[::1]x",
            "[::1]x:80",
            "[fe80::1%eth0]",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "[]",
        ] {
            assert_eq!(Server::parse(true, authority), None, "{authority:?}");
        }
        assert_eq!(Server::parse(true, &format!("{}.example", "a".repeat(64))), None);
        assert_eq!(Server::parse(true, &"a.".repeat(130)), None);
    }

    fn refused(address: &str) -> Option<&'static str> {
        refusal(address.parse().unwrap(), &[])
    }

    #[test]
    fn public_addresses_pass() {
        for address in ["93.184.216.34", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::64"] {
            assert_eq!(refused(address), None, "{address}");
        }
    }

    #[test]
    fn addresses_of_one_s_own_are_refused_in_every_form() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.255.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(refused(address).is_some(), "{address}");
            let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for carrier in [
                format!("::ffff:{high:x}:{low:x}"),
                format!("::ffff:0:{high:x}:{low:x}"),
                format!("::{high:x}:{low:x}"),
                format!("64:ff9b::{high:x}:{low:x}"),
                format!("64:ff9b:1::{high:x}:{low:x}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:1::{:x}:{:x}", !high, !low),
            ] {
                assert!(refused(&carrier).is_some(), "{carrier}");
            }
        }
        for address in [
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd00::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
            "::1.1.1.1",
        ] {
            assert!(refused(address).is_some(), "{address}");
        }
    }

    #[test]
    fn a_range_that_is_named_opens_itself_and_nothing_else() {
        let named = |address: &str, ranges: &[&str]| {
            let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            refusal(address.parse().unwrap(), &ranges)
        };
        assert_eq!(named("10.1.2.3", &["10.1.0.0/16"]), None);
        assert_eq!(named("10.2.2.3", &["10.1.0.0/16"]), Some("private"));
        assert_eq!(named("fd00:ec2::254", &["fd00:ec2::254/128"]), None);
        assert!(named("::ffff:10.1.2.3", &["10.1.0.0/16"]).is_some(), "only what was named");
        assert!(named("64:ff9b::10.1.2.3", &["64:ff9b::/96"]).is_some(), "nor what is behind it");
        assert_eq!(named("64:ff9b::10.1.2.3", &["64:ff9b::/96", "10.0.0.0/8"]), None);
        assert_eq!(named("64:ff9b::1.1.1.1", &["64:ff9b::/96"]), None);
        assert_eq!(named("::ffff:127.0.0.1", &["::/0"]), Some("loopback"));
    }
}
