//! Codes that a phone reads off a terminal.

use qrcode::render::unicode::Dense1x2;
pub use qrcode::types::QrError;
use qrcode::{EcLevel, QrCode};

/// Black on white whatever the terminal's own colours are: bright foreground on black, and back.
const COLOURS: (&str, &str) = ("\u{1b}[97;40m", "\u{1b}[0m");

/// A text as lines of block characters, two rows of modules each, with the light margin that readers need. Light is
/// what is printed, dark what is left out: on a dark terminal.
///
/// # Errors
/// It is longer than a QR code holds, about 2 KiB.
pub fn lines(text: &str) -> Result<Vec<String>, QrError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    let picture = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Ok(picture.lines().map(str::to_owned).collect())
}

/// The same in its own colours.
///
/// # Errors
/// As [`lines`].
pub fn drawn(text: &str) -> Result<String, QrError> {
    let (begin, end) = COLOURS;
    Ok(lines(text)?.iter().map(|line| format!("{begin}{line}{end}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a phone makes of it.
    fn read(lines: &[String]) -> String {
        let rows: Vec<Vec<char>> = lines.iter().map(|line| line.chars().collect()).collect();
        let light = |x: usize, y: usize| match rows[y / 2][x] {
            '█' => true,
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            _ => false,
        };
        const SIZE: usize = 4;
        let (wide, high) = (rows[0].len() * SIZE, rows.len() * 2 * SIZE);
        let grey = |x: usize, y: usize| if light(x / SIZE, y / SIZE) { 255 } else { 0 };
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(wide, high, grey);
        picture.detect_grids()[0].decode().unwrap().1
    }

    #[test]
    fn a_phone_reads_the_text_that_was_drawn() {
        for text in ["otpauth://totp/x", &"https://berth.local:6443/#claim=ABCD-EFGH-JKLM".repeat(3)] {
            assert_eq!(read(&lines(text).unwrap()), text);
        }
    }

    #[test]
    fn it_has_four_light_modules_around_it_and_its_own_colours() {
        let lines: Vec<String> = drawn("otpauth://totp/x").unwrap().lines().map(str::to_owned).collect();
        let (begin, end) = COLOURS;
        let bare: Vec<&str> =
            lines.iter().map(|line| line.strip_prefix(begin).unwrap().strip_suffix(end).unwrap()).collect();
        assert!(bare[..2].iter().all(|line| line.chars().all(|sign| sign == '█')), "{}", bare[0]);
        assert!(bare[..14].iter().all(|line| line.starts_with("████") && line.ends_with("████")));
    }

    #[test]
    fn what_is_too_long_is_an_error() {
        assert!(drawn(&"x".repeat(3000)).is_err());
    }
}
