//! What the operator grants to which plugin, and the way out for those that may send requests.

use std::{collections::BTreeMap, sync::Arc};

use super::http::{Outbound, OutboundError};
use crate::config::Grants;

/// The grants of all plugins. By default nobody has any.
#[derive(Default)]
pub struct Granted {
    plugins: BTreeMap<String, Arc<Grants>>,
    outbound: Option<Arc<Outbound>>,
}

impl Granted {
    /// With the system's own way out.
    ///
    /// # Errors
    /// When somebody may send requests, and there is no TLS to be had.
    pub fn new(plugins: BTreeMap<String, Grants>) -> Result<Self, OutboundError> {
        let sends = plugins.values().any(|grants| !grants.http.is_empty());
        let outbound = sends.then(Outbound::system).transpose()?;
        Ok(Self { outbound: outbound.map(Arc::new), ..Self::with_outbound(plugins, None) })
    }

    /// With a way out of one's own.
    #[must_use]
    pub fn with_outbound(plugins: BTreeMap<String, Grants>, outbound: Option<Outbound>) -> Self {
        let plugins = plugins.into_iter().map(|(name, grants)| (name, Arc::new(grants))).collect();
        Self { plugins, outbound: outbound.map(Arc::new) }
    }

    pub(super) fn of(&self, plugin: &str) -> Arc<Grants> {
        self.plugins.get(plugin).cloned().unwrap_or_default()
    }

    pub(super) fn outbound(&self) -> Option<&Arc<Outbound>> {
        self.outbound.as_ref()
    }
}
