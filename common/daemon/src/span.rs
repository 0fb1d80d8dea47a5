//! Spans of time on a command line.

/// A span of time with its unit (`90s`, `15m`, `12h`, `7d`), in seconds.
///
/// # Errors
/// Says what was expected.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a span such as 90s, 15m, 12h or 7d, not {text:?}");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    count.checked_mul(factor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        assert_eq!((seconds("90s"), seconds("15m"), seconds("7d")), (Ok(90), Ok(900), Ok(604_800)));
        for wrong in ["", "15", "m", "1y", "-1s", "1µ"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
