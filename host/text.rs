//! Text from guests, keys and files, made safe to print, and errors as text.

use std::error::Error;

/// Errors within an error that are worth a look: what a resolver or a TLS stack says is the innermost.
const CAUSES: usize = 8;

/// What each error in the chain says, outermost first, without repetitions.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next.filter(|_| texts.len() < CAUSES) {
        let text = error.to_string();
        if texts.iter().all(|known| !known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// `text` with control characters escaped (`\n`, `\u{1b}`), cut to about `max` bytes with a mark where
/// it was cut. What comes out is one line that cannot steer a terminal or forge a log line.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if out.len() >= max {
            out.push('…');
            break;
        }
        if c.is_control() || is_invisible_formatting(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks that reorder or hide text, which `char::is_control` leaves out.
fn is_invisible_formatting(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_can_steer_the_terminal() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{202e}", 100), "a\\nb\\u{1b}[31m\\u{202e}");
        assert_eq!(printable("naïve 猫", 100), "naïve 猫");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(printable("猫猫猫", 4), "猫猫…");
        assert_eq!(printable("", 0), "");
        assert_eq!(printable("abc", 3), "abc");
    }
}
