//! What a terminal can show.

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether it knows more than ASCII.
    pub unicode: bool,
    /// Whether it has colours.
    pub colours: bool,
}

impl Look {
    /// As the environment says: `TERM`, and the first of `LC_ALL`, `LC_CTYPE` and `LANG` that says anything.
    pub fn told(variable: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        let language = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(said).unwrap_or_default().to_lowercase();
        let terminal = said("TERM").unwrap_or_default();
        let plain = ["", "dumb", "vt100", "vt102", "vt220"].contains(&terminal.as_str());
        Self {
            unicode: language.ends_with("utf-8") || language.ends_with("utf8"),
            colours: !plain && said("NO_COLOR").is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &[(&str, &str)]) -> (bool, bool) {
        let look =
            Look::told(|name| said.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()));
        (look.unicode, look.colours)
    }

    #[test]
    fn a_serial_console_gets_neither_colours_nor_boxes() {
        assert_eq!(told(&[("TERM", "vt100"), ("LANG", "C")]), (false, false));
        assert_eq!(told(&[("TERM", "vt220"), ("LANG", "C.UTF-8")]), (true, false));
        assert_eq!(told(&[]), (false, false));
    }

    #[test]
    fn a_terminal_that_says_more_gets_more() {
        assert_eq!(told(&[("TERM", "linux"), ("LANG", "de_DE.UTF-8")]), (true, true));
        assert_eq!(told(&[("TERM", "linux"), ("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]), (false, true));
        assert_eq!(told(&[("TERM", "linux"), ("NO_COLOR", "1"), ("LANG", "C.utf8")]), (true, false));
    }
}
