//! Codes that a phone reads off a terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::types::QrError;
use qrcode::{EcLevel, QrCode};

/// Black on white whatever the terminal's own colours are: bright foreground on black, and back.
const COLOURS: (&str, &str) = ("\u{1b}[97;40m", "\u{1b}[0m");

/// A text as lines for a terminal, two rows of modules each, with the light margin that readers need.
///
/// # Errors
/// It is longer than a QR code holds, about 2 KiB.
pub fn drawn(text: &str) -> Result<String, QrError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    // Light is what is printed, dark what is left out.
    let picture = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    let (begin, end) = COLOURS;
    Ok(picture.lines().map(|line| format!("{begin}{line}{end}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_square_and_has_four_light_modules_around_it() {
        let lines: Vec<String> = drawn("otpauth://totp/x").unwrap().lines().map(str::to_owned).collect();
        let (begin, end) = COLOURS;
        let bare: Vec<&str> =
            lines.iter().map(|line| line.strip_prefix(begin).unwrap().strip_suffix(end).unwrap()).collect();
        let wide = bare[0].chars().count();
        assert_eq!((wide, bare.len()), (21 + 8, (21 + 8usize).div_ceil(2)));
        assert!(bare[..2].iter().all(|line| line.chars().all(|sign| sign == '█')), "{}", bare[0]);
        assert!(bare[..14].iter().all(|line| line.starts_with("████") && line.ends_with("████")));
        assert!(bare[2].starts_with("████ ▄▄▄▄▄ █"), "{}", bare[2]);
    }

    #[test]
    fn what_is_too_long_is_an_error() {
        assert!(drawn(&"x".repeat(3000)).is_err());
    }
}
