//! `gristmill check`: everything that is wrong with a configuration and its plugins, at once; and on request with
//! what it names.

mod bucket;
mod directory;
mod finding;
mod live;
mod queue;

use std::process::ExitCode;

use super::{Fatal, plugin};
use crate::{
    config::{Config, Place, Plugins},
    plugin::Compiler,
    registry::{self, Catalog},
};

/// Reports what is wrong, or says what the configuration comes to. With `live` it goes on to look at the bucket
/// and the queue, or the directory.
///
/// # Errors
/// With all problems of the configuration, when there are any.
pub fn check(config: Result<Config, Fatal>, compiler: &Compiler, live: bool, as_json: bool) -> Result<ExitCode, Fatal> {
    let config = config?;
    let mut problems = Vec::new();
    let catalog = match &config.plugins {
        Plugins::BuiltIn => None,
        Plugins::Directory(directory) => {
            let engine = plugin::engine(config.grants.clone())?;
            let catalog = registry::load_directory(&engine, compiler, directory, &config.trust);
            Some(catalog.unwrap_or_else(|error| {
                problems.push(error.to_string());
                Catalog::default()
            }))
        }
    };
    if let Some(catalog) = &catalog {
        for (name, entry) in catalog.iter() {
            problems.extend(entry.refused.as_ref().map(|refused| format!("plugin `{name}`: {}", refused.reason)));
        }
    }
    let is_loaded = |name: &str| match &catalog {
        Some(catalog) => catalog.contains(name),
        None => registry::built_in_names().any(|built_in| built_in == name),
    };
    if !config.has_default_routes {
        for used in config.routes.iter().flat_map(|route| &route.uses) {
            if !is_loaded(&used.plugin) {
                problems.push(format!(
                    "a route names the plugin `{}`, which is not there: put `{0}.wasm` into the plugin directory",
                    used.plugin
                ));
            }
        }
    }
    if !problems.is_empty() {
        problems.dedup();
        return Err(Fatal::Config(problems.join("\n")));
    }
    let place = match &config.place {
        Place::Directory(directory) => directory.display().to_string(),
        Place::Bucket(bucket) => format!("bucket {}", bucket.name),
    };
    let routes = config.routes.len();
    let summary = format!(
        "{place}, {} to {}, {routes} routes, {} slots",
        config.source_prefix, config.destination_prefix, config.slots
    );
    if live {
        return live::check(&config, &summary, as_json);
    }
    println!("good: {summary}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::{Config, Overrides, Sources, load};

    /// A configuration of a bucket, with more in its file.
    pub fn config(more: &str) -> Config {
        let file = format!("bucket = \"bucket\"\nqueue_url = \"https://sqs.r.amazonaws.com/1/q\"\n{more}");
        let sources = Sources {
            file: Some(("gristmill.toml".into(), file)),
            env: BTreeMap::new(),
            overrides: Overrides::default(),
            cores: 1,
            is_directory: |_| false,
        };
        load(sources).unwrap()
    }
}
