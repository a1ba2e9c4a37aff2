//! Text from a store, on a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Control characters steer a terminal, and those that set the direction of text make it read as something else.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same text with control characters escaped as in Rust (`\n`, `\u{1b}`), so that it is one line, and harmless.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::with_capacity(text.len() + 16), |mut escaped, c| {
        if is_unsafe(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
        escaped
    });
    Cow::Owned(escaped)
}

/// JSON with the control characters that JSON itself allows in strings escaped too. Line ends between values stay.
pub(crate) fn safe_json(json: String) -> String {
    let is_unsafe = |c| c != '\n' && is_unsafe(c);
    if !json.contains(is_unsafe) {
        return json;
    }
    json.chars().fold(String::with_capacity(json.len() + 16), |mut escaped, c| {
        if is_unsafe(c) {
            // None of them lies beyond the first plane. Writing to a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::{safe, safe_json};

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(safe("a\u{1b}[2Jb\nc\u{9b}1m\u{202e}\u{7f}ü"), r"a\u{1b}[2Jb\nc\u{9b}1m\u{202e}\u{7f}ü");
        assert_eq!(safe("plain ünïcode \\n"), "plain ünïcode \\n");
    }

    #[test]
    fn json_stays_the_same_value() {
        let text = "\u{1b}\u{9b}\u{202e}\u{7f}ü\n\"";
        let json = serde_json::Value::from(text).to_string();
        let escaped = safe_json(json);
        assert!(escaped.chars().all(|c| c == 'ü' || c.is_ascii_graphic()), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }
}
