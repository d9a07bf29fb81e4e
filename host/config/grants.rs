//! What `[plugin.NAME]` grants to a plugin, beyond its object, its outputs, its log and its settings.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    document::Table,
    error::{Problems, shown},
    value,
};
use crate::address::Server;

/// What the operator grants to one plugin. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// The servers that it may send requests to.
    pub http: Vec<Server>,
    /// Ranges outside the public internet in which those servers may be.
    pub private_addresses: Vec<IpNet>,
    /// A folder that it may read, and finds as `/data`.
    pub data: Option<PathBuf>,
    /// Whether it sees what time it is.
    pub clocks: bool,
    /// Whether its randomness is random.
    pub randomness: bool,
}

/// Reads the grants of one `[plugin.NAME]`. Relative paths start at `base`.
pub(super) fn read_grants(table: &mut Table<'_>, base: &Path, problems: &Problems) -> Grants {
    let http = table.list("http", server).unwrap_or_default();
    let private = table.list("private_addresses", range).unwrap_or_default();
    if let Some(origin) = table.origin_of("private_addresses").filter(|_| table.origin_of("http").is_none()) {
        let message = "`private_addresses` says where the servers of `http` may be, and there is no `http`; add one";
        problems.add(origin, message);
    }
    Grants {
        http: http.into_iter().map(|given| given.value).collect(),
        private_addresses: private.into_iter().map(|given| given.value).collect(),
        data: table.text("data", value::path).map(|given| base.join(given.value)),
        clocks: table.flag("clocks").is_some_and(|given| given.value),
        randomness: table.flag("randomness").is_some_and(|given| given.value),
    }
}

/// `api.example.com`, which is https, or a URL without a path.
fn server(text: &str) -> Result<Server, String> {
    let (tls, authority) = match text.split_once("://") {
        Some(("https", authority)) => (true, authority),
        Some(("http", authority)) => (false, authority),
        Some((scheme, _)) => {
            return Err(format!("`{}` is no scheme for requests; write `https` or `http`", shown(scheme)));
        }
        None => (true, text),
    };
    let advice = if authority.contains('/') {
        "leave the path out: a plugin may send to every path of a server"
    } else if authority.contains('*') {
        "name each server, as there are no wildcards"
    } else if authority.contains('@') {
        "leave the user out: plugins send credentials as a header"
    } else if !authority.is_ascii() {
        "write the name as resolvers see it, `xn--…`"
    } else if authority.ends_with('.') {
        "leave the dot at the end out"
    } else {
        "write it like `api.example.com`, `https://hooks.example.com:8443` or `http://10.0.0.5`"
    };
    Server::parse(tls, authority).ok_or_else(|| format!("`{}` is not a server; {advice}", shown(text)))
}

/// `10.1.0.0/16`, or one address.
fn range(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse().ok().map(|address: IpAddr| address.into()));
    let range = parsed.ok_or_else(|| {
        format!("`{}` is not a range of addresses; write it like `10.1.0.0/16` or `fd00::1`", shown(text))
    })?;
    if range != range.trunc() {
        return Err(format!("`{}` has bits beyond its length; write `{}`", shown(text), range.trunc()));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_or_urls_without_a_path() {
        for (text, expected) in [
            ("api.example.com", "https://api.example.com"),
            ("API.example.com:8443", "https://api.example.com:8443"),
            ("https://hooks.example.com:443", "https://hooks.example.com"),
            ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(server(text).map(|server| server.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for (text, advice) in [
            ("https://api.example.com/", "path"),
            ("*.example.com", "wildcards"),
            ("https://user:secret@api.example.com", "credentials"),
            ("bücher.example", "xn--"),
            ("api.example.com.", "dot"),
            ("ftp://api.example.com", "scheme"),
            ("2130706433", "write it like"),
            ("", "write it like"),
        ] {
            let error = server(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    #[test]
    fn ranges_are_exact() {
        assert_eq!(range("10.1.0.0/16").map(|range| range.to_string()).as_deref(), Ok("10.1.0.0/16"));
        assert_eq!(range("127.0.0.1").map(|range| range.to_string()).as_deref(), Ok("127.0.0.1/32"));
        assert_eq!(range("fd00::1").map(|range| range.to_string()).as_deref(), Ok("fd00::1/128"));
        assert_eq!(range("10.1.2.3/8").unwrap_err(), "`10.1.2.3/8` has bits beyond its length; write `10.0.0.0/8`");
        for wrong in ["", "10.1.0.0/33", "10.1", "localhost", "0x0a000001"] {
            assert!(range(wrong).unwrap_err().contains("is not a range"), "{wrong}");
        }
    }
}
