//! Strangers' text made safe to show: to a terminal, in a log, in a table.

/// The character itself, or the replacement character for one that steers a terminal, or reorders or hides the text
/// around it.
#[must_use]
pub fn printable(c: char) -> char {
    let harmful = c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if harmful {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_invisible_characters_are_replaced_and_text_is_kept() {
        let shown = |text: &str| text.chars().map(printable).collect::<String>();
        assert_eq!(shown("Größe 5 €, 日本"), "Größe 5 €, 日本");
        for harmful in [
            "\0", "\n", "\x1b", "\u{9b}", "\u{202e}", "\u{200b}", "\u{2066}",
        ] {
            assert_eq!(shown(harmful), "\u{fffd}", "{harmful:?}");
        }
    }
}
