//! What a process costs: resident memory and CPU time, as Linux counts them.
//!
//! Memory is in MB of 10⁶ bytes. Resident memory counts shared pages (the program's own code, libraries) in every process that
//! maps them, so a sum over processes is an upper bound.

use std::fs;

const BYTES_PER_KIB: f64 = 1024.0;
const BYTES_PER_MB: f64 = 1e6;

/// What one process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident memory now (`VmRSS`), MB.
    pub rss_mb: f64,
    /// The most that it ever was (`VmHWM`), MB.
    pub peak_rss_mb: f64,
    /// CPU time of all threads, user and system, seconds; without children.
    pub cpu_s: f64,
}

/// Resident memory of this process now, in MB; 0 where the system does not say.
pub fn rss_mb() -> f64 {
    memory_mb("self", "VmRSS:").unwrap_or(0.0)
}

/// The most resident memory that this process ever had, in MB; 0 where the system does not say.
pub fn peak_rss_mb() -> f64 {
    memory_mb("self", "VmHWM:").unwrap_or(0.0)
}

/// CPU time of this process so far (all threads, user and system), in seconds, to the microsecond.
pub fn cpu_s() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[allow(unsafe_code, reason = "the standard library has no getrusage")]
    // SAFETY: the pointer is to a whole `rusage`, which the call fills or leaves as it is; all-zero bytes are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// What another process of this machine has used; `None` when it has ended or is hidden. Its CPU time comes in ticks of 10 ms.
pub fn of_pid(pid: u32) -> Option<Usage> {
    let process = pid.to_string();
    Some(Usage {
        rss_mb: memory_mb(&process, "VmRSS:")?,
        peak_rss_mb: memory_mb(&process, "VmHWM:")?,
        cpu_s: ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)? as f64 / ticks_per_second(),
    })
}

fn memory_mb(process: &str, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * BYTES_PER_KIB / BYTES_PER_MB)
}

/// `utime + stime`, fields 14 and 15 of `/proc/PID/stat` (proc(5)). The second field, the name, may hold blanks and brackets: counting
/// starts behind its last bracket.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn ticks_per_second() -> f64 {
    #[allow(unsafe_code, reason = "the standard library has no sysconf")]
    // SAFETY: the call takes no pointer and has no precondition.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    // -1 says "unknown"; 100 is what every Linux for user programs has.
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 * 1e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_what_is_touched_and_the_peak_stays() {
        let before = rss_mb();
        let touched = vec![1_u8; 64_000_000];
        let during = rss_mb();
        assert!(during - before > 50.0, "{before} MB, then {during} MB");
        assert_eq!(touched.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 64_000_000);
        drop(touched);
        assert!(peak_rss_mb() >= during - 1.0);
    }

    #[test]
    fn cpu_time_grows_with_work_and_agrees_with_the_view_from_outside() {
        let before = cpu_s();
        let mut word = 1_u64;
        while cpu_s() - before < 0.1 {
            for _ in 0..100_000 {
                word = std::hint::black_box(word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        let outside = of_pid(std::process::id()).expect("this process runs");
        assert!((outside.cpu_s - cpu_s()).abs() < 0.5, "{outside:?}");
        assert!(outside.rss_mb > 0.0 && outside.peak_rss_mb >= outside.rss_mb - 1.0, "{outside:?}");
        assert_eq!(of_pid(u32::MAX), None);
    }

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 30 12 99 99";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(ticks(""), None);
    }
}
