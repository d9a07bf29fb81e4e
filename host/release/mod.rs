//! Releases of a plugin: which of its versions takes an object, and what becomes of a new one; pure.
//!
//! `NAME.wasm` is the stable version until somebody says otherwise. `NAME@canary.wasm` beside it takes a share
//! of the objects until a [`Tally`] of both decides: then it is the stable version, or takes no object any more.
//! `NAME@shadow.wasm` sees the same objects as the stable one, and what it makes is thrown away. The directory is
//! the operator's: what was decided stands in a [`Record`], and holds until the file changes that it was about.

mod record;
mod tally;

pub use record::{Kept, MAX_STABLE, MAX_VERSIONS, Record, ReleaseError};
pub use tally::{Decision, Evidence, Reason, Side, Tally};

use sha2::{Digest as _, Sha256};

use crate::config::is_plugin_name;

/// What a file of the plugin directory is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `NAME.wasm`
    Stable,
    /// `NAME@canary.wasm`
    Canary,
    /// `NAME@shadow.wasm`
    Shadow,
}

impl Role {
    /// What stands between the plugin's name and `.wasm`.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Stable => "",
            Self::Canary => "@canary",
            Self::Shadow => "@shadow",
        }
    }

    /// The file's name before `.wasm`.
    #[must_use]
    pub fn stem(self, plugin: &str) -> String {
        format!("{plugin}{}", self.suffix())
    }
}

/// The plugin that a file is about, by its name before `.wasm`. `None`: no plugin can be called so.
#[must_use]
pub fn plugin_of(stem: &str) -> Option<(&str, Role)> {
    let roles = [Role::Canary, Role::Shadow];
    let found = roles.into_iter().find_map(|role| Some((stem.strip_suffix(role.suffix())?, role)));
    let (plugin, role) = found.unwrap_or((stem, Role::Stable));
    is_plugin_name(plugin).then_some((plugin, role))
}

/// Whether the object falls into a share, from 0 to 1, of all objects. The same version of an object always
/// falls on the same side, however often it is delivered and to whichever host.
#[must_use]
pub fn is_in_share(share: f64, key: &str, etag: &str) -> bool {
    let hash: [u8; 32] = Sha256::new().chain_update(key).chain_update([0]).chain_update(etag).finalize().into();
    let head = hash.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    // As many bits as a double holds exactly.
    const BITS: u32 = f64::MANTISSA_DIGITS;
    let point = (head >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64;
    point < share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_are_about_plugins() {
        assert_eq!(plugin_of("resize"), Some(("resize", Role::Stable)));
        assert_eq!(plugin_of("resize@canary"), Some(("resize", Role::Canary)));
        assert_eq!(plugin_of("resize@shadow"), Some(("resize", Role::Shadow)));
        for wrong in ["", "@canary", "resize@", "resize@other", "resize@canary@canary", "Resize@canary"] {
            assert_eq!(plugin_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_share_is_what_it_says() {
        for share in [0.01, 0.1, 0.5, 0.9] {
            let taken = (0..10_000).filter(|number| is_in_share(share, &format!("uploads/{number}"), "1")).count();
            let expected = share * 10_000.0;
            assert!((taken as f64 - expected).abs() < 200.0, "{taken} of 10,000 at {share}");
        }
    }

    proptest! {
        /// Who is in a small share is in every larger one, so raising it takes no object away from the canary.
        #[test]
        fn shares_grow(key in ".{0,40}", etag in "[0-9a-f]{0,32}", share in 0.0..=1.0_f64) {
            prop_assert_eq!(is_in_share(share, &key, &etag), is_in_share(share, &key, &etag));
            prop_assert!(!is_in_share(share, &key, &etag) || is_in_share(1.0, &key, &etag));
            prop_assert!(!is_in_share(0.0, &key, &etag) && is_in_share(1.0, &key, &etag));
        }
    }
}
