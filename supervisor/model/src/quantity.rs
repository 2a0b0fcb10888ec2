//! Quantities as people write them: `500m` of a processor, `512Mi` of memory.

/// Why a text is not a quantity; says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number of processors.
    #[error("`{0}` is no number of processors: write e.g. `2`, `0.5` or `500m` (thousandths)")]
    Cpu(String),
    /// Not a number of bytes.
    #[error("`{0}` is no number of bytes: write e.g. `512Mi`, `2Gi` or `1G`")]
    Bytes(String),
}

/// Thousandths of a processor.
///
/// # Errors
/// If it is no decimal number, negative, or not a whole number of thousandths.
pub fn cpu_millis(text: &str) -> Result<u64, QuantityError> {
    let wrong = || QuantityError::Cpu(text.to_owned());
    match text.strip_suffix('m') {
        Some(digits) => whole(digits).ok_or_else(wrong),
        None => decimal(text, 1000).ok_or_else(wrong),
    }
}

/// Bytes; suffixes `k M G T P` count in thousands, `Ki Mi Gi Ti Pi` in 1024.
///
/// # Errors
/// If it is no decimal number with such a suffix, or not a whole number of bytes.
pub fn bytes(text: &str) -> Result<u64, QuantityError> {
    const UNITS: [(&str, u64); 10] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    decimal(number, unit).ok_or_else(|| QuantityError::Bytes(text.to_owned()))
}

/// A number of bytes as people write it: in the largest binary unit that it is a multiple of.
pub fn show_bytes(bytes: u64) -> String {
    let units = [("Ti", 1_u64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let whole = units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| bytes.to_string(), |(suffix, unit)| format!("{}{suffix}", bytes / unit))
}

/// About how many bytes, with one decimal.
pub fn about_bytes(bytes: u64) -> String {
    let units = [("Ti", 1_u64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20)];
    let unit = units.into_iter().find(|(_, unit)| bytes >= *unit);
    let (suffix, unit) = unit.unwrap_or(("Ki", 1 << 10));
    let tenths = bytes / (unit / 10).max(1);
    format!("{}.{}{suffix}", tenths / 10, tenths % 10)
}

fn whole(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// `number * unit`, exactly, or nothing.
fn decimal(number: &str, unit: u64) -> Option<u64> {
    let Some((integer, fraction)) = number.split_once('.') else {
        return whole(number)?.checked_mul(unit);
    };
    let places = u32::try_from(fraction.len()).ok()?;
    let scale = 10_u128.checked_pow(places)?;
    let part = u128::from(whole(fraction)?).checked_mul(u128::from(unit))?;
    let rest = if part % scale == 0 { u64::try_from(part / scale).ok()? } else { return None };
    whole(integer)?.checked_mul(unit)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_written_whole_with_a_point_or_in_thousandths() {
        for (text, millis) in [("1", 1000), ("0.5", 500), ("500m", 500), ("1.25", 1250), ("0", 0)] {
            assert_eq!(cpu_millis(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn memory_is_written_in_binary_or_decimal_units() {
        let known = [("512Mi", 512 << 20), ("1Gi", 1 << 30), ("1.5Gi", 3 << 29), ("1k", 1000), ("7", 7)];
        for (text, size) in known {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown_as_they_would_be_written() {
        let shown = [(0, "0"), (1000, "1000"), (1 << 20, "1Mi"), (3 << 29, "1536Mi"), (1 << 30, "1Gi")];
        for (size, text) in shown {
            assert_eq!(show_bytes(size), text);
        }
        assert_eq!((about_bytes(3 << 29).as_str(), about_bytes(0).as_str()), ("1.5Gi", "0.0Ki"));
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_an_example() {
        for text in ["", "m", "-1", "1,5", "one", "0.0001", "1e3", "+1", ".5", "99999999999999999999"] {
            assert!(cpu_millis(text).is_err(), "{text}");
        }
        for text in ["", "Mi", "512 Mi", "512mi", "0.5", "-1Gi", "99999999Pi"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(
            bytes("lots").unwrap_err().to_string(),
            "`lots` is no number of bytes: write e.g. `512Mi`, `2Gi` or `1G`"
        );
    }
}
