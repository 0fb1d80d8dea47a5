//! The hours of a day in which the owner allows rounds, and the machine's local time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use starling_daemon::now_unix_s;

const MINUTES_PER_DAY: u16 = 24 * 60;

/// A span of the day in local time, such as `22:00-06:00`. The first minute is in it, the last one is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    /// The first minute of the day.
    from: u16,
    /// The minute after the last one; before the first one where the span goes over midnight.
    to: u16,
}

impl Hours {
    /// Whether a minute of the day is in the span.
    pub(crate) fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// Not a span of the day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hours = {0:?}: expected two times of the day that differ, such as \"22:00-06:00\"")]
pub struct NotHours(String);

impl FromStr for Hours {
    type Err = NotHours;

    fn from_str(text: &str) -> Result<Self, NotHours> {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            let parsed = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
            let (hour, minute) = Some(parsed).filter(|_| digits(hour) && digits(minute))?;
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        let span = text.split_once('-').and_then(|(from, to)| Some(Self { from: minute(from)?, to: minute(to)? }));
        span.filter(|span| span.from != span.to).ok_or_else(|| NotHours(text.to_owned()))
    }
}

impl TryFrom<String> for Hours {
    type Error = NotHours;

    fn try_from(text: String) -> Result<Self, NotHours> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// A moment in the machine's own time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// The day, counted from any fixed one.
    pub day: u64,
    /// The minute of that day.
    pub minute: u16,
}

impl LocalTime {
    /// The machine's clock and time zone. Where the system does not know the zone, it is UTC.
    pub fn now() -> Self {
        let unix_s = now_unix_s();
        let local_s = i64::try_from(unix_s).unwrap_or(i64::MAX).saturating_add(offset_s(unix_s));
        let minutes = u64::try_from(local_s).unwrap_or(0) / 60;
        let per_day = u64::from(MINUTES_PER_DAY);
        let minute = u16::try_from(minutes % per_day).expect("less than the minutes of a day");
        Self { day: minutes / per_day, minute }
    }
}

/// Seconds by which local time is ahead of UTC at a moment.
fn offset_s(unix_s: u64) -> i64 {
    let Ok(time) = libc::time_t::try_from(unix_s) else { return 0 };
    let mut local = std::mem::MaybeUninit::<libc::tm>::zeroed();
    #[allow(unsafe_code, reason = "the standard library knows no time zones")]
    // SAFETY: both pointers are to live values of the types that the call wants; it keeps neither, and a `tm` of zeros is a valid one
    // where it fails.
    let local = unsafe {
        libc::localtime_r(&raw const time, local.as_mut_ptr());
        local.assume_init()
    };
    local.tm_gmtoff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_may_go_over_midnight() {
        let night: Hours = "22:00-06:00".parse().expect("hours");
        let inside = [22 * 60, 23 * 60 + 59, 0, 5 * 60 + 59];
        let outside = [21 * 60 + 59, 6 * 60, 12 * 60];
        assert!(inside.into_iter().all(|minute| night.contains(minute)));
        assert!(!outside.into_iter().any(|minute| night.contains(minute)));
        let morning: Hours = "08:30-09:00".parse().expect("hours");
        assert_eq!([509, 510, 539, 540].map(|minute| morning.contains(minute)), [false, true, true, false]);
        assert_eq!(night.to_string(), "22:00-06:00");
    }

    #[test]
    fn what_is_no_span_says_what_is_expected() {
        for text in ["", "22:00", "22-06", "24:00-06:00", "22:60-06:00", "+2:00-06:00", "06:00-06:00", "6:00-7:00"] {
            let error = text.parse::<Hours>().expect_err(text);
            assert!(error.to_string().contains("22:00-06:00"), "{error}");
        }
    }

    #[test]
    fn local_time_is_a_minute_of_a_day() {
        assert!(LocalTime::now().minute < MINUTES_PER_DAY);
        assert!(LocalTime::now().day > 20_000, "after 2024");
    }
}
