//! `[[route]]`: which objects go to which plugins.

use std::{path::Path, sync::Arc};

use super::{
    KeyPattern, Limits, Route, Use,
    document::{Document, Table},
    error::{Located, Origin, Problems, shown},
    limits::read_limits,
    value,
};

/// The routes of a configuration that names none.
const DEFAULT_ROUTES: &str = r#"
[[route]]
match = ["*.jpg", "*.jpeg", "*.png", "*.webp", "*.gif"]
plugins = ["resize"]

[[route]]
match = ["*.csv", "*.tsv", "*.json", "*.ndjson", "*.jsonl"]
plugins = ["parse"]

[[route]]
plugins = ["passthrough"]
"#;

/// What routes take from the rest of the configuration.
pub(super) struct Defaults<'a> {
    /// `None` when it was given and is wrong: then nothing can be checked against it.
    pub source_prefix: Option<&'a str>,
    pub destination_prefix: Option<&'a str>,
    pub limits: Limits,
    pub problems: &'a Problems,
}

impl Defaults<'_> {
    /// The routes of a file.
    pub fn read(&self, tables: Vec<Table<'_>>) -> Vec<Route> {
        tables.into_iter().map(|table| self.route(table)).collect()
    }

    /// Images to `resize`, tables and JSON to `parse`, everything else to `passthrough`.
    pub fn default_routes(&self) -> Vec<Route> {
        let path = Path::new("built-in routes");
        let document = Document::new(path, DEFAULT_ROUTES, self.problems);
        let tree = document.parse().unwrap_or_default();
        self.read(document.top(&tree).tables("route", "[[route]]").unwrap_or_default())
    }

    fn route(&self, mut table: Table<'_>) -> Route {
        let (source_prefix, destination_prefix) = self.prefixes(&mut table);
        let patterns = table.list("match", |text| self.pattern(text, &source_prefix)).unwrap_or_default();
        let content_types = table.list("content_type", value::content_type).unwrap_or_default();
        let (min_size, max_size) = self.sizes(&mut table);
        let uses = self.uses(&mut table);
        table.finish();
        Route {
            keys: patterns.into_iter().map(|given| given.value).collect(),
            content_types: content_types.into_iter().map(|given| given.value).collect(),
            min_size,
            max_size,
            source_prefix,
            destination_prefix,
            uses,
        }
    }

    fn pattern(&self, text: &str, source_prefix: &str) -> Result<KeyPattern, String> {
        let shown = shown(text);
        // It would match nothing but keys that have the prefix twice, and hardly ever is that meant.
        if !source_prefix.is_empty() && text.starts_with(source_prefix) {
            return Err(format!(
                "`{shown}` begins with the source prefix `{source_prefix}`, but patterns are held against the key below \
                 it; leave the prefix out"
            ));
        }
        KeyPattern::new(text).map_err(|why| format!("`{shown}` is not a pattern: {why}"))
    }

    /// A route's own source prefix moves its default destination along, so that objects of two routes
    /// never meet at one key unless somebody says so.
    fn prefixes(&self, table: &mut Table<'_>) -> (String, String) {
        let source = table.text("source_prefix", |text| {
            let prefix = value::prefix(text)?;
            match self.source_prefix {
                Some(all) if !prefix.starts_with(all) => {
                    let shown = shown(&prefix);
                    Err(format!("`{shown}` is not below `{all}`, where objects are looked for; write `{all}{shown}`"))
                }
                _ => Ok(prefix),
            }
        });
        let destination = table.text("destination_prefix", value::prefix);
        if let (Some(source), Some(destination)) = (self.source_prefix, &destination) {
            refuse_loop(source, &destination.value, &destination.origin, self.problems);
        }
        let all = self.source_prefix.unwrap_or_default();
        let source = source.map_or_else(|| all.to_owned(), |given| given.value);
        let below = source.strip_prefix(all).unwrap_or_default();
        let moved_along = format!("{}{below}", self.destination_prefix.unwrap_or_default());
        (source, destination.map_or(moved_along, |given| given.value))
    }

    fn sizes(&self, table: &mut Table<'_>) -> (Option<u64>, Option<u64>) {
        let min = table.scalar("min_size", value::size(0..=u64::MAX));
        let max = table.scalar("max_size", value::size(0..=u64::MAX));
        if let (Some(min), Some(max)) = (&min, &max)
            && min.value > max.value
        {
            let (least, most) = (min.value, max.value);
            let message = format!("`min_size`: {least} bytes are more than `max_size`, {most}; no object matches both");
            self.problems.add(min.origin.clone(), message);
        }
        (min.map(|given| given.value), max.map(|given| given.value))
    }

    fn uses(&self, table: &mut Table<'_>) -> Vec<Use> {
        let names = table.list("plugins", value::plugin_name);
        let tables = table.tables("use", "[[route.use]]");
        if let (Some(_), Some(origin)) = (&names, table.origin_of("use")) {
            let message = "`use`: the route has `plugins` too; name each plugin once, with `use` if it needs settings";
            self.problems.add(origin, message);
        }
        let plain = names
            .into_iter()
            .flatten()
            .map(|name| name.map(|plugin| Use { plugin, settings: Arc::default(), limits: self.limits }));
        let full = tables.into_iter().flatten().filter_map(|table| self.one_use(table));
        let mut uses: Vec<Use> = Vec::new();
        for Located { value, origin } in plain.chain(full) {
            // Both would write the same outputs.
            if uses.iter().any(|other| other.plugin == value.plugin && other.settings == value.settings) {
                let message = format!("`{}` is used twice with the same settings; remove one", value.plugin);
                self.problems.add(origin, message);
            }
            uses.push(value);
        }
        uses
    }

    fn one_use(&self, mut table: Table<'_>) -> Option<Located<Use>> {
        if table.origin_of("plugin").is_none() {
            self.problems.add(table.origin(), "`plugin` is missing; name one as in `NAME.wasm`");
        }
        let plugin = table.text("plugin", value::plugin_name);
        let settings = Arc::new(table.json("settings").unwrap_or_default());
        let limits = table.table("limits", "[route.use.limits]").map(|table| read_limits(table, self.limits));
        table.finish();
        Some(plugin?.map(|plugin| Use { plugin, settings, limits: limits.unwrap_or(self.limits) }))
    }
}

/// What is written where uploads are looked for would be processed again, without end. The other way
/// round is as bad: with `a/` around `a/b/`, the object `a/b/b/x` would become the upload `a/b/x`.
pub(super) fn refuse_loop(source: &str, destination: &str, origin: &Origin, problems: &Problems) {
    let relation = match (destination.starts_with(source), source.starts_with(destination)) {
        (true, true) => "the same as",
        (true, false) => "inside",
        (false, true) => "around",
        (false, false) => return,
    };
    let message = format!(
        "the destination prefix `{destination}` is {relation} the source prefix `{source}`: results would be processed \
         again, without end; keep the two apart, as `uploads/` and `processed/` are"
    );
    problems.add(origin.clone(), message);
}
