//! How dead letters look: a table for people, JSON for programs.

use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};

use crate::{plugin::short_digest, queue::DeadMessage, text::printable};

/// Of a name, a class or an ID.
const MAX_NAME: usize = 256;

/// Of a key, a reason or a frame.
const MAX_LINE: usize = 8 << 10;

/// Of a message: as much as SQS takes.
const MAX_BODY: usize = 1 << 20;

/// Of a reason in the table at a terminal, so that a row has one or two lines there. `show` has all of it.
const REASON_AT_TERMINAL: usize = 80;

/// Columns that a plugin gets before the table is bent for it, and a key.
const PLUGIN_WIDTH: usize = 24;
const KEY_WIDTH: usize = 32;

/// A row for each, and a head above the first.
pub(super) struct Table {
    at_terminal: bool,
    /// Known from the first row on: IDs of a queue are all alike.
    id_width: Option<usize>,
}

impl Table {
    pub fn new(at_terminal: bool) -> Self {
        Self { at_terminal, id_width: None }
    }

    pub fn rows(&mut self, message: &DeadMessage) -> Vec<String> {
        let mut rows = Vec::new();
        let id = printable(&message.id, MAX_NAME);
        let width = *self.id_width.get_or_insert_with(|| {
            let width = id.len().max(4);
            rows.push(format!(
                "{:<width$} {:<20} {:<14} {:>8} {:<PLUGIN_WIDTH$} {:<KEY_WIDTH$} REASON",
                "ID", "DIED", "CLASS", "ATTEMPTS", "PLUGIN", "OBJECT"
            ));
            width
        });
        let letter = &message.letter;
        let plugin = letter.plugin.as_ref().map_or("-".to_owned(), |(name, digest)| {
            format!("{}@{}", printable(name, MAX_NAME), printable(short_digest(digest), MAX_NAME))
        });
        let reason = if self.at_terminal { REASON_AT_TERMINAL } else { MAX_LINE };
        rows.push(format!(
            "{id:<width$} {} {:<14} {:>8} {plugin:<PLUGIN_WIDTH$} {:<KEY_WIDTH$} {}",
            format_rfc3339_seconds(message.died),
            printable(&letter.class, MAX_NAME),
            letter.attempts,
            letter.key.as_deref().map_or("-".to_owned(), |key| printable(key, MAX_LINE)),
            printable(&letter.reason, reason),
        ));
        rows
    }
}

/// All there is to know, for people.
pub(super) fn in_full(message: &DeadMessage) -> Vec<String> {
    let letter = &message.letter;
    let mut lines = vec![
        format!("id         {}", printable(&message.id, MAX_NAME)),
        format!("died       {}", format_rfc3339_seconds(message.died)),
        format!("class      {}", printable(&letter.class, MAX_NAME)),
        format!("attempts   {}", letter.attempts),
    ];
    if let Some((name, digest)) = &letter.plugin {
        lines.push(format!("plugin     {} sha256 {}", printable(name, MAX_NAME), printable(digest, MAX_NAME)));
    }
    if let Some(key) = &letter.key {
        lines.push(format!("object     {}", printable(key, MAX_LINE)));
    }
    lines.push(format!("reason     {}", printable(&letter.reason, MAX_LINE)));
    let frames = letter.backtrace.iter().flat_map(|frames| frames.split(" <- "));
    lines.extend(frames.map(|frame| format!("  at       {}", printable(frame, MAX_LINE))));
    lines.push(format!("message    {}", printable(&String::from_utf8_lossy(&message.body), MAX_BODY)));
    lines
}

/// As `list --json` prints it.
pub(super) fn json(message: &DeadMessage) -> Value {
    let letter = &message.letter;
    let (plugin, digest) = letter.plugin.as_ref().map(|(name, digest)| (name, digest)).unzip();
    json!({
        "id": message.id,
        "died": format_rfc3339_seconds(message.died).to_string(),
        "class": letter.class,
        "attempts": letter.attempts,
        "plugin": plugin,
        "digest": digest,
        "key": letter.key,
        "reason": letter.reason,
    })
}

/// As `show --json` prints it.
pub(super) fn json_in_full(message: &DeadMessage) -> Value {
    let mut full = json(message);
    full["backtrace"] = message.letter.backtrace.clone().into();
    full["body"] = String::from_utf8_lossy(&message.body).into();
    full
}

#[cfg(test)]
mod tests {
    use super::{super::select::tests::dead, *};

    #[test]
    fn a_row_cannot_steer_the_terminal_and_is_cut_there() {
        let message = dead("7", "trap", &format!("line\u{1b}[31m\n{}", "x".repeat(1_000)));
        let rows = Table::new(true).rows(&message);
        assert!(rows[0].starts_with("ID   DIED "), "{rows:?}");
        assert!(
            rows[1].starts_with("7    2023-11-14T22:13:20Z trap                  3 resize@0123456789ab"),
            "{rows:?}"
        );
        assert!(rows[1].contains("uploads/7") && rows[1].contains("line\\u{1b}[31m\\nxxx"), "{rows:?}");
        assert!(rows[1].ends_with("xxx…") && rows[1].len() < 250, "{rows:?}");
        let mut table = Table::new(false);
        assert!(table.rows(&message)[1].ends_with(&"x".repeat(1_000)), "programs get all of it");
        assert_eq!(table.rows(&message).len(), 1, "one head is enough");
    }

    #[test]
    fn in_full_is_everything() {
        let text = in_full(&dead("7", "trap", "why")).join("\n");
        for part in ["id         7", "plugin     resize sha256 0123456789abcdef", "at       inner\n", "message    {}"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let full = json_in_full(&dead("7", "trap", "why"));
        assert_eq!((&full["backtrace"], &full["body"]), (&"inner <- outer".into(), &"{}".into()));
        assert_eq!((&full["key"], &full["attempts"]), (&"uploads/7".into(), &3.into()));
    }
}
