//! The environment, as `main` handed it over.

use std::collections::BTreeMap;

use super::error::{Located, Origin, Problems, nearest, shown};

/// Every key that a `GRISTMILL_` variable can set: the scalar keys at the top of the file.
pub(super) const KEYS: &[&str] = &[
    "directory",
    "bucket",
    "region",
    "queue_url",
    "dead_letter_queue_url",
    "path_style",
    "copy_in_parts_above",
    "source_prefix",
    "destination_prefix",
    "plugins",
    "plugins_of_any_owner",
    "plugins_by_links",
    "state",
    "slots",
    "bytes_in_flight",
    "visibility_timeout",
    "drain_timeout",
];

/// The names that people's workers and AWS's tools already have, strongest first. All of them are
/// weaker than the key's own `GRISTMILL_` variable.
const ALIASES: &[(&str, &[&str])] = &[
    ("bucket", &["BUCKET"]),
    ("region", &["REGION", "AWS_REGION", "AWS_DEFAULT_REGION"]),
    ("queue_url", &["QUEUE_URL"]),
    ("source_prefix", &["SRC_PREFIX"]),
    ("destination_prefix", &["DST_PREFIX"]),
];

/// `GRISTMILL_` variables that somebody else reads.
const OTHERS: &[&str] = &["GRISTMILL_LOG", "GRISTMILL_LOG_FORMAT"];

const OURS: &str = "GRISTMILL_";

/// Reads variables and records what is wrong with them.
pub(super) struct Environment<'a> {
    variables: &'a BTreeMap<String, String>,
    problems: &'a Problems,
}

impl<'a> Environment<'a> {
    pub fn new(variables: &'a BTreeMap<String, String>, problems: &'a Problems) -> Self {
        Self { variables, problems }
    }

    /// The value of the strongest variable that sets `key`.
    pub fn get<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Located<T>> {
        let own = own_variable(key);
        let aliases = ALIASES.iter().find(|(name, _)| *name == key).map_or(&[][..], |(_, aliases)| aliases);
        let variable = std::iter::once(own.as_str()).chain(aliases.iter().copied()).find(|name| self.is_set(name))?;
        let origin = Origin::Environment(variable.to_owned());
        match parse(self.variables.get(variable)?) {
            Ok(value) => Some(Located { value, origin }),
            Err(message) => {
                self.problems.add(origin, message);
                None
            }
        }
    }

    /// Where the key's own `GRISTMILL_` variable is, if it is set.
    pub fn own(&self, key: &str) -> Option<Origin> {
        let own = own_variable(key);
        self.is_set(&own).then_some(Origin::Environment(own))
    }

    /// Refuses `GRISTMILL_` variables that nobody reads: a misspelt one would be silently without effect.
    pub fn refuse_unknown(&self) {
        let known: Vec<String> = KEYS.iter().map(|key| own_variable(key)).collect();
        let names = || known.iter().map(String::as_str).chain(OTHERS.iter().copied());
        for variable in self.variables.keys().filter(|name| name.starts_with(OURS)) {
            if names().any(|name| name == variable) {
                continue;
            }
            // Only the part after the common beginning is compared: with it every two names look alike.
            let suffix = variable.strip_prefix(OURS).unwrap_or(variable);
            let message = match nearest(suffix, names().filter_map(|name| name.strip_prefix(OURS))) {
                Some(name) => format!("unknown variable; did you mean `{OURS}{name}`?"),
                None => format!("unknown variable; known are {}", names().collect::<Vec<_>>().join(", ")),
            };
            self.problems.add(Origin::Environment(shown(variable)), message);
        }
    }

    /// An empty variable is as good as none: `docker compose` and unit files pass unset ones so.
    fn is_set(&self, variable: &str) -> bool {
        self.variables.get(variable).is_some_and(|value| !value.is_empty())
    }
}

fn own_variable(key: &str) -> String {
    format!("{OURS}{}", key.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn region_of(pairs: &[(&str, &str)]) -> Option<String> {
        let (variables, problems) = (variables(pairs), Problems::default());
        Environment::new(&variables, &problems).get("region", |text| Ok(text.to_owned())).map(|found| found.value)
    }

    #[test]
    fn the_strongest_name_wins() {
        let mut pairs =
            vec![("AWS_DEFAULT_REGION", "d"), ("AWS_REGION", "c"), ("REGION", "b"), ("GRISTMILL_REGION", "a")];
        while let Some((_, expected)) = pairs.last().copied() {
            assert_eq!(region_of(&pairs).as_deref(), Some(expected));
            pairs.pop();
        }
        assert_eq!(region_of(&[]), None);
        assert_eq!(region_of(&[("GRISTMILL_REGION", ""), ("REGION", "b")]).as_deref(), Some("b"));
    }

    #[test]
    fn unknown_variables_are_refused_with_the_nearest_name() {
        let variables = variables(&[
            ("GRISTMILL_SLOT", "1"),
            ("GRISTMILL_LOG", "debug"),
            ("GRISTMILL_COLOUR_SCHEME", "x"),
            ("HOME", "/root"),
        ]);
        let problems = Problems::default();
        Environment::new(&variables, &problems).refuse_unknown();
        let text = problems.into_errors().to_string();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with(
            "environment: GRISTMILL_COLOUR_SCHEME: unknown variable; known are GRISTMILL_DIRECTORY, GRISTMILL_BUCKET"
        ));
        assert_eq!(
            lines.next(),
            Some("environment: GRISTMILL_SLOT: unknown variable; did you mean `GRISTMILL_SLOTS`?")
        );
        assert_eq!(lines.next(), None);
    }
}
