//! Real processes on this machine: one aggregator and its devices, each with keys of its own, in a folder that goes away.
//!
//! Every child is killed when the fleet is dropped, and by the kernel when this process dies without dropping anything.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use starling_certs::{Authority, Validity};
use starling_daemon::Usage;
use starling_net::Path as NetPath;
use starling_wire::{DeviceId, Identity, Role};
use tempfile::TempDir;

/// How long processes may take to start, to connect, or to stop. They take well under a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines of a child's log are shown when it fails.
const LOG_LINES: usize = 12;

/// Bytes of updates that the aggregator holds at once, if one update is no larger: its own default.
const STAGING_BYTES: u64 = 256 << 20;

/// The file of a task with a test set.
const TASK_FILE: &str = "task.toml";

/// A fleet that runs.
pub(crate) struct Fleet {
    /// The aggregator.
    aggregator: Daemon,
    devices: Vec<Daemon>,
    admin_socket: PathBuf,
    interrupted: Arc<AtomicBool>,
    // Last, so that it is removed after the processes that write into it have ended.
    folder: TempDir,
}

/// One child.
struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// The folders and files of a fleet, enrolled and ready to start.
pub(crate) struct Enrolled {
    folder: TempDir,
    aggregator_config: PathBuf,
    path: NetPath,
}

impl Enrolled {
    /// Makes a CA, and keys and certificates for an aggregator and `devices` devices whose ids `seed` decides. The
    /// aggregator stages at least one update of `update_bytes`.
    pub(crate) fn new(devices: u32, seed: u64, path: NetPath, update_bytes: u64) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("starling-").tempdir().context("no temporary folder could be made")?;
        let authority = Authority::in_memory()?;
        let issue = |name: &str, role, id| -> Result<()> {
            let identity = Identity { id, role, name: name.to_owned() };
            Ok(authority.issue(&identity, Validity::days(1))?.write(&folder.path().join(name))?)
        };
        issue("aggregator", Role::Aggregator, Authority::new_id()?)?;
        for index in 0..devices {
            issue(&device_name(index), Role::Device, DeviceId::seeded(seed, index))?;
        }
        let enrolled = Self { aggregator_config: folder.path().join("aggregator.toml"), folder, path };
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstate_dir = \"aggregator/state\"\npath = {:?}\nstaging_bytes_max = {}\n{}",
            path_word(path),
            STAGING_BYTES.max(update_bytes),
            tls("aggregator")
        );
        write(&enrolled.aggregator_config, &text)?;
        Ok(enrolled)
    }

    /// Starts the aggregator and then the devices: `device_command` is the subcommand they run, `extra` adds to their
    /// configurations. With a `task` the aggregator tests its versions on that task's test set.
    pub(crate) fn start(
        self,
        task: Option<&str>,
        devices: u32,
        device_command: &[&str],
        extra: impl Fn(u32) -> Result<String>,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Fleet> {
        let folder = self.folder.path();
        let mut command = vec!["aggregator"];
        if let Some(task) = task {
            write(&folder.join(TASK_FILE), task)?;
            command.extend(["--test-of", TASK_FILE]);
        }
        command.push("run");
        let mut aggregator = Daemon::start(folder, "aggregator", &command, &self.aggregator_config, Stdio::piped())?;
        let address = aggregator.listening()?;
        let mut fleet = Fleet {
            aggregator,
            devices: Vec::new(),
            admin_socket: folder.join("aggregator/state/admin.sock"),
            interrupted,
            folder: self.folder,
        };
        for index in 0..devices {
            let name = device_name(index);
            let config = fleet.folder.path().join(format!("{name}.toml"));
            let text = format!(
                "aggregator = \"{address}\"\nstate_dir = \"{name}/state\"\npath = {:?}\n{}{}",
                path_word(self.path),
                tls(&name),
                extra(index)?
            );
            write(&config, &text)?;
            let device = Daemon::start(fleet.folder.path(), &name, device_command, &config, Stdio::null())?;
            fleet.devices.push(device);
        }
        Ok(fleet)
    }
}

impl Fleet {
    /// Asks the aggregator; a refusal is an error.
    pub(crate) fn admin(&self, request: &Value) -> Result<Value> {
        starling_aggregator::ask(&self.admin_socket, request).map_err(|error| {
            self.explain(anyhow::Error::new(error).context("the aggregator did not do what it was asked"))
        })
    }

    /// Waits until as many devices are connected as were started.
    pub(crate) fn wait_connected(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = self.admin(&json!({ "verb": "devices" }))?;
            let has_offered = |device: &&Value| device["tasks"].as_array().is_some_and(|tasks| !tasks.is_empty());
            let connected =
                answer["devices"].as_array().map_or(0, |devices| devices.iter().filter(has_offered).count());
            if connected >= self.devices.len() {
                return Ok(());
            }
            self.check()?;
            if started.elapsed() > PATIENCE {
                let error = anyhow::anyhow!("{connected} of {} devices connected in 30 s", self.devices.len());
                return Err(self.explain(error));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a run and returns its number.
    pub(crate) fn start_run(&self, task: &str, overrides: &[(String, String)], seed: u64) -> Result<u64> {
        let request = json!({ "verb": "run-start", "task": task, "overrides": overrides, "seed": seed });
        let answer = self.admin(&request)?;
        let run = answer.get("run").unwrap_or(&answer).as_u64();
        run.with_context(|| format!("the aggregator did not name the run that it started: {answer}"))
    }

    /// The status of `run`, after a look at the children.
    pub(crate) fn status(&mut self, run: u64) -> Result<Value> {
        self.check()?;
        self.admin(&json!({ "verb": "run-status", "run": run }))
    }

    /// Fails when somebody asked to stop or a child has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        for daemon in self.devices.iter_mut().chain([&mut self.aggregator]) {
            if let Some(status) = daemon.child.try_wait().context("a child process cannot be waited for")? {
                bail!("{} ended with {status}; the end of its log:\n{}", daemon.name, daemon.log_tail());
            }
        }
        Ok(())
    }

    /// What the aggregator has cost so far.
    pub(crate) fn aggregator_usage(&self) -> Result<Usage> {
        self.aggregator.usage()
    }

    /// What each device has cost so far.
    pub(crate) fn device_usage(&self) -> Result<Vec<Usage>> {
        self.devices.iter().map(Daemon::usage).collect()
    }

    /// Asks every process to stop, devices first, and waits until they have.
    pub(crate) fn stop(mut self) -> Result<()> {
        for daemon in &self.devices {
            daemon.terminate();
        }
        for daemon in &mut self.devices {
            daemon.wait()?;
        }
        self.aggregator.terminate();
        self.aggregator.wait()
    }

    /// `error`, and below it the end of the aggregator's log.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        anyhow::anyhow!("{error:#}; the end of the aggregator's log:\n{}", self.aggregator.log_tail())
    }
}

impl Daemon {
    fn start(folder: &Path, name: &str, command: &[&str], config: &Path, stdout: Stdio) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own file cannot be found")?;
        let log = folder.join(format!("{name}.log"));
        let log_file = File::create(&log).with_context(|| format!("{} could not be made", log.display()))?;
        let mut process = Command::new(program);
        process.args(command).arg("--config").arg(config).current_dir(folder);
        process.stdin(Stdio::null()).stdout(stdout).stderr(log_file);
        end_with_parent(&mut process);
        let child = process.spawn().with_context(|| format!("{name} could not be started"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The address that the aggregator prints once it listens.
    fn listening(&mut self) -> Result<SocketAddr> {
        let stdout = self.child.stdout.take().context("the aggregator's output is read once")?;
        let (send, receive) = std::sync::mpsc::channel();
        // The thread goes on reading, so that the aggregator never waits for a full pipe; it ends with the aggregator.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening ") {
                    let _ = send.send(address.trim().to_owned());
                }
            }
        });
        let text = match receive.recv_timeout(PATIENCE) {
            Ok(text) => text,
            Err(_) => bail!("the aggregator does not listen; the end of its log:\n{}", self.log_tail()),
        };
        text.parse().with_context(|| format!("the aggregator listens at {text:?}, which is no address"))
    }

    fn usage(&self) -> Result<Usage> {
        starling_daemon::usage::of_pid(self.child.id())
            .with_context(|| format!("{} has ended; the end of its log:\n{}", self.name, self.log_tail()))
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| format!("  {line}\n")).collect()
    }

    fn terminate(&self) {
        let Ok(pid) = libc::pid_t::try_from(self.child.id()) else { return };
        #[allow(unsafe_code, reason = "the standard library can only kill, and a daemon is to stop in good order")]
        // SAFETY: the call takes no pointer. The child has not been waited for, so its number names no other process.
        unsafe {
            libc::kill(pid, libc::SIGTERM);
        }
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.child.try_wait().context("a child process cannot be waited for")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} stopped with {status}; the end of its log:\n{}", self.name, self.log_tail()),
                None if started.elapsed() > PATIENCE => {
                    bail!("{} does not stop; the end of its log:\n{}", self.name, self.log_tail())
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A flag that SIGINT and SIGTERM raise.
pub(crate) fn interruption() -> Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&raised);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime for signals")?;
    std::thread::spawn(move || {
        runtime.block_on(async { starling_daemon::signals::shutdown().await });
        flag.store(true, Ordering::Relaxed);
    });
    Ok(raised)
}

/// Has the kernel kill the child when the thread that starts it ends: callers start children from the main thread.
fn end_with_parent(process: &mut Command) {
    #[allow(unsafe_code, reason = "the standard library offers no parent-death signal")]
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and takes no pointer here.
    unsafe {
        process.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

fn device_name(index: u32) -> String {
    format!("device-{index}")
}

fn path_word(path: NetPath) -> &'static str {
    match path {
        NetPath::Internet => "internet",
        NetPath::Loopback => "loopback",
    }
}

fn tls(name: &str) -> String {
    format!("[tls]\nca = \"{name}/ca.pem\"\ncertificate = \"{name}/certificate.pem\"\nkey = \"{name}/key.pem\"\n")
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} could not be written", path.display()))
}
