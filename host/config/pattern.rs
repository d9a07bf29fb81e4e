//! Globs on keys.

use globset::{GlobBuilder, GlobMatcher};

/// A glob on the part of a key below the source prefix, ignoring case.
///
/// `*` and `?` stay within a segment, `**` stands alone between slashes for any number of segments,
/// `{a,b}` and `[a-z]` are alternatives. A pattern without `/` is held against the last segment alone.
#[derive(Debug, Clone)]
pub struct KeyPattern {
    matcher: GlobMatcher,
    last_segment_only: bool,
    text: String,
}

impl KeyPattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("the pattern is empty; `**` matches every key".to_owned());
        }
        if pattern.starts_with('/') {
            return Err("patterns are held against keys below the source prefix, which have no leading `/`".to_owned());
        }
        if pattern.split('/').any(|segment| segment.contains("**") && segment != "**") {
            return Err("`**` must stand alone between slashes, as in `**/*.jpg`".to_owned());
        }
        // Both sides are lowered here because globset's own option ignores the case of ASCII only.
        let glob = GlobBuilder::new(&pattern.to_lowercase())
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| error.kind().to_string())?;
        Ok(Self {
            matcher: glob.compile_matcher(),
            last_segment_only: !pattern.contains('/'),
            text: pattern.to_owned(),
        })
    }

    /// Whether it matches a key, given without its source prefix.
    pub fn matches(&self, below_prefix: &str) -> bool {
        let part = match below_prefix.rsplit_once('/') {
            Some((_, last)) if self.last_segment_only => last,
            _ => below_prefix,
        };
        self.matcher.is_match(part.to_lowercase())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for KeyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for KeyPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        KeyPattern::new(pattern).unwrap().matches(key)
    }

    #[test]
    fn without_a_slash_the_last_segment_counts() {
        assert!(matches("*.jpg", "cat.jpg"));
        assert!(matches("*.jpg", "2026/11/cat.jpg"));
        assert!(!matches("*.jpg", "cat.jpg/readme"));
        assert!(matches("*.{jpg,png}", "a/b.png"));
        assert!(matches("**", "a/b"));
    }

    #[test]
    fn with_a_slash_the_whole_path_counts() {
        assert!(matches("photos/*.jpg", "photos/cat.jpg"));
        assert!(!matches("photos/*.jpg", "photos/2026/cat.jpg"), "`*` does not cross a slash");
        assert!(!matches("photos/*.jpg", "old/photos/cat.jpg"));
        assert!(matches("photos/**/*.jpg", "photos/2026/11/cat.jpg"));
        assert!(matches("photos/**/*.jpg", "photos/cat.jpg"));
        assert!(matches("photos/**", "photos/2026/11/cat"));
        assert!(matches("**/raw/*", "a/b/raw/x"));
    }

    #[test]
    fn case_does_not_count() {
        assert!(matches("*.JPG", "cat.jpg"));
        assert!(matches("*.jpg", "CAT.JPG"));
        assert!(matches("*.ÉTÉ", "photo.été"));
    }

    #[test]
    fn odd_characters_are_characters() {
        assert!(matches("*.jpg", "a\nb.jpg"));
        assert!(matches("*.jpg", ".jpg"));
        assert!(matches("*.jpg", "100% café+.jpg"));
        assert!(matches("\\*.jpg", "*.jpg"));
        assert!(!matches("\\*.jpg", "a.jpg"));
    }

    #[test]
    fn wrong_patterns_say_why() {
        for (pattern, why) in [
            ("", "empty"),
            ("/a/*", "leading `/`"),
            ("a/**.jpg", "stand alone"),
            ("[a", "missing ']'"),
            ("{a,b", "missing '}'"),
        ] {
            let error = KeyPattern::new(pattern).unwrap_err();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }
}
