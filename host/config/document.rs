//! `gristmill.toml` as a tree whose every value knows its line.
//!
//! Reading by hand instead of through serde's derive is what lets one run report every error: a reader
//! that stops at the first value of a wrong type cannot see the second.

use std::path::Path;

use serde_json::{Map, Value as Json};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    environment::KEYS,
    error::{Located, Origin, Problems, nearest, shown},
};

/// The largest file. A thousand routes fit, and the parser's time and stack stay bounded.
const MAX_BYTES: usize = 1 << 20;

/// The text of a file and the sink of what is wrong with it.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    /// Where lines end. A file of nothing but errors asks for many lines.
    newlines: Vec<usize>,
    problems: &'a Problems,
}

impl<'a> Document<'a> {
    pub fn new(path: &'a Path, text: &'a str, problems: &'a Problems) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect();
        Self { path, text, newlines, problems }
    }

    /// Reads the syntax. On `None` every syntax error is recorded; the values are not worth a look then.
    pub fn parse(&self) -> Option<DeTable<'a>> {
        if self.text.len() > MAX_BYTES {
            self.problems.add(self.origin(0), format!("the file is larger than {MAX_BYTES} bytes; shorten it"));
            return None;
        }
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.problems.add(self.origin(offset), error.message());
        }
        errors.is_empty().then(|| tree.into_inner())
    }

    /// The tree's top.
    pub fn top(&'a self, tree: &'a DeTable<'a>) -> Table<'a> {
        Table { document: self, name: "", offset: 0, entries: tree, known: Vec::new() }
    }

    fn origin(&self, offset: usize) -> Origin {
        let line = self.newlines.partition_point(|newline| *newline < offset) + 1;
        Origin::File { path: self.path.to_owned(), line }
    }

    /// Records that the value of `key` at `offset` is wrong.
    fn refuse(&self, offset: usize, key: &str, message: &str) {
        self.problems.add(self.origin(offset), format!("`{key}`: {message}"));
    }
}

/// A table being read: whatever nobody has asked for by [`Table::finish`] is an unknown key.
#[must_use = "a table must be finished, else its unknown keys go unnoticed"]
pub(super) struct Table<'a> {
    document: &'a Document<'a>,
    /// As in the file, `[limits]`; empty at the top.
    name: &'static str,
    offset: usize,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// Where the table begins.
    pub fn origin(&self) -> Origin {
        self.document.origin(self.offset)
    }

    /// Where the key is, if it is there.
    pub fn origin_of(&self, key: &str) -> Option<Origin> {
        self.entries.get_key_value(key).map(|(name, _)| self.document.origin(name.span().start))
    }

    /// A string.
    pub fn text<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Located<T>> {
        let value = self.take(key)?;
        self.parse_text(key, value, &parse)
    }

    /// A string or a number, for values with a unit and counts.
    pub fn scalar<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Located<T>> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::Integer(number) => {
                // `0x10` is sixteen to TOML, and to nobody's parser below.
                let decimal = i128::from_str_radix(number.as_str(), number.radix()).map(|number| number.to_string());
                self.parsed(key, value, parse(&decimal.unwrap_or_else(|_| number.to_string())))
            }
            DeValue::Float(number) => self.parsed(key, value, parse(number.as_str())),
            _ => self.parse_text(key, value, &parse),
        }
    }

    /// A boolean.
    pub fn flag(&mut self, key: &'static str) -> Option<Located<bool>> {
        let value = self.take(key)?;
        let parsed = match value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(format!("expected `true` or `false`, found {}", kind(other))),
        };
        self.parsed(key, value, parsed)
    }

    /// A string or a list of strings. An empty list is refused: it could mean everything or nothing.
    pub fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<Located<T>>> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::Array(items) if items.is_empty() => {
                self.document.refuse(value.span().start, key, "the list is empty; leave it out instead");
                None
            }
            DeValue::Array(items) => Some(items.iter().filter_map(|item| self.parse_text(key, item, &parse)).collect()),
            _ => self.parse_text(key, value, &parse).map(|one| vec![one]),
        }
    }

    /// A table, called `name` in messages.
    pub fn table(&mut self, key: &'static str, name: &'static str) -> Option<Table<'a>> {
        let value = self.take(key)?;
        self.as_table(key, name, value)
    }

    /// A list of tables, each called `name` in messages.
    pub fn tables(&mut self, key: &'static str, name: &'static str) -> Option<Vec<Table<'a>>> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::Array(items) => Some(items.iter().filter_map(|item| self.as_table(key, name, item)).collect()),
            other => {
                let message = format!("expected a list of tables, found {}; write `{name}`", kind(other));
                self.document.refuse(value.span().start, key, &message);
                None
            }
        }
    }

    /// Tables by a name that the user chose, `[plugin.resize]`, each called `name` in messages.
    pub fn named_tables(&mut self, key: &'static str, name: &'static str) -> Option<Vec<(Located<String>, Table<'a>)>> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::Table(entries) => {
                let named = entries.iter().filter_map(|(entry, value)| {
                    let origin = self.document.origin(entry.span().start);
                    let table = self.as_table(entry.get_ref(), name, value)?;
                    Some((Located { value: entry.get_ref().to_string(), origin }, table))
                });
                Some(named.collect())
            }
            other => {
                let message = format!("expected a table, found {}; write `{name}`", kind(other));
                self.document.refuse(value.span().start, key, &message);
                None
            }
        }
    }

    /// A table of anything, as JSON.
    pub fn json(&mut self, key: &'static str) -> Option<Map<String, Json>> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::Table(entries) => Some(self.json_table(entries)),
            other => {
                self.document.refuse(value.span().start, key, &format!("expected a table, found {}", kind(other)));
                None
            }
        }
    }

    /// Refuses every key that nobody has asked for.
    pub fn finish(self) {
        for key in self.entries.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let place = if self.name.is_empty() { String::new() } else { format!(" in `{}`", self.name) };
            // In TOML everything below a header belongs to it, and that is easily forgotten.
            let advice = if KEYS.contains(&name.as_ref()) {
                "; it belongs at the top of the file, above the first `[…]`".to_owned()
            } else if let Some(known) = nearest(name, self.known.iter().copied()) {
                format!("; did you mean `{known}`?")
            } else {
                let known: Vec<_> = self.known.iter().map(|known| format!("`{known}`")).collect();
                format!("; known here are {}", known.join(", "))
            };
            let message = format!("unknown key `{}`{place}{advice}", shown(name));
            self.document.problems.add(self.document.origin(key.span().start), message);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries.get(key)
    }

    fn parse_text<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let parsed = match value.get_ref() {
            DeValue::String(text) => parse(text),
            other => Err(format!("expected a string, found {}", kind(other))),
        };
        self.parsed(key, value, parsed)
    }

    fn parsed<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, parsed: Result<T, String>) -> Option<Located<T>> {
        let offset = value.span().start;
        match parsed {
            Ok(value) => Some(Located { value, origin: self.document.origin(offset) }),
            Err(message) => {
                self.document.refuse(offset, key, &message);
                None
            }
        }
    }

    fn as_table(&self, key: &str, name: &'static str, value: &'a Spanned<DeValue<'a>>) -> Option<Table<'a>> {
        let offset = value.span().start;
        match value.get_ref() {
            DeValue::Table(entries) => {
                Some(Table { document: self.document, name, offset, entries, known: Vec::new() })
            }
            other => {
                let message = format!("expected a table, found {}; write `{name}`", kind(other));
                self.document.refuse(offset, key, &message);
                None
            }
        }
    }

    fn json_table(&self, entries: &DeTable<'_>) -> Map<String, Json> {
        let pairs =
            entries.iter().map(|(key, value)| (key.get_ref().to_string(), self.json_value(key.get_ref(), value)));
        pairs.collect()
    }

    fn json_list(&self, key: &str, items: &DeArray<'_>) -> Json {
        Json::Array(items.iter().map(|item| self.json_value(key, item)).collect())
    }

    fn json_value(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Json {
        let number = match value.get_ref() {
            DeValue::String(text) => return Json::String(text.to_string()),
            DeValue::Boolean(truth) => return Json::Bool(*truth),
            DeValue::Datetime(moment) => return Json::String(moment.to_string()),
            DeValue::Array(items) => return self.json_list(key, items),
            DeValue::Table(entries) => return Json::Object(self.json_table(entries)),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Into::into),
            DeValue::Float(number) => number.as_str().parse().ok().and_then(serde_json::Number::from_f64),
        };
        // What JSON cannot hold is refused and not bent: a plugin would see another number than was written.
        number.map_or_else(
            || {
                let message = "the number cannot be handed to a plugin: JSON has no `inf`, no `nan` and, here, whole \
                               numbers of 64 bits; write it as a string";
                self.document.refuse(value.span().start, &shown(key), message);
                Json::Null
            },
            Json::Number,
        )
    }
}

/// For messages: what was found instead.
fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string `{}`", shown(text)),
        DeValue::Integer(number) => format!("the number `{}`", shown(&number.to_string())),
        DeValue::Float(number) => format!("the number `{}`", shown(number.as_str())),
        DeValue::Boolean(truth) => format!("`{truth}`"),
        DeValue::Datetime(moment) => format!("the date `{moment}`"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
