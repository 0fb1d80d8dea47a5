//! Real processes: spawn, read what they say, kill, measure.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Lines that are kept of each output. A daemon that says more in a test is out of order.
const LINES_MAX: usize = 100_000;

/// How long the rest of an ended process's output may take to be read.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

type Lines = Arc<Mutex<Vec<String>>>;

/// A running process. It is killed when dropped, so a test that fails leaves nothing behind.
pub struct Process {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    /// Starts `binary`. Its standard outputs are read as they come, so that it never waits for a reader.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(name: &str, binary: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started from {}: {error}", binary.display()));
        let stdout = follow(child.stdout.take().expect("it was piped"));
        let stderr = follow(child.stderr.take().expect("it was piped"));
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard output.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().expect("readers do not panic").clone()
    }

    /// What it has said on standard error.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().expect("readers do not panic").clone()
    }

    /// Everything it has said, for a failure's message.
    pub fn transcript(&self) -> String {
        let tail = |lines: Vec<String>| lines[lines.len().saturating_sub(60)..].join("\n");
        format!("--- {} stdout\n{}\n--- {} stderr\n{}", self.name, tail(self.stdout()), self.name, tail(self.stderr()))
    }

    /// The first line of standard output that `wanted` maps to something.
    ///
    /// # Panics
    /// If none comes within `patience` or before the process ends.
    #[track_caller]
    pub fn wait_stdout<T>(&mut self, what: &str, patience: Duration, wanted: impl FnMut(&str) -> Option<T>) -> T {
        let lines = self.stdout.clone();
        self.wait_line(&lines, what, patience, wanted)
    }

    /// The first line of standard error that `wanted` maps to something.
    ///
    /// # Panics
    /// If none comes within `patience` or before the process ends.
    #[track_caller]
    pub fn wait_stderr<T>(&mut self, what: &str, patience: Duration, wanted: impl FnMut(&str) -> Option<T>) -> T {
        let lines = self.stderr.clone();
        self.wait_line(&lines, what, patience, wanted)
    }

    #[track_caller]
    fn wait_line<T>(
        &mut self,
        lines: &Lines,
        what: &str,
        patience: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let mut seen = 0;
        let mut ended = false;
        let found = until_or(patience, || {
            // Asked before the lines are read: what a process said before its end is still found.
            let over = self.exited().is_some();
            let lines = lines.lock().expect("readers do not panic");
            let found = lines[seen..].iter().find_map(|line| wanted(line));
            seen = lines.len();
            if found.is_none() && ended {
                return Some(None);
            }
            // The reader may lag behind the end by a moment: look once more.
            ended = over;
            found.map(Some)
        });
        match found {
            Some(Some(found)) => found,
            Some(None) => panic!("{} ended without {what}\n{}", self.name, self.transcript()),
            None => panic!("{} did not say {what} within {patience:?}\n{}", self.name, self.transcript()),
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end, and until everything that it has said is here.
    ///
    /// # Panics
    /// If it runs on for `patience`.
    #[track_caller]
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        match until_or(patience, || self.exited()) {
            Some(status) => {
                // The readers hold the other references until they have seen the end of their outputs. A grandchild
                // that lives on keeps an output open: then what is here has to do.
                until_or(OUTPUT_PATIENCE, || {
                    (Arc::strong_count(&self.stdout) == 1 && Arc::strong_count(&self.stderr) == 1).then_some(())
                });
                status
            }
            None => panic!("{} did not end within {patience:?}\n{}", self.name, self.transcript()),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    ///
    /// # Panics
    /// If it has ended already.
    #[track_caller]
    pub fn terminate(&mut self) {
        assert!(self.exited().is_none(), "{} has ended already\n{}", self.name, self.transcript());
        self.signal(libc::SIGTERM);
    }

    /// SIGSTOP: it lies still, and its connections with it.
    pub fn pause(&mut self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        let id = i32::try_from(self.child.id()).expect("process ids fit in 31 bits");
        #[allow(unsafe_code, reason = "the standard library sends no signal but SIGKILL")]
        // SAFETY: kill takes two integers and touches no memory of ours; the child is not reaped yet, so the id is its own.
        let sent = unsafe { libc::kill(id, signal) };
        assert_eq!(sent, 0, "{} takes no signal {signal}", self.name);
    }

    /// Resident memory in bytes: `(now, the highest so far)`.
    ///
    /// # Panics
    /// If the process is gone.
    #[track_caller]
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("Linux reports it of a live process");
            let kib = line.split_whitespace().nth(1).expect("a figure follows");
            kib.parse::<u64>().expect("it is a number") * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.transcript());
        }
        self.kill();
    }
}

/// Runs `binary` to its end and returns its status, standard output and standard error.
///
/// # Panics
/// If it cannot be started or runs on for `patience`.
#[track_caller]
pub fn run<A: AsRef<OsStr>>(
    name: &str,
    binary: &Path,
    arguments: impl IntoIterator<Item = A>,
    patience: Duration,
) -> (ExitStatus, String, String) {
    let mut process = Process::spawn(name, binary, arguments);
    let status = process.wait_exit(patience);
    (status, process.stdout().join("\n"), process.stderr().join("\n"))
}

fn until_or<T>(patience: Duration, mut state: impl FnMut() -> Option<T>) -> Option<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(found) = state() {
            return Some(found);
        }
        if start.elapsed() >= patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn follow(output: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let kept = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let mut kept = kept.lock().expect("nobody panics with the lock");
            if kept.len() < LINES_MAX {
                kept.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        Process::spawn("shell", Path::new("/bin/sh"), ["-c", script])
    }

    #[test]
    fn lines_are_found_and_memory_is_measured() {
        let mut process = shell("echo one; echo port 4711; exec sleep 60");
        let port: u16 = process.wait_stdout("its port", PATIENCE, |line| line.strip_prefix("port ")?.parse().ok());
        assert_eq!(port, 4711);
        let (now, highest) = process.memory();
        assert!(now > 0 && highest >= now);
        process.kill();
        assert!(process.exited().is_some());
    }

    #[test]
    fn a_process_that_ends_early_is_no_endless_wait() {
        let mut process = shell("echo no");
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            process.wait_stdout("yes", Duration::from_secs(3600), |line| (line == "yes").then_some(()))
        }));
        assert!(waited.is_err());
    }

    #[test]
    fn sigterm_ends_it_and_the_status_tells() {
        let mut process = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        process.wait_stdout("ready", PATIENCE, |line| (line == "ready").then_some(()));
        process.terminate();
        assert_eq!(process.wait_exit(PATIENCE).code(), Some(7));
    }

    #[test]
    fn a_short_command_gives_both_outputs() {
        let (status, out, err) = run("shell", Path::new("/bin/sh"), ["-c", "echo out; echo err >&2; exit 3"], PATIENCE);
        assert_eq!((status.code(), out.as_str(), err.as_str()), (Some(3), "out", "err"));
    }
}
